"""Holds the files of one request, beside its other arguments: a body that is a file, and the parts
of a form; in memory, or on disk in a folder that is removed with the call.

Runs in workers, on the public's bytes.
"""

from __future__ import annotations

import contextlib
import os
import re
from contextvars import ContextVar
from dataclasses import dataclass

from msgspec.msgpack import Ext

from graphserve.wire.exceptions import Misfit

RECEIVED = 6  # the extension type that stands for a file of the same request
# What is kept of the name that a client gives a file: by the end of it libraries know what it is.
_SUFFIX = re.compile(r"(?:\.tar)?\.[a-z0-9]{1,12}\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """Describes a file that a client sent.

    Args:
        data: its bytes; empty if it is on disk.
        media_type: what the client says that it is, without parameters, in lower case; empty if it
            does not say it.
        path: where it is on disk, if it is there.
    """

    data: bytes
    media_type: str
    path: str | None = None


class ReceivedFiles:
    """Has the files of one request; its other arguments refer to them."""

    __slots__ = ("_files",)

    def __init__(self) -> None:
        self._files: list[ReceivedFile | bytes] = []

    def add(self, file: ReceivedFile | bytes) -> Ext:
        """Take a file, or bytes that are to be a value as they are, and return what stands for it
        among the arguments, in msgpack.
        """
        self._files.append(file)
        return Ext(RECEIVED, b"%d" % (len(self._files) - 1))

    def __getitem__(self, reference: memoryview) -> ReceivedFile | bytes:
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


class CallFolder:
    """The folder with the files of one call, which is made when the first of them comes.

    Args:
        parent: where it is made; a folder that is ours alone.
    """

    def __init__(self, parent: str) -> None:
        self._parent = parent
        self._path = ""
        self._files = 0
        self._removed = False
        self._taken_in: list[str] = []  # folders of other calls, whose files are of this one now

    def file(self, name: str, suffix: str) -> DiskFile:
        """Make a file for a parameter.

        Args:
            name: the parameter, which is no word of the client.
            suffix: see `suffix_of`.
        """
        if not self._path:
            os.makedirs(self._parent, 0o700, exist_ok=True)
            import tempfile

            self._path = tempfile.mkdtemp(prefix="call-", dir=self._parent)
        if self._removed:  # (by the loop, while a thread went on)
            self.remove()
            raise FileNotFoundError(self._path)
        self._files += 1
        number = f"-{self._files}" if self._files > 1 else ""
        return DiskFile(os.path.join(self._path, f"{name}{number}{suffix}"))

    def take_in(self, path: str) -> str:
        """Take over the folder of another call, which is removed with this one; return where it is
        now.

        Raises:
            OSError: it is gone.
        """
        os.makedirs(self._parent, 0o700, exist_ok=True)
        moved = os.path.join(self._parent, os.path.basename(path))
        os.rename(path, moved)
        self._taken_in.append(moved)
        if self._removed:
            self.remove()
        return moved

    def remove(self) -> None:
        """Remove it, with all that is in it; no file is made there any more."""
        self._removed = True
        for path in (self._path, *self._taken_in):
            if path:
                import shutil

                shutil.rmtree(path, ignore_errors=True)

    @property
    def path(self) -> str:
        """Return where it is; empty if it has no files of its own."""
        return self._path

    def __bool__(self) -> bool:
        return bool(self._path)


class DiskFile:
    """A file on disk that is being written.

    Args:
        path: where it is made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)

    def write(self, data: bytes | memoryview) -> None:
        """Write more of it."""
        rest = memoryview(data)
        while rest.nbytes:
            rest = rest[os.write(self._descriptor, rest) :]
        self.size += len(data)

    def close(self) -> None:
        """End it, if that was not done yet."""
        descriptor = self._descriptor
        self._descriptor = -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def discard(self) -> None:
        """End it, and remove it."""
        self.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def __del__(self) -> None:
        self.close()


def suffix_of(filename: str, media_type: str) -> str:
    """Return the end of a file's name: of the one that its client gives it, or by its media
    type; empty if neither says it.
    """
    if (found := _SUFFIX.search(filename)) is not None:
        return found[0].lower()
    if media_type == "application/octet-stream":  # (it may be anything)
        return ""
    import mimetypes

    return mimetypes.guess_extension(media_type) or ""


# Where a file is put that is not on disk yet, while the arguments of a call are read.
call_folder: ContextVar[CallFolder | None] = ContextVar("graphserve_call_folder", default=None)
# The folder of another call that was taken in with the answer that is read: where it was, and where
# it is now.
moved_folder: ContextVar[tuple[str, str] | None] = ContextVar("graphserve_moved", default=None)
