"""What systemd is told, on a real datagram socket."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Served, alive, eventually, served, state

pytestmark = pytest.mark.slow

APP = """
import json
import os
import re
import select
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
        reads: whether it takes what is said as it comes; otherwise only from the first `wait` on.
    """

    def __init__(self, address: str, *, reads: bool = True) -> None:
        self.address = address.replace("\0", "@")  # as systemd writes it
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address)
        self.said: list[dict[str, str]] = []
        # The kernel keeps ten datagrams for one that does not read (net.unix.max_dgram_qlen), and
        # the supervisor leaves out what comes again anyway while there is no room.
        self._reader = threading.Thread(target=self._read)
        if reads:
            self._reader.start()

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)
        if self._reader.ident is not None:
            self._reader.join()
        self.sock.close()

    def _read(self) -> None:
        while message := self.sock.recv(65536):
            self.said.append(dict(line.split("=", 1) for line in message.decode().splitlines()))

    def wait(self, name: str, value: str = "1", after: int = 0) -> int:
        """Wait for a message that says this; its number."""
        if self._reader.ident is None:
            self._reader.start()

        def found():
            return [n for n, said in enumerate(self.said) if n >= after and said.get(name) == value]

        return int(eventually(lambda: found() and found()[0] + 1, 30)) - 1


@pytest.fixture
def listener(run_dir: Path) -> Iterator[Manager]:
    with Manager(str(run_dir.parent / "notify")) as made:
        yield made


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, run_dir: Path) -> Iterator[Manager]:
    path = (
        str(run_dir.parent / "notify")
        if request.param == "path"
        else f"\0graphserve-test-{os.getpid()}"
    )
    with Manager(path) as made:
        yield made


def test_a_life_under_systemd(tmp_path: Path, manager: Manager) -> None:
    listener, address = manager, manager.address
    (tmp_path / "app.py").write_text(APP)
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}
    with served("app:Top", cwd=tmp_path, env=env) as graph, graph.client() as client:
        ready = listener.wait("READY")
        said = listener.said
        assert said[ready]["MAINPID"] == str(graph.pid)
        assert said[ready]["STATUS"] == "2 of 2 services ready"
        assert {"0 of 2 services ready", "1 of 2 services ready"} <= {
            each.get("STATUS") for each in said[:ready]
        }
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

        count = len(listener.said)
        graph.signal()
        stopping = listener.wait("STOPPING", after=count)
        assert said[stopping]["STATUS"].endswith("; stopping")
        assert graph.wait_exit() == 0


def test_the_watchdog_is_told_twice_in_its_time(tmp_path: Path, manager: Manager) -> None:
    listener, address = manager, manager.address
    (tmp_path / "app.py").write_text(APP)
    with served(
        "app:Top", cwd=tmp_path, env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}
    ) as graph:
        count, began = len(listener.said), time.monotonic()
        eventually(lambda: sum("WATCHDOG" in said for said in listener.said[count:]) >= 5)
        assert time.monotonic() - began > 0.5, "not more often than it must"
        graph.signal(signal.SIGSTOP)  # a supervisor that hangs says nothing, and is replaced
        try:
            eventually(
                lambda: state(graph.pid) == "T" and not select.select([listener.sock], [], [], 0)[0]
            )
            count = len(listener.said)
            with pytest.raises(AssertionError):
                eventually(lambda: len(listener.said) > count, 0.8)
        finally:
            graph.signal(signal.SIGCONT)


def test_a_watchdog_for_another_process_is_not_ours(tmp_path: Path, listener: Manager) -> None:
    (tmp_path / "app.py").write_text(APP)
    env = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    with served("app:Top", cwd=tmp_path, env=env) as graph:
        listener.wait("READY")
        assert graph.stop() == 0
    assert not any("WATCHDOG" in said for said in listener.said)


def test_a_failed_start_says_why(listener: Manager) -> None:
    graph = Served("broken:Top", env={"NOTIFY_SOCKET": listener.address})
    try:
        assert graph.wait_exit() == 3
        stopping = listener.wait("STOPPING")
        assert "the model file is missing" in listener.said[stopping]["STATUS"]
        assert all(said["STATUS"].startswith("failed: ") for said in listener.said[stopping:])
        assert not any("READY" in said for said in listener.said)
    finally:
        graph.close()


def test_a_stop_in_the_middle_of_a_start_is_told(tmp_path: Path, listener: Manager) -> None:
    waits = (
        "    def __init__(self) -> None:\n"
        "        open('begun', 'w').close()\n"
        "        __import__('time').sleep(600)\n"
    )
    (tmp_path / "app.py").write_text(APP.replace("class Leaf:\n", f"class Leaf:\n{waits}"))
    graph = Served("app:Top", cwd=tmp_path, env={"NOTIFY_SOCKET": listener.address})
    try:
        eventually((tmp_path / "begun").exists, 60)
        assert graph.stop() == 0
        stopping = listener.wait("STOPPING")
        assert listener.said[stopping]["STATUS"] == "0 of 2 services ready; stopping"
    finally:
        graph.close()


CHANGES = {
    "a service was removed": ("    leaf = depends(Leaf)\n", "", "1 of 1 services ready"),
    "a service is another": (
        "    async def x(self) -> int",
        "    async def x(self) -> str",
        "2 of 2 services ready",
    ),
    "a new service does not start": (
        "    @api\n    async def x(self) -> int",
        (
            "    async def __aenter__(self) -> None:\n"
            "        raise OSError\n\n"
            "    @api\n"
            "    async def x(self) -> str"
        ),
        "2 of 2 services ready",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_status_counts_the_services_that_there_are(
    tmp_path: Path, listener: Manager, change: str
) -> None:
    (tmp_path / "app.py").write_text(APP)
    old, new, words = CHANGES[change]
    with served("app:Top", cwd=tmp_path, env={"NOTIFY_SOCKET": listener.address}) as graph:
        ready = listener.wait("READY")
        before = graph.workers("n0")
        (tmp_path / "app.py").write_text(
            APP.replace(old, new, 1) + "# so it is of another size than its bytecode\n"
        )
        graph.signal(signal.SIGHUP)
        after = listener.wait("READY", after=listener.wait("RELOADING", after=ready))
        if change != "a new service does not start":
            eventually(lambda: not any(map(alive, before)))  # the old one
        eventually(lambda: listener.said[-1]["STATUS"].startswith(words))
        assert after
        assert graph.stop() == 0


def test_a_manager_that_is_not_there_or_does_not_read_is_no_obstacle(
    tmp_path: Path, run_dir: Path
) -> None:
    (tmp_path / "app.py").write_text(APP)
    for address in (str(run_dir.parent / "nobody"), "vsock:2:1234"):
        with served("app:Top", cwd=tmp_path, env={"NOTIFY_SOCKET": address}) as graph:
            assert graph.stop() == 0
    env = {"NOTIFY_SOCKET": str(run_dir.parent / "deaf"), "WATCHDOG_USEC": "200"}
    with (
        Manager(env["NOTIFY_SOCKET"], reads=False) as deaf, served("app:Top", cwd=tmp_path, env=env) as graph,
        graph.client() as client,
    ):  # fmt: skip
        assert client.post("/told", json={}).status_code == 200
        deaf.wait("READY")  # it has waited until there was room
        assert graph.stop() == 0


BEFORE = {
    "a graph that is none": (("broken:Nothing",), "'broken' has no class 'Nothing'"),
    "a port that is taken": (("diamond:Top", "--port", "{port}"), "in use"),
    "a configuration that is none": (("diamond:Top", "-c", "/nowhere.toml"), "/nowhere.toml"),
    "a run folder that cannot be": (("diamond:Top", "--run-dir", "/proc/none"), "/proc/none"),
}


@pytest.mark.parametrize("why", BEFORE)
def test_a_start_that_fails_before_there_are_services_says_why(listener: Manager, why: str) -> None:
    arguments, words = BEFORE[why]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [argument.format(port=taken.getsockname()[1]) for argument in arguments]
        graph = Served(*given, env={"NOTIFY_SOCKET": listener.address})
        try:
            assert graph.wait_exit() in (1, 2, 3, 4)
            stopping = listener.wait("STOPPING")
            assert listener.said[stopping]["STATUS"].startswith("failed: ")
            assert words in listener.said[stopping]["STATUS"]
            assert not any("0 of 0" in said.get("STATUS", "") for said in listener.said)
        finally:
            graph.close()


def under_the_journal(*arguments: str) -> list[str]:
    """A command whose stderr and stdout are said to be read by the journal of systemd
    (`JOURNAL_STREAM`).
    """
    script = 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"'
    return ["sh", "-c", script, "sh", *Served.command(*arguments)]


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_journal_is_told_how_bad_it_is(form: str) -> None:
    command = under_the_journal("silent:Silent", "--log-format", form, "--log-level", "debug")
    graph = Served("", command=command)
    try:
        graph.url = graph.wait_log(r'serving on ([^\s"]+)', 60).group(1)
        with graph.client() as client:
            client.post("/forges", json={"text": "from a client"})
            client.post("/fail", json={"how": "nothing"})
        graph.wait_log("after nothing", after=0)
        os.kill(graph.workers()[0], signal.SIGKILL)
        graph.wait_log("SIGKILL")
        assert graph.stop() == 0
    finally:
        graph.close()
    lines = [re.fullmatch(r"<(\d)>(.*)\n", line) for line in graph.log]
    assert all(lines), "each line has a priority, those of a traceback too"
    said = [(int(line[1]), line[2]) for line in lines if line is not None]
    if form == "json":
        said = [(priority, f"{record['stream']} {record['message']}\n{record['traceback']}")
                for priority, text in said for record in [json.loads(text)]]  # fmt: skip

    def of(words):
        return {priority for priority, text in said if words in text}

    assert of("serving on") == {6}
    assert of("it said from a client") == {4}
    assert of("KeyError: 'after nothing'") == {3}
    assert of('raise KeyError(f"after {how}")') == {3}, "a line of a traceback"
    assert of("SIGKILL") == {3}
    if form == "json":
        assert of("stderr from a client") == {4} and of("stdout from a client") == {6}
    else:
        assert not [line for line in graph.out if line.startswith("<")], (
            "stdout is not what the journal reads here"
        )


def test_an_error_of_the_command_has_its_priority_too() -> None:
    for arguments in (("broken:Top",), ("broken:Nothing",), ("broken:Top", "--port", "x")):
        graph = Served("", command=under_the_journal(*arguments))
        try:
            assert graph.wait_exit() in (2, 3, 4)
            assert [line for line in graph.log if line.startswith(("<2>Error: ", "<3>Error: "))], (
                graph.text
            )
            assert all(re.match("<[2-7]>", line) for line in graph.log)
        finally:
            graph.close()


def test_what_is_not_read_by_the_journal_has_no_priorities() -> None:
    with served("diamond:Top", env={"JOURNAL_STREAM": "1:2"}) as graph:
        assert graph.stop() == 0
        assert not [line for line in graph.log if line.startswith("<")]
