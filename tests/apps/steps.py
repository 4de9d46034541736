"""A gateway that makes two calls one after the other, to a node whose calls can be held by a
file.
"""

import asyncio
import os

from graphserve import api, depends, service


@service
class Slow:
    @api
    async def wait(self, gate: str, x: int) -> int:
        mark(f"{gate}.{x}")
        while not held(gate):  # noqa: ASYNC110  (the gate is a file of the test's)
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


def mark(path: str) -> None:
    """Leave a file, for the test to see."""
    open(path, "w").close()


def held(path: str) -> bool:
    """Whether the file is there."""
    return os.path.exists(path)
