"""Processes that hide what they have open, do not see what others have, or have too little memory
or descriptors.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np

from graphserve import api, depends, service
from graphserve.errors import CallError

HIDES = os.environ.get("HIDES", "").split()  # node ids, or `view` and a node id
LIBC = ctypes.CDLL(None, use_errno=True)
SIZE = 100_000
LARGE = 64 * 1024 * 1024


def _node() -> str:
    words = Path("/proc/self/cmdline").read_text().split("\0")
    return words[words.index("worker") + 1] if "worker" in words else ""


def _hide_others() -> None:
    """From now on, there is no process in /proc but this one, in a mount namespace of our own."""
    own, held = f"/proc/{os.getpid()}", tempfile.mkdtemp()
    for done in (
        LIBC.unshare(0x20000),  # CLONE_NEWNS
        LIBC.mount(b"none", b"/", None, 0x44000, None),  # MS_REC | MS_PRIVATE
        LIBC.mount(own.encode(), held.encode(), None, 0x1000, None),  # MS_BIND
        LIBC.mount(b"tmpfs", b"/proc", b"tmpfs", 0, None),
        os.mkdir(own) or LIBC.mount(held.encode(), own.encode(), None, 0x1000, None),
    ):
        if done:
            raise OSError(ctypes.get_errno(), "this machine does not let us hide /proc")
    os.symlink(own, "/proc/self")


if HIDES[:1] == ["view"] and _node() == HIDES[1]:
    _hide_others()
if _node() and _node() in HIDES[:1]:
    LIBC.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE


def memory_files() -> int:
    """How much of what this process has open is shared memory of graphs."""
    paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sum("memfd:graphserve" in os.readlink(path) for path in paths if os.path.islink(path))


def address_space() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def limit(kind: int, value: int | None) -> None:
    """Set a soft limit of this process, or lift it."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (hard if value is None else value, hard))


@service(workers=int(os.environ.get("LEAVES", "1")))
class Leaf:
    """What arrays are sent to."""

    @api
    async def back(self, a: np.ndarray) -> np.ndarray:
        return a

    @api
    def back_in_turn(self, a: np.ndarray) -> np.ndarray:
        return a

    @api
    async def bytes_back(self, data: bytes) -> bytes:
        return data

    @api
    async def backs(self, a: np.ndarray) -> AsyncIterator[np.ndarray]:
        for _ in range(3):
            yield a

    @api
    async def large(self) -> np.ndarray:
        return np.zeros(LARGE, "u1")

    @api
    async def size(self, a: np.ndarray) -> int:
        return a.size

    @api(idempotent=True)
    async def size_again(self, a: np.ndarray) -> int:
        return a.size

    @api
    async def narrow(self) -> int:
        limit(resource.RLIMIT_AS, address_space() + LARGE // 4)
        return os.getpid()

    @api
    async def close(self, on: bool) -> int:
        limit(resource.RLIMIT_NOFILE, 3 if on else None)
        return os.getpid()

    @api
    async def dies_then(self, flag: str) -> np.ndarray:
        return self._dying()

    @api(idempotent=True)
    async def dies_once(self, flag: str) -> np.ndarray:
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return np.ones(SIZE)
        return self._dying()

    def _dying(self) -> np.ndarray:
        # the answer is written then
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGKILL)
        return np.ones(SIZE)

    @api
    async def pid(self) -> int:
        return os.getpid()

    @api
    async def hide(self) -> int:
        return LIBC.prctl(4, 0, 0, 0, 0)

    @api
    async def files(self) -> int:
        return memory_files()


@service
class Gateway:
    """What sends them."""

    leaf = depends(Leaf)

    @api
    async def exchange(self, times: int) -> list[int]:
        """Send and get arrays in every way; how many descriptors of shared memory both have
        then.
        """
        a = np.arange(SIZE, dtype="f8")
        for _ in range(times):
            for answer in await asyncio.gather(self.leaf.back(a), self.leaf.back_in_turn(a)):
                assert (answer == a).all() and not answer.flags.writeable
            assert await self.leaf.bytes_back(b"x" * SIZE) == b"x" * SIZE
            assert [(item == a).all() async for item in self.leaf.backs(a)] == [True] * 3
        return [memory_files(), await self.leaf.files()]

    @api
    async def error(self, name: str) -> dict[str, Any]:
        """What becomes of a call with a large argument, or with a large result."""
        arguments = {"a": np.zeros(LARGE, "u1")} if name.startswith("size") else {}
        return await _outcome(getattr(self.leaf, name)(**arguments))

    @api
    async def narrow_here(self) -> dict[str, Any]:
        limit(resource.RLIMIT_AS, address_space() + LARGE // 4)
        try:
            return await _outcome(self.leaf.large())
        finally:
            limit(resource.RLIMIT_AS, None)

    @api
    async def hide_later(self, here: bool) -> int:
        return LIBC.prctl(4, 0, 0, 0, 0) if here else await self.leaf.hide()

    @api
    async def narrow_leaf(self) -> int:
        return await self.leaf.narrow()

    @api
    async def close_leaf(self, on: bool) -> int:
        return await self.leaf.close(on)

    @api
    async def sum_of(self, size: int) -> int:
        return await self.leaf.size(np.zeros(size, "u1"))

    @api
    async def dies(self, name: str, flag: str) -> dict[str, Any]:
        """Call what dies when it has answered; the answer is read when it is dead."""
        pid = await self.leaf.pid()
        call = getattr(self.leaf, name)(flag)
        while _alive(pid):
            time.sleep(0.001)  # noqa: ASYNC251  (this loop shall read nothing meanwhile)
        return await _outcome(call)


async def _outcome(call: Any) -> dict[str, Any]:
    try:
        got = await call
    except CallError as exc:
        return {
            "class": type(exc).__name__,
            "node": exc.node,
            "text": str(exc),
            "status": exc.status,
        }
    return {"got": int(getattr(got, "size", got))}


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
