"""Services that warm up: one that works, one that raises, one that hangs."""

import asyncio

from graphserve import api, depends, service


@service
class Leaf:
    @api
    async def state(self) -> str:
        return "ready below"


@service
class Model:
    leaf = depends(Leaf)

    def __init__(self) -> None:
        self.seen = ["init"]

    async def __aenter__(self) -> None:
        self.seen.append("enter")

    async def __warm_up__(self) -> None:
        self.seen.append(f"warm: {await self.leaf.state()}")

    @api
    async def steps(self) -> list[str]:
        return self.seen


@service
class Top:
    model = depends(Model)

    @api
    async def steps(self) -> list[str]:
        return await self.model.steps()


@service(warm_up="prime")
class Broken:
    def prime(self) -> None:
        raise RuntimeError("the kernels do not compile")

    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None:
        print("left", flush=True)

    @api
    async def run(self) -> None: ...


@service
class Hangs:
    async def __warm_up__(self) -> None:
        await asyncio.Event().wait()

    @api
    async def run(self) -> None: ...
