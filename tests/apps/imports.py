"""A service whose module takes as long to import as the folder `$FLAGS` says, and may fail then."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from graphserve import api, service

FLAGS = Path(os.environ["FLAGS"])

while (FLAGS / "slow").exists():
    time.sleep(0.01)
if (FLAGS / "fails").exists():
    raise OSError("the disk is full")


@service(name="front-door")
class Entry:
    """The only node; its name is not that of its class."""

    @api
    async def pid(self) -> int:
        """In the pooled lane."""
        return os.getpid()

    @api
    def double(self, x: int) -> int:
        """In the queue lane."""
        return 2 * x

    @api
    async def count(self, n: int) -> AsyncIterator[int]:
        """A stream."""
        for number in range(n):
            yield number

    @api
    async def size(self, chunks: AsyncIterator[bytes], times: int) -> int:
        """An upload."""
        return times * sum([len(chunk) async for chunk in chunks])
