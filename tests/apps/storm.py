"""A gateway that calls a leaf again and again, with pauses in which connections grow old."""

import asyncio
import random
import time

from graphserve import api, depends, service


@service
class Leaf:
    @api
    async def pooled(self, x: int) -> int:
        return x + 1

    @api
    def queued(self, x: int) -> int:
        return x + 1


@service
class Gateway:
    leaf = depends(Leaf)

    @api
    async def storm(
        self, groups: int, rounds: int, width: int, pauses: list[float], seed: int
    ) -> dict[str, int]:
        """Each group calls `width` times at once, pauses, and calls again; what came of the calls,
        counted.
        """
        counts: dict[str, int] = {}

        async def call(x: int) -> None:
            method = self.leaf.queued if x % 10 == 0 else self.leaf.pooled
            try:
                came = "right" if await method(x) == x + 1 else "wrong"
            except Exception as exc:
                came = repr(exc)
            counts[came] = counts.get(came, 0) + 1

        async def group(number: int) -> None:
            order = random.Random(seed + number)
            for _ in range(rounds):
                await asyncio.gather(*(call(x) for x in range(width)))
                await asyncio.sleep(order.uniform(*pauses))

        began = time.monotonic()
        await asyncio.gather(*(group(number) for number in range(groups)))
        return counts | {"seconds": round(time.monotonic() - began)}
