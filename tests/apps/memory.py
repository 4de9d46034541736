"""Arrays that cross by shared memory, in both directions, kept and dropped."""

import asyncio
import os
from typing import Any

import numpy as np

from graphserve import api, depends, service


@service(workers=2)
class Echo:
    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []

    @api
    async def back(self, a: np.ndarray) -> np.ndarray:
        assert not a.flags.writeable
        return a

    @api
    async def bytes_back(self, data: bytes) -> bytes:
        return data

    @api
    async def keep(self, a: np.ndarray) -> int:
        self.kept.append(a)
        return len(self.kept)

    @api
    async def look(self) -> list[float]:
        return [float(a[0]) for a in self.kept]

    @api
    async def hang(self, a: np.ndarray) -> int:
        self.kept.append(a)
        await asyncio.Event().wait()
        return 1

    @api(idempotent=True)
    async def pid(self) -> int:
        return os.getpid()


@service
class Gateway:
    echo = depends(Echo)

    @api
    async def round_trip(self, count: int, size: int) -> bool:
        rng = np.random.default_rng(count)
        arrays = [rng.random(size) for _ in range(count)]
        answers = await asyncio.gather(*(self.echo.back(a) for a in arrays))
        good = all(
            (a == b).all() and not b.flags.writeable for a, b in zip(arrays, answers, strict=True)
        )
        blob = os.urandom(size)
        return good and await self.echo.bytes_back(blob) == blob

    @api
    async def kept(self, count: int) -> list[float]:
        for index in range(count):
            await self.echo.keep(np.full(50_000, float(index)))
        # side by side: both workers are asked
        found = await asyncio.gather(*(self.echo.look() for _ in range(50)))
        return sorted({value for values in found for value in values})

    @api
    async def give_up(self, count: int) -> int:
        calls = [asyncio.ensure_future(self.echo.hang(np.ones(50_000))) for _ in range(count)]
        await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()
        return len(await asyncio.gather(*calls, return_exceptions=True))

    @api
    async def many(self, count: int) -> int:
        a = np.ones(20_000)
        for _ in range(count // 10):
            await asyncio.gather(*(self.echo.back(a) for _ in range(10)))
        return count

    @api
    async def facts(self) -> dict[str, Any]:
        return facts()


def facts() -> dict[str, Any]:
    """Descriptors of this process, how many of them are shared memory, and its proportional
    memory.
    """
    folder = "/proc/self/fd"
    fds = [
        os.readlink(f"{folder}/{fd}")
        for fd in os.listdir(folder)
        if os.path.islink(f"{folder}/{fd}")
    ]
    with open("/proc/self/smaps_rollup") as file:
        pss = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return {
        "fds": len(fds),
        "memfd": sum("memfd:graphserve" in name for name in fds),
        "pss_kb": pss,
    }
