"""A file descriptor that may stall: lines are queued and a daemon thread writes them.

Runs in the supervisor.

A terminal that was paused with Ctrl-S, or a pipe that nobody reads, blocks the thread and not the
event loop.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections import deque
from collections.abc import Callable

LIMIT = 4 * 1024 * 1024  # bytes that may wait; what comes after is dropped, and counted


class DescriptorWriter:
    """Writes text to a descriptor without ever blocking the caller.

    Args:
        fd: an open descriptor; it stays open.
        apology: the line that says how many lines were dropped.
        limit: bytes that may wait.
    """

    def __init__(self, fd: int, apology: Callable[[int], str], limit: int = LIMIT) -> None:
        self._fd = fd
        self._apology = apology
        self._limit = limit
        self._waiting: deque[bytes] = deque()
        self._size = 0  # bytes that wait or are being written
        self._dropped = 0
        self._changed = threading.Condition()
        self._closing = False
        self._broken = False
        self._thread = threading.Thread(target=self._run, name=f"write-{fd}", daemon=True)
        self._thread.start()

    def write(self, text: str) -> bool:
        """Queue whole lines, or drop them when too much waits already;
        return whether they were queued.
        """
        data = text.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._broken or self._closing or not data:
                return False
            if self._dropped or self._size + len(data) > self._limit:
                self._dropped += max(1, text.count("\n"))
                return False
            self._append(data)
            return True

    def idle(self) -> bool:
        """Return whether nothing waits."""
        with self._changed:
            return self._size == 0

    def close(self, timeout: float) -> bool:
        """Write what waits, for `timeout` seconds at most; return whether all was written."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _append(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        self._changed.notify_all()

    def _run(self) -> None:
        # Where `stty tostop` is set, a background job that writes would be stopped, and with it who
        # replaces workers.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        while data := self._next():
            alive = self._write(data)
            with self._changed:
                self._size -= len(data)
                if not alive:
                    self._broken = True
                    self._waiting.clear()
                    self._size = 0
                    return

    def _next(self) -> bytes | None:
        with self._changed:
            while not self._waiting:
                if self._dropped:  # everything older is out: now say what is missing here
                    self._append(self._apology(self._dropped).encode())
                    self._dropped = 0
                elif self._closing:
                    return None
                else:
                    self._changed.wait()
            return self._waiting.popleft()

    def _write(self, data: bytes) -> bool:
        """Write data, and return whether the descriptor takes more; EPIPE and EIO (the terminal is
        gone) end it.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # somebody who shares the descriptor made it non-blocking
                select.select([], [self._fd], [])
            except OSError:
                return False
        return True
