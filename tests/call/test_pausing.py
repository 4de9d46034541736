"""A connection whose reader was held back by a slow consumer: it reads on when its next request is
sent.
"""

from __future__ import annotations

import asyncio
import socket

from graphserve.call.connection import Connection
from graphserve.loop.poller import Poller


class Reader:
    """Who takes an answer: a stream, held back at its first chunk, or a plain one."""

    bodiless = False

    def __init__(self, connection: Connection | None = None) -> None:
        self.connection, self.streams = connection, connection is not None
        self.got = b""
        self.over = asyncio.Event()

    def head(self, headers: list[tuple[bytes, bytes]], status: int = 200) -> None:
        pass

    def chunk(self, data: bytes) -> None:
        assert self.connection is not None
        self.got += data
        self.connection.pause()

    def answered(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.got += body
        self.over.set()

    def lost(self, reason: str, unread: bool) -> None:
        raise AssertionError(reason)


def test_a_stream_that_ends_while_it_is_held_back_leaves_a_connection_that_reads() -> None:
    async def run() -> tuple[bytes, bytes]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        idle: list[Connection] = []
        connection = Connection(ours, idle.append, lambda _: None)
        stream, plain = Reader(connection), Reader()
        connection.send(b"POST /stream HTTP/1.1\r\n\r\n", stream)
        # All of the answer comes with one read: its end is seen while the consumer holds it back.
        theirs.sendall(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nitem\r\n0\r\n\r\n"
        )
        await asyncio.wait_for(stream.over.wait(), 10)
        assert idle == [connection]
        connection.send(b"POST /plain HTTP/1.1\r\n\r\n", plain)
        theirs.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await asyncio.wait_for(plain.over.wait(), 10)
        connection.close()
        theirs.close()
        return stream.got, plain.got

    assert asyncio.run(run()) == (b"item", b"ok")


def test_a_reader_that_is_added_twice_is_one() -> None:
    async def run() -> tuple[list[int], bool, bool]:
        ours, theirs = socket.socketpair()
        called: list[int] = []
        readers, over = Poller(asyncio.get_running_loop()), asyncio.Event()

        def second() -> None:
            called.append(len(ours.recv(10)))
            over.set()

        readers.add_reader(ours, lambda: called.append(0))
        readers.add_reader(ours, second)
        theirs.sendall(b"word")
        await asyncio.wait_for(over.wait(), 10)
        removed = readers.remove_reader(ours), readers.remove_reader(ours)
        ours.close()
        theirs.close()
        return called, *removed

    assert asyncio.run(run()) == ([4], True, False)
