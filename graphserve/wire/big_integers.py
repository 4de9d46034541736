"""Integers beyond 64 bits, which msgpack does not have: an extension type, looked at only where msgspec gave up."""

from __future__ import annotations

import datetime
import decimal
import re
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.msgpack import Ext

from graphserve.wire.extensions import INTEGER, Fetch, Large, ext_hook, type_hook

_LEAST, _MOST = -(2**63), 2**64 - 1
_BYTES = (bytes, bytearray, memoryview)
_NATURAL: Any = (*_BYTES, datetime.datetime, datetime.date, datetime.time, datetime.timedelta)
_NATURAL += (uuid.UUID, decimal.Decimal)
_ARRAY_FOR_LIST = re.compile(r"Expected `array(?P<more>[^`]*)`, got `numpy.ndarray`")


def wrap(value: Any, hook: Callable[[Any], Any]) -> Any:
    """A value as msgpack's encoder takes it, with something in the places of its large integers.

    Args:
        value: what the encoder refused.
        hook: the encoder's `enc_hook`.
    """
    held: dict[int, tuple[memoryview, Ext]] = {}  # msgspec leaves a memoryview as it is, but not an `Ext`

    def hold(other: Any) -> Any:
        encoded = other if type(other) is Ext else hook(other)
        if type(encoded) is not Ext:
            return encoded
        token = memoryview(b"")
        held[id(token)] = token, encoded
        return token

    def change(plain: Any) -> Any:
        if type(plain) is int:
            return plain if _LEAST <= plain <= _MOST else Large(plain)
        if type(plain) is dict:
            return {change(key): change(item) for key, item in plain.items()}
        if isinstance(plain, (list, tuple, set, frozenset)):
            return [change(item) for item in plain]
        return held[id(plain)][1] if id(plain) in held else plain

    return change(msgspec.to_builtins(value, builtin_types=_NATURAL, enc_hook=hold))


def read(body: Any, hint: Any, fetch: Fetch | None, refused: msgspec.ValidationError) -> Any:
    """The value of a body in which msgspec found an extension value that it did not expect.

    Args:
        body: msgpack.
        hint: its type.
        fetch: as of `ext_hook`.
        refused: what msgspec said.

    Raises:
        msgspec.ValidationError: it was no large integer, or does not fit otherwise.
    """
    large, hook = False, ext_hook(fetch)

    def noting(code: int, data: memoryview) -> Any:
        nonlocal large
        large = large or code == INTEGER
        return hook(code, data)

    natural = msgspec.msgpack.decode(body, ext_hook=noting)
    try:
        value = msgspec.convert(natural, hint, builtin_types=_BYTES, dec_hook=type_hook(fetch))
    except msgspec.ValidationError as exc:
        # msgspec calls a list an array, as JSON does.
        said = _ARRAY_FOR_LIST.sub(r"Expected `list\g<more>`, got `numpy.ndarray`", str(exc))
        raise msgspec.ValidationError(said) from None
    if not large:
        raise msgspec.ValidationError(str(refused).replace("got `ext`", "got a pydantic model"))
    return value
