"""What msgspec cannot check of a decoded value: the dtype and shape of its arrays, which end
read-only here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec

from graphserve.wire import arrays, type_hints
from graphserve.wire.exceptions import Misfit
from graphserve.wire.type_hints import Hint

Admit = Callable[[Any], Any]


def admission(hint: Hint) -> Admit | None:
    """Return what checks the arrays in a value of this type, and returns the value; None if there
    can be none.
    """
    return _build(hint, {}) if type_hints.contains(hint, "array") else None


def _build(hint: Hint, known: dict[object, list[Admit]]) -> Admit:
    part = type_hints.take_apart(hint)
    if part.kind == "array":
        wanted = arrays.demand(part.hint, part.metadata)
        return lambda value: arrays.admit(value, wanted)
    if part.kind == "fields":
        return _fields(part, known)
    inner = [
        _build(item.hint, known) if type_hints.contains(item.hint, "array") else None
        for item in part.items
    ]
    if part.kind == "union":
        return _union(part, inner)
    if part.kind == "tuple":
        return _tuple(inner)
    return (_mapping if part.kind == "dict" else _sequence)(cast(Admit, inner[-1]))


def _sequence(admit: Admit) -> Admit:
    def check(value: Any) -> Any:
        items = []
        index = 0
        try:
            for index, item in enumerate(value):  # noqa: B007  (the error names the index)
                items.append(admit(item))
        except Misfit as exc:
            exc.loc.insert(0, index)
            raise
        if type(value) is list:
            value[:] = items
            return value
        return type(value)(items)

    return check


def _tuple(inner: list[Admit | None]) -> Admit:
    def check(value: Any) -> Any:
        pairs = zip(inner, value, strict=True)
        return tuple(
            item if admit is None else _at(i, admit, item) for i, (admit, item) in enumerate(pairs)
        )

    return check


def _mapping(admit: Admit) -> Admit:
    def check(value: Any) -> Any:
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

    def check(value: object) -> Any:
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
    inner = [
        (item, _build(item.hint, known))
        for item in part.items
        if type_hints.contains(item.hint, "array")
    ]
    cell.append(
        _rebuilding(inner) if issubclass(part.origin, tuple) else _assigning(part.origin, inner)
    )
    return cell[0]


def _rebuilding(inner: list[tuple[type_hints.Item, Admit]]) -> Admit:
    named = [(str(item.key), admit) for item, admit in inner]

    def check(value: Any) -> Any:
        return value._replace(
            **{name: _at(name, admit, getattr(value, name)) for name, admit in named}
        )

    return check


def _assigning(kind: type, inner: list[tuple[type_hints.Item, Admit]]) -> Admit:
    get, put = _access(kind)

    def check(value: object) -> Any:
        for item, admit in inner:
            before = get(value, item.key)
            if before is not None and before is not msgspec.UNSET:
                after = _at(item.label, admit, before)
                if after is not before:
                    put(value, item.key, after)
        return value

    return check


def _access(kind: type) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any, Any], None]]:
    if issubclass(kind, dict):
        return dict.get, dict.__setitem__
    if issubclass(kind, msgspec.Struct):
        return getattr, msgspec.structs.force_setattr
    return (lambda value, name: getattr(value, name, None)), object.__setattr__


def _runtime_class(hint: Hint) -> type:
    part = type_hints.take_apart(hint)
    if part.kind in ("list", "dict") and part.origin.__module__ == "collections.abc":
        return list if part.kind == "list" else dict
    return dict if issubclass(part.origin, dict) else cast(type, part.origin)


def _at(key: str | int | None, admit: Admit, value: object) -> Any:
    try:
        return admit(value)
    except Misfit as exc:
        exc.loc.insert(0, "*" if key is None else key)
        raise
