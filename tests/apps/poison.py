"""Calls that kill their worker: by every lane, idempotent or not, and at the entry itself."""

from __future__ import annotations

import asyncio
import os
import signal

from graphserve import Batch, api, depends, service


def fatal(x: int) -> None:
    """What a library does that reads a broken file."""
    if x < 0:
        os.kill(os.getpid(), signal.SIGSEGV)


@service(concurrency=1)
class Queued:
    @api
    def run(self, x: int) -> int:
        fatal(x)
        return x + 1

    @api(idempotent=True)
    def again(self, x: int) -> int:
        fatal(x)
        return x + 1


@service(workers=3)
class Pooled:
    @api(idempotent=True)
    async def run(self, x: int) -> int:
        fatal(x)
        return x + 2

    @api
    async def slow(self, x: int, seconds: float) -> int:
        await asyncio.sleep(seconds)
        fatal(x)
        return x


@service
class Batched:
    @api(batch=Batch(max_size=8))
    def run(self, xs: list[int]) -> list[int]:
        for x in xs:
            fatal(x)
        return [x + 3 for x in xs]


@service
class Top:
    queued = depends(Queued)
    pooled = depends(Pooled)
    batched = depends(Batched)

    @api
    async def run(self, x: int, way: str) -> int:
        if way == "again":
            return await self.queued.again(x)
        if way == "pooled":
            return await self.pooled.run(x)
        if way == "batched":
            return (await self.batched.run([x]))[0]
        return await self.queued.run(x)

    @api
    def here(self, x: int) -> int:
        fatal(x)
        return x + 4

    @api(batch=Batch(max_size=4))
    def here_batched(self, xs: list[int]) -> list[int]:
        for x in xs:
            fatal(x)
        return [x + 5 for x in xs]
