"""`dataclass(frozen=True)` without the compiler: what is described costs little at import.

Any process. Decision record 0098.

The decorator of the standard library writes the source of six methods for each class and compiles
them, which was an eighth of what the start of a graph cost. Here they are made of the fields, as
closures. To type checkers it is the decorator of the standard library, and to `dataclasses.fields`,
`replace` and `asdict` the class is a dataclass. Making an instance takes about three times as long:
what a call makes has the decorator of the standard library.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

T = TypeVar("T")
_assign = object.__setattr__


def _made(cls: type[T], kw_only: bool) -> type[T]:
    made = dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(cls)
    fields = dataclasses.fields(made)  # type: ignore[arg-type]
    methods = (
        _initializer(made, fields),
        *_comparison(made, tuple(field.name for field in fields if field.compare)),
        _representation(tuple(field.name for field in fields if field.repr)),
        *_refusals(made, frozenset(field.name for field in fields)),
    )
    for method in methods:
        if method.__name__ not in vars(made):
            method.__qualname__ = f"{made.__qualname__}.{method.__name__}"
            method.__module__ = made.__module__
            setattr(made, method.__name__, method)
    return made


def _initializer(
    cls: type[object], fields: tuple[dataclasses.Field[object], ...]
) -> Callable[..., None]:
    positional = tuple(field.name for field in fields if not field.kw_only)
    table = tuple((field.name, field.default, field.default_factory) for field in fields)
    has_checks = hasattr(cls, "__post_init__")
    missing = dataclasses.MISSING

    def wrong(what: str) -> TypeError:
        return TypeError(f"{cls.__qualname__}.__init__() {what}")

    def __init__(self: object, /, *values: object, **given: object) -> None:
        if len(values) > len(positional):
            raise wrong(f"takes {len(positional)} positional arguments, not {len(values)}")
        for name, value in zip(positional, values, strict=False):
            if name in given:
                raise wrong(f"got multiple values for argument {name!r}")
            given[name] = value
        for name, default, make in table:
            if name in given:
                _assign(self, name, given.pop(name))
            elif make is not missing:
                _assign(self, name, make())
            elif default is not missing:
                _assign(self, name, default)
            else:
                raise wrong(f"missing the argument {name!r}")
        for name in given:
            raise wrong(f"got an unexpected keyword argument {name!r}")
        if has_checks:
            self.__post_init__()  # type: ignore[attr-defined]

    return __init__


def _comparison(
    cls: type[object], names: tuple[str, ...]
) -> tuple[Callable[..., bool], Callable[..., int]]:
    values: Callable[[object], object] = operator.attrgetter(*names) if names else lambda self: ()

    def __eq__(self: object, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    def __hash__(self: object) -> int:
        return hash(values(self))

    return __eq__, __hash__


def _representation(names: tuple[str, ...]) -> Callable[[object], str]:
    def __repr__(self: object) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({fields})"

    return __repr__


def _refusals(cls: type[object], names: frozenset[str]) -> tuple[Callable[..., None], ...]:
    # (a subclass may have attributes of its own)
    def __setattr__(self: object, name: str, value: object) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        _assign(self, name, value)

    def __delattr__(self: object, name: str) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        object.__delattr__(self, name)

    return __setattr__, __delattr__


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen, kw_only=False):
        """Make a frozen dataclass; `frozen=True` is said as for the standard library."""
        assert frozen
        return lambda cls: _made(cls, kw_only)
