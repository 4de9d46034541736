"""Says whether this process has written to a private mapping of a file; runs in workers.

The kernel says it page by page, in `/proc/self/pagemap` (proc(5)): a page that was written to is a
copy, which is of no file. That takes time for each page. A copy is made in a page fault, so of a
large mapping it is asked first whether there was any fault at all.
"""

from __future__ import annotations

import mmap
import os
import resource
import sys

# From here on it is quicker to ask twice how many faults there were than to look at the pages.
_LARGE = 256 * 1024  # bytes
_ENTRY = 8  # bytes of the table for a page
_HIGHEST = _ENTRY - 1 if sys.byteorder == "little" else 0
# In the highest byte of an entry: the page is in memory or swapped out; it is of a file.
_THERE = 0b1100_0000
_OF_A_FILE = 0b0010_0000
_CLEAN = bytes(byte for byte in range(256) if not byte & _THERE or byte & _OF_A_FILE)


class PageMap:
    """Reads the table of this process's pages, which stays open: to open it takes longer than a
    look.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def faults(self, size: int) -> int | None:
        """Return how many page faults there were so far; None where nobody needs to know that.

        Args:
            size: of the mapping, in bytes.
        """
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt if size >= _LARGE else None

    def may_be_written(self, address: int, size: int, faults: int | None) -> bool:
        """Return whether pages of a private mapping of a file were written to; True where the
        kernel does not say.

        Args:
            address: where the bytes begin.
            size: how many bytes are asked about.
            faults: what `faults` has said before anybody could write there.
        """
        if faults and faults == self.faults(_LARGE):  # (a sandbox that does not count says 0)
            return False
        first = address // mmap.PAGESIZE
        pages = (address + size - 1) // mmap.PAGESIZE - first + 1
        try:
            if self._descriptor is None:
                self._descriptor = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
            entries = os.pread(self._descriptor, pages * _ENTRY, first * _ENTRY)
        except OSError:  # no /proc, or this process hides itself
            return True
        highest = entries[_HIGHEST::_ENTRY]
        return len(highest) != pages or bool(highest.translate(None, _CLEAN))
