"""How much of the machine others use while something is measured, to know which rounds to take
again.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.measuring.processes import TICKS, cpu, tree

LOOK = 0.4  # seconds that are looked at to know whether others are busy
IDLE, STOLEN, GUEST = (3, 4), 7, 8  # columns of /proc/stat; guest time is in user time too


class Disturbance:
    """The share of all cores that was used by others, or taken by the host, since this was made."""

    def __init__(self) -> None:
        self.began, self.busy, self.own = time.perf_counter(), _busy(), _own()

    def share(self) -> float:
        """0 (alone) to 1 (all cores were busy with other things)."""
        cores = os.cpu_count() or 1
        others = (_busy() - self.busy) - (_own() - self.own)
        return min(1.0, max(0.0, others / ((time.perf_counter() - self.began) * cores)))


def _busy() -> float:
    columns = [
        int(value) for value in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    ]
    return sum(value for column, value in enumerate(columns[:GUEST]) if column not in IDLE) / TICKS


def _own() -> float:
    return sum(cpu(pid) for pid in tree(os.getpid()))


def wait_for_calm(seconds: float, share: float) -> None:
    """Wait until others use less than this share of the cores, or the time is over."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        disturbance = Disturbance()
        time.sleep(LOOK)
        if disturbance.share() < share:
            return
