"""How a process ends with all that it started, but for what cleans up behind it. In the supervisor and in commands.

multiprocessing (and joblib, in its way) has a process that removes the names of semaphores and shared memory when all
who may use them have ended. It is in the group of who uses them; killed with that group, the names would stay in
/dev/shm until the machine starts again. It ends by itself, as soon as all the others have.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

ROUNDS = 16  # looks at a group that forks while it is being ended
_TRACKER = b"resource_tracker import main"  # in what such a process executes (`python -c …`)


def end_group(group: int) -> None:
    """SIGKILL to all processes of a group, but for those that clean up behind the others.

    Args:
        group: the group; its leader is not waited for yet, so the number is still its own.
    """
    if not any(pid != group and cleans_up(pid) for pid in _members(group)):
        _kill_all(group)
        return
    killed: set[int] = set()
    for _ in range(ROUNDS):
        left = {pid for pid in _members(group) if pid not in killed and (pid == group or not cleans_up(pid))}
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= left
    _kill_all(group)


def cleans_up(pid: int) -> bool:
    """Whether a process is one that removes what others leave, and ends behind them."""
    with contextlib.suppress(OSError):
        return any(_TRACKER in argument for argument in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
    return False


def _members(group: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.getpgid(int(entry)) == group:
                    found.append(int(entry))
    return found


def _kill_all(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
