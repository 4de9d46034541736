"""The receiver's side of shared memory: segments of other processes, mapped here. Runs in workers.

Nothing is written through a reference: a segment is opened for reading only, after the owner was found to be a worker
of this graph, and what is open there to be a segment. See `memory.py` for the whole.
"""

from __future__ import annotations

import contextlib
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
from typing import Any

NAME = "graphserve"  # of a segment, in memfd_create(2)
HEADER = 4096  # bytes before the data of a segment: a page, so data is aligned
IDLE = 20.0  # seconds after which an unused mapping is let go
REFERENCE = struct.Struct("<IiQQQ")  # pid, descriptor, inode, length, generation
GENERATION = struct.Struct("<Q")  # how often the segment was filled
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL if hasattr(fcntl, "F_SEAL_SEAL") else 0

# Who has taken a filling holds a read lock on the bytes up to its number, far behind the data (fcntl(2), open file
# description locks): the sender asks for it, and nobody has to write. It goes with the descriptor.
TAKEN = 1 << 48
_FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid
_SHORT = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOLCK})


class Untaken(Exception):
    """Raised when the memory that a reference names cannot be taken.

    Args:
        why: what happened.
        short: what this process has too little of: `memory` or `descriptors`; empty: it is not its fault.
    """

    def __init__(self, why: str, short: str = "") -> None:
        super().__init__(why)
        self.short = short


class _Mapping:
    """A segment of another process, mapped here."""

    __slots__ = ("descriptor", "inode", "map", "used_at", "views")

    def __init__(self, pid: int, descriptor: int, inode: int) -> None:
        path = f"/proc/{pid}/fd/{descriptor}"
        if os.readlink(path) != f"/memfd:{NAME} (deleted)":  # before it is opened: that alone does something to a pipe
            raise Untaken(f"what process {pid} has open there is no memory of ours")
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            held = os.fstat(self.descriptor)
            if held.st_ino != inode:
                raise Untaken(f"process {pid} has given this memory back")
            seals = fcntl.fcntl(self.descriptor, fcntl.F_GET_SEALS) if stat.S_ISREG(held.st_mode) else 0
            if seals & SEALS != SEALS or held.st_size <= HEADER:  # it could shrink under us
                raise Untaken(f"what process {pid} has open there is no memory of ours")
            self.map = mmap.mmap(self.descriptor, held.st_size, prot=mmap.PROT_READ)
        except BaseException:
            os.close(self.descriptor)
            raise
        self.inode = inode
        self.views = 0
        self.used_at = time.monotonic()

    def mark(self, generation: int) -> None:
        """Have the sender know that this filling was taken."""
        lock = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, TAKEN, generation + 1, 0)
        fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, lock)

    def close(self) -> None:
        with contextlib.suppress(BufferError):
            self.map.close()
        os.close(self.descriptor)


def is_taken(descriptor: int, generation: int) -> bool:
    """Whether somebody has taken this filling of a segment of ours."""
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, TAKEN + generation, 1, 0)
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted)
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


class Receiver:
    """The segments of other processes that this one reads.

    Args:
        owners: the pids whose memory is read: the workers of the graph.
    """

    def __init__(self, owners: Container[int]) -> None:
        self._owners = owners
        self._mappings: dict[tuple[int, int], _Mapping] = {}
        self._alive: dict[int, weakref.ref[Any]] = {}
        self._lock = threading.RLock()  # a view may be collected while this thread is in here

    def fetch(self, reference: bytes) -> memoryview:
        """The buffer behind a reference, read-only; safe for as long as anything made of it lives.

        Raises:
            Untaken: its owner is no worker of this graph, is gone, gave the call up or hides; or we have no room.
        """
        try:
            pid, descriptor, inode, length, generation = REFERENCE.unpack(reference)
        except struct.error:
            raise Untaken("this is no reference to memory") from None
        with self._lock:
            try:
                return self._take(pid, descriptor, inode, length, generation)
            except OSError as exc:
                raise _untaken(exc, pid) from None

    def sweep(self, idle: float = IDLE) -> None:
        """Let go of mappings that nothing reads and that were not used for a while."""
        now = time.monotonic()
        with self._lock:
            for key, mapping in list(self._mappings.items()):
                if not mapping.views and now - mapping.used_at >= idle:
                    del self._mappings[key]
                    mapping.close()

    def _take(self, pid: int, descriptor: int, inode: int, length: int, generation: int) -> memoryview:
        mapping = self._mapping(pid, descriptor, inode)
        self._hold(mapping)
        try:
            if GENERATION.unpack_from(mapping.map)[0] != generation or HEADER + length > len(mapping.map):
                raise Untaken(f"process {pid} has given the call up")
            mapping.mark(generation)
        except BaseException:
            self._release(mapping)
            raise
        return self._view(mapping, length)

    def _mapping(self, pid: int, descriptor: int, inode: int) -> _Mapping:
        found = self._mappings.get((pid, descriptor))
        if found is None or found.inode != inode:  # the sender gave the old one back
            if pid not in self._owners:
                raise Untaken(f"process {pid} has ended, or is no worker of this graph")
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


def _untaken(exc: OSError, pid: int) -> Untaken:
    if exc.errno in _SHORT:
        short = "descriptors" if exc.errno in (errno.EMFILE, errno.ENFILE) else "memory"
        return Untaken(f"memory of process {pid} cannot be mapped: {exc.strerror}", short)
    if exc.errno == errno.EAGAIN:
        return Untaken(f"process {pid} has given the call up")
    if exc.errno in (errno.ENOENT, errno.ESRCH):
        return Untaken(f"process {pid} has ended, or given this memory back")
    return Untaken(f"memory of process {pid} cannot be opened: {exc.strerror or exc}")


def readable(pid: int) -> bool:
    """Whether another process lets this one look at its descriptors (proc(5): same user, dumpable, not hidden)."""
    folder = f"/proc/{pid}/fd"
    try:
        os.readlink(f"{folder}/2")
    except FileNotFoundError:  # it has closed that one, or does not show itself
        return os.access(folder, os.R_OK | os.X_OK)
    except OSError:
        return False
    return True
