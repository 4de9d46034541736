"""A diamond: Top calls Left and Right, and both call Base."""

import os

from graphserve import api, depends, service


class Says:
    def __init__(self) -> None:
        print(f"init {type(self).__name__}", flush=True)

    async def __aexit__(self, *exc: object) -> None:
        print(f"exit {type(self).__name__}", flush=True)

    async def __aenter__(self) -> None:
        print(f"enter {type(self).__name__}", flush=True)


@service(workers=2)
class Base(Says):
    @api
    async def base(self, x: int) -> int:
        return x + 1


@service
class Left(Says):
    base = depends(Base)

    @api
    async def left(self, x: int) -> int:
        return await self.base.base(x) * 2


@service
class Right(Says):
    base = depends(Base)

    def __init__(self) -> None:
        super().__init__()
        assert self.base.base(1).result() == 2  # a dependency answers in __init__

    @api
    def right(self, x: int) -> int:
        return self.base.base(x).result() * 3


@service
class Top(Says):
    left = depends(Left)
    right = depends(Right)

    async def __aenter__(self) -> None:
        assert await self.left.left(1) == 4
        await super().__aenter__()

    @api
    async def top(self, x: int) -> int:
        return await self.left.left(x) + await self.right.right(x)

    @api
    async def pid(self) -> int:
        return os.getpid()
