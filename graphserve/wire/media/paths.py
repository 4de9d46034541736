"""Files on disk (`pathlib.Path`): written there as they come, sent from there.

A path is never what a client names: it is that of a file which the client has sent. Between
services of a graph the path itself travels.
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from graphserve.wire.exceptions import Misfit
from graphserve.wire.media.classes import MARKS
from graphserve.wire.media.octets import ANY, no_options
from graphserve.wire.media.received import ReceivedFile, call_folder, moved_folder, suffix_of

if TYPE_CHECKING:
    from graphserve.wire.media.kinds import PackedKind

_MARK = bytes([MARKS["path"]])


class FilesOnDisk:
    """Files on disk as a kind of value."""

    received = (ANY,)
    offers = (ANY,)
    json_first = False
    is_slow = True
    by_type = True
    schema = {
        "type": "string",
        "contentEncoding": "base64",
        "description": "A file, as base64.",
    }

    @staticmethod
    def read(value: object) -> Path:
        """Return where the file is that a client has sent; what is not on disk is put there.

        Raises:
            Misfit: it is none, or there is no folder for it.
        """
        if isinstance(value, Path):
            return value
        if isinstance(value, ReceivedFile) and value.path is not None:
            return Path(value.path)
        media_type = value.media_type if isinstance(value, ReceivedFile) else ""
        data = _content(value)
        folder = call_folder.get()
        if folder is None:
            raise Misfit("a file on disk cannot be taken here: send bytes", "value_error")
        file = folder.file("file", suffix_of("", media_type))
        file.write(data)
        file.close()
        return Path(file.path)

    @staticmethod
    def takes(media_type: str) -> bool:
        """Return True: it is read whatever its type is said to be."""
        return True

    @staticmethod
    def fault(media_type: str, options: Mapping[str, object]) -> str | None:
        """Return what is wrong with it: a file may be of any type."""
        return no_options(media_type, options)

    @staticmethod
    def write(value: object, media_type: str, options: Mapping[str, object]) -> bytes:
        """Return what is in a file. (At a socket, `OpenFile` sends it.)"""
        return _content_of(value)

    @staticmethod
    def plain(value: object) -> bytes:
        """Return what is in a file, which is base64 in JSON."""
        return _content_of(value)

    @staticmethod
    def packs_quickly(value: object) -> bool:
        """Return False: who is called by a URL gets what is in the file."""
        return False

    @staticmethod
    def pack(value: object) -> tuple[bytes, memoryview]:
        """Return a path, for another service on this machine."""
        assert isinstance(value, Path)
        return _MARK + os.fsencode(os.path.abspath(value)), memoryview(b"")

    @staticmethod
    def unpack(header: memoryview, payload: memoryview | None = None) -> Path:
        """Return the path that a service has sent.

        Raises:
            Misfit: it is none.
        """
        said = bytes(header[1:])
        if not said.startswith(b"/") or b"\0" in said:
            raise Misfit("it is no path")
        path = os.fsdecode(said)
        moved = moved_folder.get()
        if moved is not None and os.path.dirname(path) == moved[0]:
            path = os.path.join(moved[1], os.path.basename(path))
        return Path(path)


def _content(value: object) -> bytes:
    if isinstance(value, ReceivedFile):
        return value.data
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return binascii.a2b_base64(value, strict_mode=True)
        except (binascii.Error, ValueError):
            raise Misfit(
                "Expected a file as the body, in a form, or as base64: a path is not taken",
                "value_error",
            ) from None
    raise Misfit(f"Expected a file, got `{'null' if value is None else type(value).__name__}`")


def _content_of(value: object) -> bytes:
    if not isinstance(value, Path):
        raise TypeError(f"Expected a path, got `{type(value).__name__}`")
    try:
        return value.read_bytes()
    except OSError as exc:
        raise TypeError(f"the file {value} cannot be read: {exc.strerror}") from None


FILES_ON_DISK: PackedKind = FilesOnDisk()
