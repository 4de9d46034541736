"""APIs that take large bodies, whose reading the test holds by a file."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from graphserve import Batch, api, service


class Held(msgspec.Struct):
    """Reading one takes until its file is there; it leaves one of its own when it begins."""

    gate: str
    filling: str = ""

    def __post_init__(self) -> None:
        if self.gate:
            Path(f"{self.gate}.begun").touch()
            while not Path(self.gate).exists():
                time.sleep(0.005)


@service(workers=1, concurrency=1)
class Large:
    @api
    async def sizes(self, items: list[str]) -> list[int]:
        return [len(item) for item in items]

    @api
    async def hold(self, held: Held) -> int:
        return len(held.filling)

    @api
    def hold_in_thread(self, held: Held) -> int:
        return len(held.filling)

    @api(batch=Batch(max_size=4, max_wait=0.001))
    def lengths(self, items: list[str]) -> list[int]:
        return [len(item) for item in items]

    @api
    async def count(self, items: list[str]) -> AsyncIterator[int]:
        for item in items:
            yield len(item)

    @api
    def pid(self) -> int:
        return os.getpid()
