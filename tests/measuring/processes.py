"""What the system says of processes: their descendants, their memory, their descriptors; and ports
that are free.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # a second
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def adopt_orphans() -> None:
    """Become the parent of processes whose parents end first, so that none gets away."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


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


def pss(pid: int) -> int:
    """KB of memory that a process holds, its part of what it shares with others included; 0 if it
    is gone.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _stat(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def started(pid: int) -> str | None:
    """What tells a process from a later one of the same pid; None if it has ended."""
    stat = _stat(pid)
    return stat[19] if stat and stat[0] != "Z" else None


def descriptors(pid: int) -> int:
    """How many file descriptors a process has open; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0
