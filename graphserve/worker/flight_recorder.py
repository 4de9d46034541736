"""What a worker executes, where its supervisor reads it although the loop is stuck
or the process is dead.

It is in memory of its own (memfd_create(2)), which the supervisor has a descriptor of. The server
makes it, the executor and the HTTP requests write into it: so it is a module of its own. Runs in
workers.
"""

from __future__ import annotations

import mmap
import os
from zlib import crc32

from graphserve.call.call_fingerprint import WHOLE, check
from graphserve.system.worker_pages import FIRST_NOTE, NOTE, UPLOAD, WORDS


class FlightRecorder:
    """Holds that memory, as a list of ints for whoever writes it (`system/worker_pages.py`)."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("latest")
        os.ftruncate(self.descriptor, mmap.PAGESIZE)
        # or a later write would end us, where memory is short
        os.posix_fallocate(self.descriptor, 0, mmap.PAGESIZE)
        self.words = memoryview(mmap.mmap(self.descriptor, mmap.PAGESIZE)).cast("q")
        self.notes = CallNotes(self.words)


class CallNotes:
    """Notes of the calls that clients make here: nobody else of ours would know what was executed
    at a death.

    Args:
        words: that memory.
    """

    def __init__(self, words: memoryview[int]) -> None:
        self._words = words
        self._free = list(range(FIRST_NOTE, WORDS, NOTE))

    def add(self, route: int, body: bytes) -> int:
        """Note a call that is about to be executed.

        Args:
            route: which API of the node, counted from 0.
            body: its arguments as they came.

        Returns:
            The place of the note; -1 if there is no room.
        """
        if not self._free:
            return -1
        place = self._free.pop()
        words = self._words
        length = len(body)
        words[place + 1] = crc32(body) if length <= WHOLE else check(body)
        words[place] = (route + 1) << 40 | length
        return place

    def add_upload(self, route: int) -> int:
        """Note a call whose body is a stream; of its bytes nothing is kept."""
        if not self._free:
            return -1
        place = self._free.pop()
        self._words[place] = (route + 1) << 40 | UPLOAD
        return place

    def remove(self, place: int) -> None:
        """Remove the note: the call is over."""
        self._words[place] = 0
        self._free.append(place)
