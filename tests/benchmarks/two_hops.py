"""`python -m tests.benchmarks.two_hops`: how far a producer is ahead of a client that takes nothing,
and how long after a client has left it is stopped, two hops away.

Also a graph, which runs in graphserve's workers: the producer notes in a file what it has made and
when it was stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import mmap
import os
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from starlette.websockets import WebSocket

from graphserve import api, depends, service, websocket
from tests.harness import APPS, LONG, Served, eventually, served

SIZE = 16 * 1024  # bytes of an item
TO_LEAVE = 50
WAYS = ("stream", "bytes", "upload", "websocket")
UPGRADE = (
    "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip


class Notes:
    """What a producer has made, or a consumer taken, and when it was stopped; in memory of a file."""

    # pieces, runs that have begun and that have ended, and when the last one has (CLOCK_MONOTONIC)
    layout = struct.Struct("qqqd")

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(descriptor, mmap.PAGESIZE)
        self._memory = mmap.mmap(descriptor, mmap.PAGESIZE)
        os.close(descriptor)

    @property
    def pieces(self) -> int:
        """How many pieces there were."""
        return int(self._read()[0])

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        _, begun, ended, _ = self._read()
        return begun > ended

    @property
    def stopped(self) -> float:
        """When it was stopped."""
        return self._read()[3]

    def begin(self) -> None:
        """Note that it runs."""
        _, begun, ended, when = self._read()
        self.layout.pack_into(self._memory, 0, 0, begun + 1, ended, when)

    def piece(self) -> None:
        """Count one more."""
        pieces, *rest = self._read()
        self.layout.pack_into(self._memory, 0, pieces + 1, *rest)

    def end(self) -> None:
        """Note that it was stopped."""
        pieces, begun, ended, _ = self._read()
        self.layout.pack_into(self._memory, 0, pieces, begun, ended + 1, time.monotonic())

    def _read(self) -> tuple[int, int, int, float]:
        return self.layout.unpack_from(self._memory)


@service
class Far:
    def __init__(self) -> None:
        self.notes = Notes(Path(os.environ["NOTES"]))

    @api
    async def items(self) -> AsyncIterator[str]:
        self.notes.begin()
        try:
            while True:
                self.notes.piece()
                yield "x" * SIZE
        finally:
            self.notes.end()

    @api
    async def bytes(self) -> AsyncIterator[bytes]:
        self.notes.begin()
        try:
            while True:
                self.notes.piece()
                yield b"x" * SIZE
        finally:
            self.notes.end()

    @api
    async def takes(self, data: AsyncIterator[bytes], most: int) -> int:
        """Take so many pieces, and then nothing until the sender has left."""
        self.notes.begin()
        try:
            async for _ in data:
                self.notes.piece()
                if self.notes.pieces == most:
                    break
            await asyncio.Event().wait()
        finally:
            self.notes.end()
        return 0


@service
class Middle:
    far = depends(Far)

    @api
    async def items(self) -> AsyncIterator[str]:
        async for item in self.far.items():
            yield item

    @api
    async def bytes(self) -> AsyncIterator[bytes]:
        async for chunk in self.far.bytes():
            yield chunk

    @api
    async def takes(self, data: AsyncIterator[bytes], most: int) -> int:
        return await self.far.takes(data, most)


@service
class Gateway:
    middle = depends(Middle)

    @api(method="GET")
    async def stream(self) -> AsyncIterator[str]:
        async for item in self.middle.items():
            yield item

    @api(method="GET")
    async def bytes(self) -> AsyncIterator[bytes]:
        async for chunk in self.middle.bytes():
            yield chunk

    @api
    async def upload(self, data: AsyncIterator[bytes], most: int = 1) -> int:
        return await self.middle.takes(data, most)

    @websocket
    async def websocket(self, socket: WebSocket) -> None:
        await socket.accept()
        async for item in self.middle.items():
            await socket.send_text(item)


@contextlib.contextmanager
def graph() -> Iterator[tuple[Served, Notes]]:
    """The graph, and the notes of its producer."""
    with tempfile.TemporaryDirectory(prefix="gs-") as folder:
        path = Path(folder) / "notes"
        options = ("--max-body-size", "1GB", "--timeout", "300")
        target = "tests.benchmarks.two_hops:Gateway"
        with served(target, *options, env={"NOTES": str(path)}, cwd=APPS.parent.parent) as graph:
            yield graph, Notes(path)


@contextlib.contextmanager
def client(graph: Served, way: str) -> Iterator[socket.socket]:
    """A client that has asked, and takes nothing more than the first bytes of the answer."""
    host, _, port = graph.url.partition("://")[2].rpartition(":")
    fields = [f"Host: {host}", *(UPGRADE if way == "websocket" else ())]
    method = "GET"
    if way == "upload":
        method = "POST"
        fields += ["Content-Type: a/b", "Transfer-Encoding: chunked"]
    with socket.socket() as sock:
        sock.settimeout(LONG)
        # what the client's side of the kernel holds would say nothing of the server
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        sock.connect((host, int(port)))
        head = "\r\n".join([f"{method} /{way} HTTP/1.1", *fields, "", ""])
        sock.sendall(head.encode())
        if way != "upload":
            assert sock.recv(4096).startswith((b"HTTP/1.1 200", b"HTTP/1.1 101"))
        yield sock


def fill(sock: socket.socket, held: Callable[[], bool]) -> int:
    """Send pieces of a body for as long as they are taken, and return how many bytes were."""
    sock.settimeout(0.05)
    # It ends with a reset: an end that waits behind what nobody reads is seen by nobody.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    piece = b"%x\r\n%b\r\n" % (SIZE, b"x" * SIZE)
    sent = 0
    rest = memoryview(b"")
    while True:
        if not rest:
            rest = memoryview(piece)
        try:
            taken = sock.send(rest)
        except TimeoutError:
            if held():
                return sent
            continue
        sent += taken
        rest = rest[taken:]


def until_still(look: Callable[[], int]) -> int:
    """Wait until a number, which is not 0, has not changed for a second, and return it."""
    before, since = look(), time.monotonic()
    end = since + LONG
    while not before or time.monotonic() - since < 1:
        assert time.monotonic() < end, "it never stands still"
        time.sleep(0.01)
        if (now := look()) != before:
            before, since = now, time.monotonic()
    return before


def ahead(graph: Served, notes: Notes, way: str) -> int:
    """How many bytes the producer is ahead of a client, or a client of the consumer, when it is
    held back.
    """
    with client(graph, way) as sock:
        if way == "upload":
            found = fill(sock, lambda: notes.runs and notes.pieces > 0)
        else:
            found = until_still(lambda: notes.pieces if notes.runs else 0) * SIZE
    eventually(lambda: not notes.runs)
    return found


def stopped_after(graph: Served, notes: Notes, way: str) -> float:
    """Seconds from the end of the client to that of the producer, or of the consumer."""
    with client(graph, way) as sock:
        if way == "upload":
            sock.sendall(b"%x\r\n%b\r\n" % (SIZE, b"x" * SIZE))
        eventually(lambda: notes.runs and notes.pieces > 0)
        left = time.monotonic()
    eventually(lambda: not notes.runs)
    return notes.stopped - left


def main(times: int) -> None:
    """Print a line for each way."""
    with graph() as (served_graph, notes):
        for way in WAYS:
            bytes_ahead = ahead(served_graph, notes, way)
            took = [stopped_after(served_graph, notes, way) * 1e3 for _ in range(times)]
            print(
                f"{way:10} ahead {bytes_ahead / 1e6:5.2f} MB; stopped after"
                f" {statistics.median(took):5.1f} ms (median of {times}), {max(took):5.1f} ms at most"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=TO_LEAVE)
    main(parser.parse_args().times)
