"""One API of each kind, for the entries of the tests of the public port."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from graphserve import api


class Answering:
    """What an entry is asked; a base of it."""

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
