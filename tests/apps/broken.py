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
        await self.load()

    async def load(self) -> None:
        import asyncio

        await asyncio.Event().wait()

    @api
    async def x(self) -> int:
        return 1


class Leaves:
    def __init__(self) -> None:
        print(f"init {type(self).__name__}", flush=True)

    async def __aexit__(self, *exc: object) -> None:
        print(f"exit {type(self).__name__}", flush=True)


@service(workers=2)
class Bottom(Leaves):
    @api
    async def x(self) -> int:
        return 1


@service
class Between(Leaves):
    bottom = depends(Bottom)

    @api
    async def x(self) -> int:
        return await self.bottom.x()

    async def __aexit__(self, *exc: object) -> None:
        assert await self.bottom.x() == 1
        await super().__aexit__()


@service
class Never(Leaves):
    async def __aenter__(self) -> None:
        import asyncio

        await asyncio.Event().wait()

    @api
    async def x(self) -> int:
        return 1


@service
class Waits(Never):
    between = depends(Between)


@service
class FailsLate(Leaves):
    between = depends(Between)

    async def __aenter__(self) -> None:
        raise ValueError("too late for that")

    @api
    async def x(self) -> int:
        return 1


@service
class Last(Leaves):
    fails = depends(FailsLate)
    never = depends(Never)

    @api
    async def x(self) -> int:
        return 1


@service
class Stays(Leaves):
    async def __aexit__(self, *exc: object) -> None:
        import asyncio

        print("exit begun", flush=True)
        await asyncio.Event().wait()

    @api
    async def x(self) -> int:
        return 1


@service
class FailsAboveOneThatStays:
    stays = depends(Stays)

    def __init__(self) -> None:
        raise ValueError("too late for that")

    @api
    async def x(self) -> int:
        return 1
