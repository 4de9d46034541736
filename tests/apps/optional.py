"""Services that others can do without: one that starts when a file is there, one that never does."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from graphserve import Unavailable, api, depends, service

GO = Path(os.environ.get("OPTIONAL_GO", "/nowhere"))


@service
class Below:
    """What only an optional node calls."""

    @api
    async def word(self) -> str:
        return "below"


@service
class Late:
    below = depends(Below)

    async def __aenter__(self) -> None:
        while not GO.exists():  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.01)

    @api
    async def word(self) -> str:
        return "late and " + await self.below.word()

    @api
    def sync_word(self) -> str:
        return "late"

    @api
    async def words(self) -> AsyncIterator[str]:
        yield "late"


@service
class Never:
    def __init__(self) -> None:
        raise ValueError("there is no model")

    @api
    async def word(self) -> str:
        return "never"


@service
class Top:
    late = depends(Late, optional=True)
    raw = depends(Late, client=httpx.AsyncClient, optional=True)
    never = depends.each(Never, {"a": {}}, optional=True)

    @api
    async def ask(self) -> str:
        return await self.late.word()

    @api
    async def all(self) -> list[str]:
        """Ask in each way; what fails says of which node."""
        found = []
        for call in (
            self.late.word,
            self.late.sync_word,
            self.never["a"].word,
            self._raw,
            self._stream,
        ):
            try:
                found.append(await call())
            except Unavailable as exc:
                found.append(f"no {exc.node}")
            except httpx.ConnectError:
                found.append("no connection")
        return found

    async def _raw(self) -> str:
        return str((await self.raw.post("/word", json={})).json())

    async def _stream(self) -> str:
        return "".join([word async for word in self.late.words()])


@service
class Strict:
    """Does not start without what its dependency can do without."""

    top = depends(Top)
    late = depends(Late)

    @api
    async def ask(self) -> str:
        return await self.late.word()
