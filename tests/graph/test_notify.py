"""What systemd is told, on a real datagram socket."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import SLACK, Served, alive, eventually, served

APP = """
import os
from graphserve import api, depends, service

@service
class Leaf:
    @api
    async def x(self) -> int:
        return 1

@service
class Top:
    leaf = depends(Leaf)

    @api
    async def told(self) -> list[str]:
        return sorted(name for name in os.environ if name.startswith(("NOTIFY_", "WATCHDOG_")))
"""


class Manager:
    """The socket of a service manager.

    Args:
        address: its path, or the name of an abstract socket after a NUL.
    """

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address)
        self.sock.setblocking(False)
        self.said: list[dict[str, str]] = []

    def messages(self) -> list[dict[str, str]]:
        """All that was said so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                lines = self.sock.recv(65536).decode().splitlines()
                self.said.append(dict(line.split("=", 1) for line in lines))
        return self.said

    def wait(self, name: str, value: str = "1", after: int = 0) -> int:
        """Wait for a message that says this; its number."""
        found = lambda: [n for n, said in enumerate(self.messages()) if n >= after and said.get(name) == value]  # noqa: E731
        return int(eventually(lambda: found() and found()[0] + 1, 30)) - 1


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, run_dir: Path) -> Iterator[tuple[Manager, str]]:
    run_dir.parent.mkdir(exist_ok=True)
    address = str(run_dir.parent / "notify") if request.param == "path" else f"\0graphserve-test-{os.getpid()}"
    made = Manager(address)
    yield made, address.replace("\0", "@")
    made.sock.close()


def test_a_life_under_systemd(tmp_path: Path, manager: tuple[Manager, str]) -> None:
    listener, address = manager
    (tmp_path / "app.py").write_text(APP)
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}
    with served("app:Top", cwd=tmp_path, env=env) as graph, graph.client() as client:
        ready = listener.wait("READY")
        said = listener.messages()
        assert said[ready]["MAINPID"] == str(graph.pid)
        assert said[ready]["STATUS"] == "2 of 2 services ready"
        assert {"0 of 2 services ready", "1 of 2 services ready"} <= {each.get("STATUS") for each in said[:ready]}
        assert client.post("/told", json={}).json() == [], "user code must not speak for the graph"

        before = time.monotonic_ns() // 1000
        graph.signal(signal.SIGHUP)
        reloading = listener.wait("RELOADING", after=ready)
        assert before <= int(said[reloading]["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        again = listener.wait("READY", after=reloading)

        (tmp_path / "app.py").write_text("this is no Python")
        graph.signal(signal.SIGHUP)
        failed = listener.wait("READY", after=listener.wait("RELOADING", after=again))
        assert "; the reload failed: " in said[failed]["STATUS"]

        count = len(listener.messages())
        graph.signal()
        stopping = listener.wait("STOPPING", after=count)
        assert said[stopping]["STATUS"].endswith("; stopping")
        assert graph.wait_exit() == 0


def test_the_watchdog_is_told_twice_in_its_time(tmp_path: Path, manager: tuple[Manager, str]) -> None:
    listener, address = manager
    (tmp_path / "app.py").write_text(APP)
    with served("app:Top", cwd=tmp_path, env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}) as graph:
        count, began = len(listener.messages()), time.monotonic()
        eventually(lambda: sum("WATCHDOG" in said for said in listener.messages()[count:]) >= 5)
        assert 0.5 < time.monotonic() - began < 1.0 * SLACK
        graph.signal(signal.SIGSTOP)  # a supervisor that hangs says nothing, and is replaced
        try:
            listener.messages()
            count = len(listener.said)
            with pytest.raises(AssertionError):
                eventually(lambda: len(listener.messages()) > count, 0.8)
        finally:
            graph.signal(signal.SIGCONT)


def test_a_watchdog_for_another_process_is_not_ours(tmp_path: Path, run_dir: Path) -> None:
    listener = Manager(str(run_dir.parent / "notify"))
    (tmp_path / "app.py").write_text(APP)
    env = {"NOTIFY_SOCKET": str(run_dir.parent / "notify"), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    with served("app:Top", cwd=tmp_path, env=env) as graph:
        listener.wait("READY")
        assert graph.stop() == 0
    assert not any("WATCHDOG" in said for said in listener.messages())
    listener.sock.close()


def test_a_failed_start_says_why(run_dir: Path) -> None:
    listener = Manager(str(run_dir.parent / "notify"))
    graph = Served("broken:Top", env={"NOTIFY_SOCKET": str(run_dir.parent / "notify")})
    try:
        assert graph.wait_exit() == 3
        stopping = listener.wait("STOPPING")
        assert "the model file is missing" in listener.said[stopping]["STATUS"]
        assert not any("READY" in said for said in listener.said)
    finally:
        graph.close()
        listener.sock.close()


def test_a_stop_in_the_middle_of_a_start_is_told(tmp_path: Path, run_dir: Path) -> None:
    listener = Manager(str(run_dir.parent / "notify"))
    waits = (
        "    def __init__(self) -> None:\n        open('begun', 'w').close()\n        __import__('time').sleep(600)\n"
    )
    (tmp_path / "app.py").write_text(APP.replace("class Leaf:\n", f"class Leaf:\n{waits}"))
    graph = Served("app:Top", cwd=tmp_path, env={"NOTIFY_SOCKET": str(run_dir.parent / "notify")})
    try:
        eventually((tmp_path / "begun").exists, 60)
        assert graph.stop() == 0
        stopping = listener.wait("STOPPING")
        assert listener.said[stopping]["STATUS"] == "0 of 2 services ready; stopping"
    finally:
        graph.close()
        listener.sock.close()


CHANGES = {
    "a service was removed": ("    leaf = depends(Leaf)\n", "", "1 of 1 services ready"),
    "a service is another": ("    async def x(self) -> int", "    async def x(self) -> str", "2 of 2 services ready"),
    "a new service does not start": (
        "    @api\n    async def x(self) -> int",
        "    async def __aenter__(self) -> None:\n        raise OSError\n\n    @api\n    async def x(self) -> str",
        "2 of 2 services ready",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_status_counts_the_services_that_there_are(tmp_path: Path, run_dir: Path, change: str) -> None:
    listener = Manager(str(run_dir.parent / "notify"))
    (tmp_path / "app.py").write_text(APP)
    old, new, words = CHANGES[change]
    with served("app:Top", cwd=tmp_path, env={"NOTIFY_SOCKET": str(run_dir.parent / "notify")}) as graph:
        ready = listener.wait("READY")
        before = graph.workers("n0")
        (tmp_path / "app.py").write_text(APP.replace(old, new, 1) + "# so it is of another size than its bytecode\n")
        graph.signal(signal.SIGHUP)
        after = listener.wait("READY", after=listener.wait("RELOADING", after=ready))
        if change != "a new service does not start":
            eventually(lambda: not any(map(alive, before)))  # the old one
        eventually(lambda: listener.messages()[-1]["STATUS"].startswith(words))
        assert after
        assert graph.stop() == 0
    listener.sock.close()


def test_a_manager_that_is_not_there_or_does_not_read_is_no_obstacle(tmp_path: Path, run_dir: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    for address in (str(run_dir.parent / "nobody"), "vsock:2:1234"):
        with served("app:Top", cwd=tmp_path, env={"NOTIFY_SOCKET": address}) as graph:
            assert graph.stop() == 0
    deaf = Manager(str(run_dir.parent / "deaf"))
    env = {"NOTIFY_SOCKET": str(run_dir.parent / "deaf"), "WATCHDOG_USEC": "200"}
    with served("app:Top", cwd=tmp_path, env=env) as graph, graph.client() as client:
        assert client.post("/told", json={}).status_code == 200
        deaf.wait("READY")  # it has waited until there was room
        assert graph.stop() == 0
    deaf.sock.close()
