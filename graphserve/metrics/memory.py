"""The memory that one worker counts in, as its supervisor makes, reads and keeps it. Runs in the
supervisor.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from graphserve.metrics.layout import (
    END_AT,
    FIRST,
    FORMAT,
    FORMAT_AT,
    MEANING_AT,
    SIZE_AT,
    UNPLACED_AT,
    WORD,
    Layout,
)


class SlotMemory:
    """One of these memories, of a worker that lives or has died.

    Args:
        layout: what the keys in it mean.
        descriptor: of the memory; owned by this object.
    """

    def __init__(self, layout: Layout, descriptor: int) -> None:
        self.layout = layout
        self.descriptor = descriptor

    @classmethod
    def make(cls, layout: Layout) -> SlotMemory:
        """Make the memory of a worker that is about to start.

        Raises:
            OSError: the machine gives us none.
        """
        size = layout.words * WORD
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        descriptor = os.memfd_create("metrics", flags)
        try:
            # (a page that is not there yet would end who writes it, where memory is short)
            os.posix_fallocate(descriptor, 0, size)
            # nobody can cut it under who reads it
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
            with mmap.mmap(descriptor, size) as memory, memoryview(memory).cast("q") as words:
                words[FORMAT_AT] = FORMAT
                words[SIZE_AT] = layout.words
                words[MEANING_AT] = layout.meaning
                words[END_AT] = FIRST
        except BaseException:
            os.close(descriptor)
            raise
        return cls(layout, descriptor)

    def read(self) -> list[int]:
        """Return its words, as far as they are in use; those of its worker, who may write on."""
        size = self.layout.words
        with (
            mmap.mmap(self.descriptor, size * WORD, access=mmap.ACCESS_READ) as memory,
            memoryview(memory).cast("q") as words,
        ):
            end = words[END_AT]
            with words[: min(max(end, FIRST), size)] as used:
                return used.tolist()

    def unplaced(self) -> int:
        """Return how many series found no room."""
        return self.read()[UNPLACED_AT]

    def close(self) -> None:
        """Let go of it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
