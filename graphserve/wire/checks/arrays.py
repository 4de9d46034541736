"""Checks what msgspec cannot check of a decoded value: the dtype and shape of its arrays, which are
read-only from here on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from graphserve.wire import arrays, type_hints
from graphserve.wire.exceptions import Misfit
from graphserve.wire.type_hints import Hint

# Takes a value of the type that it is for, and returns it, or another one in its place.
Admit = Callable[[Any], object]


def admission(hint: Hint) -> Admit | None:
    """Return what checks the arrays in a value of this type, and returns the value; None if there
    can be none.
    """
    return _build(hint, {}) if _has_arrays(hint) else None


def _has_arrays(hint: Hint) -> bool:
    return type_hints.contains(hint, "array") or type_hints.contains(hint, "tensor")


def _build(hint: Hint, known: dict[object, list[Admit]]) -> Admit:
    part = type_hints.take_apart(hint)
    if part.kind == "array":
        wanted = arrays.demand(part.hint, part.metadata)
        return lambda value: arrays.admit(value, wanted)
    if part.kind == "tensor":
        from graphserve.wire.media import tensors

        demanded = tensors.demand(part.metadata)
        return lambda value: tensors.admit(value, demanded)
    if part.kind == "fields":
        return _fields(part, known)
    inner = [_build(item.hint, known) if _has_arrays(item.hint) else None for item in part.items]
    if part.kind == "union":
        return _union(part, inner)
    if part.kind == "tuple":
        return _tuple(inner)
    last = inner[-1]
    assert last is not None  # (keys cannot be arrays)
    return _mapping(last) if part.kind == "dict" else _sequence(last)


def _sequence(admit: Admit) -> Admit:
    def check(
        value: list[object] | tuple[object, ...] | set[object] | frozenset[object],
    ) -> object:
        items = []
        index = 0
        try:
            for index, item in enumerate(value):  # noqa: B007  (the error names the index)
                items.append(admit(item))
        except Misfit as exc:
            exc.within(index)
            raise
        if type(value) is list:
            value[:] = items
            return value
        return type(value)(items)

    return check


def _tuple(inner: list[Admit | None]) -> Admit:
    def check(value: tuple[object, ...]) -> object:
        pairs = zip(inner, value, strict=True)
        return tuple(
            item if admit is None else _at(i, admit, item) for i, (admit, item) in enumerate(pairs)
        )

    return check


def _mapping(admit: Admit) -> Admit:
    def check(value: dict[object, object]) -> object:
        for key, item in value.items():
            value[key] = _at(key if isinstance(key, str | int) else str(key), admit, item)
        return value

    return check


def _union(part: type_hints.Part, inner: list[Admit | None]) -> Admit:
    choices = [
        (_runtime_class(item.hint), admit)
        for item, admit in zip(part.items, inner, strict=True)
        if admit
    ]

    def check(value: object) -> object:
        for kind, admit in choices:
            if isinstance(value, kind):
                return admit(value)
        return value

    return check


def _fields(part: type_hints.Part, known: dict[object, list[Admit]]) -> Admit:
    # A class may contain itself: its check is looked up when it is used.
    if part.hint in known:
        cell = known[part.hint]
        return lambda value: cell[0](value)
    cell = known[part.hint] = []
    inner = [(item, _build(item.hint, known)) for item in part.items if _has_arrays(item.hint)]
    cell.append(_of_class(part.cls, inner))
    return cell[0]


def _of_class(kind: type, inner: list[tuple[type_hints.Item, Admit]]) -> Admit:
    if issubclass(kind, tuple):
        return _rebuilding(inner)
    if issubclass(kind, dict):
        return _replacing(inner)
    frozen = issubclass(kind, msgspec.Struct)
    return _assigning(msgspec.structs.force_setattr if frozen else object.__setattr__, inner)


def _rebuilding(inner: list[tuple[type_hints.Item, Admit]]) -> Admit:
    named = [(str(item.key), admit) for item, admit in inner]

    def check(value: NamedTuple) -> object:
        return value._replace(
            **{name: _at(name, admit, getattr(value, name)) for name, admit in named}
        )

    return check


def _replacing(inner: list[tuple[type_hints.Item, Admit]]) -> Admit:
    def check(value: dict[object, object]) -> object:
        for item, admit in inner:
            before = value.get(item.key)
            if before is not None:
                after = _at(item.label, admit, before)
                if after is not before:
                    value[item.key] = after
        return value

    return check


def _assigning(
    put: Callable[[Any, str, object], None], inner: list[tuple[type_hints.Item, Admit]]
) -> Admit:
    named = [(str(item.key), item.label, admit) for item, admit in inner]

    def check(value: object) -> object:
        for name, label, admit in named:
            before = getattr(value, name, None)
            if before is not None and before is not msgspec.UNSET:
                after = _at(label, admit, before)
                if after is not before:
                    put(value, name, after)
        return value

    return check


def _runtime_class(hint: Hint) -> type:
    part = type_hints.take_apart(hint)
    if part.kind in ("list", "dict") and part.cls.__module__ == "collections.abc":
        return list if part.kind == "list" else dict
    return dict if issubclass(part.cls, dict) else part.cls


def _at(key: str | int | None, admit: Admit, value: object) -> object:
    try:
        return admit(value)
    except Misfit as exc:
        exc.within("*" if key is None else key)
        raise
