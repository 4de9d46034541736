"""A node of four workers that take one call at a time, behind gateways."""

import os
import time
from typing import Any

from graphserve import api, depends, service
from tests.apps.memory import facts


@service(workers=4, concurrency=1)
class Model:
    @api(idempotent=True)
    def work(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    @api
    def hold(self, file: str) -> int:
        open(f"{file}.held", "w").close()
        while not os.path.exists(file):
            time.sleep(0.005)
        return os.getpid()


@service
class Echo:
    @api
    async def run(self, x: int) -> int:
        return x + 1


@service
class Gateway:
    model = depends(Model)
    echo = depends(Echo)

    @api
    async def work(self, seconds: float) -> int:
        return await self.model.work(seconds)

    @api
    async def hold(self, file: str) -> int:
        return await self.model.hold(file)

    @api
    async def chain(self, x: int, times: int) -> int:
        for _ in range(times):
            x = await self.echo.run(x)
        return x

    @api
    async def facts(self) -> dict[str, Any]:
        return facts()
