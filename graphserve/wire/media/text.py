"""Reads arguments that are text: in a path, in a query, in the parts of a form.

Text has no types, so it is read leniently, as the type of its parameter says: "1" is an int, "true"
a bool, and a name that is repeated a list. What can only be text stays as it is. What is made of a
text is JSON, which is checked afterwards as any other; reading takes time that is linear in it.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import re
import types
import typing
import uuid
from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import msgspec

from graphserve.wire import type_hints
from graphserve.wire.costs.screening import Screening
from graphserve.wire.exceptions import MalformedBody
from graphserve.wire.formats import Format
from graphserve.wire.media.files import is_any_length
from graphserve.wire.media.kinds import PACKED
from graphserve.wire.type_hints import Hint
from graphserve.wire.validation_errors import FAILURES, is_misfit
from graphserve.wire.values import ValueCodec

# leading zeros too, as in a number of an article
_NUMBER = re.compile(r"(-?)0*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\Z")
_TRUE = frozenset({"1", "true", "on", "yes"})
_FALSE = frozenset({"0", "false", "off", "no"})
_TEXTS = (
    str,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
    bytes,
    bytearray,
    memoryview,
)
_STRUCTURES = frozenset({"array", "dict", "fields", "list", "tuple"})  # never text in JSON
_RAW = msgspec.json.Decoder(msgspec.Raw)


class GivenTwice(Exception):
    """Raised where several texts are given for one value."""


class TextReader:
    """Reads the texts that are given for one parameter.

    Args:
        hint: its type.
    """

    def __init__(self, hint: Hint) -> None:
        self._hint = hint
        self._codec = ValueCodec(hint)
        members = _members(hint)
        lists = [part for part in members if is_any_length(part)]
        self._item = TextReader(lists[0].items[0].hint) if lists else None
        self._is_text = bool(members) and all(_has_text(part) for part in members)
        self._is_structure = bool(members) and all(part.kind in _STRUCTURES for part in members)

    @property
    def takes_many(self) -> bool:
        """Whether the parameter is a list, so that its name may come more than once."""
        return self._item is not None

    @cached_property
    def takes_nothing(self) -> bool:
        """Whether the empty text is a value of it, or of its items."""
        return self._fits(b'""') or (self._item is not None and self._item.takes_nothing)

    def read(self, texts: list[str]) -> object:
        """Return the value that texts say.

        Raises:
            GivenTwice: there are several, and it is no list.
            ValueError: they do not fit the type; or what else `ValueCodec.load` raises.
        """
        return self._codec.load(self.json(texts), Format.JSON)

    def json(self, texts: list[str]) -> bytes:
        """Return what texts say, as JSON of the first value that fits the type; of one that does
        not, as what says best what is wrong with it.

        Args:
            texts: at least one.

        Raises:
            GivenTwice: there are several, and it is no list.
            msgspec.DecodeError: a text can only be JSON, and is not.
        """
        if self._item is None:
            if len(texts) > 1:
                raise GivenTwice
            return self._chosen(texts[0])
        if len(texts) == 1 and texts[0][:1] == "[" and self._fits(texts[0].encode()):
            return texts[0].encode()
        return b"[" + b",".join(self._item._chosen(text) for text in texts) + b"]"

    def _chosen(self, text: str) -> bytes:
        if self._is_text:
            return _quoted(text)
        if self._is_structure and text[:1] in ("{", "["):
            return bytes(_RAW.decode(text))
        readings = list(_readings(text))
        if len(readings) > 1:
            for reading in readings:
                if self._fits(reading):
                    return reading
        return readings[0]

    def _fits(self, json: bytes) -> bool:
        try:
            if json[:1] in b"{[":  # what else there is costs no more than its bytes
                body = b'{"":' + json + b"}"
                if len(body) > self._screening.min_size:
                    self._screening.check(body, Format.JSON)
            self._codec.load(json, Format.JSON)
        except MalformedBody:
            return False
        except Exception as exc:
            if not is_misfit(exc):
                raise
            return False
        return True

    @cached_property
    def _screening(self) -> Screening:
        return Screening({"": self._hint})


def _members(hint: Hint) -> list[type_hints.Part]:
    """Return what a type consists of, if it is a union, without None, or else the type."""
    part = type_hints.take_apart(type_hints.unwrap(hint)[0])
    if part.kind != "union":
        return [part]
    found = [member for item in part.items for member in _members(item.hint)]
    return [member for member in found if member.hint is not types.NoneType]


def _has_text(part: type_hints.Part) -> bool:
    """Return whether all values of a type are text in JSON."""
    if (kind := PACKED.get(part.kind)) is not None:
        return kind.schema.get("type") == "string"  # base64
    if typing.get_origin(part.hint) is Literal:
        return all(isinstance(value, str) for value in typing.get_args(part.hint))
    if not isinstance(part.origin, type):
        return False
    if issubclass(part.origin, enum.Enum):
        return all(isinstance(member.value, str) for member in part.origin)
    return issubclass(part.origin, _TEXTS)


def _readings(text: str) -> Iterator[bytes]:
    """Yield what a text may say, as JSON, the most natural first."""
    if (number := _NUMBER.match(text)) is not None:
        yield f"{number[1]}{number[2]}".encode()
    lower = text.lower()
    if lower in _TRUE:
        yield b"true"
    elif lower in _FALSE:
        yield b"false"
    elif lower == "null":
        yield b"null"
    elif text[:1] in ("{", "[") and _is_json(text):
        yield text.encode()
    yield _quoted(text)


def _is_json(text: str) -> bool:
    try:
        _RAW.decode(text)
    except FAILURES:
        return False
    return True


def _quoted(text: str) -> bytes:
    return msgspec.json.encode(text)
