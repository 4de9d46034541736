"""Workers that get old, fat or stuck."""

import asyncio
import os
import time

from graphserve import api, service


@service(workers=2)
class Node:
    def __init__(self) -> None:
        self.hoard: list[bytes] = []

    @api
    async def pid(self) -> int:
        return os.getpid()

    @api
    async def eat(self, megabytes: int) -> int:
        self.hoard.append(b"x" * (megabytes << 20))
        return os.getpid()

    @api
    async def block(self) -> int:
        time.sleep(600)  # noqa: ASYNC251  (on the loop: nothing of this worker answers any more)
        return 1

    @api
    async def block_later(self) -> None:
        # when no call is executed any more
        asyncio.get_running_loop().call_later(0.1, time.sleep, 600)

    @api(timeout=5)
    async def block_after(self) -> None:
        await asyncio.sleep(3)
        time.sleep(600)  # noqa: ASYNC251

    @api
    async def short(self) -> None:
        await asyncio.sleep(0.5)

    @api(timeout=0.2)
    def overstay(self) -> int:
        time.sleep(600)  # in a thread, past its deadline
        return 1

    @api(timeout=0.2)
    async def patient(self) -> int:
        await asyncio.Event().wait()
        return 1
