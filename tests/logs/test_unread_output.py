"""Output that nobody reads: a terminal that was paused, a pipe to a pager.

Neither workers nor the supervisor wait.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness import APPS, Served, alive, children, command, eventually

pytestmark = pytest.mark.slow

LINES = 20_000  # of 1 KiB: five times what may wait
MOST = 60 << 20  # bytes by which the supervisor may grow meanwhile


@pytest.fixture(params=["terminal", "pipe"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A reading end that is paused, and a writing end."""
    reading, writing = pty.openpty() if request.param == "terminal" else os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def read_until(descriptor: int, pattern: str, seconds: float = 30) -> str:
    text, end = "", time.monotonic() + seconds
    while not re.search(pattern, text[-200_000:]):
        assert time.monotonic() < end, text[-2000:]
        text += os.read(descriptor, 1 << 20).decode("utf-8", "replace")
    return text


def test_nobody_waits_for_who_does_not_read(ends: tuple[int, int]) -> None:
    reading, writing = ends
    process = subprocess.Popen(
        Served.command("loud:Loud"), cwd=APPS, stdout=writing, stderr=writing, stdin=subprocess.DEVNULL,
        env=os.environ | {"TERM": "xterm"}, start_new_session=True,
    )  # fmt: skip
    try:
        found = re.search(r"http://[0-9.:]+", read_until(reading, r"serving on [^\n]*\d+[^\n]*\n"))
        assert found
        before = resident(process.pid)
        with httpx.Client(base_url=found[0], timeout=60, trust_env=False) as client:
            # nobody reads from here on
            assert client.post("/shout", json={"lines": LINES, "width": 1000}).json() == LINES
            (worker,) = (pid for pid in children(process.pid) if "worker" in command(pid))
            os.kill(worker, signal.SIGKILL)
            eventually(lambda: not alive(worker))
        with httpx.Client(base_url=found[0], timeout=60, trust_env=False) as client:
            assert client.post("/shout", json={"lines": 1, "width": 1}).json() == 1, (
                "the supervisor replaces workers all the while"
            )
        assert resident(process.pid) - before < MOST
        shown = read_until(reading, r"lines were dropped: the output was not read fast enough")
        assert re.search(r"Loud\[0\]\S* 0 xxx", shown), "what came first is whole"
        dropped = re.search(r"(\d+) lines were dropped", shown)
        assert dropped and 1000 < int(dropped[1]) < LINES
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert process.wait(20) == 0
        workers = children(process.pid)
        process.kill()
        process.wait(10)
        eventually(lambda: not any(alive(pid) for pid in workers))
