"""Processes of a server under measurement: started, asked until it answers, weighed, and all of them ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.load import Request, succeeds

START_LIMIT = 120.0  # seconds
STOP_LIMIT = 15.0  # seconds from SIGTERM to SIGKILL
TICKS = os.sysconf("SC_CLK_TCK")  # a second
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


class StartError(Exception):
    """Raised when a server does not answer in time, or ends."""


def adopt_orphans() -> None:
    """Become the parent of processes whose parents end first, so that none gets away."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Server:
    """A server and its processes.

    Args:
        command: how it is started.
        port: where it will listen.
        folder: where it runs; its log is `log` there.
        env: variables to set.
    """

    def __init__(self, command: list[str], port: int, folder: Path, env: Mapping[str, str]) -> None:
        self.port, self.log = port, folder / "log"
        self.began = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def wait_ready(self, request: Request) -> float:
        """Ask until the answer is a 200; seconds since the start.

        Raises:
            StartError: it ended, or took too long.
        """
        while True:
            if succeeds(request):
                return time.perf_counter() - self.began
            if self.process.poll() is not None:
                raise StartError(f"ended with {self.process.returncode}: {self.last_words()}")
            if time.perf_counter() - self.began > START_LIMIT:
                raise StartError(f"not ready within {START_LIMIT:.0f} s: {self.last_words()}")
            time.sleep(0.005)  # between two questions

    def last_words(self) -> str:
        """The last line of the log that says something."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else "it said nothing"

    def memory(self) -> float:
        """MB that its processes hold, each shared page counted once in all (PSS)."""
        return sum(_pss(pid) for pid in tree(self.process.pid)) / 1024

    def cpu(self) -> dict[int, float]:
        """Seconds of CPU that each of its processes has used."""
        return {pid: cpu(pid) for pid in tree(self.process.pid)}

    def stop(self) -> None:
        """End all of its processes: SIGTERM, then SIGKILL to what is left."""
        known = {pid: _started(pid) for pid in tree(self.process.pid)}
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        end = time.monotonic() + STOP_LIMIT
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_LIMIT)
        while (left := [pid for pid in known if known[pid] and _started(pid) == known[pid]]) and time.monotonic() < end:
            if self.process.poll() is not None and end - time.monotonic() > 3:
                end = time.monotonic() + 3  # the others have 3 s after the first of them
            time.sleep(0.02)  # between two looks
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_LIMIT)


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    return [pid, *(each for child in children(pid) for each in tree(child))]


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu(pid: int) -> float:
    """Seconds of CPU that a process and its ended children have used."""
    return sum(int(value) for value in _stat(pid)[11:15]) / TICKS


def _pss(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _stat(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _started(pid: int) -> Any:
    """What tells a process from a later one of the same pid; None if it has ended."""
    stat = _stat(pid)
    return stat[19] if stat and stat[0] != "Z" else None
