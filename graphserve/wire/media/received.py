"""Holds the files of one request, beside its other arguments: a body that is a file, and the parts
of a form.

Runs in workers, on the public's bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.msgpack import Ext

from graphserve.wire.exceptions import Misfit

RECEIVED = 6  # the extension type that stands for a file of the same request


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """Describes a file that a client sent.

    Args:
        data: its bytes.
        media_type: what the client says that it is, without parameters, in lower case; empty if it
            does not say it.
    """

    data: bytes
    media_type: str


class ReceivedFiles:
    """Has the files of one request; its other arguments refer to them."""

    __slots__ = ("_files",)

    def __init__(self) -> None:
        self._files: list[ReceivedFile] = []

    def add(self, file: ReceivedFile) -> Ext:
        """Take a file, and return what stands for it among the arguments, in msgpack."""
        self._files.append(file)
        return Ext(RECEIVED, b"%d" % (len(self._files) - 1))

    def __getitem__(self, reference: memoryview) -> ReceivedFile:
        """Return the file that stands there.

        Raises:
            Misfit: there is none.
        """
        said = bytes(reference)
        if not said.isdigit() or len(said) > 6 or int(said) >= len(self._files):
            raise Misfit("it refers to a file that is not there")
        return self._files[int(said)]

    def __bool__(self) -> bool:
        return bool(self._files)
