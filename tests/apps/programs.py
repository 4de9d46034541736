"""What the tests of `serve()` start: the module imports little, since each worker imports it."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np

from graphserve import (
    Batch,
    DeadlineExceeded,
    Problem,
    RemoteError,
    Unavailable,
    api,
    depends,
    service,
)


@service
class Doubler:
    @api
    async def double(self, x: int) -> int:
        return 2 * x

    @api
    async def hang(self) -> int:
        await asyncio.sleep(3600)
        return 1

    @api
    async def pid(self) -> int:
        return os.getpid()

    @api(timeout=0.2)
    async def stalls(self) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(3600)


@service
class Gateway:
    doubler = depends(Doubler)

    @api
    async def twice(self, x: int) -> int:
        return await self.doubler.double(x)

    @api
    def total(self, values: np.ndarray) -> np.ndarray:
        assert not values.flags.writeable
        return values.sum(axis=0)

    @api
    async def hang(self) -> int:
        return await self.doubler.hang()

    @api
    async def wait_for(self, path: str) -> int:
        Path(f"{path}.asked").touch()  # noqa: ASYNC240
        while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.001)
        return 2

    @api(timeout=0.1)
    async def late(self) -> int:
        return await self.doubler.hang()

    @api
    async def raises(self) -> int:
        raise KeyError("a secret")

    @api
    async def late_item(self) -> str:
        try:
            async for item in self.doubler.stalls():
                assert item == 1
        except DeadlineExceeded as exc:
            return str(exc)
        return "it has ended"

    @api
    async def drops(self) -> list[str]:
        """Calls with wrong arguments that nobody waits for, and what is warned of each by the time
        it is dropped.
        """
        double: Any = self.doubler.double
        said = []
        for arguments in ((), (1, 2), ("x",), (1,)):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                double(*arguments)
                said += [str(warning.message) for warning in caught]
        return said

    @api
    async def size(self, chunks: AsyncIterator[bytes]) -> int:
        return sum([len(chunk) async for chunk in chunks])

    @api
    async def first(self, chunks: AsyncIterator[bytes]) -> int:
        return len([await anext(chunks)])

    @api
    async def count(self, n: int) -> AsyncIterator[int]:
        for index in range(n):
            yield index


@service
class Below:
    @api
    async def raises(self) -> int:
        raise KeyError("below")

    @api
    async def problem(self) -> int:
        raise Problem(
            409, "Taken", detail="seat 4", headers={"x-seat": "4"}, extensions={"seat": [4]}
        )

    @api
    async def hangs(self) -> int:
        await asyncio.sleep(3600)
        return 1

    @api
    async def breaks(self, after: int) -> AsyncIterator[int]:
        for index in range(after):
            yield index
        raise KeyError("in a stream")


@service
class Failing:
    below = depends(Below)

    @api
    async def raises(self) -> int:
        raise KeyError("here: ä\n\x00")

    @api
    def raises_in_thread(self) -> int:
        raise KeyError("x" * 100_000)

    @api(batch=Batch(max_size=2, max_wait=0.001))
    def raises_in_batch(self, values: list[int]) -> list[int]:
        raise KeyError("batch")

    @api
    async def exits(self) -> int:
        sys.exit(3)

    @api
    async def raises_below(self) -> int:
        return await self.below.raises()

    @api
    async def raises_after_another(self) -> int:
        try:
            return await self.below.raises()
        except RemoteError:
            raise KeyError("another") from None

    @api
    async def misfit(self) -> int:
        return await self.below.raises(3)  # type: ignore[call-arg]

    @api
    async def wrong_result(self) -> int:
        return "text"  # type: ignore[return-value]

    @api
    async def problem(self) -> int:
        return await self.below.problem()

    @api
    async def full(self) -> int:
        raise Unavailable("no room", retry_after=3.0, full=True)

    @api(timeout=0.1)
    async def late(self) -> int:
        return await self.below.hangs()

    @api
    async def plus(self, x: int) -> int:
        return x + 1

    @api
    async def breaks(self, after: int) -> AsyncIterator[int]:
        async for item in self.below.breaks(after):
            yield item

    @api
    async def breaks_here(self, after: int) -> AsyncIterator[int]:
        for index in range(after):
            yield index
        raise KeyError("in a stream")

    @api
    async def size(self, chunks: AsyncIterator[bytes]) -> int:
        raise KeyError(len([each async for each in chunks]))

    @api
    async def dies(self) -> int:
        os._exit(3)
