"""Three levels whose leaf runs until it is told to stop, in every shape of a call; the leaf counts
what it sees.
"""

import asyncio
import os
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx

import graphserve
from graphserve import Batch, api, depends, service

LEDGERS = Path(os.environ.get("LEDGERS", "."))


class Ledger:
    """What runs now, what was begun in all, and when (CLOCK_MONOTONIC) the last one ended; in a
    file for the test.
    """

    layout = struct.Struct("qqqd")

    def __init__(self, name: str) -> None:
        self.path = LEDGERS / name
        self.running = self.begun = self.most = 0
        self.last = 0.0
        self.lock = threading.Lock()
        self.write()

    def __enter__(self) -> None:
        with self.lock:
            self.running += 1
            self.begun += 1
            self.most = max(self.most, self.running)
            self.write()

    def __exit__(self, *exc: object) -> None:
        with self.lock:
            self.running -= 1
            self.last = time.monotonic()
            self.write()

    def write(self) -> None:
        data = self.layout.pack(self.running, self.begun, self.most, self.last)
        if not hasattr(self, "file"):
            self.path.write_bytes(data)
            self.file = self.path.open("r+b", buffering=0)
        os.pwrite(self.file.fileno(), data, 0)


def wait_in_thread(seconds: float) -> bool:
    """Until nobody waits any more, and so many seconds longer."""
    while not graphserve.cancelled():
        time.sleep(0.002)
    time.sleep(seconds)
    return True


@service
class Leaf:
    def __init__(self) -> None:
        self.ledger = Ledger("Leaf")

    @api
    async def hold(self) -> int:
        with self.ledger:
            await asyncio.Event().wait()
        return 1

    @api
    async def quick(self, x: int) -> int:
        return x

    @api
    async def items(self) -> AsyncIterator[int]:
        with self.ledger:
            yield 1
            await asyncio.Event().wait()

    @api
    async def upload(self, chunks: AsyncIterator[bytes]) -> int:
        with self.ledger:
            return sum([len(chunk) async for chunk in chunks])


@service(concurrency=2)
class Narrow:
    """Limited: what is called here takes the queue lane."""

    def __init__(self) -> None:
        self.ledger = Ledger("Narrow")

    @api
    async def hold(self) -> int:
        with self.ledger:
            await asyncio.Event().wait()
        return 1

    @api
    def block(self, linger: float = 0.0) -> bool:
        with self.ledger:
            return wait_in_thread(linger)

    @api
    def items(self, linger: float = 0.0) -> Iterator[int]:
        with self.ledger:
            wait_in_thread(linger)
            yield 1

    @api(batch=Batch(max_size=2, max_wait=0.01))
    async def together(self, xs: list[int]) -> list[int]:
        with self.ledger:
            await asyncio.Event().wait()
        return xs

    @api(batch=Batch(max_size=2, max_wait=0.01))
    def together_in_thread(self, xs: list[int], linger: float = 0.0) -> list[int]:
        with self.ledger:
            wait_in_thread(linger)
        return xs

    @api
    async def quick(self, x: int) -> int:
        with self.ledger:
            return x


@service
class Middle:
    leaf = depends(Leaf)
    narrow = depends(Narrow)
    http = depends(Leaf, client=httpx.AsyncClient)
    sync_http = depends(Leaf, client=httpx.Client)

    def __init__(self) -> None:
        self.raised: list[str] = []

    @api
    async def call(self, name: str) -> Any:
        target = self.narrow if hasattr(self.narrow, name) and name != "hold" else self.leaf
        arguments = {"xs": [1]} if name.startswith("together") else {}
        return await getattr(target, name)(**arguments)

    @api
    async def queued(self) -> int:
        return await self.narrow.hold()

    @api
    async def linger(self, name: str, seconds: float) -> Any:
        if name == "items":
            return [item async for item in self.narrow.items(seconds)]
        arguments: dict[str, Any] = {"xs": [1, 2]} if name.startswith("together") else {}
        return await getattr(self.narrow, name)(linger=seconds, **arguments)

    @api
    async def narrow_quick(self, x: int) -> int:
        return await self.narrow.quick(x)

    @api
    async def unawaited(self) -> int:
        call = self.leaf.hold()
        other = asyncio.create_task(self.leaf.hold())
        await asyncio.Event().wait()
        return await call + await other

    @api
    def blocking(self) -> int:
        try:
            return self.leaf.hold().result()
        except BaseException as exc:
            self.raised.append(type(exc).__name__)
            try:
                self.leaf.hold().result()  # nobody waits for us: it is not sent
            except BaseException as exc:
                self.raised.append(type(exc).__name__)
            raise

    @api
    def blocking_stream(self) -> int:
        seen = 0
        try:
            for item in self.leaf.items():
                seen += item
        except BaseException as exc:
            self.raised.append(type(exc).__name__)
            raise
        self.raised.append(f"took the end of the stream for its own after {seen}")
        return seen

    @api
    async def by_http(self) -> int:
        return int((await self.http.post("/hold", json={})).text)

    @api
    def by_sync_http(self) -> int:
        try:
            return int(self.sync_http.post("/hold", json={}).text)
        except BaseException as exc:
            self.raised.append(type(exc).__name__)
            raise

    @api
    async def stream(self) -> AsyncIterator[int]:
        async for item in self.leaf.items():
            yield item

    @api
    async def upload(self, chunks: AsyncIterator[bytes]) -> int:
        return await self.leaf.upload(chunks)

    @api
    async def cleans_up(self) -> int:
        try:
            return await self.leaf.hold()
        finally:
            self.raised.append(f"cleaned up {await self.leaf.quick(1)}")

    @api
    async def seen(self) -> list[str]:
        return self.raised


@service
class Gateway:
    middle = depends(Middle)
    leaf = depends(Leaf)

    @api
    async def hold(self, name: str) -> Any:
        return await getattr(self.middle, name)()

    @api
    async def call(self, name: str) -> Any:
        return await self.middle.call(name)

    @api
    async def stream(self) -> AsyncIterator[int]:
        async for item in self.middle.stream():
            yield item

    @api
    async def upload(self, chunks: AsyncIterator[bytes]) -> int:
        return await self.middle.upload(chunks)

    @api
    async def ignore_upload(self, chunks: AsyncIterator[bytes]) -> int:
        return await self.leaf.hold()

    @api
    async def seen(self) -> list[str]:
        return await self.middle.seen()

    @api
    async def linger(self, name: str, seconds: float) -> Any:
        return await self.middle.linger(name, seconds)

    @api
    async def narrow(self, x: int) -> int:
        return await self.middle.narrow_quick(x)


@service(concurrency=1, queue=2)
class Uploads:
    """Limited, at the public port."""

    def __init__(self) -> None:
        self.ledger = Ledger("Uploads")

    @api
    async def upload(self, chunks: AsyncIterator[bytes]) -> int:
        with self.ledger:
            return sum([len(chunk) async for chunk in chunks])
