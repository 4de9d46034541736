"""The graphs that are measured, as graphserve services.

An entry each. Runs in graphserve's workers.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from graphserve import Batch, api, depends, service


@service
class Echo:
    @api
    async def run(self, x: int) -> int:
        return x + 1


@service
class Pair:
    """Two nodes, and no more: for start-up time and memory."""

    echo = depends(Echo)

    @api
    async def chain(self, x: int) -> int:
        return await self.echo.run(x)


@service
class Calls(Pair):
    """Small calls: none below, one below, and one below through httpx in both ways."""

    bound = depends(Echo, client=httpx.AsyncClient)

    def __init__(self) -> None:
        self.stock: httpx.AsyncClient | None = None

    @api
    async def local(self, x: int) -> int:
        return x + 1

    @api
    async def client(self, x: int) -> int:
        answer: int = (await self.bound.post("/run", json={"x": x})).json()
        return answer

    @api
    async def uds(self, x: int) -> int:
        """The same through httpx's own transport, over the socket of the very same worker."""
        if self.stock is None:
            transport = httpx.AsyncHTTPTransport(uds=_worker_socket("Echo"))
            self.stock = httpx.AsyncClient(
                transport=transport, base_url="http://echo", trust_env=False
            )
        answer: int = (await self.stock.post("/run", json={"x": x})).json()
        return answer


def _worker_socket(node: str) -> str:
    plan = next(Path(os.environ["BENCHMARK_RUN_DIR"]).rglob("plan.json"))
    id = next(each["id"] for each in json.loads(plan.read_text())["nodes"] if each["name"] == node)
    return str(next((plan.parent.parent / id).glob("[0-9]*.sock")))


class Link:
    """A service that hands on to the one below."""

    below: Any

    @api
    async def run(self, x: int) -> int:
        answer: int = await self.below.run(x)
        return answer


@service
class Deep2(Link):
    below = depends(Echo)


@service
class Deep3(Link):
    below = depends(Deep2)


@service
class Deep4(Link):
    below = depends(Deep3)


@service
class Deep5(Link):
    below = depends(Deep4)


@service
class Deep6(Link):
    below = depends(Deep5)


@service
class Deep7(Link):
    below = depends(Deep6)


@service
class Deep8(Link):
    below = depends(Deep7)


@service
class Deep9(Link):
    below = depends(Deep8)


@service
class Deep10(Link):
    below = depends(Deep9)


@service
class Fan:
    """Eight nodes, called side by side."""

    e0 = depends(Echo, name="echo-0")
    e1 = depends(Echo, name="echo-1")
    e2 = depends(Echo, name="echo-2")
    e3 = depends(Echo, name="echo-3")
    e4 = depends(Echo, name="echo-4")
    e5 = depends(Echo, name="echo-5")
    e6 = depends(Echo, name="echo-6")
    e7 = depends(Echo, name="echo-7")

    @api
    async def fan(self, x: int) -> int:
        nodes = (self.e0, self.e1, self.e2, self.e3, self.e4, self.e5, self.e6, self.e7)
        return sum(await asyncio.gather(*[node.run(x) for node in nodes]))


@service(workers=4, concurrency=1)
class Model:
    @api
    def balance(self, x: int) -> int:
        time.sleep(0.020)  # the work
        return os.getpid()


@service
class Balance:
    model = depends(Model)

    @api
    async def balance(self, x: int) -> int:
        return await self.model.balance(x)


@service(workers=2)
class Batcher:
    @api(batch=Batch(max_size=32, max_wait=0.005))
    def run(self, xs: list[int]) -> list[int]:
        time.sleep(0.050 + 0.001 * len(xs))  # the work: a fixed part and one an item
        return [x + 1 for x in xs]


@service
class Batching:
    batcher = depends(Batcher)

    @api
    async def batch(self, x: int) -> int:
        return (await self.batcher.run([x]))[0]


@service
class Source:
    @api
    async def items(self, count: int, gap: float) -> AsyncIterator[dict[str, int]]:
        for number in range(count):
            if gap:
                await asyncio.sleep(gap)
            yield {"number": number, "made": time.monotonic_ns()}


@service
class Stream:
    source = depends(Source)

    @api
    async def stream(self, count: int, gap: float) -> AsyncIterator[dict[str, int]]:
        async for item in self.source.items(count, gap):
            yield item
