"""A service that pages of other origins may call: a value, a stream, errors, headers of its own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import graphserve
from graphserve import Problem, api, depends, service


@service(concurrency=1)
class Below:
    @api
    def twice(self, x: int) -> int:
        return 2 * x


@service(
    workers=2,
    concurrency=1,
    cors=["https://app.test", "http://localhost:3000", "https://*.team.test"],
)
class Shared:
    below = depends(Below)

    def __init__(self) -> None:
        self.counted = 0

    @api
    async def twice(self, x: int) -> int:
        return await self.below.twice(x)

    @api(method=["GET", "PUT"], route="/read")
    async def read(self) -> str:
        answer = graphserve.request().answer
        answer.headers["x-tenant"] = "a"
        answer.headers["vary"] = "Accept-Language"
        return "read"

    @api(method="GET", route="/numbers")
    async def numbers(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @api
    async def refuses(self) -> None:
        raise Problem(409, "Taken", headers={"x-holder": "b"})

    @api
    async def raises(self) -> None:
        raise RuntimeError("no")

    @api
    def hold(self, gate: str) -> str:
        while not Path(gate).exists():
            asyncio.run(asyncio.sleep(0.01))
        return "held"

    @api
    def sync(self) -> str:
        return "in its turn"
