"""Services that fail to start, each in its own way."""

import os

from graphserve import api, depends, service


@service
class BadInit:
    def __init__(self) -> None:
        raise ValueError("the model file is missing")

    @api
    async def x(self) -> int:
        return 1


@service
class Top:
    below = depends(BadInit)

    @api
    async def x(self) -> int:
        return await self.below.x()


@service
class Dies:
    def __init__(self) -> None:
        print("the last thing I said", flush=True)
        os._exit(7)

    @api
    async def x(self) -> int:
        return 1


@service(startup_timeout=5)
class TooSlow:
    async def __aenter__(self) -> None:
        import asyncio

        await asyncio.Event().wait()

    @api
    async def x(self) -> int:
        return 1
