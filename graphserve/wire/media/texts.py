"""Text that leaves as it is, as HTML or CSV: a result of `str` whose `Media` says so."""

from __future__ import annotations

from collections.abc import Mapping

from graphserve.wire.exceptions import Misfit
from graphserve.wire.media.octets import no_options


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
