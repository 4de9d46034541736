"""Our child processes: the file that each begins with, and how it ends, with all that it started.

A child ends with the process that started it: user code may hang in it, and the kernel ends it all
the same. What the child has started is in its process group and ends with it, but for what cleans
up behind it: multiprocessing (and joblib, in its way) has a process that removes the names of
semaphores and shared memory when all who may use them have ended. Killed with the group, it would
leave the names in /dev/shm until the machine starts again. It ends by itself, as soon as all the
others have. Used by whoever starts a child, and by the child itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
from pathlib import Path

from graphserve.errors import ExitCode

# run as `python -P FIRST_FILE resolve|supervise|worker …`
FIRST_FILE = str(Path(__file__).parents[1] / "child.py")
ROUNDS = 16  # looks at a group that forks while it is being ended
_PR_SET_PDEATHSIG = 1  # prctl(2): the signal comes when the thread that started us ends
_TRACKER = b"resource_tracker import main"  # in what such a process executes (`python -c …`)


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process with SIGKILL when its parent ends;
    nothing on systems other than Linux.

    Args:
        parent: the pid that started us.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(ExitCode.FAILED)


def begin_collecting(*, tidy: bool = False) -> None:
    """Collect garbage from now on; what was imported until now stays, and is not looked through.

    A process of ours begins without: while modules are imported, the collector would go again and
    again through what they are made of, and find little.

    Args:
        tidy: whether to free what the imports have left, about 130 KB of Python's own modules, for
            15 ms: in a process that is one of many, and lives long.
    """
    if tidy:
        gc.collect()
    gc.freeze()
    gc.enable()


def end_group(group: int) -> None:
    """Kill all processes of a group (SIGKILL), but for those that clean up behind the others.

    Args:
        group: the group; its leader is not waited for yet, so the number is still its own.
    """
    if not any(pid != group and cleans_up(pid) for pid in _members(group)):
        _kill_all(group)
        return
    killed: set[int] = set()
    for _ in range(ROUNDS):
        left = {
            pid
            for pid in _members(group)
            if pid not in killed and (pid == group or not cleans_up(pid))
        }
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= left
    _kill_all(group)


def cleans_up(pid: int) -> bool:
    """Return whether a process removes what others leave, and ends behind them."""
    with contextlib.suppress(OSError):
        return any(
            _TRACKER in argument
            for argument in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        )
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
