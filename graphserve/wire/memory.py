"""Large buffers between processes of one machine: pooled shared memory instead of the socket. Runs in workers.

The sender owns segments (memfd, sealed against shrinking and growing) and sends references; the receiver opens
`/proc/<pid>/fd/<n>` and maps it read-only. Who reads holds a shared flock, and the sender uses a segment again only
when it gets the exclusive one: so a view is safe for as long as it lives, and the kernel lets go when its holder dies.
Mappings are kept on both sides, since fresh pages cost more than the copy.

A segment begins with a header: the generation (how often it was filled) and the generation that was last taken.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import time

from graphserve.wire.mappings import GENERATIONS, HEADER, REFERENCE, Receiver

MIN_SIZE = 64 * 1024  # bytes; below, the socket is cheaper
ABANDONED = 60.0  # seconds after which a result that nobody took is given up: its caller is gone
IDLE = 20.0  # seconds after which an unused segment or mapping is given back
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL if hasattr(fcntl, "F_SEAL_SEAL") else 0


class Segment:
    """One piece of our memory."""

    __slots__ = ("descriptor", "generation", "in_transit", "inode", "map", "size", "used_at")

    def __init__(self, size: int) -> None:
        self.descriptor = os.memfd_create("graphserve", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(self.descriptor, 0, HEADER + size)  # now, or a full memory would be a SIGBUS later
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
            self.map = mmap.mmap(self.descriptor, HEADER + size)
        except BaseException:
            os.close(self.descriptor)
            raise
        self.size, self.inode = size, os.fstat(self.descriptor).st_ino
        self.generation = 0
        self.in_transit = False
        self.used_at = 0.0

    def free(self) -> bool:
        """Whether nobody reads it or is about to; counts it as ours if so."""
        if self.in_transit and not self.taken and time.monotonic() - self.used_at < ABANDONED:
            return False
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        self.in_transit, self.used_at = True, time.monotonic()  # before another thread may look at it
        self.generation += 1
        GENERATIONS.pack_into(self.map, 0, self.generation, 0)
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return True

    @property
    def taken(self) -> bool:
        """Whether the other side has it: from then on its lock protects it."""
        return bool(GENERATIONS.unpack_from(self.map)[1] == self.generation)

    def close(self) -> None:
        """Give it back; who still reads it keeps the pages."""
        self.map.close()
        os.close(self.descriptor)


Ticket = tuple[Segment, int]  # a segment on its way, and the generation that is


def done(tickets: list[Ticket]) -> None:
    """The other side has them, or will never ask."""
    for segment, generation in tickets:
        if segment.generation == generation:
            segment.in_transit = False


class Sender:
    """The segments of this process.

    Args:
        cap: bytes that they may hold together; 0 sends everything by the socket.
    """

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.placed = 0  # counts; who encodes sees by it whether there are tickets to collect
        self._segments: list[Segment] = []
        self._held = 0
        self._lock = threading.Lock()
        self._mine = threading.local()

    def place(self, data: memoryview) -> bytes | None:
        """Copy a buffer into a segment.

        Returns:
            The reference to send; None if it is small, or memory or descriptors are short: it goes by the socket.
        """
        size = data.nbytes
        if size < MIN_SIZE or size > self.cap:
            return None
        with self._lock:
            segment = self._find(size)
            if segment is None:
                return None
            self.placed += 1
        segment.map[HEADER : HEADER + size] = data.cast("B") if data.contiguous else data.tobytes()
        self._tickets().append((segment, segment.generation))
        return REFERENCE.pack(os.getpid(), segment.descriptor, segment.inode, size, segment.generation)

    def collect(self) -> list[Ticket]:
        """The tickets of what this thread has placed since it last asked."""
        tickets = self._tickets()
        self._mine.tickets = []
        return tickets

    def in_transit(self) -> int:
        """How many segments are still on their way."""
        with self._lock:
            return sum(1 for segment in self._segments if segment.in_transit and not segment.taken)

    def sweep(self, idle: float = IDLE) -> None:
        """Give back what has not been used for a while."""
        now = time.monotonic()
        with self._lock:
            for segment in [s for s in self._segments if now - s.used_at >= idle]:
                self._drop(segment)

    def close(self) -> None:
        """Give everything back."""
        with self._lock:
            for segment in self._segments:
                segment.close()
            self._segments.clear()

    def _tickets(self) -> list[Ticket]:
        if not hasattr(self._mine, "tickets"):
            self._mine.tickets = []
        return self._mine.tickets  # type: ignore[no-any-return]

    def _find(self, size: int) -> Segment | None:
        wanted = _rounded(size)
        for segment in sorted(self._segments, key=lambda s: s.size):
            if wanted <= segment.size <= 2 * wanted and segment.free():
                return segment
        for segment in sorted(self._segments, key=lambda s: s.used_at):
            if self._held + wanted <= self.cap:
                break
            self._drop(segment)
        if self._held + wanted > self.cap:
            return None
        try:
            segment = Segment(wanted)
        except (OSError, ValueError):
            return None
        self._segments.append(segment)
        self._held += wanted
        return segment if segment.free() else None

    def _drop(self, segment: Segment) -> None:
        if segment.free():
            self._segments.remove(segment)
            self._held -= segment.size
            segment.close()


class Memory:
    """Both sides of this process.

    Args:
        cap: bytes that it may send by shared memory at once.
    """

    def __init__(self, cap: int) -> None:
        self.sender, self.receiver = Sender(cap), Receiver()

    def sweep(self) -> None:
        """Give back what has not been used for a while."""
        self.sender.sweep()
        self.receiver.sweep()


def reachable(pid: int) -> bool:
    """Whether another process of ours lets us look at its descriptors (proc(5): same user, not hidden)."""
    try:
        os.readlink(f"/proc/{pid}/fd/2")
    except OSError:
        return False
    return hasattr(os, "memfd_create")


def _rounded(size: int) -> int:
    """Sizes in steps of an eighth, so that buffers of nearly the same size use the same segments."""
    step = max(MIN_SIZE, 1 << max(0, size.bit_length() - 4))
    return (size + step - 1) // step * step
