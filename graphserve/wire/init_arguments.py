"""Turns `init`, which is JSON in a declaration, into the arguments that `__init__` is annotated
for; runs in the resolver and in workers.

The rules are those of the arguments of an API, but for two: a path may be given as text, and what
cannot be read because its annotation names nothing that is there at run time stays as it is.
"""

from __future__ import annotations

import copy
import inspect
import os
import pathlib
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import msgspec

from graphserve.system import own_json
from graphserve.wire import type_hints
from graphserve.wire.exceptions import Misfit
from graphserve.wire.extensions import type_hook
from graphserve.wire.formats import Format
from graphserve.wire.type_hints import Hint
from graphserve.wire.validation_errors import FAILURES, explain, text
from graphserve.wire.values import ValueCodec

BY_DEPENDS = "depends(init=…)"
# beside those of JSON, as Python and TOML users write them
_WORDS = {"true": True, "false": False, "null": None, "none": None}


def converted(cls: type, init: Mapping[str, object]) -> dict[str, object]:
    """Return the keyword arguments that `__init__` gets.

    Args:
        cls: the class that is made.
        init: as declared; JSON.

    Raises:
        TypeError: one does not fit its annotation; the message names it.
    """
    arguments, problems = _read(cls, init, {})
    if problems:
        raise TypeError(problems[0])
    return arguments


def init_problems(
    cls: type, init: Mapping[str, object], given: Mapping[str, str] | None = None
) -> list[str]:
    """Return what is wrong with the values of `init`, in words.

    Args:
        cls: the class that is made.
        init: as declared and configured; JSON.
        given: where a value was given, by name; those that are not there by `depends(init=…)`.
    """
    return _read(cls, init, given or {})[1]


def read_configured(cls: type, init: Mapping[str, object]) -> dict[str, object]:
    """Return what a flag, a variable or a file gives `__init__`, as JSON values.

    Flags and variables have only text. Where it does not fit the annotation as text, it is read as
    JSON: `0.5`, `true`, `null`, `["a", "b"]`; what fits in neither way is for `init_problems` to
    refuse. Without an annotation text stays text.

    Args:
        cls: the class that is made.
        init: as configured.
    """
    _, annotations = _annotations(cls)
    return {
        name: _configured(annotations[name], value)
        if isinstance(value, str) and name in annotations
        else value
        for name, value in init.items()
    }


def _configured(hint: Hint, text: str) -> object:
    if _fits(hint, text):
        return text
    word = text.lower()
    if word in _WORDS:
        return _WORDS[word]
    try:
        return own_json.loads(text)
    except (ValueError, RecursionError):
        return text


def _fits(hint: Hint, value: object) -> bool:
    try:
        _value(hint, value)
    except _Unknown:
        return True
    except FAILURES:
        return False
    return True


def _read(
    cls: type, init: Mapping[str, object], given: Mapping[str, str]
) -> tuple[dict[str, object], list[str]]:
    if not init:
        return {}, []
    method, annotations = _annotations(cls)
    arguments: dict[str, object] = {}
    problems: list[str] = []
    for name, value in init.items():
        arguments[name] = copy.deepcopy(value)  # each instance has its own
        if name not in annotations:
            continue
        try:
            arguments[name] = _value(annotations[name], value)
        except _Unknown:
            continue
        except FAILURES as exc:
            said = "; ".join(text(each) for each in explain(exc, [name]))
            by = given.get(name, BY_DEPENDS)
            problems.append(f"{cls.__name__}.{method}: {said} (given by {by})")
    return arguments, problems


class _Unknown(Exception):
    """Raised for a type that nobody here can read, such as a union of what looks alike in JSON."""


def _annotations(cls: type) -> tuple[str, dict[str, Hint]]:
    """Return the method that `init` is for, and the type of each argument that can be given by
    name.
    """
    own = {name for base in cls.__mro__[:-1] for name in vars(base)}
    method = "__init__" if "__init__" in own else "__new__"
    function = inspect.unwrap(getattr(cls, method))
    found: dict[str, Hint] = {}
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.annotation is parameter.empty or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        hint = _resolved(function, parameter.annotation)
        if parameter.kind is parameter.VAR_KEYWORD:
            return method, _Rest(found, hint)
        found[parameter.name] = hint
    return method, found


class _Rest(dict[str, Hint]):
    """Holds annotations by name, and that of `**options` for every other name."""

    def __init__(self, named: dict[str, Hint], rest: Hint) -> None:
        super().__init__(named)
        self._rest = rest

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> Hint:
        return self._rest


def _resolved(function: object, annotation: object) -> Hint:
    """Return an annotation that may be text; Any where it names what is there for type checkers
    only.
    """
    scope = getattr(function, "__globals__", None) or vars(sys.modules[function.__module__])
    holder = type("Holder", (), {"__annotations__": {"it": annotation}})
    try:
        return typing.get_type_hints(holder, globalns=scope, localns=scope, include_extras=True)[
            "it"
        ]
    except (NameError, AttributeError, TypeError, SyntaxError):
        return Any


def _value(hint: Hint, value: object) -> object:
    part = type_hints.take_apart(hint)
    if next(_others(hint), None) is None:
        return ValueCodec(hint, null_is_nan=False).load(own_json.dumps(value).encode(), Format.JSON)
    if part.kind == "union":
        return _one_of([item.hint for item in part.items], hint, value)
    if part.kind == "other" and not _is_path(part.origin):
        raise Misfit(
            f"no JSON value becomes a {_name(part.hint)}: annotate what init can hold, such as str,"
            " and make it in __init__"
        )
    try:
        decoder = msgspec.json.Decoder(hint, dec_hook=_hook)
    except (TypeError, ValueError):
        raise _Unknown from None
    return decoder.decode(own_json.dumps(value).encode())


def _one_of(kinds: list[Hint], hint: Hint, value: object) -> object:
    if value is None and type(None) in kinds:
        return None
    given = [kind for kind in kinds if kind is not type(None)]
    if len(given) == 1:
        return _value(given[0], value)
    for kind in given:
        try:
            return _value(kind, value)
        except FAILURES:
            continue
    raise Misfit(f"Expected `{_name(hint)}`, got `{type(value).__name__}`")


def _hook(kind: Hint, value: object) -> object:
    origin = typing.get_origin(kind) or kind
    if _is_path(origin):
        if not isinstance(value, str):
            raise Misfit(f"Expected `{_name(kind)}` as text, got `{type(value).__name__}`")
        return (pathlib.Path if origin is os.PathLike else origin)(value)
    if next(_others(kind), None) is not None:
        raise Misfit(f"no JSON value becomes a {_name(kind)}")
    return type_hook()(kind, value)


def _others(kind: Hint) -> Iterator[type_hints.Part]:
    # (a path is text here: that of a file which is there, and not one that a client sends)
    return (part for part in type_hints.walk(kind) if part.kind in ("other", "path"))


def _is_path(kind: Hint) -> TypeGuard[type[pathlib.PurePath]]:
    return isinstance(kind, type) and (issubclass(kind, pathlib.PurePath) or kind is os.PathLike)


def _name(hint: Hint) -> str:
    """Return a hint as its author would write it; Python 3.13 says where in pathlib a path really
    is.
    """
    return type_hints.name_of(hint).replace("pathlib._local.", "pathlib.")
