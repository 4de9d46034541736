"""Whose turn it is to collect a batch, among the workers of one node: one at a time. Runs in workers.

Two free workers that collect at once share what comes, and each executes half a batch. So a worker collects only while
it holds a lock that its siblings share; the kernel lets go of it when its holder dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

TURN_PAUSE = 0.001  # seconds after which a worker asks again, while a sibling collects


class Turn:
    """The turn at one batched API.

    Args:
        sock: the path of its shared socket; the file that is locked lies beside it.
    """

    def __init__(self, sock: str) -> None:
        self._path = sock.removesuffix(".sock") + ".turn"
        self._file = self._opened()
        self._mine = False
        os.register_at_fork(after_in_child=self._forget)  # a child would hold the lock on

    def take(self) -> bool:
        """Take the turn, unless a sibling has it (flock(2))."""
        if not self._mine:
            with contextlib.suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._mine = True
        return self._mine

    def leave(self) -> None:
        """Let a sibling collect."""
        if self._mine:
            self._mine = False
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def renew(self) -> None:
        """Open the file again if somebody removed it: siblings that come later lock the one that has its name."""
        if self._mine:
            return  # the next time
        with contextlib.suppress(OSError):  # (the folder is made anew by the supervisor, and looked at again)
            if not os.path.exists(self._path) or not os.path.samestat(os.stat(self._path), os.fstat(self._file)):
                before, self._file = self._file, self._opened()
                os.close(before)

    def _opened(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _forget(self) -> None:
        os.close(self._file)
