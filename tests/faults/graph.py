"""The graph under test: three levels, both lanes, sync and async, idempotent and not.

Runs in graphserve's workers.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from graphserve import Batch, api, depends, service
from tests.faults.ledger import FOLDER, Pen

WAIT = 0.030  # seconds that a call of an async API of the leaf takes
WORK = 0.005  # seconds that a call of a sync API of the leaf takes
HEAVY = 0.020  # seconds that a call takes which measures capacity


def flag(name: str) -> bool:
    """Whether the suite has set a flag: a file of that name."""
    return (Path(os.environ[FOLDER]) / name).exists()


@service
class Leaf:
    """The work itself."""

    def __init__(self) -> None:
        if flag("broken"):
            raise OSError("the model is not there")
        self.pen, self.held = Pen("Leaf"), Pen("Held")

    @api
    async def pooled(self, id: int) -> int:
        with self.pen.call(id):
            await asyncio.sleep(WAIT)
            return id

    @api(idempotent=True)
    async def pooled_again(self, id: int) -> int:
        return await self.pooled(id)

    @api
    def queued(self, id: int) -> int:
        with self.pen.call(id):
            time.sleep(WORK)  # the work
            return id

    @api(idempotent=True)
    def queued_again(self, id: int) -> int:
        return self.queued(id)

    @api
    async def wait(self, id: int) -> int:
        """Never ends by itself."""
        with self.held.call(id):
            await asyncio.Event().wait()
            return id

    @api
    def hang(self, id: int) -> int:
        """Never ends at all, cancelled or not."""
        with self.held.call(id):
            threading.Event().wait()
            return id

    @api
    def heavy(self, id: int) -> int:
        time.sleep(HEAVY)  # the work
        return id

    @api(batch=Batch(max_size=8, max_wait=0.005), idempotent=True)
    def joined(self, ids: list[int]) -> list[int]:
        return ids

    @api(idempotent=True)
    async def mean(self, array: np.ndarray) -> np.ndarray:
        return array.mean(axis=0)

    @api
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            await asyncio.sleep(0)
            yield number


@service
class Middle:
    """Passes on: calls with even ids by the pooled lane, the others by the queue lane."""

    leaf = depends(Leaf)

    def __init__(self) -> None:
        self.pen = Pen("Middle")

    @api
    async def once(self, id: int) -> int:
        with self.pen.call(id):
            return await (self.leaf.queued(id) if id % 2 else self.leaf.pooled(id))

    @api(idempotent=True)
    async def again(self, id: int) -> int:
        with self.pen.call(id):
            return await (self.leaf.queued_again(id) if id % 2 else self.leaf.pooled_again(id))

    @api
    def once_in_thread(self, id: int) -> int:
        with self.pen.call(id):
            return (self.leaf.queued(id) if id % 2 else self.leaf.pooled(id)).result()

    @api(idempotent=True)
    def again_in_thread(self, id: int) -> int:
        with self.pen.call(id):
            return (self.leaf.queued_again(id) if id % 2 else self.leaf.pooled_again(id)).result()

    @api
    async def wait(self, id: int) -> int:
        return await self.leaf.wait(id)

    @api
    async def hang(self, id: int) -> int:
        return await self.leaf.hang(id)

    @api
    async def heavy(self, id: int) -> int:
        return await self.leaf.heavy(id)

    @api(idempotent=True)
    async def mixed(self, id: int) -> int:
        """A batch, an array large enough for shared memory, and a call by each lane."""
        array = np.full((64, 1024), float(id))
        batch, mean, pooled, queued = await asyncio.gather(
            self.leaf.joined([id, id + 1]), self.leaf.mean(array), self.leaf.pooled_again(id),
            self.leaf.queued_again(id),
        )  # fmt: skip
        right = batch == [id, id + 1] and bool((mean == float(id)).all()) and pooled == queued == id
        return id if right else -1

    @api
    async def count(self, to: int) -> AsyncIterator[int]:
        async for number in self.leaf.count(to):
            yield number


@service
class Gateway:
    """The entry. Two calls of four go to an async API below, two to one in a thread."""

    middle = depends(Middle)

    def __init__(self) -> None:
        self.pen = Pen("Gateway")

    @api
    async def once(self, id: int) -> int:
        with self.pen.call(id):
            return await (self.middle.once_in_thread(id) if id & 2 else self.middle.once(id))

    @api
    async def again(self, id: int) -> int:
        with self.pen.call(id):
            return await (self.middle.again_in_thread(id) if id & 2 else self.middle.again(id))

    @api
    async def wait(self, id: int) -> int:
        return await self.middle.wait(id)

    @api
    async def hang(self, id: int) -> int:
        return await self.middle.hang(id)

    @api
    async def heavy(self, id: int) -> int:
        return await self.middle.heavy(id)

    @api
    async def mixed(self, id: int) -> int:
        return await self.middle.mixed(id)

    @api
    async def count(self, to: int) -> AsyncIterator[int]:
        async for number in self.middle.count(to):
            yield number
