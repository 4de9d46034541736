"""Sends a file on disk as an answer: from the disk, a piece at a time, while the client takes it.

Runs in workers. A part of it is sent who asks for a range, and nothing who has it already
(RFC 9110, 13 and 14): only GET knows these.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from graphserve.call.request_head import Fields
from graphserve.logs import records
from graphserve.wire.headers import CONTENT_LENGTH, CONTENT_TYPE, MOST_DIGITS, http_date
from graphserve.worker.dispatch.executor import Executor
from graphserve.worker.dispatch.opened import OpenedFile
from graphserve.worker.http.response import Responder
from graphserve.worker.http.transport import FlowControl, Writer

LOGGER = "graphserve.port"

if TYPE_CHECKING:
    from graphserve.call.context import CallContext

# bytes that are read at a time: the most to who takes them quickly, the least to all others, for
# whom they wait in memory
PIECE = 256 * 1024
LARGE_PIECE = 1024 * 1024
QUICK = 0.05  # seconds in which a client takes a piece that gets larger ones
_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]+(?: [A-Za-z0-9._-]+)*\Z")


class FiledRequest(Protocol):
    """A request as its file answer knows it."""

    @property
    def context(self) -> CallContext:
        """Return what travels with the call."""
        ...

    @property
    def flow(self) -> FlowControl:
        """Return what says whether the client takes what is written."""
        ...

    @property
    def keep_alive(self) -> bool:
        """Return whether the connection stays open behind the answer."""
        ...

    @property
    def lost(self) -> bool:
        """Return whether the client is gone."""
        ...

    @property
    def responder(self) -> Responder:
        """Return what makes the bytes of answers."""
        ...

    @property
    def transport(self) -> Writer:
        """Return where the answer is written."""
        ...

    def close_after_answer(self) -> None:
        """Close the connection behind the answer."""

    def finish(self, status: int, data: bytes = b"") -> None:
        """Complete the answer with these bytes."""


@dataclass(frozen=True)
class FilePart:
    """Says which part of a file is sent.

    Args:
        status: of the answer.
        start: of the part.
        length: bytes.
        fields: headers that say so.
    """

    status: int
    start: int
    length: int
    fields: tuple[tuple[bytes, bytes], ...] = ()


def part_of(size: int, modified_ns: int, asked: Mapping[bytes, bytes]) -> FilePart:
    """Return which part of a file answers a GET.

    Args:
        size: of the file.
        modified_ns: when it was changed last, in nanoseconds since 1970.
        asked: the headers of the request that say what is wanted; names in lower case.
    """
    tag = etag(size, modified_ns)
    matches = asked.get(b"if-none-match")
    if matches is not None:
        tags = [each.strip().removeprefix(b"W/") for each in matches.split(b",")]
        if matches.strip() == b"*" or tag in tags:
            return FilePart(304, 0, 0)
    elif (since := asked.get(b"if-modified-since")) is not None:
        at = _seconds(since)
        if at is not None and modified_ns // 10**9 <= at:
            return FilePart(304, 0, 0)
    whole = FilePart(200, 0, size)
    wanted = asked.get(b"range")
    if wanted is None or not _is_current(asked.get(b"if-range"), tag, modified_ns):
        return whole
    found = _RANGE.match(wanted.decode("latin-1").strip())
    if found is None or len(wanted) > 2 * MOST_DIGITS or found[1] == found[2] == "":
        return whole  # (several parts, or another unit: who asks takes all of it)
    if found[1]:
        start = int(found[1])
        end = min(int(found[2]), size - 1) if found[2] else size - 1
        if found[2] and int(found[2]) < start:
            return whole
    else:
        start = max(0, size - int(found[2]))
        end = size - 1
    if start >= size:
        return FilePart(416, 0, 0, ((b"content-range", b"bytes */%d" % size),))
    said = b"bytes %d-%d/%d" % (start, end, size)
    return FilePart(206, start, end - start + 1, ((b"content-range", said),))


def etag(size: int, modified_ns: int) -> bytes:
    """Return what tells one state of a file from another."""
    return b'"%x-%x"' % (modified_ns, size)


def disposition(path: str) -> bytes:
    """Return the Content-Disposition of a file: it is saved, under its own name, and no page."""
    name = os.path.basename(path)
    if _PLAIN_NAME.match(name):
        return b'attachment; filename="%b"' % name.encode()
    shown = quote(os.fsencode(name), safe="")
    return b"attachment; filename*=UTF-8''" + shown.encode()


def _is_current(condition: bytes | None, tag: bytes, modified_ns: int) -> bool:
    """Return whether If-Range is true, or is not there."""
    if condition is None or condition == tag:
        return True
    return _seconds(condition) == modified_ns // 10**9


def _seconds(date: bytes) -> float | None:
    try:
        return parsedate_to_datetime(date.decode("latin-1")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


class FileAnswer:
    """Sends one file.

    Args:
        request: the request.
        executor: has the threads that read the disk.
        file: open.
        part: of it that is sent.
        status: that user code has set; it counts where all is sent.
        fields: headers that user code has set, which are said in place of ours.
        head_only: whether the file itself is not asked for.
    """

    def __init__(
        self,
        request: FiledRequest,
        executor: Executor,
        file: OpenedFile,
        part: FilePart,
        status: int = 200,
        fields: Fields = (),
        *,
        head_only: bool = False,
    ) -> None:
        self._request = request
        self._executor = executor
        self._file = file
        self._part = part
        self._status = status if part.status == 200 else part.status
        self._fields = fields
        self._head_only = head_only
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._task = self._executor.loop.create_task(self._send())

    def _head(self) -> bytes:
        file, part, request = self._file, self._part, self._request
        said = {name for name, _ in self._fields}
        ours: list[tuple[bytes, bytes]] = []
        if part.status in (200, 206):
            ours += [(CONTENT_TYPE, file.content_type), (b"x-content-type-options", b"nosniff")]
            ours.append((b"content-disposition", disposition(file.path)))
        if part.status != 304:
            ours.append((CONTENT_LENGTH, b"%d" % part.length))
        ours += [
            (b"accept-ranges", b"bytes"),
            (b"etag", etag(file.size, file.modified_ns)),
            (b"last-modified", http_date(file.modified_ns // 10**9)),
            *part.fields,
        ]
        fields = [field for field in ours if field[0] not in said]
        return request.responder.said(
            self._status,
            [*fields, *self._fields],
            b"",
            None,
            request.context.request_id,
            request.keep_alive,
        )

    async def _send(self) -> None:
        request, part = self._request, self._part
        try:
            head = self._head()
            if self._head_only or not part.length:
                request.finish(self._status, head)
                return
            request.transport.write(head)
            await self._send_content(part.start, part.start + part.length)
        except Exception as exc:
            # A transport refuses to write a turn before its request is told that the client left.
            await asyncio.sleep(0)
            if not request.lost:
                self._cut()
                records.note(LOGGER, "error", f"sending the file {self._file.path} failed", exc)
        finally:
            self._file.file.close()

    async def _send_content(self, at: int, end: int) -> None:
        request, loop, decoders = self._request, self._executor.loop, self._executor.decoders
        descriptor = self._file.file.fileno()
        piece = PIECE
        while not request.lost:
            wanted = min(piece, end - at)
            data = await loop.run_in_executor(decoders, os.pread, descriptor, wanted, at)
            if not data:  # somebody has cut the file
                self._cut()
                return
            at += len(data)
            if at >= end:
                request.finish(self._status, data)
                return
            written = loop.time()
            request.transport.write(data)
            if request.flow.write_paused:
                await request.flow.drain()
            piece = LARGE_PIECE if loop.time() - written < QUICK else PIECE

    def _cut(self) -> None:
        """End the answer before its end, which its length tells the client."""
        self._request.close_after_answer()
        self._request.finish(self._status)
