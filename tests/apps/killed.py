"""Calls that leave a mark of their process when they begin, and wait for the file `go`: the test
kills what it sees.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from graphserve import Batch, api, depends, service

MARKS = Path(os.environ.get("MARKS", "."))


def mark(name: str) -> None:
    (MARKS / f"{name}.{os.getpid()}.{time.monotonic_ns()}").touch()


def go() -> bool:
    return (MARKS / "go").exists()


def in_thread(name: str) -> int:
    mark(name)
    while not go():
        time.sleep(0.002)
    return os.getpid()


async def on_loop(name: str) -> int:
    mark(name)
    while not go():  # noqa: ASYNC110
        await asyncio.sleep(0.002)
    return os.getpid()


@service(workers=2)
class Node:
    @api
    async def who(self) -> int:
        return os.getpid()

    @api
    async def pooled(self) -> int:
        return await on_loop("pooled")

    @api(idempotent=True)
    async def pooled_again(self) -> int:
        return await on_loop("pooled_again")

    @api
    def queue(self) -> int:
        return in_thread("queue")

    @api(idempotent=True)
    def queue_again(self) -> int:
        return in_thread("queue_again")

    @api(batch=Batch(max_size=4, max_wait=0.02))
    def batch(self, xs: list[int]) -> list[int]:
        return [in_thread("batch")] * len(xs)

    @api(batch=Batch(max_size=4, max_wait=0.02), idempotent=True)
    def batch_again(self, xs: list[int]) -> list[int]:
        return [in_thread("batch_again")] * len(xs)

    @api(idempotent=True)
    async def stream_again(self) -> AsyncIterator[int]:
        yield await on_loop("stream_again")


@service
class Gateway:
    node = depends(Node)

    @api
    async def call(self, name: str) -> Any:
        if name.startswith("batch"):
            return await asyncio.gather(*(getattr(self.node, name)([x]) for x in range(3)))
        if name.startswith("stream"):
            return [item async for item in getattr(self.node, name)()]
        return await getattr(self.node, name)()
