"""Services that are somewhere for long: waiting, busy, blocked in C, in threads."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time

from graphserve import api, depends, service


def blocks(descriptor: int) -> None:
    """Wait in C, with the interpreter's lock held, until something can be read."""
    ctypes.PyDLL(None).read(descriptor, ctypes.create_string_buffer(1), 1)


def exists(file: str) -> bool:
    return os.path.exists(file)


async def opened(file: str) -> None:
    while True:
        if exists(file):
            return
        await asyncio.sleep(0.01)


@service
class Deep:
    @api
    async def waits(self, file: str) -> None:
        await opened(file)


@service(workers=1, concurrency=8)
class Stuck:
    deep = depends(Deep)

    @api
    async def waits_below(self, file: str) -> None:
        await self.deep.waits(file)

    @api
    async def waits_in_a_task(self, file: str) -> None:
        await asyncio.create_task(self._inner(file), name="of-user")

    async def _inner(self, file: str) -> None:
        await opened(file)

    @api
    def in_thread(self, file: str) -> None:
        while not exists(file):
            time.sleep(0.01)

    @api
    async def busy(self, file: str) -> None:
        while not exists(file):
            pass

    @api
    async def in_c(self, fifo: str) -> None:
        blocks(os.open(fifo, os.O_RDWR))

    @api
    async def blocks_signals(self, file: str) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not exists(file):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    @api
    async def closes_all(self) -> None:
        """As daemons do; the records of the log go with it."""
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if "stack-of-graphserve" in os.readlink(f"/proc/self/fd/{name}"):
                    os.close(int(name))

    @api
    async def takes_signals(self) -> None:
        for number in (signal.SIGRTMAX - 1, signal.SIGRTMAX - 2):
            signal.signal(number, signal.SIG_DFL)
