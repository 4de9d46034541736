"""Large buffers between processes of one machine: pooled shared memory instead of the socket. Runs in workers.

The sender owns segments (memfd, sealed against shrinking and growing) and sends references; the receiver opens
`/proc/<pid>/fd/<n>` and maps it read-only. Who reads holds a shared flock, and the sender uses a segment again only
when it gets the exclusive one: so a view is safe for as long as it lives, and the kernel lets go when its holder dies.
Mappings are kept on both sides, since fresh pages cost more than the copy.

A segment begins with a header: the generation (how often it was filled) and the generation that was last taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import sys
import threading
import time
import weakref
from typing import Any

HEADER = 4096  # bytes: a page, so data is aligned
MIN_SIZE = 64 * 1024  # bytes; below, the socket is cheaper
ABANDONED = 60.0  # seconds after which a result that nobody took is given up: its caller is gone
IDLE = 20.0  # seconds after which an unused segment or mapping is given back
_REFERENCE = struct.Struct("<IiQQQ")  # pid, descriptor, inode, length, generation
_GENERATIONS = struct.Struct("<QQ")
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
        self.in_transit = True
        self.generation += 1
        _GENERATIONS.pack_into(self.map, 0, self.generation, 0)
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return True

    @property
    def taken(self) -> bool:
        """Whether the other side has it: from then on its lock protects it."""
        return bool(_GENERATIONS.unpack_from(self.map)[1] == self.generation)

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
        segment.map[HEADER : HEADER + size] = data.cast("B") if data.contiguous else data.tobytes()
        segment.used_at = time.monotonic()
        self.placed += 1
        self._tickets().append((segment, segment.generation))
        return _REFERENCE.pack(os.getpid(), segment.descriptor, segment.inode, size, segment.generation)

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


class _Mapping:
    """A segment of another process, mapped here."""

    __slots__ = ("descriptor", "inode", "map", "used_at", "views")

    def __init__(self, pid: int, descriptor: int, inode: int) -> None:
        self.descriptor = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
        try:
            held = os.fstat(self.descriptor)
            if held.st_ino != inode:
                raise OSError("the segment is gone")
            self.map = mmap.mmap(self.descriptor, held.st_size, prot=mmap.PROT_READ)
        except BaseException:
            os.close(self.descriptor)
            raise
        self.inode = inode
        self.views = 0
        self.used_at = time.monotonic()

    def close(self) -> None:
        with contextlib.suppress(BufferError):
            self.map.close()
        os.close(self.descriptor)


class Receiver:
    """The segments of other processes that this one reads."""

    def __init__(self) -> None:
        self._mappings: dict[tuple[int, int], _Mapping] = {}
        self._alive: dict[int, weakref.ref[Any]] = {}
        self._lock = threading.RLock()  # a view may be collected while this thread is in here

    def fetch(self, reference: bytes) -> memoryview:
        """The buffer behind a reference, read-only; safe for as long as anything made of it lives.

        Raises:
            ValueError: the reference is no longer good: its sender is gone, or gave the call up.
        """
        try:
            pid, descriptor, inode, length, generation = _REFERENCE.unpack(reference)
        except struct.error:
            raise ValueError("this is no reference to memory") from None
        with self._lock:
            try:
                mapping = self._mapping(pid, descriptor, inode)
                self._hold(mapping)
            except OSError as exc:
                raise ValueError(f"memory of process {pid} cannot be read: {exc}") from None
            if _GENERATIONS.unpack_from(mapping.map)[0] != generation or HEADER + length > len(mapping.map):
                self._release(mapping)
                raise ValueError("the sender of this memory has given the call up")
            os.pwrite(mapping.descriptor, struct.pack("<Q", generation), 8)
            return self._view(mapping, length)

    def sweep(self, idle: float = IDLE) -> None:
        """Let go of mappings that nothing reads and that were not used for a while."""
        now = time.monotonic()
        with self._lock:
            for key, mapping in list(self._mappings.items()):
                if not mapping.views and now - mapping.used_at >= idle:
                    del self._mappings[key]
                    mapping.close()

    def _mapping(self, pid: int, descriptor: int, inode: int) -> _Mapping:
        found = self._mappings.get((pid, descriptor))
        if found is None or found.inode != inode:  # the sender gave the old one back
            made = _Mapping(pid, descriptor, inode)
            if found is not None and not found.views:
                found.close()
            found = self._mappings[pid, descriptor] = made
        return found

    def _hold(self, mapping: _Mapping) -> None:
        if not mapping.views:
            fcntl.flock(mapping.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        mapping.views += 1
        mapping.used_at = time.monotonic()

    def _release(self, mapping: _Mapping) -> None:
        with self._lock:
            mapping.views -= 1
            if not mapping.views:
                fcntl.flock(mapping.descriptor, fcntl.LOCK_UN)
                if mapping not in self._mappings.values():
                    mapping.close()

    def _view(self, mapping: _Mapping, length: int) -> memoryview:
        # What lives as long as any slice of the buffer, and says when it is collected: an array of numpy's does both.
        # Without numpy only bytes are read, and they are copied out at once.
        numpy = sys.modules.get("numpy")
        whole = memoryview(mapping.map)[HEADER : HEADER + length]
        holder = whole if numpy is None else numpy.frombuffer(whole, "u1")

        def collected(_: Any, key: int = id(holder)) -> None:
            self._alive.pop(key, None)
            self._release(mapping)

        self._alive[id(holder)] = weakref.ref(holder, collected)
        return whole if numpy is None else memoryview(holder)


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
