"""Large buffers between processes of one machine: pooled shared memory instead of the socket. Runs in workers.

The sender owns segments (memfd, sealed against shrinking, growing and other writers) and sends references; the receiver
opens `/proc/<pid>/fd/<n>` and maps it, for reading only. Who reads holds a shared flock, and the sender uses a segment
again only when it gets the exclusive one: so a view is safe for as long as it lives, and the kernel lets go when its
holder dies. Mappings are kept on both sides, since fresh pages cost more than the copy.

A segment begins with a header: the generation, that is how often it was filled. Who takes a filling leaves a lock that
says so (see `mappings.py`).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import threading
import time
from collections.abc import Container
from zlib import crc32

from graphserve.wire.mappings import GENERATION, HEADER, NAME, REFERENCE, SEALS, Receiver, is_taken

MIN_SIZE = 64 * 1024  # bytes; below, the socket is cheaper
ABANDONED = 60.0  # seconds after which a result that nobody took is given up: its caller is gone
IDLE = 20.0  # seconds after which an unused segment or mapping is given back
_WHERE = struct.Struct("<IiQ")  # how a reference begins: pid, descriptor, inode
_PIECE, _PIECES = 16 * 1024, 64  # what is read of much memory for a check: its ends, and pieces evenly between them
_ALL = _PIECE * _PIECES  # bytes that are read whole
_F_SEAL_FUTURE_WRITE = 0x10  # Linux 5.1: no other descriptor writes, and no other mapping; ours is there before
_PR_GET_DUMPABLE = 3  # prctl(2)


class Segment:
    """One piece of our memory."""

    __slots__ = ("descriptor", "generation", "in_transit", "inode", "map", "size", "used_at")

    def __init__(self, size: int) -> None:
        self.descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(self.descriptor, 0, HEADER + size)  # now, or a full memory would be a SIGBUS later
            self.map = mmap.mmap(self.descriptor, HEADER + size)
            _seal(self.descriptor)
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
        GENERATION.pack_into(self.map, 0, self.generation)
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return True

    @property
    def taken(self) -> bool:
        """Whether the other side has it: from then on its lock protects it."""
        return is_taken(self.descriptor, self.generation)

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


def contents(request: bytes, tickets: list[Ticket]) -> bytes | None:
    """A request with a check of what it refers to in place of the references; as long as it was.

    Of much memory only pieces are read, so that it takes a millisecond at most.

    Args:
        request: it refers to segments of this process.
        tickets: those.

    Returns:
        None if the memory is used for something else by now.
    """
    for segment, generation in tickets:
        at = request.find(_WHERE.pack(os.getpid(), segment.descriptor, segment.inode))
        if at < 0:
            continue
        size = REFERENCE.unpack_from(request, at)[3]
        try:
            checked = _check(segment, size)
        except ValueError:  # it was given back
            return None
        if segment.generation != generation:  # (asked last: another thread may fill it meanwhile)
            return None
        request = request[:at] + REFERENCE.pack(0, 0, 0, size, checked) + request[at + REFERENCE.size :]
    return request


def _check(segment: Segment, size: int) -> int:
    if size <= _ALL:
        return crc32(segment.map[HEADER : HEADER + size])
    step, checked = (size - _PIECE) // (_PIECES - 1), 0
    for number in range(_PIECES):
        begin = HEADER + number * step
        checked = crc32(segment.map[begin : begin + _PIECE], checked)
    return checked


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
            The reference to send; None if it is small, memory or descriptors are short, or this process does not let
            others of its user look at what it has open (prctl(2), PR_SET_DUMPABLE): it goes by the socket.
        """
        size = data.nbytes
        if size < MIN_SIZE or size > self.cap or not is_dumpable():
            return None
        with self._lock:
            segment = self._find(size)
            if segment is None:
                return None
            self.placed += 1
        segment.map[HEADER : HEADER + size] = data.cast("B") if data.contiguous else data.tobytes()
        self._tickets().append((segment, segment.generation))
        return REFERENCE.pack(os.getpid(), segment.descriptor, segment.inode, size, segment.generation)

    def recall(self, reference: bytes) -> memoryview:
        """What lies behind a reference of ours that is still on its way.

        Raises:
            ValueError: it is none.
        """
        _, descriptor, inode, size, generation = REFERENCE.unpack(reference)
        with self._lock:
            for segment in self._segments:
                if (segment.descriptor, segment.inode, segment.generation) == (descriptor, inode, generation):
                    return memoryview(segment.map)[HEADER : HEADER + size].toreadonly()
        raise ValueError("this memory is not on its way any more")

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
        """Give back what has not been used for a while; called once a second."""
        now = time.monotonic()
        with self._lock:
            for segment in self._segments:
                if segment.in_transit and segment.taken:  # noted: its reader's lock goes when the reader does
                    segment.in_transit = False
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
        owners: the pids whose memory is read: the workers of the graph.
    """

    def __init__(self, cap: int, owners: Container[int]) -> None:
        self.sender, self.receiver = Sender(cap), Receiver(owners)

    def sweep(self) -> None:
        """Give back what has not been used for a while."""
        self.sender.sweep()
        self.receiver.sweep()


def is_dumpable() -> bool:
    """Whether others of this user may look at what this process has open; a library may end that at any time."""
    return bool(_libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 1)


_libc = ctypes.CDLL(None)


def _seal(descriptor: int) -> None:
    try:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS | _F_SEAL_FUTURE_WRITE)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)  # an older kernel


def _rounded(size: int) -> int:
    """Sizes in steps of an eighth, so that buffers of nearly the same size use the same segments."""
    step = max(MIN_SIZE, 1 << max(0, size.bit_length() - 4))
    return (size + step - 1) // step * step
