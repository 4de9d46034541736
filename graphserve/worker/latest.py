"""The latest deadline of the calls that a worker executes, where its supervisor reads it although the loop is stuck.

Runs in workers. It lies in memory of its own (memfd_create(2)), which the supervisor opens by its descriptor.
"""

from __future__ import annotations

import mmap
import os


class Latest:
    """One number in that memory."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("latest")
        os.ftruncate(self.descriptor, mmap.PAGESIZE)
        os.posix_fallocate(self.descriptor, 0, mmap.PAGESIZE)  # or a later write would end us, where memory is short
        # A list of one int for who writes it: nanoseconds of CLOCK_MONOTONIC; 0: no call with a deadline is executed.
        self.deadline = memoryview(mmap.mmap(self.descriptor, mmap.PAGESIZE)).cast("q")
