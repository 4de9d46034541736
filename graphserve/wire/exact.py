"""Whether a result is plainly of its annotation: a quick look that C does, made once for each API.

What it says no to may still fit (a `1` for a `float`, a dataclass): that is found out as a caller in another process
would, by writing and reading it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from graphserve.wire import hints

Looks = Callable[[Any], bool]
_Column = Callable[[Iterable[Any]], bool]  # the same of many values at once: a loop in C, and none in Python


def exact(hint: Any) -> Looks | None:
    """What tells that a value is exactly of this type; None where there is nothing to tell, since anything is."""
    part = hints.take_apart(hint)
    if part.kind == "any":
        return None
    kinds = _kinds(part)
    if kinds is not None:
        return lambda value: type(value) in kinds
    if part.kind == "array" and part.hint is part.origin and not part.metadata:
        return hints.is_plain_array
    column = _column(hint)
    if column is None:
        return _never
    return lambda value: column((value,))


def _never(value: Any) -> bool:
    return False


def _kinds(part: hints.Part) -> frozenset[type] | None:
    """The classes that a value may have, where its class says all of it."""
    if part.metadata:
        return None
    if part.kind == "union":
        inner = [_kinds(hints.take_apart(item.hint)) for item in part.items]
        return None if None in inner else frozenset(chain.from_iterable(kinds for kinds in inner if kinds is not None))
    if part.kind in ("leaf", "bytes", "scalar") and isinstance(part.hint, type):
        return frozenset({part.hint})
    return None


def _column(hint: Any) -> _Column | None:
    part = hints.take_apart(hint)
    if part.metadata:
        return None
    if part.kind == "any":
        return lambda values: True
    if (kinds := _kinds(part)) is not None:
        return lambda values: kinds.issuperset(map(type, values))
    if part.kind == "list" and part.origin in (list, tuple, set, frozenset):
        items = _column(part.items[0].hint)
        return None if items is None else _of_lists(part.origin, items)
    if part.kind == "dict" and part.origin is dict:
        keys, items = (_column(item.hint) for item in part.items)
        return None if keys is None or items is None else _of_dicts(keys, items)
    return None


def _of_lists(kind: type, items: _Column) -> _Column:
    def column(values: Iterable[Any]) -> bool:
        lists = list(values)
        return {kind}.issuperset(map(type, lists)) and items(chain.from_iterable(lists))

    return column


def _of_dicts(keys: _Column, items: _Column) -> _Column:
    def column(values: Iterable[Any]) -> bool:
        dicts = list(values)
        if not {dict}.issuperset(map(type, dicts)):
            return False
        return keys(chain.from_iterable(dicts)) and items(chain.from_iterable(map(dict.values, dicts)))

    return column
