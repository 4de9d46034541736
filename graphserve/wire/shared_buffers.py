"""Sends large buffers between processes of one machine by pooled shared memory in place of the
socket; runs in workers.

The sender owns segments (memfd, sealed against shrinking, growing and other writers) and sends
references; the receiver opens `/proc/<pid>/fd/<n>` and maps it, for reading only. A reader keeps a
shared flock, and the sender uses a segment again only when it gets the exclusive one: so a view is
safe for as long as it lives, and the kernel releases the lock when the reader dies. Mappings are
kept on both sides, since fresh pages cost more than the copy.

The receiver's mapping is private. What is made of it is read-only, but some code never asks
(Pillow's `frombytes`, tensors over an array): the page that it writes to becomes a copy, which no
other process sees. Such copies go when the last view has ended: they would hide the next filling.

A segment begins with a header: its generation, which is how often it was filled. A receiver that
takes a filling leaves a lock that says so. Nothing is written through a reference: the receiver
opens a segment for reading only, after it has made sure that its owner is a worker of this graph,
and that what is open there is a segment.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
import sys
import threading
import time
import weakref
from collections.abc import Container
from typing import TYPE_CHECKING
from zlib import crc32

from graphserve.system.pagemap import PageMap

if TYPE_CHECKING:
    from graphserve.wire.media.kinds import BufferSource

MIN_SIZE = 64 * 1024  # bytes; below, the socket is cheaper
ABANDONED = 60.0  # seconds after which a result that nobody took is given up: its caller is gone
IDLE = 20.0  # seconds after which an unused segment or mapping is given back
_WHERE = struct.Struct("<IiQ")  # how a reference begins: pid, descriptor, inode
# what is read of much memory for a check: its ends, and pieces evenly between them
_PIECE = 16 * 1024
_PIECES = 64
_ALL = _PIECE * _PIECES  # bytes that are read whole
# Linux 5.1: no other descriptor writes, and no other mapping; ours is there before
_F_SEAL_FUTURE_WRITE = 0x10
_PR_GET_DUMPABLE = 3  # prctl(2)

NAME = "graphserve"  # of a segment, in memfd_create(2)
HEADER = 4096  # bytes before the data of a segment: a page, so data is aligned
REFERENCE = struct.Struct("<IiQQQ")  # pid, descriptor, inode, length, generation
GENERATION = struct.Struct("<Q")  # how often the segment was filled
SEALS = (
    fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    if hasattr(fcntl, "F_SEAL_SEAL")
    else 0
)

# A receiver that has taken a filling keeps a read lock on the bytes up to its number, far behind
# the data (fcntl(2), open file description locks): the sender asks for it, and nobody has to write.
# It goes with the descriptor.
TAKEN = 1 << 48
_FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid
_SHORT = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOLCK})


class Segment:
    """One piece of this process's memory that others may map."""

    __slots__ = ("descriptor", "generation", "in_transit", "inode", "map", "size", "used_at")

    def __init__(self, size: int) -> None:
        self.descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            # now, or a full memory would be a SIGBUS later
            os.posix_fallocate(self.descriptor, 0, HEADER + size)
            self.map = mmap.mmap(self.descriptor, HEADER + size)
            _seal(self.descriptor)
        except BaseException:
            os.close(self.descriptor)
            raise
        self.size = size
        self.inode = os.fstat(self.descriptor).st_ino
        self.generation = 0
        self.in_transit = False
        self.used_at = 0.0

    def free(self) -> bool:
        """Return whether nobody reads it or is about to; it is reserved for the caller then."""
        if self.in_transit and not self.taken and time.monotonic() - self.used_at < ABANDONED:
            return False
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        # before another thread may look at it
        self.in_transit = True
        self.used_at = time.monotonic()
        self.generation += 1
        GENERATION.pack_into(self.map, 0, self.generation)
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return True

    @property
    def taken(self) -> bool:
        """Tell whether the other side has it: from then on its lock protects it."""
        return is_taken(self.descriptor, self.generation)

    def arrived(self) -> None:
        """Note that it is not on its way any more: it was taken, or never will be."""
        self.in_transit = False

    def close(self) -> None:
        """Give it back; who still reads it keeps the pages."""
        self.map.close()
        os.close(self.descriptor)


Ticket = tuple[Segment, int]  # a segment on its way, and the generation that is


def done(tickets: list[Ticket]) -> None:
    """Note that the other side has them, or will never ask."""
    for segment, generation in tickets:
        if segment.generation == generation:
            segment.arrived()


def contents(request: bytes, tickets: list[Ticket]) -> bytes | None:
    """Return a request with a check of what it refers to in place of the references;
    as long as it was.

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
        request = (
            request[:at] + REFERENCE.pack(0, 0, 0, size, checked) + request[at + REFERENCE.size :]
        )
    return request


def _check(segment: Segment, size: int) -> int:
    if size <= _ALL:
        return crc32(segment.map[HEADER : HEADER + size])
    step = (size - _PIECE) // (_PIECES - 1)
    checked = 0
    for number in range(_PIECES):
        begin = HEADER + number * step
        checked = crc32(segment.map[begin : begin + _PIECE], checked)
    return checked


class MemorySender:
    """Places large buffers in segments of this process,
    and uses a segment again when nobody reads it.

    Args:
        cap: bytes that they may have together; 0 sends everything by the socket.
    """

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.placed = 0  # counts; who encodes sees by it whether there are tickets to collect
        self._segments: list[Segment] = []
        self._reserved = 0
        self._lock = threading.Lock()
        self._mine = threading.local()

    def place(self, data: memoryview | BufferSource) -> bytes | None:
        """Copy a buffer into a segment, or have it written there.

        Returns:
            The reference to send; None if it is small, memory or descriptors are short, or this
            process does not let others of its user look at what it has open (prctl(2),
            PR_SET_DUMPABLE): it goes by the socket.
        """
        size = data.nbytes
        if size < MIN_SIZE or size > self.cap or not is_dumpable():
            return None
        with self._lock:
            segment = self._find(size)
            if segment is None:
                return None
            self.placed += 1
        if isinstance(data, memoryview):
            flat = data.cast("B") if data.contiguous else data.tobytes()
            segment.map[HEADER : HEADER + size] = flat
        else:
            try:
                with memoryview(segment.map) as whole, whole[HEADER : HEADER + size] as memory:
                    data.write_into(memory)
            except BaseException:
                segment.arrived()  # it never will be
                raise
        self._tickets().append((segment, segment.generation))
        return REFERENCE.pack(
            os.getpid(), segment.descriptor, segment.inode, size, segment.generation
        )

    def recall(self, reference: bytes) -> memoryview:
        """Return the memory of a reference of this process that is still on its way.

        Raises:
            ValueError: it is not on its way.
        """
        _, descriptor, inode, size, generation = REFERENCE.unpack(reference)
        with self._lock:
            for segment in self._segments:
                if (segment.descriptor, segment.inode, segment.generation) == (
                    descriptor,
                    inode,
                    generation,
                ):
                    return memoryview(segment.map)[HEADER : HEADER + size].toreadonly()
        raise ValueError("this memory is not on its way any more")

    def collect(self) -> list[Ticket]:
        """Return the tickets of what this thread has placed since it last asked."""
        tickets = self._tickets()
        self._mine.tickets = []
        return tickets

    @property
    def reserved(self) -> int:
        """Return the bytes that its segments have together."""
        return self._reserved

    def in_transit(self) -> int:
        """Return how many segments are still on their way."""
        with self._lock:
            return sum(1 for segment in self._segments if segment.in_transit and not segment.taken)

    def sweep(self, idle: float = IDLE) -> None:
        """Give back what has not been used for a while; called once a second."""
        now = time.monotonic()
        with self._lock:
            for segment in self._segments:
                # noted: its reader's lock goes when the reader does
                if segment.in_transit and segment.taken:
                    segment.arrived()
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
        tickets: list[Ticket] = self._mine.tickets
        return tickets

    def _find(self, size: int) -> Segment | None:
        wanted = _rounded(size)
        for segment in sorted(self._segments, key=lambda s: s.size):
            if wanted <= segment.size <= 2 * wanted and segment.free():
                return segment
        for segment in sorted(self._segments, key=lambda s: s.used_at):
            if self._reserved + wanted <= self.cap:
                break
            self._drop(segment)
        if self._reserved + wanted > self.cap:
            return None
        try:
            segment = Segment(wanted)
        except (OSError, ValueError):
            return None
        self._segments.append(segment)
        self._reserved += wanted
        return segment if segment.free() else None

    def _drop(self, segment: Segment) -> None:
        if segment.free():
            self._segments.remove(segment)
            self._reserved -= segment.size
            segment.close()


class SharedMemory:
    """Holds both sides of this process: what it sends by shared memory, and what it has mapped.

    Args:
        cap: bytes that it may send by shared memory at once.
        owners: the pids whose memory is read: the workers of the graph.
    """

    def __init__(self, cap: int, owners: Container[int]) -> None:
        self.sender = MemorySender(cap)
        self.receiver = MemoryReceiver(owners)

    def sweep(self) -> None:
        """Give back what has not been used for a while."""
        self.sender.sweep()
        self.receiver.sweep()


def is_dumpable() -> bool:
    """Return whether others of this user may look at what this process has open; a library may end
    that at any time.
    """
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
    """Return a size rounded up by at most an eighth, so that buffers of nearly the same size use
    the same segments.
    """
    step = max(MIN_SIZE, 1 << max(0, size.bit_length() - 4))
    return (size + step - 1) // step * step


class UnreadableMemory(Exception):
    """Raised when the memory that a reference names cannot be read.

    Args:
        why: what happened.
        short: what this process has too little of: `memory` or `descriptors`; empty: it is not its
            fault.
    """

    def __init__(self, why: str, short: str = "") -> None:
        super().__init__(why)
        self.short = short


class _Mapping:
    """Maps a segment of another process: who writes to it writes to a copy of their own."""

    __slots__ = (
        "_begin",
        "_faults",
        "_process",
        "_viewed",
        "descriptor",
        "inode",
        "map",
        "used_at",
        "views",
    )

    def __init__(self, pid: int, descriptor: int, inode: int) -> None:
        path = f"/proc/{pid}/fd/{descriptor}"
        # before it is opened: that alone does something to a pipe
        if os.readlink(path) != f"/memfd:{NAME} (deleted)":
            raise UnreadableMemory(f"what process {pid} has open there is no memory of ours")
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(self.descriptor)
            if found.st_ino != inode:
                raise UnreadableMemory(f"process {pid} has given this memory back")
            seals = (
                fcntl.fcntl(self.descriptor, fcntl.F_GET_SEALS)
                if stat.S_ISREG(found.st_mode)
                else 0
            )
            if seals & SEALS != SEALS or found.st_size <= HEADER:  # it could shrink under us
                raise UnreadableMemory(f"what process {pid} has open there is no memory of ours")
            self.map = mmap.mmap(self.descriptor, found.st_size, access=mmap.ACCESS_COPY)
            self._begin = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        except BaseException:
            os.close(self.descriptor)
            raise
        self.inode = inode
        self.views = 0
        self._process = _this.id
        self._viewed = 0  # bytes that are seen by the views there are, at most
        self._faults: int | None = None  # what the table of pages said before the first of them
        self.used_at = time.monotonic()

    def mark(self, generation: int) -> None:
        """Tell the sender that this filling was taken."""
        lock = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, TAKEN, generation + 1, 0)
        fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, lock)

    def begin_view(self) -> None:
        """Keep the sender from using it again; for the first view that is the lock."""
        if not self.views:
            fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self.views += 1
        self.used_at = time.monotonic()

    def view(self, length: int) -> memoryview:
        """Return the first so many bytes of its data, read-only."""
        if not self._viewed:
            self._faults = _this.pages.faults(length)
        self._viewed = max(self._viewed, length)
        return memoryview(self.map).toreadonly()[HEADER : HEADER + length]

    def end_view(self) -> None:
        """Let the sender use it again once the last view has ended; copies of pages that were
        written to are given back.
        """
        self.views -= 1
        if self.views or self._process is not _this.id:
            return
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        if self._viewed and _this.pages.may_be_written(
            self._begin + HEADER, self._viewed, self._faults
        ):
            self.map.madvise(mmap.MADV_DONTNEED)
        self._viewed = 0

    def close(self) -> None:
        """Let go of it; a view that is left keeps its pages."""
        with contextlib.suppress(BufferError):
            self.map.close()
        os.close(self.descriptor)


class _Process:
    """Tells this process from the child that it forks, which has the open file of each lock in
    common with it, and must leave the lock alone; quicker than to ask for the pid each time.
    """

    def __init__(self) -> None:
        self._forked()
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.id = object()
        self.pages = PageMap()  # a table that the parent has opened is that of the parent's pages


_this = _Process()


def is_taken(descriptor: int, generation: int) -> bool:
    """Return whether somebody has taken this filling of a segment of this process."""
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, TAKEN + generation, 1, 0)
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted)
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


class MemoryReceiver:
    """Maps the segments of other processes that references name,
    and lets go of what nothing reads any more.

    Args:
        owners: the pids whose memory is read: the workers of the graph.
    """

    def __init__(self, owners: Container[int]) -> None:
        self._owners = owners
        self._mappings: dict[tuple[int, int], _Mapping] = {}
        self._alive: dict[int, weakref.ref[object]] = {}
        self._lock = threading.RLock()  # a view may be collected while this thread is in here

    def fetch(self, reference: bytes) -> memoryview:
        """Return the buffer behind a reference, read-only;
        safe for as long as anything made of it lives.

        Raises:
            UnreadableMemory: its owner is no worker of this graph, is gone, gave the call up or
                hides; or this process has no room.
        """
        try:
            pid, descriptor, inode, length, generation = REFERENCE.unpack(reference)
        except struct.error:
            raise UnreadableMemory("this is no reference to memory") from None
        with self._lock:
            try:
                return self._take(pid, descriptor, inode, length, generation)
            except OSError as exc:
                raise _unreadable(exc, pid) from None

    def sweep(self, idle: float = IDLE) -> None:
        """Let go of mappings that nothing reads and that were not used for a while."""
        now = time.monotonic()
        with self._lock:
            for key, mapping in list(self._mappings.items()):
                if not mapping.views and now - mapping.used_at >= idle:
                    del self._mappings[key]
                    mapping.close()

    def _take(
        self, pid: int, descriptor: int, inode: int, length: int, generation: int
    ) -> memoryview:
        mapping = self._mapping(pid, descriptor, inode)
        mapping.begin_view()
        try:
            if GENERATION.unpack_from(mapping.map)[0] != generation or HEADER + length > len(
                mapping.map
            ):
                raise UnreadableMemory(f"process {pid} has given the call up")
            mapping.mark(generation)
        except BaseException:
            self._release(mapping)
            raise
        return self._view(mapping, mapping.view(length))

    def _mapping(self, pid: int, descriptor: int, inode: int) -> _Mapping:
        found = self._mappings.get((pid, descriptor))
        if found is None or found.inode != inode:  # the sender gave the old one back
            if pid not in self._owners:
                raise UnreadableMemory(f"process {pid} has ended, or is no worker of this graph")
            made = _Mapping(pid, descriptor, inode)
            if found is not None and not found.views:
                found.close()
            found = self._mappings[pid, descriptor] = made
        return found

    def _release(self, mapping: _Mapping) -> None:
        with self._lock:
            mapping.end_view()
            if not mapping.views and mapping not in self._mappings.values():
                mapping.close()

    def _view(self, mapping: _Mapping, whole: memoryview) -> memoryview:
        # What lives as long as any slice of the buffer, and says when it is collected: an array of
        # numpy's does both. Without numpy only bytes are read, and they are copied out at once.
        numpy = sys.modules.get("numpy")
        holder = whole if numpy is None else numpy.frombuffer(whole, "u1")

        def collected(_: object, key: int = id(holder)) -> None:
            self._alive.pop(key, None)
            self._release(mapping)

        self._alive[id(holder)] = weakref.ref(holder, collected)
        return whole if numpy is None else memoryview(holder)


def _unreadable(exc: OSError, pid: int) -> UnreadableMemory:
    if exc.errno in _SHORT:
        short = "descriptors" if exc.errno in (errno.EMFILE, errno.ENFILE) else "memory"
        return UnreadableMemory(f"memory of process {pid} cannot be mapped: {exc.strerror}", short)
    if exc.errno == errno.EAGAIN:
        return UnreadableMemory(f"process {pid} has given the call up")
    if exc.errno in (errno.ENOENT, errno.ESRCH):
        return UnreadableMemory(f"process {pid} has ended, or given this memory back")
    return UnreadableMemory(f"memory of process {pid} cannot be opened: {exc.strerror or exc}")


def readable(pid: int) -> bool:
    """Return whether another process lets this one look at its descriptors (proc(5): same user,
    dumpable, not hidden).
    """
    folder = f"/proc/{pid}/fd"
    try:
        os.readlink(f"{folder}/2")
    except FileNotFoundError:  # it has closed that one, or does not show itself
        return os.access(folder, os.R_OK | os.X_OK)
    except OSError:
        return False
    return True
