"""What modules may change in their process while they are imported, and what is put right.

In resolver and workers.

A module may close descriptors that it never opened, take signals, or lower the limit of recursion.
A program that only runs that module gets by, and so shall the user's graph. What cannot be put
right is told in words.
"""

from __future__ import annotations

import os
import signal
import sys

from graphserve.system import inherited
from graphserve.system.inherited import do_nothing

CLOSED = (
    "closed descriptors that it did not open, graphserve's own among them (os.closerange or the"
    " like): close only what you opened"
)


class Steady:
    """This process as it is before user modules are imported.

    Args:
        descriptor: by which it answers.
        ignores: whether it ignores Ctrl-C, and clients that leave.
    """

    def __init__(self, descriptor: int, *, ignores: bool) -> None:
        self._descriptor = descriptor
        self._file = _file(descriptor)
        self._recursion = sys.getrecursionlimit()
        self._ignores = ignores

    @property
    def cut_off(self) -> bool:
        """Return whether its descriptor was closed; another file may have the number by now."""
        return _file(self._descriptor) != self._file

    def restore(self) -> None:
        """Put right what modules changed."""
        # or a socket gets the number of what was closed, and what is printed
        inherited.open_standard_streams()
        if sys.getrecursionlimit() < self._recursion:
            sys.setrecursionlimit(self._recursion)
        if self._ignores:
            # a client that leaves must not end a worker
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            # nor Ctrl-C, whose meaning the supervisor decides
            signal.signal(signal.SIGINT, do_nothing)


def _file(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
