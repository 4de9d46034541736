"""Processes of a server under measurement: started, asked until it answers, weighed, and all of
them ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.load import succeeds
from tests.measuring.processes import cpu, pss, started, tree
from tests.measuring.requests import Request

START_LIMIT = 120.0  # seconds
STOP_LIMIT = 15.0  # seconds from SIGTERM to SIGKILL


class StartError(Exception):
    """Raised when a server does not answer in time, or ends."""


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
        lines = [
            line.strip()
            for line in self.log.read_text(errors="replace").splitlines()
            if line.strip()
        ]
        return lines[-1][:200] if lines else "it said nothing"

    def memory(self) -> float:
        """MB that its processes hold, each shared page counted once in all (PSS)."""
        return sum(pss(pid) for pid in tree(self.process.pid)) / 1024

    def cpu(self) -> dict[int, float]:
        """Seconds of CPU that each of its processes has used."""
        return {pid: cpu(pid) for pid in tree(self.process.pid)}

    def stop(self) -> None:
        """End all of its processes: SIGTERM, then SIGKILL to what is left."""
        known = {pid: started(pid) for pid in tree(self.process.pid)}
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        end = time.monotonic() + STOP_LIMIT
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_LIMIT)
        while (
            left := [pid for pid in known if known[pid] and started(pid) == known[pid]]
        ) and time.monotonic() < end:
            if self.process.poll() is not None and end - time.monotonic() > 3:
                end = time.monotonic() + 3  # the others have 3 s after the first of them
            time.sleep(0.02)  # between two looks
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_LIMIT)
