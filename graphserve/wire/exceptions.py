"""The exceptions that reading and writing a body raises.

Every module of this room may raise them, so this one imports nothing. `validation_errors` makes of
them what a caller is told.
"""

from __future__ import annotations

from typing import TypedDict

Location = list[str | int]  # the way from an argument to a part of it: names and indices


class ErrorDetail(TypedDict):
    """Says what is wrong at one place of a body, as a 422 tells it."""

    loc: Location
    msg: str
    type: str


class Misfit(ValueError):
    """Raised when a value does not fit its type; `.loc` leads from the argument to the place."""

    def __init__(self, message: str, kind: str = "type_error") -> None:
        super().__init__(message)
        self.kind = kind
        self.loc: Location = []

    def within(self, step: str | int) -> None:
        """Note that the value is inside another one, where `step` leads to it."""
        self.loc.insert(0, step)


class MalformedBody(ValueError):
    """Raised when a body is not what its content type claims: no JSON, no msgpack."""


class BeyondMsgpack(TypeError):
    """Raised when a value cannot be written as plain msgpack, though JSON has it:
    an integer beyond 64 bits.
    """


class Unsendable(TypeError):
    """Raised when an argument cannot be sent.

    Args:
        where: `Class.method`, or nothing.
        said: which argument, and why.
        errors: one mapping an error, with `loc`, `msg` and `type`.
    """

    def __init__(self, where: str, said: str, errors: list[ErrorDetail]) -> None:
        super().__init__(f"{where}: {said}" if where else said)
        self.said = said
        self.errors = errors
