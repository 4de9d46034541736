"""A graph whose requests and calls end in every way, for tests of its metrics."""

import asyncio
import os
import time
from collections.abc import AsyncIterator

import httpx

from graphserve import Batch, Problem, RemoteError, api, depends, service


@service(workers=2)
class Back:
    @api
    def add(self, one: int, two: int) -> int:
        return one + two

    @api
    def fail(self) -> None:
        raise ValueError("as it should")

    @api
    async def wait(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @api
    async def items(self, number: int, fails: bool = False) -> AsyncIterator[int]:
        for item in range(number):
            yield item
        if fails:
            raise Problem(418, "no more")

    @api
    def hold(self, until: str) -> bool:
        while not os.path.exists(until):
            time.sleep(0.01)
        return True

    @api(batch=Batch(max_size=8, max_wait=0.001))
    def double(self, numbers: list[int]) -> list[int]:
        return [2 * number for number in numbers]

    @api
    def die(self) -> None:
        os._exit(7)


@service
class Front:
    back = depends(Back)
    hasty = depends(Back, timeout=0.05)
    web = depends(Back, client=httpx.AsyncClient)

    @api
    async def add(self, numbers: list[int]) -> int:
        calls = [self.back.add(number, 1) for number in numbers]
        return sum([await call for call in calls])

    @api
    async def fail(self) -> None:
        await self.back.fail()

    @api
    async def wait(self, seconds: float) -> float:
        return await self.back.wait(seconds)

    @api
    async def late(self) -> float:
        return await self.hasty.wait(600.0)

    @api
    async def misfit(self) -> int:
        return await self.back.add("one", 2)

    @api
    async def sum_items(self, number: int, taken: int, fails: bool = False) -> int:
        total = 0
        async for item in self.back.items(number, fails):
            total += item
            taken -= 1
            if not taken:
                break
        return total

    @api
    async def items(self, number: int, fails: bool = False) -> AsyncIterator[int]:
        async for item in self.back.items(number, fails):
            yield item

    @api
    async def kill_back(self) -> bool:
        try:
            await self.back.die()
        except RemoteError:
            return True
        return False

    @api
    async def hold(self, until: str) -> bool:
        return await self.back.hold(until)

    @api
    async def double(self, numbers: list[int]) -> list[int]:
        return await self.back.double(numbers)

    @api
    async def ask(self, path: str) -> int:
        return (await self.web.post(path, json={})).status_code

    @api
    def plain(self) -> int:
        return self.back.add(1, 2).result()

    @api(route="/things/{name}", method="GET")
    async def thing(self, name: str) -> str:
        return name
