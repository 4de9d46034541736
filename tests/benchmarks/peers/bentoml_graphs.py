"""The graphs on BentoML, with what makes it quicker: no access log, and client sessions that are
not recycled.

(Recycling, its default, closes the shared session every 100 calls, under calls that are in flight.)
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator

import bentoml

TUNED = {
    "runner_connection": {"max_requests": 10**9, "max_age": 1e9},
    "traffic": {"timeout": 300},
    "logging": {"access": {"enabled": False}},
}
one = bentoml.service(workers=1, **TUNED)


@one
class Echo:
    @bentoml.api
    async def run(self, x: int) -> int:
        return x + 1


@one
class Pair:
    echo = bentoml.depends(Echo)

    @bentoml.api
    async def chain(self, x: int) -> int:
        return await self.echo.to_async.run(x=x)


@one
class Calls:
    echo = bentoml.depends(Echo)

    @bentoml.api
    async def local(self, x: int) -> int:
        return x + 1

    @bentoml.api
    async def chain(self, x: int) -> int:
        return await self.echo.to_async.run(x=x)


class Link:
    @bentoml.api
    async def run(self, x: int) -> int:
        return await self.below.to_async.run(x=x)


def link(number, service):
    """The service above another one, as a class of its own name in this module."""
    name = f"Deep{number}"
    cls = type(name, (Link,), {"below": bentoml.depends(service), "__module__": __name__})
    globals()[name] = one(cls)
    return globals()[name]


_top = Echo
for _number in range(2, 11):
    _top = link(_number, _top)
del _top, _number


def leaf(number):
    """One more service like Echo, under another name."""

    async def run(self, x: int) -> int:
        return x + 1

    cls = type(f"Echo{number}", (), {"run": bentoml.api(run), "__module__": __name__})
    globals()[f"Echo{number}"] = one(cls)
    return globals()[f"Echo{number}"]


@one
class Fan:
    e0 = bentoml.depends(leaf(0))
    e1 = bentoml.depends(leaf(1))
    e2 = bentoml.depends(leaf(2))
    e3 = bentoml.depends(leaf(3))
    e4 = bentoml.depends(leaf(4))
    e5 = bentoml.depends(leaf(5))
    e6 = bentoml.depends(leaf(6))
    e7 = bentoml.depends(leaf(7))

    @bentoml.api
    async def fan(self, x: int) -> int:
        nodes = (self.e0, self.e1, self.e2, self.e3, self.e4, self.e5, self.e6, self.e7)
        return sum(await asyncio.gather(*[node.to_async.run(x=x) for node in nodes]))


@bentoml.service(workers=4, threads=1, **TUNED)
class Model:
    @bentoml.api
    def balance(self, x: int) -> int:
        time.sleep(0.020)
        return os.getpid()


@one
class Balance:
    model = bentoml.depends(Model)

    @bentoml.api
    async def balance(self, x: int) -> int:
        return await self.model.to_async.balance(x=x)


@bentoml.service(workers=2, threads=1, **TUNED)
class Batcher:
    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def run(self, xs: list[int]) -> list[int]:
        time.sleep(0.050 + 0.001 * len(xs))
        return [x + 1 for x in xs]


@one
class Batching:
    batcher = bentoml.depends(Batcher)

    @bentoml.api
    async def batch(self, x: int) -> int:
        return (await self.batcher.to_async.run(xs=[x]))[0]


@one
class Source:
    @bentoml.api
    async def items(self, count: int, gap: float) -> AsyncGenerator[str, None]:
        for number in range(count):
            if gap:
                await asyncio.sleep(gap)
            yield f'{{"number":{number},"made":{time.monotonic_ns()}}}\n'


@one
class Stream:
    source = bentoml.depends(Source)

    @bentoml.api
    async def stream(self, count: int, gap: float) -> AsyncGenerator[str, None]:
        async for item in self.source.to_async.items(count=count, gap=gap):
            yield item
