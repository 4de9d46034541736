"""Tells why a body was refused: the errors of msgspec, pydantic and arrays become one list of
`loc`, `msg` and `type`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from graphserve.errors import InvalidArguments
from graphserve.wire import pydantic_models
from graphserve.wire.costs.bounds import ERRORS_TOLD, MESSAGE_CHARACTERS, NAME_CHARACTERS
from graphserve.wire.exceptions import ErrorDetail, Location, MalformedBody, Misfit, Unsendable

# What decoding may raise because of the body, user code in dataclasses included.
# No memory is nobody's fault who sent the body: `MemoryError` is not among them.
FAILURES = (ValueError, TypeError, RecursionError, OverflowError)
# What libraries raise over values that they were not made for: a body's fault too, if no user code
# stands between.
_FOREIGN = (
    LookupError,
    AttributeError,
    ArithmeticError,
    SystemError,
    AssertionError,
    BufferError,
    NotImplementedError,
)
_OURS = frozenset({"graphserve", "msgspec", "numpy", "pydantic", "decimal", "uuid", "json"})

_PATH = " - at `"
_KEY = "key` in `"
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+)\]|\[\.\.\.\]")
_FIELD = re.compile(
    r"Object (?P<what>missing required|contains unknown) field `(?P<name>.*)`\Z", re.DOTALL
)
_CUT = "…"
# The words of msgspec's reader of JSON.
_AT_BYTE = re.compile(r"\(byte (\d+)\)\Z")
_TRUNCATED = "Input data was truncated"
_SURROGATE = "invalid utf-16 surrogate pair"
_CHARACTER = "invalid character (byte"
_NO_NUMBER = re.compile(rb"NaN|-?Infinity")
_HALF = re.compile(rb"(?<!\\)(?:\\\\)*(\\u[dD][89aAbB][0-9a-fA-F]{2})(?!\\u[dD][c-fC-F])")
# bytes of one at the end, and of what may come behind it before msgspec sees that it is one
_LONGEST_HALF = 13
_TYPES = re.compile(r"Expected `[^`]*`, got `[^`]*`\Z")


def unsendable(
    where: str,
    arguments: Mapping[str, object],
    dump: Callable[[str, object], object],
    error: BaseException,
) -> Unsendable:
    """Return the error for arguments of which one cannot be sent.

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
            if not pydantic_models.is_error(exc):
                return Unsendable(
                    where, f"argument {name!r}: {exc}", [error_detail([name], str(exc), "encoding")]
                )
            errors = explain(exc, [name])
            return Unsendable(
                where,
                f"argument {name!r}: {text({**errors[0], 'loc': errors[0]['loc'][1:]})}",
                errors,
            )
    return Unsendable(where, str(error), [error_detail([], str(error), "encoding")])


def is_malformed(error: BaseException) -> bool:
    """Return whether the error speaks of the bytes, not of what they say."""
    if isinstance(error, RecursionError | UnicodeDecodeError):
        return True
    return isinstance(error, msgspec.DecodeError) and not isinstance(error, msgspec.ValidationError)


def malformed(error: BaseException, body: bytes | bytearray | memoryview) -> MalformedBody:
    """Return the error to answer a body with that cannot be read:
    what is wrong with it, and at which byte.
    """
    if isinstance(error, RecursionError):
        return MalformedBody("the body is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        where = f"at byte {error.start}" if len(error.object) == len(body) else "in a text"
        return MalformedBody(f"it is not UTF-8, {where}")
    said = str(error)
    if found := _AT_BYTE.search(said):
        at = int(found[1])
        return MalformedBody(_of_json(said, bytes(body[at : at + 16]), at))
    if said == _TRUNCATED and bytes(body[:1]).lstrip() in (b"{", b"["):
        # msgspec looks for the other half before it looks where the body ends.
        end = bytes(body[-_LONGEST_HALF:])
        if half := _HALF.search(end):
            return MalformedBody(_half(half[1], len(body) - len(end) + half.start(1)))
        return MalformedBody(f"it ends too early, at byte {len(body)}")
    return MalformedBody(said)


def _of_json(said: str, there: bytes, at: int) -> str:
    """Return what the JSON reader says of a byte, in words that say what to do.

    Args:
        said: its words.
        there: what begins with the byte.
        at: its number.
    """
    if _SURROGATE in said:
        return _half(b"", at)
    if _CHARACTER not in said or not there:
        return said
    if word := _NO_NUMBER.match(there):
        return f"JSON has no {word[0].decode()}: write null (byte {at})"
    if there.startswith(b"\xef\xbb\xbf"):
        return f"a byte order mark cannot stand here: leave it out (byte {at})"
    if there[0] < 0x20:
        return f"a control character must be written as \\u{there[0]:04x} (byte {at})"
    if there[0] < 0x7F:
        return f"{chr(there[0])!r} cannot stand here (byte {at})"
    return said


def _half(half: bytes, at: int) -> str:
    named = f" {half.decode()}" if half else ""
    return f"half of a character{named}, a surrogate without the other one (byte {at})"


def is_misfit(error: Exception) -> bool:
    """Return whether reading a body raised `error` because of what the body says, and not because
    of the user's code.
    """
    if isinstance(error, FAILURES):
        return True
    if not isinstance(error, _FOREIGN):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    # Libraries in C have no frames: then the last one is ours.
    module = str(trace.tb_frame.f_globals.get("__name__", "")) if trace is not None else ""
    return module.partition(".")[0] in _OURS


def explain(error: BaseException, loc: Location) -> list[ErrorDetail]:
    """Return what went wrong with the value at `loc`, one mapping an error."""
    if pydantic_models.is_error(error):
        return [
            error_detail(loc + each["loc"], each["msg"], each["type"])
            for each in pydantic_models.problems(error)
        ]
    if isinstance(error, Misfit):
        return [error_detail(loc + error.loc, str(error), error.kind)]
    if isinstance(error, msgspec.ValidationError):
        return [_of_msgspec(str(error), loc)]
    if isinstance(error, _FOREIGN):  # in words that are the library's own, about something else
        return [error_detail(loc, "Expected a value of another kind", "type_error")]
    return [error_detail(loc, str(error) or type(error).__name__, "value_error")]


def error_detail(loc: Location, message: str, kind: str) -> ErrorDetail:
    """Return one error; names and values that a client chose are cut to a bounded length."""
    return {
        "loc": [cut(step, NAME_CHARACTERS) if isinstance(step, str) else step for step in loc],
        "msg": cut(message, MESSAGE_CHARACTERS),
        "type": kind,
    }


def cut(text: str, characters: int) -> str:
    """Return a text of at most so many characters; what is longer loses its middle."""
    if len(text) <= characters:
        return text
    half = (characters - len(_CUT)) // 2
    return text[:half] + _CUT + text[-half:]


def refusal(where: str, errors: list[ErrorDetail], untold: int = 0) -> InvalidArguments:
    """Return the error to answer arguments with that do not fit the signature of `where`.

    Args:
        where: `Class.method`.
        errors: what is wrong; of many, the first ones are told.
        untold: how many more there are.
    """
    # A wrong name is the reason why the right one is missing.
    wrong = [error for error in errors if error["type"] == "unexpected_argument"] or errors
    first = text(wrong[0]) if wrong else "they do not fit the signature"
    number = len(errors) + untold
    more = f" (and {number - 1:,} more)" if number > 1 else ""
    told = errors[:ERRORS_TOLD]
    if number > len(told):
        told = [*told, error_detail([], f"and {number - len(told):,} more errors", "more_errors")]
    return InvalidArguments(f"arguments of {where}: {first}{more}", errors=told)


def text(error: ErrorDetail) -> str:
    """Return one error as a line: where, and what."""
    place = "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in error["loc"]
    ).lstrip(".")
    return f"{place}: {error['msg']}" if place else str(error["msg"])


def _of_msgspec(message: str, loc: Location) -> ErrorDetail:
    # The path is last, and no name in it is the client's; what is before it may be.
    said, mark, path = message.rpartition(_PATH)
    if not mark or not path.endswith("`"):
        said = message
        path = ""
    is_key = path.startswith(_KEY)
    message = said
    loc = loc + _steps(path.removeprefix(_KEY)[:-1])
    if is_key:
        return error_detail(loc, f"a key: {message}", "type_error")
    if field := _FIELD.match(message):
        kind = "missing_field" if field["what"] == "missing required" else "unexpected_field"
        return error_detail([*loc, field["name"]], message, kind)
    return error_detail(loc, message, "type_error" if _TYPES.match(message) else "value_error")


def _steps(path: str) -> Location:
    return [
        step["name"] if step["name"] is not None else int(step["index"]) if step["index"] else "*"
        for step in _STEP.finditer(path)
    ]
