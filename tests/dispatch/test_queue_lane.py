"""The queue lane on its socket: who waits, who is refused at once, who is dropped; and that curl
can speak to it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness import APPS, Served, eventually, served, shared, waiting

ROOT = APPS.parent.parent
ONE = ("--scale", "Model=1", "--set", "Model.queue=2")


@pytest.fixture
def graph(run_dir: Path) -> Iterator[Served]:
    """One worker with one slot, and a queue of two (the kernel lets three wait)."""
    with served("tests.apps.balance:Gateway", *ONE, "--run-dir", str(run_dir), cwd=ROOT) as graph:
        yield graph


@pytest.fixture
def path(graph: Served, run_dir: Path) -> str:
    """Its shared socket."""
    return shared(run_dir, "Model")


def request(seconds: float) -> bytes:
    body = json.dumps({"seconds": seconds}).encode()
    head = (
        b"POST /work HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n"
    )
    return head % len(body) + body


def connect(path: str, *, say: bytes = b"") -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(path)
    sock.sendall(say)
    return sock


def answer(sock: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_plain_curl_speaks_to_the_shared_socket(graph: Served, path: str) -> None:
    command = ["curl", "-sS", "--unix-socket", path, "--json", '{"seconds": 0}', "http://x/work"]
    for _ in range(3):
        said = subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=True
        ).stdout
        assert int(said) in graph.workers()
    wrong = [*command[:-2], '{"seconds": "0"}', "-o", "-", "-w", " %{http_code}", command[-1]]
    assert subprocess.run(
        wrong, capture_output=True, text=True, timeout=30, check=True
    ).stdout.endswith(" 422")


def test_a_connection_carries_one_request(path: str) -> None:
    with connect(path, say=request(0.0) * 2) as sock:
        received = answer(sock)
    assert received.count(b"HTTP/1.1 200") == 1
    assert b"connection: close" in received


def busy(path: str, seconds: float, callers: int) -> list[socket.socket]:
    """The one slot is taken, and others wait in the queue."""
    first = connect(path, say=request(seconds))
    eventually(lambda: waiting(path) == 0)
    return [first, *(connect(path, say=request(0.0)) for _ in range(callers))]


def test_a_full_queue_is_answered_at_once_with_503_and_retry_after(
    graph: Served, path: str
) -> None:
    sockets = busy(path, 3.0, 3)
    try:
        with graph.client() as client:
            said = client.post("/work", json={"seconds": 0.0})
        assert (said.status_code, said.json()["service"]) == (503, "Model")
        assert int(said.headers["retry-after"]) >= 1
        assert [b" 200 " in answer(sock) for sock in sockets] == [True] * 4, (
            "those that waited are answered"
        )
    finally:
        for sock in sockets:
            sock.close()


DIARY = """
import os, time
from collections.abc import Iterator
from graphserve import api, depends, service

@service(concurrency=1)
class Model:
    @api
    def work(self, seconds: float) -> int:
        with open("diary", "a") as diary:
            diary.write(f"{seconds} ")
        while seconds == 3.0 and not os.path.exists("go"):
            time.sleep(0.01)
        time.sleep(seconds % 3)
        return os.getpid()

    @api
    def items(self) -> Iterator[int]:
        yield os.getpid()
        yield 2

@service
class Top:
    model = depends(Model)

    @api
    async def x(self) -> int:
        return 1
"""


def test_a_caller_that_left_while_it_waited_is_not_executed(run_dir: Path, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    (tmp_path / "app.py").write_text(DIARY)
    with served("app:Top", "--run-dir", str(run_dir), cwd=tmp_path):
        path = shared(run_dir, "Model")
        first = connect(path, say=request(1.0))
        eventually(diary.exists)
        for _ in range(5):
            connect(path, say=request(0.5)).close()
        with connect(path, say=request(0.25)) as last:
            assert b" 200 " in answer(last)
        first.close()
    assert diary.read_text().split() == ["1.0", "0.25"]


def test_who_connects_and_says_nothing_does_not_hold_a_slot_for_long(path: str) -> None:
    with connect(path) as silent:
        eventually(lambda: waiting(path) == 0)
        with connect(path, say=request(0.0)) as other:
            assert b" 200 " in answer(other)
        assert answer(silent) == b""


def test_the_entry_passes_on_calls_and_streams_that_it_has_no_slot_for(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(DIARY)
    with (
        served("app:Model", "--workers", "2", cwd=tmp_path) as graph,
        contextlib.ExitStack() as stack,
    ):
        # Three connections that are kept alive, so two of them belong to one worker.
        clients = [stack.enter_context(graph.client()) for _ in range(3)]
        homes = [client.post("/work", json={"seconds": 0.0}).json() for client in clients]
        home = max(homes, key=homes.count)
        first, second, *_ = [
            client for client, pid in zip(clients, homes, strict=True) if pid == home
        ]
        (sibling,) = set(graph.workers()) - {home}
        said: list[int] = []
        stuck = threading.Thread(
            target=lambda: said.append(first.post("/work", json={"seconds": 3.0}).json())
        )
        stuck.start()
        try:
            eventually(lambda: "3.0" in (tmp_path / "diary").read_text())
            assert second.post("/work", json={"seconds": 0.0}).json() == sibling
            events = second.post("/items", json={}, headers={"accept": "text/event-stream"})
            assert events.headers["content-type"] == "text/event-stream"
            assert (
                events.text == f"id: 1\ndata: {sibling}\n\nid: 2\ndata: 2\n\nevent: end\ndata:\n\n"
            )
            assert second.post("/items", json={}).text.splitlines() == [str(sibling), "2"]
            assert not said, "the other call goes on"
        finally:
            (tmp_path / "go").touch()
            stuck.join()
    assert said == [home]


def test_httpx_speaks_to_the_shared_socket(path: str) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://model") as client:
        for _ in range(3):
            assert client.post("/work", json={"seconds": 0.0}).status_code == 200
        assert client.get("/livez").json()["service"] == "Model"
