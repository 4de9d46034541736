"""An entry whose workers are slow to start, do not start, or block their loop, as the folder
`$FLAGS` says.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from graphserve import Batch, api, service

FLAGS = Path(os.environ["FLAGS"])
(FLAGS / f"imported-{os.getpid()}").touch()


@service
class Entry:
    """The only node."""

    def __init__(self) -> None:
        if (FLAGS / "broken").exists():
            raise OSError("the disk is gone")
        while (FLAGS / "slow").exists():
            time.sleep(0.01)
        if (FLAGS / "fails").exists():
            raise OSError("the disk is full")

    @api
    async def pid(self) -> int:
        """In the pooled lane."""
        return os.getpid()

    @api
    def double(self, x: int) -> int:
        """In the queue lane."""
        return 2 * x

    @api(batch=Batch(max_size=4))
    def doubles(self, xs: list[int]) -> list[int]:
        """At a socket of its own."""
        return [2 * x for x in xs]

    @api
    async def count(self, n: int) -> AsyncIterator[int]:
        """A stream."""
        for number in range(n):
            yield number

    @api
    async def size(self, chunks: AsyncIterator[bytes], times: int) -> int:
        """An upload."""
        return times * sum([len(chunk) async for chunk in chunks])

    @api
    def length(self, body: bytes) -> int:
        """A body of any kind."""
        return len(body)

    @api
    async def block(self) -> int:
        """Block the loop while the flag is there."""
        (FLAGS / "blocked").touch()
        while (FLAGS / "blocks").exists():
            time.sleep(0.01)  # noqa: ASYNC251
        return os.getpid()
