"""Turns one value of one type into bytes and back, in every format: a parameter, a result, an item
of a stream.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

import msgspec
from msgspec.msgpack import Ext

from graphserve.wire import extensions, pydantic_models, type_hints
from graphserve.wire.checks import dataclass_defaults, nan
from graphserve.wire.checks.arrays import admission
from graphserve.wire.extensions import (
    MODEL,
    Place,
    Source,
    as_json,
    ext_hook,
    input_hook,
    is_public,
    json_hook,
    msgpack_hook,
    plain_hook,
    type_hook,
)
from graphserve.wire.formats import BodyBytes, Format
from graphserve.wire.signature import uses_adapter
from graphserve.wire.type_hints import Hint

T = TypeVar("T")

Decode = Callable[[BodyBytes], T]
Encode = Callable[[object], bytes]
# Takes what msgspec has read, and gives the user's value.
Finish = Callable[[Any, Format, Source], object]
# (looked up once: a member of an enum is slow to find)
_JSON = Format.JSON
_MSGPACK = Format.MSGPACK


class ValueReader(Generic[T]):
    """Decodes bodies of one type; what a hook must see later, `fetch`, is bound once and kept.

    Args:
        hint: the type, as msgspec takes it.
        fetched: the type where bytes may have come by reference.
    """

    def __init__(self, hint: Hint, fetched: Hint = None) -> None:
        self._hint = hint
        self._fetched = hint if fetched is None else fetched
        self.json: Decode[T] = msgspec.json.Decoder(hint, dec_hook=type_hook()).decode
        self.msgpack: Decode[T] = self._bind(hint, None)
        self._bound: tuple[Source, Decode[T]] = (None, self.msgpack)

    def read(self, body: BodyBytes, format: Format, source: Source) -> T:
        """Return the value; raises what msgspec says about it. `source` as in `ext_hook`."""
        if format is _JSON:
            return self.json(body)
        if source is None:
            return self.msgpack(body)
        bound = self._bound  # one read: another thread may replace it
        if bound[0] != source:
            if is_public(source):  # (the files of one request)
                return self._bind(self._fetched, source)(body)
            bound = self._bound = (source, self._bind(self._fetched, source))
        return bound[1](body)

    @staticmethod
    def _bind(hint: Hint, source: Source) -> Decode[T]:
        return msgspec.msgpack.Decoder(
            hint, ext_hook=ext_hook(source), dec_hook=type_hook(source)
        ).decode


class ValueWriter:
    """Encodes any value; like `ValueReader`, it keeps what it made for the last `place`."""

    def __init__(self) -> None:
        self.json: Encode = msgspec.json.Encoder(enc_hook=json_hook).encode
        self.msgpack: Encode = self._bind(None)
        self._bound: tuple[Place | None, Encode] = (None, self.msgpack)
        self.result: Encode = msgspec.msgpack.Encoder(enc_hook=plain_hook(False)).encode
        self._arguments = msgspec.msgpack.Encoder(enc_hook=plain_hook(True)).encode

    def write(self, value: object, place: Place | None) -> bytes:
        """Return the value as msgpack for another service of the graph; `result` and `public` write
        it for everybody.
        """
        encode = self.msgpack
        if place is not None:
            bound = self._bound
            if bound[0] != place:
                bound = self._bound = (place, self._bind(place))
            encode = bound[1]
        try:
            return encode(value)
        except OverflowError:
            return encode(extensions.with_large(value, msgpack_hook(place)))

    def elsewhere(self, value: object) -> bytes:
        """Return the value as msgpack for a typed caller that does not read our disk: a file is
        bytes.
        """
        hook = msgpack_hook(paths=False)
        try:
            return msgspec.msgpack.encode(value, enc_hook=hook)
        except OverflowError:
            return msgspec.msgpack.encode(extensions.with_large(value, hook), enc_hook=hook)

    def public(self, value: object) -> bytes:
        """Return arguments as everybody reads them: as msgpack, or as JSON if there is an integer
        that msgpack does not have.

        The first byte tells which: no object in JSON begins as a map in msgpack does.
        """
        try:
            return self._arguments(value)
        except OverflowError:
            return msgspec.json.encode(value, enc_hook=input_hook)

    def _bind(self, place: Place | None) -> Encode:
        return msgspec.msgpack.Encoder(enc_hook=msgpack_hook(place)).encode


class ValueCodec:
    """Reads and writes a value of one type.

    Args:
        hint: the type.
        null_is_nan: whether null in JSON is read as NaN where only a float can be, since NaN is
            written so.
        is_argument: whether it is one argument among others, each of which is read once, whatever
            is wrong with another. What has models inside is then read when all the rest has been,
            as models themselves are: their validators, which are the user's, do not run twice.
    """

    def __init__(self, hint: Hint, *, null_is_nan: bool = True, is_argument: bool = False) -> None:
        adapter = pydantic_models.Adapter(hint) if uses_adapter(hint) else None
        admit = None if adapter is not None else admission(hint)
        if adapter is not None and adapter.plain_bytes:
            hint = bytes
            admit = adapter.check
            adapter = None
        if adapter is None:
            dataclass_defaults.keep(hint)
        has_models = adapter is None and type_hints.contains(hint, "model")
        self._null_is_nan = null_is_nan
        self._adapter = adapter
        self._admit = admit
        # What msgspec is asked to read, and what makes the value of it.
        self.hint: Hint = hint
        self.finish: Finish | None = None if admit is None else self._check
        self._remove_bytes = None if adapter is not None else extensions.bytes_remover(hint)
        if adapter is not None:
            self.hint = msgspec.Raw
            self.finish = self._validate
        elif is_argument and has_models:
            self.hint = msgspec.Raw
            self.finish = ValueCodec(hint, null_is_nan=null_is_nan).load
        self.fetched: Hint = extensions.with_blobs(self.hint)
        self._reader: ValueReader[object] = ValueReader(self.hint, self.fetched)
        self._writer = ValueWriter()
        # Writes a value as JSON; raises as `dump`.
        self.json: Encode = (
            self._writer.json if adapter is None else partial(adapter.dump, by_alias=True)
        )

    @cached_property
    def _nans(self) -> nan.NanReader:
        return nan.NanReader(self.hint)

    def load(self, body: BodyBytes, format: Format, source: Source = None) -> object:
        """Read a value; raises what msgspec, pydantic or `Misfit` say about it."""
        try:
            value = self._reader.read(body, format, source)
        except msgspec.ValidationError as exc:
            said = str(exc)
            if format is Format.JSON and self._null_is_nan and nan.REFUSED.match(said):
                value = self._nans.read(body, exc)
            elif format is Format.JSON or "`ext`" not in said:
                raise
            else:
                value = extensions.read_large(body, self.hint, source, exc)
        return value if self.finish is None else self.finish(value, format, source)

    def take(self, value: bytes) -> object:
        """Check bytes that came as they are, for a type of bytes; raises like `load`."""
        if self._adapter is not None:
            return self._adapter.check(value)
        found: object = value if self.hint is bytes else msgspec.convert(value, self.hint)
        return found if self._admit is None else self._admit(found)

    def dump(self, value: object, format: Format, place: Place | None = None) -> bytes:
        """Write a value; raises TypeError, ValueError or OverflowError if it cannot be."""
        if format is _JSON:
            return self.json(value)
        if format is _MSGPACK:
            return self._writer.result(self._adapter.plain(value) if self._adapter else value)
        return self._writer.write(self.wrap(value, place) if self.wraps else value, place)

    def dump_elsewhere(self, value: object) -> bytes:
        """Write a value for a typed caller that does not read our disk; raises like `dump`."""
        return self._writer.elsewhere(self.wrap(value, None) if self.wraps else value)

    @property
    def wraps(self) -> bool:
        """Tell whether `wrap` ever does anything."""
        return self._adapter is not None or self._remove_bytes is not None

    def wrap(self, value: object, place: Place | None) -> object:
        """Return the value as msgpack's encoder takes it."""
        if self._adapter is not None:
            return Ext(MODEL, self._adapter.dump(value))
        return (
            value
            if place is None or self._remove_bytes is None
            else self._remove_bytes(value, place)
        )

    def for_public(self, value: object) -> object:
        """Return the value as `ValueWriter.public` takes it:
        as its reader, who may be anybody, reads it.
        """
        return value if self._adapter is None else self._adapter.plain(value, for_input=True)

    def _check(self, value: object, format: Format, source: Source) -> object:
        assert self._admit is not None
        return self._admit(value)

    def _validate(self, raw: msgspec.Raw, format: Format, source: Source) -> object:
        assert self._adapter is not None
        if format is Format.JSON:
            return self._adapter.load(bytes(raw))
        if is_public(source):
            return self._adapter.load(
                as_json(msgspec.msgpack.decode(raw, ext_hook=ext_hook(source)), True)
            )
        found = msgspec.msgpack.decode(raw)
        if type(found) is Ext and found.code == MODEL:
            return self._adapter.load(bytes(found.data), by_name=True)
        return self._adapter.load(
            as_json(msgspec.msgpack.decode(raw, ext_hook=ext_hook(source)), False), by_name=True
        )
