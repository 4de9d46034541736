"""Bytes: a file as it is, whatever is in it."""

from __future__ import annotations

from collections.abc import Mapping

from graphserve.wire.exceptions import Misfit

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


def no_options(media_type: str, options: Mapping[str, object]) -> str | None:
    """Return why a result that is sent as it is has none of these options; None without any."""
    if not options:
        return None
    return f"{next(iter(options))!r}: {media_type} is sent as it is, and takes no options"
