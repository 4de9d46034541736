"""Batches and streams, in every shape."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import numpy as np

from graphserve import Batch, DeadlineExceeded, Problem, api, depends, service


@dataclass
class Token:
    index: int
    text: str


@service(workers=2)
class Batcher:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    @api(batch=Batch(max_size=4, max_wait=0.05))
    def double(self, xs: list[int], scale: int = 2) -> list[int]:
        self.sizes.append(len(xs))
        if 13 in xs:
            raise ValueError("unlucky")
        return [x * scale for x in xs]

    @api(batch=Batch(max_size=4, max_wait=0.05), idempotent=True)
    def careful(self, xs: list[int]) -> list[int]:
        if 13 in xs:
            raise ValueError("unlucky")
        return [Problem(409, "Seven") if x == 7 else x for x in xs]  # type: ignore[misc]

    @api(batch=Batch(max_size=8, max_wait=0.02))
    def rows(self, a: np.ndarray) -> np.ndarray:
        return a * 2

    @api(batch=Batch(max_size=4, max_wait=0.01))
    def short(self, xs: list[int]) -> list[int]:
        return xs[1:]

    @api(batch=Batch(max_size=64, max_wait=0.01))
    async def sizes_of(self, xs: list[int]) -> list[int]:
        return [len(xs)] * len(xs)


@service
class Source:
    def __init__(self) -> None:
        self.alive = 0
        self.made = 0

    @api
    async def count(self, n: int, pause: float = 0.0) -> AsyncIterator[Token]:
        self.alive += 1
        try:
            for index in range(n):
                if pause:
                    await asyncio.sleep(pause)
                self.made += 1
                yield Token(index, "x" * 10)
        finally:
            self.alive -= 1

    @api
    def threaded(self, n: int) -> Iterator[int]:
        self.alive += 1
        try:
            for index in range(n):
                self.made += 1
                yield index
        finally:
            self.alive -= 1

    @api
    async def breaks(self, at: int) -> AsyncIterator[int]:
        for index in range(at):
            yield index
        raise Problem(418, "Teapot", extensions={"at": at})

    @api
    async def crashes(self) -> AsyncIterator[int]:
        yield 1
        raise KeyError("hidden")

    @api
    async def dies(self) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.05)
        os._exit(1)

    @api
    async def upload(self, name: str, chunks: AsyncIterator[bytes]) -> list[int]:
        sizes = [len(chunk) async for chunk in chunks]
        return [len(name), sum(sizes), len(sizes)]

    @api
    async def state(self) -> list[int]:
        return [self.alive, self.made]


@service(concurrency=1)
class Single:
    @api
    async def items(self) -> AsyncIterator[int]:
        for index in range(100_000):
            yield index

    @api(timeout=0.5)
    async def size(self) -> int:
        return 1


@service
class Gateway:
    batcher = depends(Batcher)
    source = depends(Source)
    single = depends(Single)

    @api
    async def waits_for_itself(self) -> str:
        async for _ in self.single.items():
            try:
                await self.single.size()
            except DeadlineExceeded as exc:
                return str(exc)
        return "no error"

    @api
    async def doubles(self, xs: list[int]) -> list[int]:
        answers = await asyncio.gather(
            *(self.batcher.double([x]) for x in xs), return_exceptions=True
        )
        return [a[0] if isinstance(a, list) else -1 for a in answers]

    @api
    async def long(self, n: int) -> list[int]:
        return await self.batcher.double(list(range(n)))

    @api
    async def carefully(self, xs: list[int]) -> list[int]:
        answers = await asyncio.gather(
            *(self.batcher.careful([x]) for x in xs), return_exceptions=True
        )
        return [a[0] if isinstance(a, list) else getattr(a, "status", -1) for a in answers]

    @api
    async def rows(self, n: int) -> list[float]:
        arrays = [np.full((2, 3), float(i)) for i in range(n)]
        answers = await asyncio.gather(*(self.batcher.rows(a) for a in arrays))
        return [float(a.sum()) for a in answers]

    @api
    async def short(self) -> list[int]:
        return await self.batcher.short([1, 2])

    @api
    async def together(self, n: int) -> list[int]:
        answers = await asyncio.gather(*(self.batcher.sizes_of([1]) for _ in range(n)))
        return [a[0] for a in answers]

    @api
    async def stream(self, n: int, pause: float = 0.0) -> AsyncIterator[Token]:
        async for token in self.source.count(n, pause):
            yield token

    @api
    async def total(self, n: int) -> int:
        return sum([x async for x in self.source.threaded(n)])

    @api
    def total_in_thread(self, n: int) -> int:
        return sum(self.source.threaded(n))

    @api
    async def broken(self, kind: str) -> AsyncIterator[int]:
        stream = {
            "problem": self.source.breaks(2),
            "crash": self.source.crashes(),
            "death": self.source.dies(),
        }[kind]
        async for item in stream:
            yield item

    @api
    async def early(self) -> AsyncIterator[int]:
        async for item in self.source.breaks(0):
            yield item

    @api
    async def leave(self) -> int:
        async for token in self.source.count(1_000_000, 0.001):
            if token.index == 3:
                break
        while (state := await self.source.state())[0]:
            pass
        return state[0]

    @api
    async def slow_reader(self) -> int:
        stream = self.source.count(1_000_000)
        await stream.__anext__()
        await asyncio.sleep(0.5)
        made = (await self.source.state())[1]
        await stream.aclose()
        return made

    @api
    async def sends(self, pieces: int) -> list[int]:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(pieces):
                yield b"x" * 1000

        return await self.source.upload("name", chunks())

    @api
    async def upload(self, chunks: AsyncIterator[bytes], name: str = "none") -> str:
        return (
            f"{name} {sum([len(chunk) async for chunk in chunks])} {threading.active_count() > 0}"
        )

    @api
    async def state(self) -> list[int]:
        return await self.source.state()
