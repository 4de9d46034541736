"""A gateway that makes two calls one after the other, to a node whose calls can be held by a file."""

import asyncio
import os

from graphserve import api, depends, service


@service
class Slow:
    @api
    async def wait(self, gate: str, x: int) -> int:
        open(f"{gate}.{x}", "w").close()
        while not os.path.exists(gate):
            await asyncio.sleep(0.01)
        return os.getpid()

    @api
    async def again(self, x: int) -> int:
        return x * 10


@service
class Gateway:
    slow = depends(Slow)

    @api
    async def two(self, x: int, gate: str) -> int:
        await self.slow.wait(gate, x)
        return await self.slow.again(x)
