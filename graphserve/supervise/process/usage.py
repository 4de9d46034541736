"""What a worker uses of the machine: CPU and memory, from proc(5). Runs in the supervisor."""

from __future__ import annotations

import mmap
import os
import time

TICK = os.sysconf("SC_CLK_TCK")  # units of CPU time a second
SPAN = 1.0  # seconds that a share of CPU is measured over; it may be up to twice as long


class Usage:
    """The usage of one process; all zero once it is gone.

    Args:
        pid: the process.
    """

    def __init__(self, pid: int) -> None:
        self._stat, self._statm = f"/proc/{pid}/stat", f"/proc/{pid}/statm"
        self._before = self._last = (time.monotonic(), 0.0)

    def cpu(self) -> float:
        """Percent of one CPU, since about a second ago; look from time to time, as each look begins the next span."""
        now = time.monotonic()
        if now - self._last[0] >= SPAN:
            self._before, self._last = self._last, (now, self._seconds())
        then, used = self._before
        return round(max(0.0, self._seconds() - used) / max(now - then, 1e-3) * 100, 1)

    def memory(self) -> int:
        """Bytes of resident memory."""
        try:
            with open(self._statm) as file:
                return int(file.read().split()[1]) * mmap.PAGESIZE
        except (OSError, IndexError):
            return 0

    def _seconds(self) -> float:
        try:
            with open(self._stat) as file:
                fields = file.read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / TICK  # utime, stime
        except (OSError, IndexError):
            return 0.0
