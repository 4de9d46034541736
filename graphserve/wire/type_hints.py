"""Takes type hints apart: what one consists of, and whether it can cross a socket. Runs where
classes are read.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import sys
import types
import typing
import uuid
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypeGuard

import msgspec

from graphserve.system.frozen import dataclass
from graphserve.wire.media.classes import NAMES, KindName, kind_of_class

if TYPE_CHECKING:
    import numpy as np

    AnyDtype = np.dtype[Any]
    AnyArray = np.ndarray[tuple[int, ...], AnyDtype]  # of any shape and dtype

# An annotation as it is in the user's source: a class, a union, a generic alias, text. Python
# has no type for it: what one is, is found out by looking.
Hint: TypeAlias = object

# declared anew: that of typing is for some kinds of hints only
origin_of: Callable[[Hint], Hint] = typing.get_origin

Kind = Literal[
    KindName,
    "any",
    "leaf",
    "bytes",
    "array",
    "scalar",
    "list",
    "tuple",
    "dict",
    "union",
    "fields",
    "model",
    "other",
]

_LEAVES = frozenset(
    {
        bool,
        int,
        float,
        str,
        type(None),
        datetime.datetime,
        datetime.date,
        datetime.time,
        datetime.timedelta,
    }
    | {uuid.UUID, decimal.Decimal, msgspec.UnsetType, msgspec.Raw}
)
_BYTES = frozenset({bytes, bytearray, memoryview})
_LISTS = frozenset(
    {
        list,
        set,
        frozenset,
        collections.abc.Collection,
        collections.abc.Sequence,
        collections.abc.MutableSequence,
    }
    | {collections.abc.Set, collections.abc.MutableSet}
)
_DICTS = frozenset({dict, collections.abc.Mapping, collections.abc.MutableMapping})
_WRAPPERS = frozenset(
    {
        getattr(typing, name)
        for name in ("Required", "NotRequired", "Final", "ReadOnly")
        if hasattr(typing, name)
    }
)
_PYDANTIC = frozenset({"pydantic", "pydantic_core", "pydantic_extra_types", "annotated_types"})


class Item(NamedTuple):
    """Describes one part of a hint: the attribute or index where it is (None: each), its name on
    the wire, its hint.
    """

    key: str | int | None
    label: str | int | None
    hint: Hint


@dataclass(frozen=True)
class Part:
    """Describes one hint, one level deep.

    Args:
        kind: what it is; `other` cannot cross a socket.
        hint: the hint without its wrappers.
        origin: the class itself, where the hint is a class or parametrised.
        metadata: what its `Annotated` has.
        items: what it consists of.
    """

    kind: Kind
    hint: Hint
    origin: Hint = None
    metadata: tuple[object, ...] = ()
    items: tuple[Item, ...] = ()

    @property
    def cls(self) -> type:
        """The class that values have; only of a kind that has one."""
        assert isinstance(self.origin, type)
        return self.origin


class _Alias(Protocol):
    """A `type` statement, of Python or of typing_extensions."""

    __value__: Hint


class _Open(Protocol):
    """A generic alias with type variables in it."""

    __parameters__: tuple[Hint, ...]

    def __getitem__(self, arguments: tuple[Hint, ...], /) -> Hint: ...


def take_apart(hint: Hint) -> Part:
    """Return what `hint` is and consists of, one level deep.

    Raises:
        NameError: a class that it names has an annotation that cannot be resolved.
    """
    hint, metadata = unwrap(hint)
    origin = origin_of(hint) or hint
    args = typing.get_args(hint)
    if any(type(extra).__module__.partition(".")[0] in _PYDANTIC for extra in metadata):
        return Part("model", hint, origin, metadata)
    if origin in (typing.Union, types.UnionType):
        return Part("union", hint, origin, metadata, tuple(Item(None, None, arg) for arg in args))
    if hint is Any or hint is object or isinstance(hint, typing.TypeVar):
        return Part("any", hint, object, metadata)
    if origin is typing.Literal:
        return Part("leaf", hint, None, metadata)
    if not isinstance(origin, type):
        return Part("other", hint, origin, metadata)
    return _of_class(hint, origin, args, metadata)


def walk(hint: Hint) -> Iterator[Part]:
    """Yield `hint` and everything it consists of, each class once."""
    seen: set[Hint] = set()
    waiting = [hint]
    while waiting:
        part = take_apart(waiting.pop())
        if part.kind == "fields":
            if part.hint in seen:
                continue
            seen.add(part.hint)
        yield part
        waiting.extend(item.hint for item in part.items)


def contains(hint: Hint, kind: Kind) -> bool:
    """Return whether a part of that kind is anywhere in `hint`."""
    return any(part.kind == kind for part in walk(hint))


def contains_itself(hint: Hint) -> bool:
    """Return whether a class in `hint` has, somewhere below, itself as a field: then nothing says
    how deep a value is.
    """
    return any(_holds(part.hint, part.items) for part in walk(hint) if part.kind == "fields")


def is_set(kind: Hint) -> bool:
    """Return whether a class is a kind of set."""
    return isinstance(kind, type) and issubclass(kind, collections.abc.Set)


def hashed(part: Part) -> Hint:
    """Return what in a set, or as the key of a dict, cannot be hashed: a hint with an array, or a
    value of a kind of `media/`, in it, or None.
    """
    if part.kind == "dict" or (part.kind == "list" and is_set(part.origin)):
        key = part.items[0].hint
        kinds = NAMES | {"array"}
        return key if any(part.kind in kinds for part in walk(key)) else None
    return None


def rewrite(hint: Hint, change: Callable[[Part], Hint]) -> Hint:
    """Return `hint` with other hints in the places of some; classes with fields stay as they are.

    Args:
        hint: the hint.
        change: gives the hint that takes a part's place, or None to look into the part.
    """
    part = take_apart(hint)
    if (changed := change(part)) is not None:
        return changed
    if part.kind not in ("list", "tuple", "dict", "union") or not typing.get_args(part.hint):
        return hint
    inner = tuple(rewrite(item.hint, change) for item in part.items)
    if part.kind == "union":
        changed = typing.Union[inner]  # noqa: UP007  (of a tuple)
    else:
        is_any_length = part.kind == "list" and part.origin is tuple
        changed = types.GenericAlias(part.cls, (*inner, ...) if is_any_length else inner)
    return typing.Annotated[(changed, *part.metadata)] if part.metadata else changed


def unwrap(hint: Hint) -> tuple[Hint, tuple[object, ...]]:
    """Return the hint without Annotated, NewType, Required and aliases, and the metadata of
    these.
    """
    metadata: tuple[object, ...] = ()
    while True:
        if isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif origin_of(hint) is typing.Annotated:
            hint, *extras = typing.get_args(hint)
            metadata += tuple(extras)
        elif origin_of(hint) in _WRAPPERS:
            hint = typing.get_args(hint)[0]
        elif _is_alias(hint):
            hint = hint.__value__
        else:
            return (type(None) if hint is None else hint), metadata


def name_of(hint: Hint) -> str:
    """Return a hint as its author would write it."""
    if isinstance(hint, type) and origin_of(hint) is None:
        return (
            hint.__qualname__
            if hint.__module__ in ("builtins", "__main__")
            else f"{hint.__module__}.{hint.__qualname__}"
        )
    return str(hint).replace("typing.", "")


def is_list(hint: Hint) -> bool:
    """Return whether batching can join values of this hint: a list, a sequence or an array."""
    if origin_of(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    origin = origin_of(hint) or hint
    return origin is list or getattr(origin, "__name__", "") == "Sequence" or is_array(origin)


def is_array(kind: Hint) -> TypeGuard[type[AnyArray]]:
    """Return whether a class is numpy's array; numpy is not imported for it."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(kind, type) and issubclass(kind, numpy.ndarray)


def is_array_value(value: object) -> TypeGuard[AnyArray]:
    """Return whether a value is an array of numpy's; numpy is not imported for it."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(type(value), numpy.ndarray)


def is_plain_array(value: Any) -> bool:
    """Return whether a value is an array of numpy's own class whose elements are no objects."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray and not value.dtype.hasobject


def is_scalar(kind: Hint) -> TypeGuard[type[np.generic]]:
    """Return whether a class is one of numpy's scalars; numpy is not imported for it."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(kind, type) and issubclass(kind, numpy.generic)


def is_scalar_value(value: object) -> TypeGuard[np.generic]:
    """Return whether a value is one of numpy's scalars; numpy is not imported for it."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(type(value), numpy.generic)


def is_model(kind: Hint) -> bool:
    """Return whether a class is a pydantic model, dataclass or type; pydantic is not imported for
    it.
    """
    return "pydantic" in sys.modules and (
        hasattr(kind, "__pydantic_validator__")
        or hasattr(kind, "__get_pydantic_core_schema__")
        or getattr(kind, "__module__", "").partition(".")[0] in _PYDANTIC
    )


def _holds(wanted: Hint, items: tuple[Item, ...]) -> bool:
    return any(part.hint == wanted for item in items for part in walk(item.hint))


def _of_class(
    hint: Hint, origin: type, args: tuple[Hint, ...], metadata: tuple[object, ...]
) -> Part:
    if is_array(origin):
        return Part("array", hint, origin, metadata)
    if is_scalar(origin):
        return Part("scalar", hint, origin, metadata)
    if (name := kind_of_class(origin)) is not None:
        return Part(name, hint, origin, metadata)
    if is_model(origin):
        return Part("model", hint, origin, metadata)
    if origin in _LEAVES or issubclass(origin, enum.Enum):
        return Part("leaf", hint, origin, metadata)
    if origin in _BYTES:
        return Part("bytes", hint, origin, metadata)
    if origin is tuple and args and args[-1] is not Ellipsis:
        return Part(
            "tuple",
            hint,
            origin,
            metadata,
            tuple(Item(i, i, arg) for i, arg in enumerate(args) if arg != ()),
        )
    if origin in _LISTS or origin is tuple:
        return Part("list", hint, origin, metadata, (Item(None, None, args[0] if args else Any),))
    if origin in _DICTS:
        return Part(
            "dict",
            hint,
            origin,
            metadata,
            tuple(Item(None, None, arg) for arg in args or (Any, Any)),
        )
    if _has_fields(origin):
        # (mypy does not see that a class can be hashed)
        items = _fields(origin, args)  # type: ignore[arg-type]
        return Part("fields", hint, origin, metadata, items)
    return Part("other", hint, origin, metadata)


def _has_fields(kind: type) -> bool:
    return (
        dataclasses.is_dataclass(kind)
        or issubclass(kind, msgspec.Struct)
        or typing.is_typeddict(kind)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
        or hasattr(kind, "__attrs_attrs__")
    )


@lru_cache(maxsize=1024)
def _fields(kind: type, args: tuple[Hint, ...]) -> tuple[Item, ...]:
    hints = typing.get_type_hints(kind, include_extras=True)
    bound = dict(zip(getattr(kind, "__parameters__", ()), args, strict=False))
    if issubclass(kind, msgspec.Struct):
        names = {field.name: field.encode_name for field in msgspec.structs.fields(kind)}
    elif dataclasses.is_dataclass(kind):
        names = {field.name: field.name for field in dataclasses.fields(kind) if field.init}
    else:
        names = {name: name for name in hints}
    return tuple(
        Item(name, label, _bind(hints.get(name, Any), bound)) for name, label in names.items()
    )


def _bind(hint: Hint, bound: dict[Hint, Hint]) -> Hint:
    if isinstance(hint, typing.TypeVar):
        return bound.get(hint, Any)
    if _is_open(hint):
        return hint[tuple(bound.get(variable, Any) for variable in hint.__parameters__)]
    return hint


def _is_open(hint: Hint) -> TypeGuard[_Open]:
    return bool(getattr(hint, "__parameters__", ()))


def _is_alias(hint: Hint) -> TypeGuard[_Alias]:
    return type(hint).__name__ == "TypeAliasType"
