"""`register_type`: a class of the user's, or of a library that is not known here, as a kind of
value of its own.
"""

from __future__ import annotations

import binascii
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast

from graphserve.errors import DeclarationError
from graphserve.wire import type_hints
from graphserve.wire.exceptions import Misfit
from graphserve.wire.media import classes, kinds
from graphserve.wire.media.octets import no_options

T = TypeVar("T")

_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+\Z")


def register_type(
    cls: type[T],
    *,
    media_type: str,
    encode: Callable[[T], bytes],
    decode: Callable[[bytes], T],
    json: tuple[Callable[[T], object], Callable[[Any], T]] | None = None,
) -> None:
    """Have values of a class sent: as files to clients, as bytes between services.

    Call it in the module that declares the services, before them. A parameter of the class is then
    a file, as one of `bytes` is, and so is a result.

    Args:
        cls: the class; one that is not sent already.
        media_type: what such a file is sent as, as `"audio/wav"`.
        encode: makes bytes of a value.
        decode: makes a value of bytes, which a client may have sent: what it raises is told the
            client as an argument that does not fit.
        json: what stands for a value in JSON, and what makes a value of that; default: base64 of
            the bytes.

    Raises:
        DeclarationError: the class is sent already, or is none, or the media type is none.

    Example:
        >>> class Sound:
        ...     def __init__(self, samples: bytes) -> None:
        ...         self.samples = samples
        >>> graphserve.register_type(
        ...     Sound, media_type="audio/x-raw", encode=lambda sound: sound.samples, decode=Sound
        ... )
    """
    frame = sys._getframe(1)
    place = frame.f_code.co_filename, frame.f_lineno
    if not isinstance(cls, type):
        raise DeclarationError(f"register_type({cls!r}): this is no class", *place)
    name = type_hints.name_of(cls)
    known = type_hints.take_apart(cls).kind
    if known != "other":
        said = "is registered already" if known == "registered" else "is sent already, as it is"
        raise DeclarationError(f"register_type({name}): this class {said}", *place)
    if not isinstance(media_type, str) or not _MEDIA_TYPE.match(media_type):
        raise DeclarationError(
            f"register_type({name}, media_type={media_type!r}): write one as 'audio/wav'", *place
        )
    kind: RegisteredType[T] = RegisteredType(cls, media_type, encode, decode, json)
    kinds.REGISTERED[cls] = kind
    classes.register(cls)


_OF_JSON = frozenset({str, int, float, bool, list, dict, type(None)})


class RegisteredType(Generic[T]):
    """The kind of value that a class is which was registered.

    Args:
        cls: the class.
        media_type: as of `register_type`, and so are the others.
        encode: makes bytes of a value.
        decode: makes a value of bytes.
        json: what stands for a value in JSON, and what makes a value of that.
    """

    json_first = False
    is_slow = True  # (nobody knows)
    by_type = False

    def __init__(
        self,
        cls: type[T],
        media_type: str,
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
        json: tuple[Callable[[T], object], Callable[[Any], T]] | None,
    ) -> None:
        self.received = (media_type,)
        self.offers = (media_type,)
        self._cls = cls
        self._header = kinds.registered_header(cls)
        self._encode = encode
        self._decode = decode
        self._json = json
        self.schema: Mapping[str, object] = {"description": f"A value of {cls.__name__}."}
        if json is None:
            self.schema = {
                "type": "string",
                "contentEncoding": "base64",
                "contentMediaType": media_type,
            }

    def read(self, value: object) -> T:
        """Return the value in what a client sent.

        Raises:
            Misfit: it is none.
        """
        if isinstance(value, self._cls):
            return value
        try:
            if isinstance(value, bytes):
                found = self._decode(value)
            elif self._json is not None and type(value) in _OF_JSON:
                found = self._json[1](value)
            elif isinstance(value, str):
                found = self._decode(binascii.a2b_base64(value, strict_mode=True))
            else:
                raise Misfit(f"Expected base64, got `{type(value).__name__}`")
        except (Misfit, MemoryError):
            raise
        except Exception:  # the user's code, at bytes of anybody: whatever it is, they do not fit
            raise Misfit(f"it is no {self._cls.__name__} that can be read", "value_error") from None
        if not isinstance(found, self._cls):
            raise Misfit(f"it is no {self._cls.__name__} that can be read", "value_error")
        return found

    @staticmethod
    def takes(media_type: str) -> bool:
        """Return True: it is read whatever its type is said to be."""
        return True

    def fault(self, media_type: str, options: Mapping[str, object]) -> str | None:
        """Return what is wrong with sending a value so."""
        if media_type != self.offers[0]:
            return f"{self._cls.__name__} is sent as {self.offers[0]}"
        return no_options(media_type, options)

    def write(self, value: object, media_type: str, options: Mapping[str, object]) -> bytes:
        """Return a value as a file.

        Raises:
            TypeError: it is none of the class, or the user's code makes no bytes of it.
        """
        if not isinstance(value, self._cls):
            raise TypeError(f"Expected `{self._cls.__name__}`, got `{type(value).__name__}`")
        found: object = self._encode(value)
        if not isinstance(found, (bytes, bytearray, memoryview)):
            raise TypeError(
                f"what encodes {self._cls.__name__} returned {type(found).__name__}, not bytes"
            )
        return bytes(found)

    def plain(self, value: object) -> object:
        """Return what everybody gets in place of a value.

        Raises:
            TypeError: as of `write`.
        """
        if self._json is None:
            return self.write(value, self.offers[0], {})
        return self._json[0](cast(T, value))

    def packs_quickly(self, value: object) -> bool:
        """Return False: nobody knows."""
        return False

    def pack(self, value: object) -> tuple[bytes, memoryview]:
        """Return a value as a header and its bytes.

        Raises:
            TypeError: as of `write`.
        """
        return self._header, memoryview(self.write(value, self.offers[0], {}))

    def unpack(self, header: memoryview, payload: memoryview | None = None) -> T:
        """Return the value that `pack` has made these of.

        Raises:
            Misfit: they are none.
        """
        return self.read(bytes(header[len(self._header) :] if payload is None else payload))
