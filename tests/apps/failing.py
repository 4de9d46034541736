"""A dependency that does not start again while a file is there, and says things that are nobody's
business.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

from graphserve import api, depends, service
from tests.apps.hostile import SECRET


@service
class Leaf:
    def __init__(self) -> None:
        if (flag := Path(os.environ["FAILING_FLAG"])).exists():
            raise RuntimeError(
                f"{SECRET} in {__file__} with {os.environ['HOSTILE_SECRET']} at {flag}"
            )

    @api
    def limited(self) -> int:
        return 1

    @api
    async def unlimited(self) -> int:
        return 1

    @api
    async def items(self) -> AsyncIterator[int]:
        yield 1


@service
class Gateway:
    leaf = depends(Leaf)

    @api
    async def limited(self) -> int:
        return await self.leaf.limited()

    @api
    async def unlimited(self) -> int:
        return await self.leaf.unlimited()

    @api
    async def items(self) -> AsyncIterator[int]:
        async for item in self.leaf.items():
            yield item
