"""Three levels with a leaf that can do so much and no more: 2 workers, 20 ms a call."""

import asyncio
import os
import time

from graphserve import Batch, api, depends, service

SECONDS = 0.02  # of one call
CAPACITY = 2 / SECONDS  # calls a second
COUNT = os.environ.get("OVERLOAD_COUNT", os.devnull)  # a file that gets a byte for each execution


@service(workers=2)
class Model:
    @api
    def work(self, x: int) -> int:
        with open(COUNT, "ab", buffering=0) as file:
            file.write(b".")
        time.sleep(SECONDS)
        return x + 1

    @api(batch=Batch(max_size=8, max_wait=0.005))
    def batched(self, xs: list[int]) -> list[int]:
        time.sleep(8 * SECONDS)
        return [x + 1 for x in xs]


@service
class Busy:
    """Without a limit, and with nothing to wait for: what bounds it is its event loop."""

    @api
    async def compute(self, x: int) -> int:
        for _ in range(2):
            await asyncio.sleep(0)
            end = time.thread_time() + 0.005
            while time.thread_time() < end:
                pass
        return x + 1


@service
class Middle:
    model = depends(Model)
    busy = depends(Busy)

    @api
    async def work(self, x: int) -> int:
        return await self.model.work(x)

    @api
    async def batched(self, x: int) -> int:
        return (await self.model.batched([x]))[0]

    @api
    async def compute(self, x: int) -> int:
        return await self.busy.compute(x)


@service(timeout=10)
class Gateway:
    middle = depends(Middle)

    @api
    async def work(self, x: int) -> int:
        return await self.middle.work(x)

    @api
    async def batched(self, x: int) -> int:
        return await self.middle.batched(x)

    @api
    async def compute(self, x: int) -> int:
        return await self.middle.compute(x)
