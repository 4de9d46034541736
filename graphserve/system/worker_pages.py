"""Memory that the supervisor and its workers share: which processes are workers, and what each
worker is doing.

The roster (memfd_create(2)) has a bit for each pid that there can be. The supervisor writes it: a
worker is added before its first line runs, and removed when it is dead. So it is right at every
moment, where a message might still be on its way.

Each worker has a page of its own, of 64-bit words, which it writes (`worker/flight_recorder.py`)
and the supervisor reads (`WorkerPage`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

# The words of a worker's page.
# the latest deadline of what is executed: nanoseconds of CLOCK_MONOTONIC; 0: no call with one is
# executed
DEADLINE = 0
EXECUTING = 1  # calls that are executed, never fewer than there are, and 0 if there is none
# then notes of two words: API (counted from 1) << 40 | length of the body, or 0; its check
FIRST_NOTE, NOTE = 2, 2
UPLOAD = (1 << 40) - 1  # as a length: the body is a stream, of which nothing is kept
WORDS = 512  # of one page

# bytes; a pid is below 2^22 on Linux (proc(5), pid_max). It is sparse: a page or two are used
_SIZE = (1 << 22) // 8


class Roster:
    """The supervisor's side of the roster.

    `descriptor` is what workers read; it is -1 where none can be made: then no process is known as
    a worker.
    """

    def __init__(self) -> None:
        self._memory = -1
        self.descriptor = -1
        with contextlib.suppress(OSError, AttributeError):  # /proc is hidden, or this is no Linux
            self._memory = os.memfd_create("roster", os.MFD_CLOEXEC)
            os.ftruncate(self._memory, _SIZE)
            self.descriptor = os.open(f"/proc/self/fd/{self._memory}", os.O_RDONLY | os.O_CLOEXEC)

    def add(self, pid: int) -> None:
        """Note that this process is a worker."""
        self._write(pid, True)

    def discard(self, pid: int) -> None:
        """Note that this process is no worker any more."""
        self._write(pid, False)

    def close(self) -> None:
        """Close both descriptors."""
        for descriptor in (self._memory, self.descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._memory = -1
        self.descriptor = -1

    def _write(self, pid: int, on_it: bool) -> None:
        if self.descriptor < 0:
            return
        bit = 1 << (pid & 7)
        with contextlib.suppress(OSError):  # there is no memory: who is not on it is not trusted
            (byte,) = os.pread(self._memory, 1, pid >> 3)
            os.pwrite(self._memory, bytes([byte | bit if on_it else byte & ~bit]), pid >> 3)


class RosterReader:
    """A worker's side of the roster: `pid in workers`.

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


class WorkerPage:
    """Reads the page of one worker, also after the worker's death.

    Args:
        descriptor: of that memory; -1 if there is none. Owned by this object.
    """

    def __init__(self, descriptor: int = -1) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Let go of the memory."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def deadline(self) -> float:
        """Return the latest deadline of what it executes, seconds of CLOCK_MONOTONIC;
        0.0 if there is none.
        """
        return self._words()[DEADLINE] / 1e9

    def executing(self) -> int:
        """Return how many calls it executes, or a few more; 0 if none."""
        return self._words()[EXECUTING]

    def notes(self) -> Iterator[tuple[int, int, int]]:
        """Yield a note for each call that it executes for a client.

        Each is which API of the node, counted from 0; the length of its body, or `UPLOAD`; and the
        check of its body.
        """
        words = self._words()
        for place in range(FIRST_NOTE, WORDS, NOTE):
            api = words[place] >> 40
            if api >= 1:
                yield api - 1, words[place] & (1 << 40) - 1, words[place + 1]

    def _words(self) -> Sequence[int]:
        size = WORDS * 8
        try:
            data = os.pread(self._descriptor, size, 0)
        except OSError:
            data = b""
        return memoryview(data.ljust(size, b"\0")).cast("q")
