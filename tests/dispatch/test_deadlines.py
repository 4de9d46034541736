"""Calls that come after their deadline: they are answered so, and nothing is executed for them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from graphserve.wire.trust import MADE
from tests.harness import Served, eventually, served, sockets

Graph = tuple[Served, Path]


@pytest.fixture
def graph(run_dir: Path) -> Iterator[Graph]:
    with served("deadlines:Node", "--run-dir", str(run_dir)) as graph:
        yield graph, run_dir


def connect(path: Path, api: str, xs: list[int], deadline_ns: int) -> socket.socket:
    """A call on a socket of the run folder, whose deadline is a point in time."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(str(path))
    body = json.dumps({"xs": xs}).encode()
    head = (
        MADE.opening + b"POST /%b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        b"content-type: application/json\r\n" % api.encode()
    )
    sock.sendall(
        head
        + b"x-graphserve-deadline: %d\r\ncontent-length: %d\r\n\r\n" % (deadline_ns, len(body))
        + body
    )
    return sock


def status(sock: socket.socket) -> int:
    with sock, sock.makefile("rb") as file:
        return int(file.readline().split()[1])


def shared(run_dir: Path, name: str) -> Path:
    return next(run_dir.rglob(name))


def test_a_late_call_is_not_executed(graph: Graph) -> None:
    running, run_dir = graph
    (own,) = sockets(run_dir)
    passed, ahead = time.monotonic_ns() - 1, time.monotonic_ns() + 60 * 10**9
    for path, api in ((own, "unlimited"), (shared(run_dir, "q.sock"), "limited")):
        assert status(connect(path, api, [1], passed)) == 504
        assert status(connect(path, api, [2], ahead)) == 200
    with running.client() as client:
        assert client.post("/seen", json={}).json() == [[2], [2]]


def test_a_late_call_does_not_join_a_batch(graph: Graph) -> None:
    """Where it would take another's place: the batch closes when it has two."""
    running, run_dir = graph
    path, ahead = shared(run_dir, "b*.sock"), time.monotonic_ns() + 60 * 10**9
    first = connect(path, "joined", [1], ahead)
    eventually(lambda: waiting(run_dir) == 1)
    assert status(connect(path, "joined", [9], time.monotonic_ns() - 1)) == 504
    assert waiting(run_dir) == 1
    assert [status(connect(path, "joined", [2], ahead)), status(first)] == [200, 200]
    with running.client() as client:
        assert client.post("/seen", json={}).json() == [[1, 2]]


def waiting(run_dir: Path) -> int:
    """Calls that wait in a batch, as the worker reports it."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(run_dir / "control.sock"))) as control:
        (row,) = control.get("http://graphserve/ps").json()
    return int(row["health"].get("waiting", 0))
