"""Processes that user code starts and forgets: ended with their worker, reaped when they end by
themselves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Served, alive, children, eventually, served, state


@contextlib.contextmanager
def ended(pids: list[int]) -> Iterator[None]:
    """What a test has started is ended, also when it is graphserve's duty that failed."""
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_strays_end_with_their_worker() -> None:
    with served("strays:Top") as graph, graph.client() as client:
        pids = client.post("/start", json={}).json()
        with ended(pids):
            assert all(alive(pid) for pid in pids)
            (worker,) = graph.workers("n0")[:1]
            os.kill(client.post("/pid", json={}).json(), signal.SIGKILL)
            eventually(lambda: not any(alive(pid) for pid in pids))
            again = client.post("/start", json={}).json()
        with ended(again):
            assert all(alive(pid) for pid in again), "the new worker's are its own"
            assert worker not in graph.workers()


def test_strays_end_with_the_graph() -> None:
    with served("strays:Top") as graph, graph.client() as client:
        pids = [*client.post("/start", json={}).json(), client.post("/bare", json={}).json()]
        with ended(pids):
            assert graph.stop() == 0
            assert not any(alive(pid) for pid in pids)
        assert "killed" not in graph.text, "a forgotten thread or process does not hold the stop up"


@pytest.mark.slow
def test_strays_that_end_by_themselves_are_reaped() -> None:
    with served("strays:Top") as graph, graph.client() as client:
        pids = client.post("/short", json={}).json()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        assert len(children(graph.pid)) == 2


@pytest.mark.slow
def test_what_a_killed_graph_has_left_ends_at_the_next_start(run_dir: Path) -> None:
    options = ("--run-dir", str(run_dir))
    with served("strays:Top", *options) as graph, graph.client() as client:
        pids = client.post("/start", json={}).json()
        with ended(pids):
            graph.signal(signal.SIGKILL)
            eventually(lambda: not any(alive(pid) for pid in graph.workers()))
            assert any(alive(pid) for pid in pids)
            with served("strays:Top", *options) as second:
                assert not any(alive(pid) for pid in pids)
                assert second.stop() == 0
    assert not run_dir.exists()


@pytest.mark.slow
def test_jobs_that_were_there_before_are_left_alone(tmp_path: Path) -> None:
    # A script that starts something and then becomes graphserve, as an entry point of a container
    # may.
    script = tmp_path / "start.sh"
    script.write_text('sleep 600 & echo $! >"$1"; shift; exec "$@"\n')
    words = Served.command("strays:Top", "--port", "0")
    graph = Served("", command=["sh", str(script), str(tmp_path / "job"), *words])
    try:
        graph.wait_ready()
        job = int((tmp_path / "job").read_text())
        with ended([job]):
            assert graph.stop() == 0
            assert alive(job)
    finally:
        graph.close()


@pytest.mark.slow
def test_a_forked_child_keeps_no_connection_open() -> None:
    with served("strays:ForkingTop") as graph:
        host, port = graph.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as kept, graph.client() as client:
            kept.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):  # head and body may come apart
                more = kept.recv(65536)
                assert more, answer
                answer += more
            assert b"200" in answer
            pids = sorted(set(client.post("/all", json={}).json()))
            with ended(pids):
                # of both starts, of an API on the loop each, and of one in a thread
                assert len(pids) == 5
                for pid in pids:
                    assert not sockets(pid), "the child holds sockets of its worker"
                os.kill(graph.workers("n1")[0], signal.SIGTERM)
                assert kept.recv(65536) == b"", (
                    "the peer sees the end, though children of the worker may live"
                )
                assert graph.stop() == 0
                assert not any(alive(pid) for pid in pids)


@pytest.mark.slow
def test_a_process_that_a_module_starts_at_import_does_not_hold_the_start(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import os, subprocess, time\nfrom graphserve import api, service\n\n"
        "if not (pid := os.fork()):\n    time.sleep(600)\n"
        "other = subprocess.Popen(['sleep', '600'], close_fds=False)\n"
        "for each in (pid, other.pid):\n    open(f'pid-{each}', 'w').close()\n\n\n"
        "@service\nclass Top:\n    @api\n    async def x(self) -> int:\n        return 1\n"
    )
    pids = lambda: [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]  # noqa: E731
    try:
        with served("app:Top", cwd=tmp_path) as graph, graph.client() as client:
            assert client.post("/x", json={}).json() == 1
            # Of the process that resolved the graph, and of the worker.
            assert sorted(map(alive, pids())) == [False, False, True, True]
            assert graph.stop() == 0
            assert not any(map(alive, pids()))
    finally:
        with ended(pids()):
            pass


@pytest.mark.slow
def test_sigterm_to_a_forked_child_is_not_one_to_its_worker() -> None:
    with (
        served("strays:Forking") as graph,
        graph.client() as client,
        ended(client.post("/forked", json={}).json()),
    ):
        before = client.post("/pid", json={}).json()
        for _ in range(20):
            assert client.post("/end_child", json={}).json() == -signal.SIGTERM
        assert client.post("/pid", json={}).json() == before
        assert "draining" not in graph.text


def sockets(pid: int) -> set[str]:
    """The sockets among the descriptors of a process that have a name: a path, or a port (an event
    loop has others).
    """
    held = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            held.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
    unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    tcp = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return held & ({words[6] for words in unix if len(words) > 7} | {words[9] for words in tcp})


def can_unshare() -> bool:
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True
    )
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_unshare(), reason="this user may not make a namespace of processes")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_process_1_it_reaps_and_stops(number: int) -> None:
    words = Served.command("strays:Top", "--port", "0")
    graph = Served(
        "", command=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *words]
    )
    try:
        graph.wait_ready()
        (first,) = children(graph.pid)
        with graph.client() as client:
            client.post("/short", json={})
            client.post("/start", json={})
            # Two workers, and the one that went its own way; the others have ended, and no zombie
            # is left.
            eventually(lambda: len(children(first)) == 3 and "Z" not in map(state, children(first)))
        os.kill(first, number)
        assert graph.wait_exit() == 0
    finally:
        graph.close()
