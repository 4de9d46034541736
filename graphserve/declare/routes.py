"""The methods and paths of APIs at the port: which there can be, which parameters a path has, and
which of them conflict. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

HttpMethod = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
METHODS: tuple[HttpMethod, ...] = ("GET", "POST", "PUT", "PATCH", "DELETE")
# Their requests have no body that anybody reads (RFC 9110, 9.3.1 and 9.3.5).
BODILESS = frozenset({"GET", "DELETE"})
# Below it are the addresses by which services of a graph call APIs whose own path will not do.
CALLS = "/.call/"
# what a streaming API calls the parameter that says where a client's EventSource goes on
LAST_EVENT_ID = "last_event_id"

# the characters of a path that need no escape (RFC 3986)
_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]*\Z")
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}\Z")
_TYPED = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*):[^{}]*\}\Z")


def segments(route: str) -> tuple[str, ...]:
    """Return what is between the slashes of a path."""
    return tuple(route.split("/")[1:])


def name_in(segment: str) -> str | None:
    """Return the name of the parameter that a segment is; None if it is fixed."""
    found = _PARAMETER.match(segment)
    return None if found is None else found[1]


def names_in(route: str) -> tuple[str, ...]:
    """Return the names of the parameters in a path, in their order."""
    return tuple(name for segment in segments(route) if (name := name_in(segment)) is not None)


def route_problem(route: object) -> str | None:
    """Return what is wrong with a path, and what to write; None if nothing is."""
    if not isinstance(route, str) or not route.startswith("/"):
        hint = "; give route=…"
        if isinstance(route, str) and route and route_problem("/" + route) is None:
            hint = f"; did you mean {'/' + route!r}?"
        return f"a route is a path in ASCII that starts with '/', not {route!r}{hint}"
    parts = segments(route)
    for part in parts:
        if (typed := _TYPED.match(part)) is not None:
            return (
                f"the type of a parameter is in its annotation: write '{{{typed[1]}}}' in the"
                f" route in place of {part!r}"
            )
        if ("{" in part or "}" in part) and name_in(part) is None:
            return (
                f"a parameter is a whole segment, as '/users/{{user}}', not {part!r} in {route!r}"
            )
        if name_in(part) is None and not _SEGMENT.match(part):
            return (
                "a route is a path in ASCII that may have {parameters}, but no '?', '#', '%' or"
                f" spaces, not {route!r}; give route=…"
            )
    if "" in parts[:-1] or {".", ".."} & set(parts):
        return f"clients cannot send every path with '//', '.' or '..' in it: {route!r}"
    names = names_in(route)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        return f"{{{twice}}} is twice in {route!r}"
    return None


def methods_of(given: object) -> tuple[HttpMethod, ...] | None:
    """Return the methods that `@api(method=…)` names, in one order; None if it names others, or
    none.
    """
    if isinstance(given, str):
        named: list[object] = [given]
    elif isinstance(given, Iterable):
        named = list(given)
    else:
        return None
    if not named or any(each not in METHODS for each in named):
        return None
    return tuple(method for method in METHODS if method in named)


def conflict(one: str, other: str) -> str | None:
    """Return why two paths of one method cannot be told apart, in words; None if they can.

    Of two that fit a request, the more specific one is meant: where they differ first, and
    everywhere else, it has a fixed segment or the same.
    """
    pairs = list(zip(segments(one), segments(other), strict=False))
    if len(segments(one)) != len(segments(other)):
        return None
    fixed = [(name_in(a) is None, name_in(b) is None) for a, b in pairs]
    if any(
        first and second and a != b for (first, second), (a, b) in zip(fixed, pairs, strict=True)
    ):
        return None
    if one == other:
        return f"have the same route {one!r}"
    if all(first == second for first, second in fixed):
        return f"have routes that no request tells apart, {one!r} and {other!r}"
    if any(first > second for first, second in fixed) and any(
        first < second for first, second in fixed
    ):
        both = "/" + "/".join(b if name_in(a) is not None else a for a, b in pairs)
        return f"have the routes {one!r} and {other!r}, and {both!r} is a path of both"
    return None


class Body:
    """Says that a parameter is the whole body of a request at the port.

    `item: Annotated[Item, Body]` takes the JSON of an item, and no object with an `item` in it. All
    other parameters are then in the URL.

    Example:
        >>> from typing import Annotated
        >>> from graphserve import Body
        >>> @service
        ... class Shop:
        ...     @api(method="PUT", route="/items/{number}")
        ...     def put(self, number: int, item: Annotated[dict[str, int], Body]) -> int:
        ...         return number
    """
