"""Real graphs in real processes, for tests: start them, look at them, and end them whatever
happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import httpx
import pytest

# seconds until a condition is given up that should hold at once: times are not what tests are about
LONG = 60.0
APPS = Path(__file__).parent / "apps"
T = TypeVar("T")
OWN_SOCKET = re.compile(r"\d+\.sock")  # named by the worker's pid


class Served:
    """`graphserve serve …` in a process of its own.

    Args:
        target: what to serve.
        arguments: further arguments; `--port 0` unless they say where to listen.
        cwd: the folder to run in.
        env: variables to set.
        stdin: its standard input; default: that of this process.
        command: the whole command instead, such as one that then becomes `Served.command(…)`.
    """

    open: ClassVar[set[Served]] = set()  # of this process

    def __init__(
        self,
        target: str,
        *arguments: str,
        cwd: Path = APPS,
        env: dict[str, str] | None = None,
        stdin: int | None = None,
        command: list[str] | None = None,
    ) -> None:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("GRAPHSERVE_")
        }
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command or self.command(target, *arguments),
            cwd=cwd, env=clean | (env or {}), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self.pid = self.process.pid
        self.out: list[str] = []
        self.log: list[str] = []
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.out), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.log), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.url = ""
        Served.open.add(self)

    @staticmethod
    def command(target: str, *arguments: str) -> list[str]:
        """The command that serves a target."""
        where = [] if {"--port", "-p", "--uds"} & set(arguments) else ["--port", "0"]
        return [sys.executable, "-m", "graphserve", "serve", target, *where, *arguments]

    def wait_ready(self, seconds: float = LONG) -> Served:
        """Wait until it says where it serves."""
        line = self.wait_log(r"serving on (\S+)", seconds)
        self.ready_after = time.monotonic() - self.began
        self.url = line.group(1)
        return self

    def wait_log(self, pattern: str, seconds: float = LONG, after: int = 0) -> re.Match[str]:
        """Wait for a line of the log, and return the match."""
        end = time.monotonic() + seconds
        with self._news:
            while True:
                for line in self.log[after:]:
                    if match := re.search(pattern, line):
                        return match
                if self.process.poll() is not None and not any(
                    reader.is_alive() for reader in self._readers
                ):
                    raise AssertionError(
                        f"ended with {self.process.returncode}, no {pattern!r} in:\n{self.text}"
                    )
                if time.monotonic() > end:
                    raise AssertionError(f"no {pattern!r} within {seconds} s in:\n{self.text}")
                self._news.wait(0.1)

    def wait_supervising(self, seconds: float = LONG) -> None:
        """Wait until it handles signals in its own way."""
        eventually(lambda: handles(self.pid, signal.SIGTERM), seconds)

    @property
    def text(self) -> str:
        """All of the log so far."""
        return "".join(self.log)

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the supervisor."""
        self.process.send_signal(number)

    def wait_exit(self, seconds: float = LONG) -> int:
        """Wait until it ended; its exit code."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(5)
        return code

    def stop(self) -> int:
        """SIGTERM, and wait."""
        self.signal()
        return self.wait_exit()

    def close(self) -> None:
        """End it and everything it started, at once."""
        workers = self.workers()
        for pid in (self.pid, *workers):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self.process.wait(10)
        eventually(lambda: not any(alive(pid) for pid in workers), 10)
        Served.open.discard(self)
        if "PYTEST_CURRENT_TEST" in os.environ:
            print(self.text, end="")  # shown with a test that fails

    def workers(self, node: str | None = None) -> list[int]:
        """The pids of the workers: of the node with this id (`n0`, …), or all."""
        found = []
        for pid in children(self.pid):
            words = command(pid)
            if "worker" in words and (node is None or words[words.index("worker") + 1] == node):
                found.append(pid)
        return sorted(found)

    def fallback_servers(self) -> list[int]:
        """Return the pids of the fallback servers at the public port."""
        return [pid for pid in children(self.pid) if "fallback" in command(pid)]

    def client(self, **options: Any) -> httpx.Client:
        """A client of the entry."""
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._news:
                lines.append(line.decode())
                self._news.notify_all()
        with self._news:
            self._news.notify_all()


@contextlib.contextmanager
def served(target: str, *arguments: str, **options: Any) -> Iterator[Served]:
    """A graph that is ready, and is ended at the end."""
    graph = Served(target, *arguments, **options)
    try:
        yield graph.wait_ready()
    finally:
        graph.close()


def received(run: Path) -> list[Path]:
    """Return the files of calls that are in a run folder, from which they are being removed."""
    return [
        Path(folder) / name
        for folder, _, names in os.walk(run)  # (what vanishes meanwhile is passed over)
        for name in names
        if Path(folder).parent.name.endswith(".files")
    ]


class InThread(Generic[T]):
    """A call that is made in a thread, and its answer."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self.answers: list[T] = []
        self._thread = threading.Thread(target=lambda: self.answers.append(self._call()))
        self._thread.start()

    def answer(self) -> T:
        """Wait until the call is answered."""
        self._thread.join(LONG)
        (answer,) = self.answers
        return answer


def checked(target: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What `graphserve check` says of a target."""
    command = [sys.executable, "-m", "graphserve", "check", target]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=2 * LONG, errors="replace"
    )


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    with contextlib.suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return []


def command(pid: int) -> list[str]:
    """The command line of a process; empty if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    return []


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) & 1 << number - 1)
    return False


def state(pid: int) -> str:
    """The state of a process, such as `S` or `Z` (proc(5)); empty if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def alive(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    return state(pid) not in ("Z", "")


def eventually(holds: Callable[[], Any], seconds: float = LONG) -> Any:
    """Wait until a condition holds; its value."""
    began = time.monotonic()
    while True:
        if value := holds():
            return value
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"did not hold within {seconds} s")
        # between two looks, which cost more than the wait does
        time.sleep(min(0.005 + waited / 20, 0.1))


def rarely(*values: object) -> Any:
    """Values of parameters that only the slow tests try: others show the same promise."""
    return pytest.param(*values, marks=pytest.mark.slow)


def sockets(folder: Path) -> list[Path]:
    """The worker's own sockets under a run folder, whose folders come and go while it is read."""
    return [
        Path(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if OWN_SOCKET.fullmatch(name)
    ]


def shared(run_dir: Path, name: str) -> str:
    """The shared socket of a node."""
    plan = next(run_dir.rglob("plan.json"))
    id = next(node["id"] for node in json.loads(plan.read_text())["nodes"] if node["name"] == name)
    return str(run_dir / id / "q.sock")


def waiting(path: str) -> int:
    """Connections in the accept queue: connected, not yet accepted (flags 0, state 2: no inode of
    its own).
    """
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    own = [fields for fields in lines if len(fields) > 7 and fields[7] == path]
    return sum(fields[5] == "02" for fields in own)
