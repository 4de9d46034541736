"""A batched node whose batches tell what was in them, and a gateway that makes callers share them,
or not.
"""

import asyncio
import threading
import time
from typing import Any

import numpy as np

from graphserve import Batch, Problem, api, depends, service
from graphserve.call.context import current


@service
class Below:
    @api
    async def traces(self) -> list[str]:
        """The trace that this call came with."""
        context = current.get()
        assert context is not None
        return [(value or b"").decode() for value in (context.traceparent, context.tracestate)]


@service
class Model:
    """One worker, one batch at a time."""

    below = depends(Below)

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    @api(batch=Batch(max_size=8, max_wait=0.5))
    def label(self, xs: list[int], prefix: str = "") -> list[str]:
        self.batches.append(xs)
        if 99 in xs:
            time.sleep(0.7)  # the work
        return [f"{prefix}{x} of {len(xs)}" for x in xs]

    @api(batch=Batch(max_size=8, max_wait=0.5))
    def kinds(self, a: np.ndarray) -> list[str]:
        assert not a.flags.writeable
        return [f"{a.dtype} {a.shape[1:]}, {len(a)} items"] * len(a)

    @api(batch=Batch(max_size=8, max_wait=0.5))
    def raising(self, xs: list[int]) -> list[int]:
        raise Problem(418, "Teapot")

    @api(batch=Batch(max_size=2, max_wait=60))
    async def traces(self, xs: list[int]) -> list[list[str]]:
        return [await self.below.traces()] * len(xs)

    @api
    async def seen(self) -> list[list[int]]:
        return self.batches


@service(workers=2)
class Pair:
    """Two workers that may collect."""

    @api(batch=Batch(max_size=32, max_wait=1.0))
    def size(self, xs: list[int]) -> list[int]:
        return [len(xs)] * len(xs)


@service
class Gateway:
    pair = depends(Pair)
    model = depends(Model)
    untyped = depends("tests.apps.batches:Model")

    @api
    async def labels(self, calls: list[dict[str, Any]]) -> list[Any]:
        """The answers of calls that are made at once; of those that fail, the class and the
        status.
        """
        answers = await asyncio.gather(
            *(self.untyped.label(**call) for call in calls), return_exceptions=True
        )
        return [
            [type(a).__name__, getattr(a, "status", 0)] if isinstance(a, Exception) else a
            for a in answers
        ]

    @api
    async def kinds(self, dtypes: list[Any]) -> list[list[str]]:
        """The same for arrays of two items of these dtypes; what is no name is a structured one's
        fields.
        """
        wanted = [
            np.dtype(d if isinstance(d, str) else [tuple(field) for field in d]) for d in dtypes
        ]
        return await asyncio.gather(
            *(self.model.kinds(np.zeros((2, 3), dtype)) for dtype in wanted)
        )

    @api
    async def sizes(self, callers: int) -> list[int]:
        """The sizes of the batches that so many callers are in, who call at once."""
        return [
            size
            for answer in await asyncio.gather(*(self.pair.size([x]) for x in range(callers)))
            for size in answer
        ]

    @api
    async def raising(self, x: int) -> list[int]:
        return await self.model.raising([x])

    @api
    async def traces(self, xs: list[int]) -> list[list[str]]:
        return await self.model.traces(xs)

    @api
    async def leaves(self, timeout: float) -> list[list[int]]:
        """While the worker is busy: one call that is given up, one that is late, one that waits;
        what was executed.
        """
        busy = asyncio.ensure_future(self.model.label([99, 0, 0, 0, 0, 0, 0, 0]))
        while not await self.model.seen():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        given_up = asyncio.ensure_future(self.model.label([1]))
        late = asyncio.ensure_future(asyncio.wait_for(self.model.label([2]), timeout))
        waits = asyncio.ensure_future(self.model.label([3]))
        await asyncio.sleep(0.05)
        given_up.cancel()
        await asyncio.gather(busy, given_up, late, waits, return_exceptions=True)
        return await self.model.seen()

    @api
    def in_threads(self, count: int) -> list[list[str]]:
        answers: list[list[str]] = []
        threads = [
            threading.Thread(target=lambda x=x: answers.append(self.model.label([x]).result()))
            for x in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(answers)
