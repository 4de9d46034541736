"""Files of the run folder that somebody removes while the graph runs: made anew, said, and no call
is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from graphserve.call.exchange import Exchange
from graphserve.call.lanes.queue import QueueLane
from graphserve.call.membership import KnownNode, Membership
from graphserve.call.retry_budget import RetryBudget
from graphserve.errors import DeadlineExceeded, StartupError, Unavailable
from graphserve.system.rundir.claim import RunDir, Taken
from graphserve.system.rundir.lock import is_live, token_of
from tests.harness import OWN_SOCKET, Served, eventually, rarely, served, shared, waiting

NOTED = "somebody removed files of the run folder"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="gs-"))
    yield parent / "run"
    shutil.rmtree(parent, ignore_errors=True)


@pytest.fixture(scope="module")
def graph(folder: Path) -> Iterator[Served]:
    with served("removed:Top", "--run-dir", str(folder)) as graph:
        yield graph


def node_folder(folder: Path, name: str) -> Path:
    return Path(shared(folder, name)).parent


def own_sockets(folder: Path) -> set[str]:
    return {str(path) for path in folder.glob("n*/*") if OWN_SOCKET.fullmatch(path.name)}


def remove(folder: Path) -> None:
    """Remove a folder as those do who clean up: what is made anew meanwhile may stay."""
    shutil.rmtree(folder, ignore_errors=True)


def answers(graph: Served, x: int = 1) -> None:
    with graph.client() as client:
        for _ in range(4):  # each worker of two, most likely
            answer = client.post("/all", json={"x": x})
            assert (answer.status_code, answer.json()) == (200, [x + 1, x + 2, x + 3]), answer.text


def status(folder: Path, graph: Served) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "graphserve", "status", "--json", "--run-dir", str(folder)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pid"] == graph.pid
    return str(found["state"])


@pytest.mark.parametrize(
    ("node", "pattern"),
    [("Queued", "q.sock"), ("Batched", "b0.sock"), ("Batched", "b0.lease"), ("Pooled", "*[0-9].sock"),
     ("Top", "*[0-9].sock"), ("Queued", ""), ("Pooled", "")],
)  # fmt: skip
def test_what_a_node_has_there(graph: Served, folder: Path, node: str, pattern: str) -> None:
    place = node_folder(folder, node)
    names = sorted(path.name for path in place.glob(pattern or "*"))
    assert names
    answers(graph)
    seen = len(graph.log)
    if pattern:
        for name in names:
            (place / name).unlink()
    else:
        remove(place)
    answers(graph)
    eventually(lambda: sorted(path.name for path in place.glob(pattern or "*")) == names)
    if not names[0].endswith(".lease"):  # (that one is its workers' own matter)
        line = graph.wait_log(f"{NOTED}.*", after=seen).group()
        assert any(f"{place.name}/{name} of {node}" in line for name in names)
        assert "made anew" in line
    answers(graph)


def test_every_socket_at_once(graph: Served, folder: Path) -> None:
    answers(graph)
    sockets = [path for path in folder.rglob("*.sock")]
    for path in sockets:
        path.unlink()
    answers(graph)
    eventually(lambda: all(path.exists() for path in sockets))
    assert status(folder, graph) == "ready"


@pytest.mark.parametrize("name", ["workers.sock", "plan.json"])
def test_what_a_replacement_needs(graph: Served, folder: Path, name: str) -> None:
    (path,) = folder.rglob(name)
    for victim in graph.workers(node_folder(folder, "Queued").name):
        seen = len(graph.log)
        path.unlink()
        os.kill(victim, signal.SIGKILL)
        graph.wait_log("Queued ready  2/2", after=seen)
        graph.wait_log(f"{NOTED}.*{name}", after=seen)
    answers(graph)
    assert "No such file" not in graph.text


@pytest.mark.parametrize("name", ["lock", "control.sock", ""])
def test_what_commands_need(graph: Served, folder: Path, name: str) -> None:
    seen = len(graph.log)
    if name:
        (folder / name).unlink()
    else:
        remove(folder)
    assert status(folder, graph) == "ready"
    graph.wait_log(f"{NOTED}.*{name}", after=seen)
    eventually(lambda: is_live(folder))
    assert token_of(folder)
    answers(graph)
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a socket that is renamed into place
            assert path.stat().st_mode & 0o077 == 0


def test_another_graph_does_not_take_a_folder_whose_lock_is_gone(
    folder: Path, graph: Served
) -> None:
    before = folder.stat()
    os.kill(graph.pid, signal.SIGSTOP)  # it cannot make it anew meanwhile
    try:
        (folder / "lock").unlink()
        assert is_live(folder)
        with pytest.raises(StartupError, match="a graph is running in"):
            RunDir(str(folder))
    finally:
        os.kill(graph.pid, signal.SIGCONT)
    eventually((folder / "lock").exists)
    assert folder.stat().st_ino == before.st_ino


def test_calls_that_wait_in_a_socket_that_loses_its_name_are_answered(
    graph: Served, folder: Path, tmp_path: Path
) -> None:
    gate, path = tmp_path / "gate", shared(folder, "Queued")
    results: list[object] = []

    def ask() -> None:
        with graph.client() as client:
            results.append(client.post("/wait", json={"gate": str(gate)}).json())

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    eventually(lambda: waiting(path) == 4)
    os.unlink(path)
    more = threading.Thread(target=ask)
    more.start()
    eventually(lambda: waiting(path) == 5)
    gate.touch()
    for thread in [*threads, more]:
        thread.join(60)
    assert results == [1] * 7


def test_cleaners_leave_the_folder_alone(graph: Served, folder: Path, tmp_path: Path) -> None:
    """What systemd-tmpfiles asks of each folder before it looks into it."""
    eventually(lambda: (folder / "lock").exists() and is_live(folder))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)
    if (cleaner := shutil.which("systemd-tmpfiles")) is not None:
        (tmp_path / "clean.conf").write_text(f"d {folder.parent} 0700 - - 0\n")  # whatever its age
        names = sorted(folder.rglob("*"))
        subprocess.run([cleaner, "--clean", str(tmp_path / "clean.conf")], timeout=60, check=True)
        assert sorted(folder.rglob("*")) == names


def test_a_stop_leaves_nothing_although_files_were_removed(run_dir: Path) -> None:
    with served("removed:Batched", "--run-dir", str(run_dir)) as graph:
        os.kill(graph.pid, signal.SIGSTOP)
        for path in [*run_dir.rglob("*.sock"), run_dir / "lock"]:
            path.unlink()
        os.kill(graph.pid, signal.SIGTERM)
        os.kill(graph.pid, signal.SIGCONT)
        assert graph.wait_exit() == 0
        assert not run_dir.exists()


def test_another_graphs_folder_is_not_removed(tmp_path: Path) -> None:
    first = RunDir(str(tmp_path / "run"))
    shutil.rmtree(first.path)
    second = RunDir(str(tmp_path / "run"))
    with pytest.raises(Taken, match="another graph has taken the run folder"):
        first.restore()
    first.remove()
    assert is_live(second.path)
    second.remove()
    assert not second.path.exists()


# --- the caller, with no supervisor that makes anything anew ---


def test_a_call_waits_while_its_node_has_no_socket_and_no_longer_than_its_deadline(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "q.sock")

    async def main() -> None:
        told = list[str]()
        membership = Membership(tell_lost=told.append)
        lane = QueueLane(membership, "Model", path, RetryBudget())
        loop = asyncio.get_running_loop()

        def call(seconds: float) -> Exchange:
            deadline = int((loop.time() + seconds) * 1e9)
            exchange = Exchange(
                loop, lane, "Model", b"x", deadline, 0.0, False, lambda *answer: answer
            )
            exchange.start()
            return exchange

        late, waits = call(0.05), call(60)
        with pytest.raises(DeadlineExceeded, match="Model"):
            await late.reply
        assert told[:1] == [path]
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            listener.setblocking(False)
            connection, _ = await asyncio.wait_for(loop.sock_accept(listener), 30)
            with connection:
                assert await loop.sock_recv(connection, 10) == b"x"
        waits.abandon()
        os.unlink(path)
        hopeless = call(60)
        membership.update(KnownNode("Model", "stopped"))
        with pytest.raises(Unavailable, match="Model is stopped"):
            await hopeless.reply

    asyncio.run(main())


@pytest.mark.parametrize("tls", [False, rarely(True)])
def test_the_public_socket_by_its_path(tmp_path: Path, tls: bool) -> None:
    path, certificate = tmp_path / "s", tmp_path / "server.pem"
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    more = ("--ssl-certfile", str(certificate)) if tls else ()
    url = f"{'https' if tls else 'http'}://localhost/run"
    with served(
        "removed:Pooled", "--workers", "2", "--uds", str(path), "--timeout-keep-alive", "60", *more
    ) as graph:

        def client() -> httpx.Client:
            return httpx.Client(
                transport=httpx.HTTPTransport(uds=str(path), verify=context), timeout=60
            )

        with client() as kept:
            assert kept.post(url, json={"x": 1}).json() == 3
            for _ in range(2):
                seen = len(graph.log)
                path.unlink()
                graph.wait_log(f"{NOTED}.*{path}.*made anew", after=seen)
                with client() as fresh:
                    assert fresh.post(url, json={"x": 2}).json() == 4
                assert kept.post(url, json={"x": 3}).json() == 5
                assert path.stat().st_mode & 0o777 == 0o600
            os.kill(graph.workers()[0], signal.SIGKILL)
            graph.wait_log("Pooled ready  2/2", after=seen)
            with client() as fresh:
                assert fresh.post(url, json={"x": 2}).json() == 4
            path.unlink()
            path.write_text("somebody's")
            graph.wait_log(f"cannot be made anew: .*no socket.*{path}")
        assert graph.stop() == 0
        assert path.read_text() == "somebody's"
