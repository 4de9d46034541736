"""Reads null in JSON as NaN where only a float can be:
JSON has no word for it, so it is written as null.

A decoder takes no null for a float. So a value is read in this way only where that is what the
decoder said.
"""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Callable, Sequence

import msgspec

from graphserve.wire import type_hints
from graphserve.wire.extensions import type_hook
from graphserve.wire.formats import BodyBytes
from graphserve.wire.type_hints import Hint

REFUSED = re.compile(r"Expected `(?:[^`]* )?float(?: [^`]*)?`, got `null`")  # what a decoder says

# Fills a value where it lies and returns it. It knows what was visited: the place of an object, and
# its class.
_Visited = set[tuple[int, int]]
_Fill = Callable[[object, _Visited], object]
# read from the digits themselves, which a natural value has no more
_EXACT = (decimal.Decimal, msgspec.Raw)


class NanReader:
    """Reads values of one type whose floats may be null.

    Args:
        hint: the type.
    """

    def __init__(self, hint: Hint) -> None:
        self._hint = hint
        parts = list(type_hints.walk(hint))
        can = any(_is_float(part) for part in parts) and not any(
            part.origin in _EXACT for part in parts
        )
        self._fill = filler(hint) if can else None

    def read(self, body: BodyBytes, refused: msgspec.ValidationError) -> object:
        """Return the value in a body that a decoder refused.

        Raises:
            msgspec.ValidationError: it does not fit otherwise either.
        """
        if self._fill is None:
            raise refused
        value = self._fill(msgspec.json.decode(body))
        return msgspec.convert(value, self._hint, strict=True, str_keys=True, dec_hook=type_hook())


def filler(hint: Hint) -> Callable[[object], object] | None:
    """Return what puts NaN in the places of null in natural values of a type;
    None where there are no floats.

    It changes the values. Whatever unions there are, each object is looked at once for each class
    that it may be.
    """
    fill = _filler(hint, {})
    return None if fill is None else lambda value: fill(value, set())


def _is_float(part: type_hints.Part) -> bool:
    return part.kind == "leaf" and part.hint is float


def _filler(hint: Hint, known: dict[object, list[_Fill]]) -> _Fill | None:
    part = type_hints.take_apart(hint)
    if _is_float(part):
        return lambda value, visited: math.nan if value is None else value
    if part.kind == "fields":
        return _of_fields(part, known)
    inner = [_filler(item.hint, known) for item in part.items]
    if not any(inner):
        return None
    if part.kind == "union":
        return _of_union(part, inner)
    if part.kind == "tuple":
        return lambda value, visited: _in_order(inner, value, visited)
    last = inner[-1]
    if last is None:  # keys cannot be null
        return None
    return _of_dict(last) if part.kind == "dict" else _of_list(last)


def _of_dict(fill: _Fill) -> _Fill:
    def fill_all(value: object, visited: _Visited) -> object:
        if type(value) is dict:
            for key, item in value.items():
                value[key] = fill(item, visited)
        return value

    return fill_all


def _of_list(fill: _Fill) -> _Fill:
    def fill_all(value: object, visited: _Visited) -> object:
        if type(value) is list:
            value[:] = [fill(item, visited) for item in value]
        return value

    return fill_all


def _of_union(part: type_hints.Part, inner: list[_Fill | None]) -> _Fill:
    may_be_none = any(type_hints.take_apart(item.hint).hint is type(None) for item in part.items)
    some = [fill for fill in inner if fill is not None]
    tagged = {
        tag: fill
        for item, fill in zip(part.items, inner, strict=True)
        if (tag := _tag(item.hint)) is not None
    }
    fields = {field for field, _ in tagged}

    def fill(value: object, visited: _Visited) -> object:
        if value is None and may_be_none:
            return None
        if type(value) is dict:
            for field in fields:
                tag = value.get(field)
                if type(tag) in (str, int) and (field, tag) in tagged:
                    chosen = tagged[field, tag]
                    return value if chosen is None else chosen(value, visited)
        for each in some:
            value = each(value, visited)
        return value

    return fill


def _tag(hint: Hint) -> tuple[str, object] | None:
    """Return the field that says which class of a union a Struct is, and what it says."""
    config = getattr(type_hints.take_apart(hint).origin, "__struct_config__", None)
    return None if config is None or config.tag is None else (config.tag_field, config.tag)


def _of_fields(part: type_hints.Part, known: dict[object, list[_Fill]]) -> _Fill:
    # A class may contain itself: what fills it is looked up when it is used.
    if part.hint not in known:
        cell = known[part.hint] = []
        named = [(item.label, _filler(item.hint, known)) for item in part.items]
        some = [(label, fill) for label, fill in named if fill is not None]
        in_order = [fill for _, fill in named]
        if _tag(part.hint) is not None:  # it comes first in a list
            in_order.insert(0, None)

        def fill(value: object, visited: _Visited) -> object:
            place = (id(value), id(cell))
            if place in visited:
                return value
            if type(value) is dict:
                visited.add(place)
                return _by_name(some, value, visited)
            if type(value) is list:  # of a NamedTuple, of a Struct that is written as a list
                visited.add(place)
                return _in_order(in_order, value, visited)
            return value

        cell.append(fill)
    cell = known[part.hint]
    return lambda value, visited: cell[0](value, visited)


def _in_order(fills: list[_Fill | None], value: object, visited: _Visited) -> object:
    if type(value) is list:
        for index, (fill, item) in enumerate(zip(fills, value, strict=False)):
            if fill is not None:
                value[index] = fill(item, visited)
    return value


def _by_name(
    fills: Sequence[tuple[object, _Fill]], value: dict[object, object], visited: _Visited
) -> object:
    for name, fill in fills:
        if name in value:
            value[name] = fill(value[name], visited)
    return value
