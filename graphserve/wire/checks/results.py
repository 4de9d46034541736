"""Tells whether a result is plainly of its annotation, by a quick look that C does; it is made once
for each API.

What it says no to may still fit (a `1` for a `float`, a class in a list): that is found out as a
caller in another process would, by writing and reading it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec

from graphserve.wire import type_hints
from graphserve.wire.media.classes import NAMES, name_of_kind
from graphserve.wire.type_hints import Hint

Looks = Callable[[Any], bool]  # takes any value
# The same of many values at once, all of the type that it is for: a loop in C, and none in Python.
_Column = Callable[[Iterable[Any]], bool]


def exact(hint: Hint) -> Looks | None:
    """Return what tells that a value is exactly of this type; None where there is nothing to tell,
    since anything is.
    """
    part = type_hints.take_apart(hint)
    if part.kind == "any":
        return None
    if (kinds := _kinds(part)) is not None:
        return lambda value: type(value) in kinds
    if part.kind == "registered":
        cls = part.cls
        return lambda value: isinstance(value, cls)
    if (name := part.kind) in NAMES and not part.metadata:
        return lambda value: name_of_kind(value) == name
    if part.metadata:
        return _never
    if part.kind == "array" and part.hint is part.origin:
        return type_hints.is_plain_array
    if part.kind == "fields":
        return _of_class(part)
    inner = _inner(part)
    if inner is None:
        return _never
    if part.kind == "dict":
        return _of_dict(*inner)
    return _of_list(part.cls, inner[0])


def only_class(hint: Hint) -> type | None:
    """Return the one class that a value of this type has, if there is one and it tells all."""
    kinds = _kinds(type_hints.take_apart(hint))
    return next(iter(kinds)) if kinds is not None and len(kinds) == 1 else None


def _never(value: object) -> bool:
    return False


def _anything(values: Iterable[object]) -> bool:
    return True


def _kinds(part: type_hints.Part) -> frozenset[type] | None:
    """Return the classes that a value may have, where its class says all of it."""
    if part.metadata:
        return None
    if part.kind == "union":
        inner = [_kinds(type_hints.take_apart(item.hint)) for item in part.items]
        return (
            None
            if None in inner
            else frozenset(chain.from_iterable(kinds for kinds in inner if kinds is not None))
        )
    if part.kind in ("leaf", "bytes", "scalar") and isinstance(part.hint, type):
        return frozenset({part.hint})
    return None


def _of_class(part: type_hints.Part) -> Looks:
    """Return what looks at a value of a class whose fields are all of one plain class each."""
    kind = part.cls
    names = [str(item.key) for item in part.items]
    kinds = [_kinds(type_hints.take_apart(item.hint)) for item in part.items]
    if issubclass(kind, msgspec.Struct):
        number = len(kind.__struct_fields__)
    elif dataclasses.is_dataclass(kind):
        number = len(dataclasses.fields(kind))
    else:
        number = 0
    if number < 2 or number != len(names) or any(each is None or len(each) > 1 for each in kinds):
        return _never
    get = attrgetter(*names)
    wanted = tuple(next(iter(each)) for each in kinds if each is not None)

    def look(value: object) -> bool:
        # A field of a dataclass may be missing; of a Struct that has its own `__getattr__`,
        # anything may come.
        try:
            return type(value) is kind and tuple(map(type, get(value))) == wanted
        except AttributeError:
            return False

    return look


def _of_list(kind: type[Collection[object]], items: _Column) -> Looks:
    return lambda value: type(value) is kind and items(value)


def _of_dict(keys: _Column, items: _Column) -> Looks:
    if items is _anything:
        return lambda value: type(value) is dict and keys(value)
    return lambda value: type(value) is dict and keys(value) and items(value.values())


def _inner(part: type_hints.Part) -> list[_Column] | None:
    """Return the columns of what a list or a dict consists of."""
    if part.metadata or not (
        (part.kind == "list" and part.origin in (list, tuple, set, frozenset))
        or (part.kind == "dict" and part.origin is dict)
    ):
        return None
    inner = [_column(item.hint) for item in part.items]
    return None if None in inner else [column for column in inner if column is not None]


def _column(hint: Hint) -> _Column | None:
    part = type_hints.take_apart(hint)
    if part.kind == "any":
        return _anything
    if (kinds := _kinds(part)) is not None:
        return lambda values: kinds.issuperset(map(type, values))
    inner = _inner(part)
    if inner is None:
        return None
    return _of_dicts(*inner) if part.kind == "dict" else _of_lists(part.cls, inner[0])


def _of_lists(kind: type, items: _Column) -> _Column:
    def column(values: Iterable[Iterable[object]]) -> bool:
        lists = list(values)
        return {kind}.issuperset(map(type, lists)) and items(chain.from_iterable(lists))

    return column


def _of_dicts(keys: _Column, items: _Column) -> _Column:
    def column(values: Iterable[dict[object, object]]) -> bool:
        dicts = list(values)
        if not {dict}.issuperset(map(type, dicts)):
            return False
        return keys(chain.from_iterable(dicts)) and items(
            chain.from_iterable(map(dict.values, dicts))
        )

    return column
