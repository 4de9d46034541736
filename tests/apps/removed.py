"""One API a lane, behind an entry: what others remove of the run folder shows in each."""

from __future__ import annotations

import os
import time

from graphserve import Batch, api, depends, service


@service(workers=2)
class Queued:
    @api
    def run(self, x: int) -> int:
        return x + 1

    @api
    def wait(self, gate: str) -> int:
        while not os.path.exists(gate):
            time.sleep(0.005)
        return 1


@service
class Pooled:
    @api
    async def run(self, x: int) -> int:
        return x + 2


@service(workers=2)
class Batched:
    @api(batch=Batch(max_size=8))
    def run(self, xs: list[int]) -> list[int]:
        return [x + 3 for x in xs]


@service
class Top:
    queued = depends(Queued)
    pooled = depends(Pooled)
    batched = depends(Batched)

    @api(timeout=30)
    async def all(self, x: int) -> list[int]:
        return [await self.queued.run(x), await self.pooled.run(x), *await self.batched.run([x])]

    @api(timeout=60)
    async def wait(self, gate: str) -> int:
        return await self.queued.wait(gate)
