"""Raw connections to a graph's public port, for tests: send bytes, read all answers, and what ended
the connection.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h11

from tests.harness import Served


@dataclass(frozen=True)
class Answer:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> Any:
        """Its problem."""
        assert self.headers["content-type"] == "application/problem+json", self
        return json.loads(self.body)


def address(graph: Served) -> tuple[str, int]:
    """Where a graph listens on TCP."""
    host, _, port = graph.url.partition("://")[2].rpartition(":")
    return host, int(port)


@contextlib.contextmanager
def connected(graph: Served, timeout: float = 30) -> Iterator[socket.socket]:
    """A connection; its operations have a deadline."""
    with socket.create_connection(address(graph), timeout) as sock:
        yield sock


def exchange(graph: Served, *parts: bytes) -> list[Answer]:
    """Send these parts one after the other, no more, and read every answer until the server ends
    the connection.
    """
    with connected(graph) as sock:
        for part in parts:
            try:
                sock.sendall(part)
            except ConnectionError:  # it has refused already
                break
        return answers(read_to_end(sock))


def sends_on(graph: Served, request: bytes) -> list[Answer]:
    """Send a request whose answer is the last one of its connection, send more when that has come
    and the server sends no more, and read to the end.

    Raises:
        ConnectionResetError: what was sent behind it was answered by a reset.
    """
    with connected(graph) as sock:
        sock.sendall(request)
        ended = select.poll()
        ended.register(sock, select.POLLRDHUP)
        assert ended.poll(30_000), "the server does not end the connection"
        for _ in range(3):
            sock.sendall(b"GET /more HTTP/1.1\r\nhost: x\r\n\r\n")
        received = b""
        while data := sock.recv(65536):
            received += data
    return answers(received, ended=True)


def read_to_end(sock: socket.socket) -> bytes:
    """All that comes until the other side ends the connection, or resets it, since it leaves
    something unread.
    """
    received = b""
    try:
        while data := sock.recv(65536):
            received += data
    except ConnectionResetError:
        if not received:
            raise
    return received


def answers(received: bytes, ended: bool = False) -> list[Answer]:
    """The answers in these bytes, as h11 reads them; interim ones are left out.

    Args:
        received: what came.
        ended: whether the end of the connection is the end of the last answer.
    """
    client = h11.Connection(h11.CLIENT)
    found: list[Answer] = []
    client.receive_data(received)
    if ended:
        client.receive_data(b"")
    while True:
        client.send(
            h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")])
        )
        client.send(h11.EndOfMessage())
        answer = _next(client)
        if answer is None:
            assert not client.trailing_data[0], client.trailing_data
            return found
        found.append(answer)
        if client.our_state is not h11.DONE or client.their_state is not h11.DONE:
            assert not client.trailing_data[0], client.trailing_data
            return found
        client.start_next_cycle()


def _next(client: h11.Connection) -> Answer | None:
    head, body = None, b""
    while True:
        event = client.next_event()
        if isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return Answer(
                head.status_code, {n.decode(): v.decode() for n, v in head.headers}, bytes(body)
            )
        elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
            assert head is None, "an answer is cut off"
            return None
