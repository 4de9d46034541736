"""Calls that kill their worker: by every lane, idempotent or not, and at the entry itself."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

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


def begun(path: str) -> None:
    with Path(f"{path}.begun").open("a") as calls:
        calls.write("\n")


async def held(path: str) -> str:
    """Until there is such a file; another one has a line for each call that began."""
    begun(path)
    go = Path(path)
    while not await asyncio.to_thread(go.exists):  # noqa: ASYNC110 (another process makes it)
        await asyncio.sleep(0.01)
    return "done"


@service(workers=1)
class Shared:
    @api
    async def hold(self, path: str) -> str:
        return await held(path)

    @api(idempotent=True)
    async def hold_again(self, path: str) -> str:
        return await held(path)

    @api
    async def run(self, x: int) -> int:
        fatal(x)
        return x + 6


@service
class Top:
    queued = depends(Queued)
    pooled = depends(Pooled)
    batched = depends(Batched)
    shared = depends(Shared)
    pictured = depends("poison_pictures:Pictured")

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
    async def hold(self, file: str, way: str) -> str:
        if way == "here":
            return await held(file)
        if way == "again":
            return await self.shared.hold_again(file)
        return await self.shared.hold(file)

    @api
    async def die(self, x: int, way: str) -> int:
        if way == "here":
            fatal(x)
            return x
        return await self.shared.run(x)

    @api
    async def image(self, size: int, first: int) -> int:
        import numpy as np  # here: each worker that takes the place of a dead one would import it

        pixels = np.zeros(size)
        pixels[0] = first
        return await self.pictured.image(pixels)

    @api
    def here(self, x: int) -> int:
        fatal(x)
        return x + 4

    @api(batch=Batch(max_size=4))
    def here_batched(self, xs: list[int]) -> list[int]:
        for x in xs:
            fatal(x)
        return [x + 5 for x in xs]
