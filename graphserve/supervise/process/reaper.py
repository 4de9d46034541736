"""Strays: processes that user code started and whose parent is gone.

Reaped, and killed with their worker.

Runs in the supervisor, which the kernel makes their parent (PR_SET_CHILD_SUBREAPER; as process 1 it
is that anyway). Whose they are stands in their environment, which they inherit: a call of setsid()
does not change it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from graphserve.system.child_process import cleans_up
from graphserve.system.inherited import MARK_VARIABLE

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
PF_EXITING = 0x4  # of the flags in proc(5), stat: its sockets may be closed already
STRAYS_TIMEOUT = 2.0  # seconds that the end of the supervisor waits for killed strays to be gone
CLEANING = 1.0  # seconds that a stray that cleans up behind others has, once they are gone
STEP = 0.01  # seconds between two looks meanwhile


class Reaper:
    """Looks after strays, each time that the kernel says that a child has ended.

    Args:
        workers: the workers that there are, each its pid and its mark.
    """

    def __init__(self, workers: Callable[[], Iterable[tuple[int, str]]]) -> None:
        self._workers = workers
        # since when strays that clean up are seen, on the loop's clock
        self._cleaning: dict[int, float] = {}
        # the resolver; and what was there before us, such as other jobs of a script
        self.spared = set(_children())
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._look)

    async def end(self) -> None:
        """Kill every stray that is left, and wait until they are gone."""
        loop = asyncio.get_running_loop()
        end = loop.time() + STRAYS_TIMEOUT
        while left := list(self._strays()):
            for pid in left:
                self._end_stray(pid)
            if loop.time() > end:
                break  # in the kernel's hands, such as one that waits for a disk
            await asyncio.sleep(STEP)
        loop.remove_signal_handler(signal.SIGCHLD)

    def _look(self) -> None:
        marks = {mark for pid, mark in self._workers() if not is_dead(pid)}
        for pid in self._strays():
            mark = _mark(pid)
            if mark and mark not in marks:
                self._end_stray(pid)  # then its own children are ours, and we look again

    def _end_stray(self, pid: int) -> None:
        """Kill it; what cleans up behind others has a while to do so and to end."""
        loop = asyncio.get_running_loop()
        if cleans_up(pid):
            if pid not in self._cleaning:
                self._cleaning[pid] = loop.time()
                loop.call_later(CLEANING, self._look)
            if loop.time() < self._cleaning[pid] + CLEANING:
                return
        _kill(pid)

    def _strays(self) -> Iterator[int]:
        """Our children that we did not start and that live; those that have ended are reaped."""
        known = {pid for pid, _ in self._workers()} | self.spared
        for pid in _children():
            if pid in known:
                continue
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    yield pid
                else:
                    self._cleaning.pop(pid, None)


def end_leftovers(tokens: Iterable[str]) -> None:
    """Kill what the workers of killed graphs have left running.

    Args:
        tokens: those graphs' (`RunDir.token`).
    """
    wanted = tuple(f"{token}/" for token in tokens if token)
    if not wanted:
        return
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _mark(int(entry)).startswith(wanted) and not cleans_up(int(entry)):
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(int(entry))
                try:
                    if _mark(int(entry)).startswith(wanted):  # it is still that process
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)


def _children() -> list[int]:
    """Return the direct children of this process; the kernel lists them by the thread that has
    them.
    """
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def is_dead(pid: int) -> bool:
    """Return whether a process is gone, a zombie, or about to become one (proc(5), stat)."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0] in ("Z", "X") or bool(int(fields[6]) & PF_EXITING)
    return True


def _mark(pid: int) -> str:
    """Return the mark of the worker that a process is from; empty if it has none, or none of this
    user's.
    """
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _, value = entry.partition(b"=")
            if name == MARK_VARIABLE.encode():
                return value.decode("ascii", "replace")
    return ""


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def how_it_ended(code: int) -> str:
    """Return an exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    if code == -signal.SIGKILL:
        return "was killed by SIGKILL (by somebody, or by the kernel, where memory is short)"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
