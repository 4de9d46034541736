"""Bytes: a file as it is, whatever is in it."""

from __future__ import annotations

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
    def write(value: object, media_type: str) -> bytes:
        """Return the bytes as they are.

        Raises:
            TypeError: there are none.
        """
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        raise TypeError(f"Expected `bytes`, got `{type(value).__name__}`")
