"""One service behind every kind of socket: APIs of both lanes, raw bodies, streams, a count of what
was executed.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from graphserve import api, service


@service
class Doors:
    def __init__(self) -> None:
        while flags and (flags / "slow").exists():
            os.sched_yield()
        self.counted = 0

    @api
    async def add(self, x: int = 0, y: int = 0) -> int:
        return x + y

    @api
    def add_in_turn(self, x: int = 0, y: int = 0) -> int:
        return x + y

    @api
    async def length(self, body: bytes) -> int:
        return len(body)

    @api
    async def upload(self, parts: AsyncIterator[bytes]) -> int:
        return sum([len(part) async for part in parts])

    @api
    async def first(self, parts: AsyncIterator[bytes]) -> int:
        return len(await anext(aiter(parts)))

    @api
    async def hold(self, gate: str) -> str:
        while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240  (the gate is a file of the test's)
            await asyncio.sleep(0.01)
        return "held"

    @api
    async def count(self) -> int:
        self.counted += 1
        return self.counted

    @api
    async def counted_so_far(self) -> int:
        return self.counted


flags = Path(os.environ["FLAGS"]) if "FLAGS" in os.environ else None
