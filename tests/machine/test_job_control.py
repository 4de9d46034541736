"""A terminal that stops jobs: with Ctrl-Z, and, where it is told so, those that write to it in the
background.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shlex
import signal
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness import APPS, Served, alive, children, command, eventually, handles

LINES = 5_000  # many times what a pipe holds


class Terminal:
    """A shell with job control on a terminal of its own, which runs one line.

    Args:
        line: what the shell runs.
        folder: where.
    """

    def __init__(self, line: str, folder: Path) -> None:
        self.master, slave = pty.openpty()
        self.shell = subprocess.Popen(
            ["sh", "-c", line], cwd=folder, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env=os.environ | {"TERM": "xterm"}, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.shown = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self, pattern: str) -> re.Match[str]:
        """Wait until something is shown."""
        found: re.Match[str] = eventually(lambda: re.search(pattern, self.shown), 60)
        return found

    def press(self, key: bytes) -> None:
        """A key."""
        os.write(self.master, key)

    def supervisor(self) -> int:
        """The job."""
        (pid,) = (pid for pid in children(self.shell.pid) if "serve" in command(pid))
        return pid

    def close(self) -> None:
        """End all that runs on it."""
        jobs = children(self.shell.pid)
        rest = [worker for job in jobs for worker in children(job)]
        for pid in (*jobs, *rest, self.shell.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.shell.wait(10)
        self._reader.join(10)
        os.close(self.master)
        eventually(lambda: not any(alive(pid) for pid in rest))

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # everybody has closed it
            while data := os.read(self.master, 1 << 16):
                self.shown += data.decode("utf-8", "replace")


@pytest.fixture
def job(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """A graph that serves, started by the line that the test gives."""
    terminal = Terminal(request.param.format(shlex.join(Served.command("loud:Loud"))), APPS)
    try:
        yield terminal
    finally:
        terminal.close()


def shout(url: str) -> None:
    assert (
        httpx.post(
            f"{url}/shout", json={"lines": LINES, "width": 100}, timeout=60, trust_env=False
        ).json()
        == LINES
    )


@pytest.mark.parametrize("job", ["set -m; {}; echo ended $?"], indirect=True)
def test_ctrl_z_stops_neither_the_supervisor_nor_its_workers(job: Terminal) -> None:
    url = job.wait(r"serving on \S*?(http://[\d.:]+\d)")[1]
    assert handles(job.supervisor(), signal.SIGTSTP)
    (worker,) = children(job.supervisor())
    job.press(b"\x1a")
    job.wait("not suspended by Ctrl-Z, it serves on; Ctrl-C stops it")
    shout(url)
    os.kill(worker, signal.SIGKILL)
    shout(url)
    job.press(b"\x1a")
    shout(url)
    job.press(b"\x03")
    job.wait("ended 0")
    assert job.shown.count("Ctrl-Z, it serves on") == 1


@pytest.mark.parametrize("job", ["stty tostop; set -m; {} & wait; echo ended $?"], indirect=True)
def test_a_background_job_may_write_to_a_terminal_that_would_stop_it(job: Terminal) -> None:
    url = job.wait(r"serving on \S*?(http://[\d.:]+\d)")[1]
    assert os.tcgetpgrp(job.master) != job.supervisor()
    shout(url)
    shout(url)
    os.kill(job.supervisor(), signal.SIGTERM)
    job.wait("ended 0")
