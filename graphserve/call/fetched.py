"""Files on disk that services have answered with: they belong to the call that asked for them, and
are removed with it.

Runs in workers, and where `local()` was called. What a service elsewhere answers with is written as
it comes (`write_file`). What another worker of this graph has so, the caller takes over with the
folder that it is in (`FetchedFiles.reading`), since the call there has ended.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import os
import re
import shutil
from collections.abc import AsyncIterable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from urllib.parse import unquote

from graphserve.call.context import CallContext
from graphserve.wire.media.received import (
    CallFolder,
    DiskFile,
    call_folder,
    moved_folder,
    suffix_of,
)

# Seconds that the files of a call stay when it has ended but somebody may still take them: the
# caller of a stream, those of a batch, or one that was answered and takes them over now.
LINGER = 60.0
THREADS = 2  # that write to disk
LONGEST_NAME = 180  # bytes

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # of an OSError: the disk is
_NAME = re.compile(r"[^\W_][\w.,()+@ -]{0,98}[\w)]|[^\W_]")  # of a file, as we keep it
_EXTENDED = re.compile(r";\s*filename\*\s*=\s*utf-8''([^;\s]+)", re.IGNORECASE)
_QUOTED = re.compile(r';\s*filename\s*=\s*(?:"([^"\\]*)"|([^\s";]+))', re.IGNORECASE)


class WrittenFile(bytes):
    """Takes the place of the body of an answer that was written to disk: the path of the file."""


class FetchedFiles:
    """Says in which folder a file is put that comes as an answer.

    Args:
        parent: the folder that it is made in, which is ours alone.
        by_call: whether each call has a folder of its own, which somebody removes with it. If not,
            all files stay until `close`.
    """

    def __init__(self, parent: str, *, by_call: bool) -> None:
        self._parent = parent
        self._by_call = by_call
        # of what no call asks for: it is asked for in `__init__`, say, or in a task that goes on
        self._kept = CallFolder(parent)

    def folder(self, context: CallContext | None) -> CallFolder:
        """Return the folder for the files that a call asks for."""
        if context is None or context.over or not self._by_call:
            return self._kept
        if context.files is None:
            context.files = CallFolder(self._parent)
        return context.files

    @contextlib.contextmanager
    def reading(self, context: CallContext | None, sent: bytes | None) -> Iterator[None]:
        """Read an answer within that may have files in it, for a call.

        Args:
            context: the call that gets it.
            sent: the folder that a worker of this graph has handed over with it (`handed_over`).

        Raises:
            OSError: that folder is gone.
        """
        folder = self.folder(context)
        moved = None if sent is None else self._take_over(folder, os.fsdecode(_decoded(sent)))
        folder_token = call_folder.set(folder)
        moved_token = moved_folder.set(moved)
        try:
            yield
        finally:
            moved_folder.reset(moved_token)
            call_folder.reset(folder_token)

    def close(self) -> None:
        """Remove the files that belong to no call."""
        self._kept.remove()

    def _take_over(self, folder: CallFolder, path: str) -> tuple[str, str]:
        # Only what another worker of this run would have made is moved: `<run>/n1/5.files/call-x`.
        run = os.path.dirname(os.path.dirname(self._parent))
        inside = os.path.relpath(path or "/", run).split(os.sep)
        if os.path.normpath(path) != path or len(inside) != 3 or not inside[1].endswith(".files"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return path, folder.take_in(path)


def _decoded(sent: bytes) -> bytes:
    try:
        return base64.b64decode(sent, validate=True)
    except ValueError:
        return b""


def handed_over(folder: CallFolder) -> bytes:
    """Return what says to a caller in this run that the files in a folder are its own now."""
    return base64.b64encode(os.fsencode(folder.path))


def remove_handed_over(sent: bytes) -> None:
    """Remove a folder that was handed over."""
    _submit(partial(shutil.rmtree, os.fsdecode(_decoded(sent)), ignore_errors=True))


def remove_later(folder: CallFolder) -> None:
    """Remove a folder when nobody can still take what is in it."""
    asyncio.get_running_loop().call_later(LINGER, _submit, folder.remove)


def remove_soon(context: CallContext) -> None:
    """Remove the files of a call that has ended, and that nobody else has."""
    if context.files is not None:
        _submit(context.files.remove)
        context.files = None


def _submit(remove: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the process ends, and its folder with it
        _threads().submit(remove)


async def write_file(folder: CallFolder, name: str, chunks: AsyncIterable[bytes]) -> DiskFile:
    """Write a file as it comes, and return it: closed, with all that came.

    What was written is removed if not all comes, or if this is cancelled.

    Args:
        folder: where it is put.
        name: as `name_of` says it.
        chunks: what is in it.

    Raises:
        OSError: it cannot be written.
    """
    loop = asyncio.get_running_loop()
    file = folder.file(*os.path.splitext(name))
    writing: asyncio.Future[None] | None = None
    try:
        async for chunk in chunks:
            writing = loop.run_in_executor(_threads(), file.write, chunk)
            # (a thread cannot be cancelled: it ends before the file is closed)
            await asyncio.shield(writing)
    except BaseException:
        if writing is None or writing.done():
            _submit(file.discard)
        else:
            writing.add_done_callback(partial(_discard, file))
        raise
    file.close()
    return file


def _discard(file: DiskFile, written: asyncio.Future[None]) -> None:
    if not written.cancelled():
        written.exception()  # looked at: what ended it says more
    file.discard()


def name_of(disposition: str, media_type: str, otherwise: str) -> str:
    """Return the name that a file gets here: the one that its service gives it, if that is a plain
    one, and a suffix by its media type, if it has none.

    Args:
        disposition: the Content-Disposition of the answer.
        media_type: of the answer, without parameters.
        otherwise: the name without its suffix, where the service gives none that can be used.
    """
    import unicodedata

    said = ""
    if found := _EXTENDED.search(disposition):
        said = unquote(found[1], errors="replace")
    elif found := _QUOTED.search(disposition):
        said = found[1] or found[2] or ""
    name = unicodedata.normalize("NFC", said)
    # (some file systems bound the name by its bytes)
    if not _NAME.fullmatch(name) or len(name.encode()) > LONGEST_NAME:
        name = otherwise + suffix_of(name, "")
    return name if os.path.splitext(name)[1] else name + suffix_of("", media_type)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="graphserve-files")
