"""What is sent as it is: bytes, whatever is in them, and text, as HTML or CSV (a result of `str`
whose `Media` says so).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphserve.wire.exceptions import Misfit

if TYPE_CHECKING:
    from graphserve.wire.media.kinds import MediaKind

ANY = "application/octet-stream"


class Octets:
    """Bytes as a kind of value; msgspec knows them, as base64 in JSON."""

    received = (ANY,)
    offers = (ANY,)
    json_first = True
    is_slow = False
    by_type = False
    schema = {"type": "string", "contentEncoding": "base64"}

    @staticmethod
    def read(value: object) -> bytes:
        """Return the bytes that a client sent.

        Raises:
            Misfit: there are none.
        """
        if isinstance(value, bytes):
            return value
        raise Misfit(f"Expected `bytes`, got `{type(value).__name__}`")

    @staticmethod
    def takes(media_type: str) -> bool:
        """Return True: it is read whatever its type is said to be."""
        return True

    @staticmethod
    def fault(media_type: str, options: Mapping[str, object]) -> str | None:
        """Return what is wrong with it: bytes may be of any type."""
        return no_options(media_type, options)

    @staticmethod
    def write(value: object, media_type: str, options: Mapping[str, object]) -> bytes:
        """Return the bytes as they are.

        Raises:
            TypeError: there are none.
        """
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        raise TypeError(f"Expected `bytes`, got `{type(value).__name__}`")


class Texts:
    """Text as a kind of value that a result may be sent as; everywhere else it is JSON."""

    received = ()
    offers = ()
    json_first = False
    is_slow = False
    by_type = False
    schema = {"type": "string"}

    @staticmethod
    def read(value: object) -> str:
        """Refuse it: what a client sends as text is JSON, or bytes.

        Raises:
            Misfit: always.
        """
        raise Misfit("text does not come as a file")

    @staticmethod
    def takes(media_type: str) -> bool:
        """Return True: it is read whatever its type is said to be."""
        return True

    @staticmethod
    def fault(media_type: str, options: Mapping[str, object]) -> str | None:
        """Return what is wrong with it: it may be of any type."""
        return no_options(media_type, options)

    @staticmethod
    def write(value: object, media_type: str, options: Mapping[str, object]) -> bytes:
        """Return the text in UTF-8.

        Raises:
            TypeError: it is none.
        """
        if isinstance(value, str):
            return value.encode()
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")


def no_options(media_type: str, options: Mapping[str, object]) -> str | None:
    """Return why a result that is sent as it is has none of these options; None without any."""
    if not options:
        return None
    return f"{next(iter(options))!r}: {media_type} is sent as it is, and takes no options"


OCTETS: MediaKind = Octets()
TEXT: MediaKind = Texts()
