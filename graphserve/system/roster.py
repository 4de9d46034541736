"""The roster: which processes are workers of this graph, where each of them can look. Used in both processes.

It is memory (memfd_create(2)) with a bit for each pid that there can be. The supervisor writes it: a worker is named
before its first line runs, and struck out when it is dead. So it is right at every moment, where a message might still
be on its way.
"""

from __future__ import annotations

import contextlib
import os

_SIZE = (1 << 22) // 8  # bytes; a pid is below 2^22 on Linux (proc(5), pid_max). It is sparse: a page or two are used


class Roster:
    """The supervisor's side. `descriptor` is what a worker reads; -1 where none can be made: then nobody is on it."""

    def __init__(self) -> None:
        self._memory = self.descriptor = -1
        with contextlib.suppress(OSError, AttributeError):  # /proc is hidden, or this is no Linux
            self._memory = os.memfd_create("roster", os.MFD_CLOEXEC)
            os.ftruncate(self._memory, _SIZE)
            self.descriptor = os.open(f"/proc/self/fd/{self._memory}", os.O_RDONLY | os.O_CLOEXEC)

    def add(self, pid: int) -> None:
        """This process is a worker."""
        self._write(pid, True)

    def discard(self, pid: int) -> None:
        """It is no more."""
        self._write(pid, False)

    def close(self) -> None:
        """Close our side."""
        for descriptor in (self._memory, self.descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._memory = self.descriptor = -1

    def _write(self, pid: int, on_it: bool) -> None:
        if self.descriptor < 0:
            return
        bit = 1 << (pid & 7)
        with contextlib.suppress(OSError):  # no memory: who is not on it is not believed
            (byte,) = os.pread(self._memory, 1, pid >> 3)
            os.pwrite(self._memory, bytes([byte | bit if on_it else byte & ~bit]), pid >> 3)


class Workers:
    """A worker's side: `pid in workers`.

    Args:
        descriptor: of the supervisor's roster; owned from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __contains__(self, pid: object) -> bool:
        if not isinstance(pid, int) or pid <= 0:
            return False
        found = os.pread(self._descriptor, 1, pid >> 3)
        return bool(found and found[0] >> (pid & 7) & 1)
