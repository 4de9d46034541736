"""Connections that grow old: no call is lost to one that its other end just closed, or was about to
close.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness import Served, eventually, served

KEEP_ALIVE = 0.2  # seconds at the caller; the callee keeps 2.5 times that, 0.5
GROUPS, ROUNDS, WIDTH = 10, 40, 50


@pytest.mark.slow
def test_20_000_calls_around_both_keep_alives() -> None:
    env = {"GRAPHSERVE_INNER_KEEP_ALIVE": str(KEEP_ALIVE)}
    with served("storm:Gateway", "--timeout", "110", env=env) as graph:
        storm = {
            "groups": GROUPS,
            "rounds": ROUNDS,
            "width": WIDTH,
            "pauses": [0.15, 0.6],
            "seed": 7,
        }
        counts = httpx.post(f"{graph.url}/storm", json=storm, timeout=110, trust_env=False).json()
        counts.pop("seconds", None)
        assert counts == {"right": GROUPS * ROUNDS * WIDTH}
        assert "Traceback" not in graph.text


def test_idle_connections_between_nodes_end_after_the_keep_alive() -> None:
    burst = {"groups": 1, "rounds": 1, "width": 5, "pauses": [0, 0], "seed": 1}
    with (
        served("storm:Gateway", env={"GRAPHSERVE_INNER_KEEP_ALIVE": "0.2"}) as short,
        served("storm:Gateway") as long,
    ):
        for graph in (short, long):
            with graph.client() as client:
                assert client.post("/storm", json=burst).json()["right"] == 5
        eventually(lambda: connections(short) == 0)
        assert connections(long) > 0, "30 s is the default"


def connections(graph: Served) -> int:
    """Connections to the leaf's own socket that are open."""
    (leaf,) = graph.workers("n0")
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    own = [fields for fields in lines if len(fields) > 7 and fields[7].endswith(f"/{leaf}.sock~")]
    return sum(fields[3] != "00010000" for fields in own)  # SO_ACCEPTCON: the listening one


REQUEST = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"


@contextlib.contextmanager
def paused(pid: int, seconds: float) -> Iterator[None]:
    """A process that gets no time meanwhile, for so long at least: what comes for it waits with the
    kernel.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        yield
        eventually(lambda: time.monotonic() - began > seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def ask(client: socket.socket) -> bytes:
    """Ask on a connection that is open; the answer, empty if it ended."""
    client.sendall(REQUEST)
    return read(client)


def read(client: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(b"}") and (more := client.recv(65536)):
        answer += more
    return answer


@pytest.mark.parametrize("stops", [False, True], ids=["idle", "stopping"])
def test_a_request_that_came_while_the_worker_had_no_time(tmp_path: Path, stops: bool) -> None:
    with served(
        "entry:Entry", "--timeout-keep-alive", "0.5", env={"FLAGS": str(tmp_path)}
    ) as graph:
        (worker,) = graph.workers()
        port = int(graph.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            assert b" 200 " in ask(client)
            if stops:
                graph.signal()
                graph.wait_log("Entry draining")
            with paused(worker, 2.0):
                client.sendall(REQUEST)
            assert b" 200 " in read(client), "it is read before the connection is found to be old"
        assert (graph.wait_exit() if stops else graph.stop()) == 0
