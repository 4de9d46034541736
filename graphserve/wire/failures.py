"""Why a body was refused: the errors of msgspec, pydantic and arrays as one list of `loc`, `msg` and `type`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from graphserve.errors import InvalidArguments
from graphserve.wire import models

Location = list[str | int]

# What decoding may raise because of the body, user code in dataclasses included.
FAILURES = (ValueError, TypeError, RecursionError, OverflowError, MemoryError)

_MISFIT = re.compile(r"(?P<message>.*?)(?: - at `(?P<key>key` in `)?\$(?P<path>.*)`)?\Z", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+)\]|\[\.\.\.\]")
_FIELD = re.compile(r"Object (?P<what>missing required|contains unknown) field `(?P<name>.*)`\Z", re.DOTALL)
_TYPES = re.compile(r"Expected `[^`]*`, got `[^`]*`\Z")


class Misfit(ValueError):
    """Raised when a value does not fit its type; `.loc` leads from the argument to the place."""

    def __init__(self, message: str, kind: str = "type_error") -> None:
        super().__init__(message)
        self.kind = kind
        self.loc: list[str | int] = []


class MalformedBody(ValueError):
    """Raised when a body is not what its content type claims: no JSON, no msgpack."""


class Unsendable(TypeError):
    """Raised when an argument cannot be sent.

    Args:
        where: `Class.method`, or nothing.
        said: which argument, and why.
        errors: one mapping an error, with `loc`, `msg` and `type`.
    """

    def __init__(self, where: str, said: str, errors: list[dict[str, Any]]) -> None:
        super().__init__(f"{where}: {said}" if where else said)
        self.said, self.errors = said, errors


def unsendable(
    where: str, arguments: Mapping[str, Any], dump: Callable[[str, Any], object], error: BaseException
) -> Unsendable:
    """The error for arguments of which one cannot be sent.

    Args:
        where: `Class.method`, or nothing.
        arguments: all of them.
        dump: writes one argument, and raises what is wrong with it.
        error: what was raised for all together.
    """
    for name, value in arguments.items():
        try:
            dump(name, value)
        except FAILURES as exc:
            if not models.is_error(exc):
                return Unsendable(where, f"argument {name!r}: {exc}", [problem([name], str(exc), "encoding")])
            errors = explain(exc, [name])
            return Unsendable(where, f"argument {name!r}: {text({**errors[0], 'loc': errors[0]['loc'][1:]})}", errors)
    return Unsendable(where, str(error), [problem([], str(error), "encoding")])


def is_malformed(error: BaseException) -> bool:
    """Whether the error speaks of the bytes, not of what they say."""
    if isinstance(error, RecursionError | UnicodeDecodeError):
        return True
    return isinstance(error, msgspec.DecodeError) and not isinstance(error, msgspec.ValidationError)


def malformed(error: BaseException) -> MalformedBody:
    """The error to answer a body with that cannot be read."""
    return MalformedBody("the body is nested too deeply" if isinstance(error, RecursionError) else str(error))


def explain(error: BaseException, loc: Location) -> list[dict[str, Any]]:
    """What went wrong with the value at `loc`, one mapping an error."""
    if models.is_error(error):
        return [{**each, "loc": loc + each["loc"]} for each in models.problems(error)]
    if isinstance(error, Misfit):
        return [problem(loc + error.loc, str(error), error.kind)]
    if isinstance(error, msgspec.ValidationError):
        return [_of_msgspec(str(error), loc)]
    return [problem(loc, str(error) or type(error).__name__, "value_error")]


def problem(loc: Location, message: str, kind: str) -> dict[str, Any]:
    """One error."""
    return {"loc": loc, "msg": message, "type": kind}


def refusal(where: str, errors: list[dict[str, Any]]) -> InvalidArguments:
    """The error to answer arguments with that do not fit the signature of `where`."""
    first = f"{text(errors[0])}" if errors else "they do not fit the signature"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return InvalidArguments(f"arguments of {where}: {first}{more}", errors=errors)


def text(error: dict[str, Any]) -> str:
    """One error as a line: where, and what."""
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error["loc"]).lstrip(".")
    return f"{place}: {error['msg']}" if place else str(error["msg"])


def _of_msgspec(message: str, loc: Location) -> dict[str, Any]:
    found = _MISFIT.match(message)
    assert found is not None
    message, loc = found["message"], loc + _steps(found["path"] or "")
    if found["key"]:
        return problem(loc, f"a key: {message}", "type_error")
    if field := _FIELD.match(message):
        kind = "missing_field" if field["what"] == "missing required" else "unexpected_field"
        return problem([*loc, field["name"]], message, kind)
    return problem(loc, message, "type_error" if _TYPES.match(message) else "value_error")


def _steps(path: str) -> Location:
    return [
        step["name"] if step["name"] is not None else int(step["index"]) if step["index"] else "*"
        for step in _STEP.finditer(path)
    ]
