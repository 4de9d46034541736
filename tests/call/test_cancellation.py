"""Callers that leave: everything below is cancelled, in every shape of a call, and what waits is
not executed.
"""

from __future__ import annotations

import fcntl
import json
import socket
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

import graphserve
from tests.apps import leaving
from tests.harness import APPS, Served, eventually, served

ROOT = APPS.parent.parent


class State(NamedTuple):
    """See `leaving.Ledger`."""

    running: int
    begun: int
    most: int
    last: float


class Graph(NamedTuple):
    """A graph whose ledgers can be read."""

    served: Served
    folder: Path

    def state(self, node: str = "Leaf") -> State:
        return State(*leaving.Ledger.layout.unpack((self.folder / node).read_bytes()))

    def seen(self) -> list[str]:
        """What the APIs of Middle say was raised in them."""
        with self.served.client() as client:
            return client.post("/seen", json={}).json()


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    folder = tmp_path_factory.mktemp("ledgers")
    with served("tests.apps.leaving:Gateway", cwd=ROOT, env={"LEDGERS": str(folder)}) as running:
        yield Graph(running, folder)


def send(graph: Graph, api: str, arguments: dict[str, object], headers: str = "") -> socket.socket:
    """A connection on which a request was sent."""
    host, port = graph.served.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)), 10)
    body = json.dumps(arguments)
    sock.sendall(
        f"POST /{api} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"{headers}content-length: {len(body)}\r\n\r\n{body}".encode()
    )
    return sock


def leave(graph: Graph, sock: socket.socket, node: str = "Leaf") -> None:
    """Cut the line, and wait until nothing runs in the node any more, as the node itself notes
    it.
    """
    sock.close()
    eventually(lambda: graph.state(node).running == 0)


# API of Middle, executions in the leaf, what is raised where it cannot be seen from outside
WAYS = [
    ("unawaited", 2, []),
    ("blocking", 1, ["CancelledError", "CancelledError"]),
    ("blocking_stream", 1, ["CancelledError"]),
    ("by_http", 1, []),
    ("by_sync_http", 1, ["CancelledError"]),
    ("cleans_up", 1, ["cleaned up 1"]),
]


@pytest.mark.parametrize(("api", "calls", "raised"), WAYS, ids=[way[0] for way in WAYS])
def test_a_client_that_leaves_ends_all_below(
    graph: Graph, api: str, calls: int, raised: list[str]
) -> None:
    before, said = graph.state(), len(graph.seen())
    sock = send(graph, "hold", {"name": api})
    eventually(lambda: graph.state().running == calls)
    leave(graph, sock)
    eventually(lambda: graph.seen()[said:] == raised)
    assert graph.state().begun == before.begun + calls, "nothing was called after that"


@pytest.mark.parametrize("api", ["unawaited", "blocking", "by_http", "cleans_up"])
def test_what_is_cancelled_ends_before_what_began_earlier(graph: Graph, api: str) -> None:
    """Nothing below ends by itself but at its deadline, and that of the call that stays is the
    earlier one.
    """
    stays = send(graph, "call", {"name": "hold"})
    eventually(lambda: graph.state().running == 1)
    leaves = send(graph, "hold", {"name": api})
    eventually(lambda: graph.state().running == (3 if api == "unawaited" else 2))
    leaves.close()
    eventually(lambda: graph.state().running == 1)
    stays.setblocking(False)
    with pytest.raises(BlockingIOError):  # not answered: it is still the one that runs
        stays.recv(1)
    leave(graph, stays)


@pytest.mark.parametrize("api", ["hold", "block", "together", "together_in_thread"])
def test_every_kind_of_leaf_is_told(graph: Graph, api: str) -> None:
    node = "Leaf" if api == "hold" else "Narrow"
    sock = send(graph, "call", {"name": api})
    eventually(lambda: graph.state(node).running == 1)
    leave(graph, sock, node)
    with graph.served.client() as client:
        assert client.post("/narrow", json={"x": 3}).json() == 3, "the slot is free again"


NEXT = (
    b"POST /seen HTTP/1.1\r\nhost: localhost\r\nContent-Type: application/json\r\n"
    b"content-length: 2\r\n\r\n{}"
)
AHEAD = {
    "a request": NEXT, "a page": b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n", "half a request": NEXT[:-1],
    "many": NEXT * 2000, "bytes that are no request": b"\0" * 10, "more of them": b"\0" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("more", AHEAD.values(), ids=AHEAD)
def test_a_client_that_sent_ahead_and_leaves(graph: Graph, more: bytes) -> None:
    """What it sent ahead is not read before its turn, and stands before the end of the line."""
    sock = send(graph, "call", {"name": "hold"})
    eventually(lambda: graph.state().running == 1)
    sock.sendall(more)
    eventually(lambda: unsent(sock) == 0)
    leave(graph, sock)


def test_a_reader_that_leaves_ends_a_stream_three_hops_away(graph: Graph) -> None:
    sock = send(graph, "stream", {})
    assert sock.recv(1000)
    assert graph.state().running == 1
    leave(graph, sock)


@pytest.mark.parametrize("api", ["upload", "ignore_upload"])
def test_a_sender_that_leaves_ends_an_upload(graph: Graph, api: str) -> None:
    """Also one that is held back, since the API takes nothing of it."""
    host, port = graph.served.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)), 10)
    sock.sendall(
        f"POST /{api} HTTP/1.1\r\nhost: localhost\r\nContent-Type: application/octet-stream\r\n"
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n".encode()
    )
    eventually(lambda: graph.state().running == 1)
    if api == "ignore_upload":
        for _ in range(20):
            sock.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        # what the kernel still has to send stands before the end of the line
        eventually(lambda: unsent(sock) == 0)
    leave(graph, sock)


def unsent(sock: socket.socket) -> int:
    """Bytes that the other side's kernel has not taken (tcp(7), SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4), sys.byteorder)


def test_what_waits_is_not_executed(graph: Graph) -> None:
    """In the kernel's queue, behind two calls that hold all slots."""
    begun = graph.state("Narrow").begun
    holders = [send(graph, "hold", {"name": "queued"}) for _ in range(2)]
    eventually(lambda: graph.state("Narrow").running == 2)
    waiting = [send(graph, "hold", {"name": "queued"}) for _ in range(20)]
    late = send(graph, "hold", {"name": "queued"}, "x-request-timeout: 0.3\r\n")
    with late.makefile("rb") as answer:
        assert answer.readline() == b"HTTP/1.1 504 Gateway Timeout\r\n"
    late.close()
    for sock in waiting:
        sock.close()
    for sock in holders:
        sock.close()
    eventually(lambda: graph.state("Narrow").running == 0)
    with graph.served.client() as client:
        assert client.post("/narrow", json={"x": 4}).json() == 4, "its turn came after theirs"
    assert graph.state("Narrow").begun == begun + 3
    assert graph.state("Narrow").most == 2


@pytest.mark.slow
def test_a_thousand_clients_that_cut_the_line(graph: Graph) -> None:
    socks = [send(graph, "call", {"name": "hold"}) for _ in range(1000)]
    eventually(lambda: graph.state().running == 1000, 60)
    for sock in socks:
        sock.close()
    eventually(lambda: graph.state().running == 0, 60)


@pytest.mark.parametrize("api", ["block", "items", "together_in_thread"])
def test_a_thread_that_outlives_its_deadline_keeps_its_slot(graph: Graph, api: str) -> None:
    began = graph.state("Narrow").begun
    headers = "x-request-timeout: 0.2\r\nconnection: close\r\n"
    socks = [send(graph, "linger", {"name": api, "seconds": 0.5}, headers) for _ in range(6)]
    for sock in socks:
        assert b" 504 " in sock.makefile("rb").readline()
        sock.close()
    eventually(lambda: graph.state("Narrow").running == 0)
    assert graph.state("Narrow").most == 2
    assert graph.state("Narrow").begun == began + 2, "the others were late before a slot was free"


def test_a_call_from_python_that_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGERS", str(tmp_path))
    with graphserve.serve(leaving.Gateway, port=0) as server:
        state = Path(tmp_path / "Leaf").read_bytes
        call = server.call.call("hold")
        eventually(lambda: State(*leaving.Ledger.layout.unpack(state())).running == 1)
        call.cancel()
        eventually(lambda: State(*leaving.Ledger.layout.unpack(state())).running == 0)
        items = server.call.stream()
        assert next(items) == 1
        assert State(*leaving.Ledger.layout.unpack(state())).running == 1
        del items
        eventually(lambda: State(*leaving.Ledger.layout.unpack(state())).running == 0)


def test_a_call_that_was_passed_on_is_given_up_with_its_client(
    tmp_path: Path, run_dir: Path
) -> None:
    """An entry without a free slot relays to its own queue, where the kernel keeps the call."""
    arguments = ("--run-dir", str(run_dir))
    with served(
        "tests.apps.leaving:Narrow", *arguments, cwd=ROOT, env={"LEDGERS": str(tmp_path)}
    ) as running:
        graph = Graph(running, tmp_path)
        holders = [send(graph, "hold", {}) for _ in range(2)]
        eventually(lambda: graph.state("Narrow").running == 2)
        relayed = [send(graph, "hold", {}) for _ in range(5)]
        eventually(lambda: in_flight(run_dir) == 7)
        for sock in relayed:
            sock.close()
        eventually(lambda: in_flight(run_dir) == 2)
        for sock in holders:
            sock.close()
        with running.client() as client:
            assert client.post("/quick", json={"x": 3}).json() == 3
        assert graph.state("Narrow").begun == 3, "the two that held, and this one"


def in_flight(run_dir: Path) -> int:
    """Requests that the only worker has, as it reports."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(run_dir / "control.sock"))) as control:
        (row,) = control.get("http://graphserve/ps").json()
    return -1 if row["in_flight"] is None else int(row["in_flight"])  # it did not say in time


def test_uploads_that_wait_for_a_slot(tmp_path: Path) -> None:
    """As many as the queue allows, none past its deadline, and none whose client has left."""

    def begin(timeout: float) -> socket.socket:
        sock = socket.create_connection((host, int(port)), 10)
        head = (
            "POST /upload HTTP/1.1\r\nhost: localhost\r\n"
            f"Content-Type: application/octet-stream\r\nx-request-timeout: {timeout}\r\n"
            "transfer-encoding: chunked\r\n\r\n"
        )
        sock.sendall(f"{head}3\r\nabc\r\n".encode())
        return sock

    with served("tests.apps.leaving:Uploads", cwd=ROOT, env={"LEDGERS": str(tmp_path)}) as running:
        graph = Graph(running, tmp_path)
        host, port = running.url.removeprefix("http://").split(":")
        first = begin(60)
        eventually(lambda: graph.state("Uploads").running == 1)
        began = time.monotonic()
        late, leaves = begin(0.5), begin(60)
        assert b" 503 " in begin(60).makefile("rb").readline(), "the queue is full"
        assert b" 504 " in late.makefile("rb").readline()
        assert time.monotonic() - began >= 0.5
        last = begin(60)
        leaves.close()
        for sock in (first, last):
            sock.sendall(b"0\r\n\r\n")
            assert b" 200 " in sock.makefile("rb").readline()
        assert graph.state("Uploads").begun == 2
