"""The receiver's side of shared memory: segments of other processes, mapped here. Runs in workers.

See `memory.py` for the whole.
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

HEADER = 4096  # bytes before the data of a segment: a page, so data is aligned
IDLE = 20.0  # seconds after which an unused mapping is let go
REFERENCE = struct.Struct("<IiQQQ")  # pid, descriptor, inode, length, generation
GENERATIONS = struct.Struct("<QQ")  # how often the segment was filled, and the filling that was last taken


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
            pid, descriptor, inode, length, generation = REFERENCE.unpack(reference)
        except struct.error:
            raise ValueError("this is no reference to memory") from None
        with self._lock:
            try:
                mapping = self._mapping(pid, descriptor, inode)
                self._hold(mapping)
            except OSError as exc:
                raise ValueError(f"memory of process {pid} cannot be read: {exc}") from None
            if GENERATIONS.unpack_from(mapping.map)[0] != generation or HEADER + length > len(mapping.map):
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
