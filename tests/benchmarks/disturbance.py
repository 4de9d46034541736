"""How much of the machine others use while something is measured, to know which rounds to take again."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from tests.benchmarks.processes import tree

TICKS = os.sysconf("SC_CLK_TCK")
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
    columns = [int(value) for value in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]
    return sum(value for column, value in enumerate(columns[:GUEST]) if column not in IDLE) / TICKS


def _own() -> float:
    total = 0
    for pid in tree(os.getpid()):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(value) for value in stat[11:15])  # user, system, and those of ended children
    return total / TICKS
