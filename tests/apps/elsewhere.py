"""Uploads, streams and failures of a service that runs elsewhere, or beside its caller, and of
httpx clients.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from graphserve import api, depends, service

URL = os.environ.get("FAR_URL", "http://user:s3cret@127.0.0.1:1/inner")
PIECE = b"x" * 65536
SITE = Path(__file__).with_name("files") / "site"


@service
class Far:
    def __init__(self) -> None:
        self.taken = self.alive = 0

    @api
    async def total(self, chunks: AsyncIterator[bytes], name: str = "none") -> str:
        return f"{name} {sum([len(chunk) async for chunk in chunks])}"

    @api
    async def slowly(self, chunks: AsyncIterator[bytes]) -> int:
        self.taken = 0
        async for chunk in chunks:
            self.taken += len(chunk)
            await asyncio.sleep(0.001)
        return self.taken

    @api
    async def hang(self, chunks: AsyncIterator[bytes]) -> int:
        self.alive += 1
        try:
            return len([chunk async for chunk in chunks])
        finally:
            self.alive -= 1

    @api
    async def state(self) -> list[int]:
        return [self.taken, self.alive]

    @api
    async def count(self, n: int) -> AsyncIterator[int]:
        for index in range(n):
            yield index

    @api
    async def breaks(self, at: int) -> AsyncIterator[int]:
        for index in range(at):
            yield index
        raise ValueError("hidden")

    @api
    async def doubled(self, chunks: AsyncIterator[bytes], times: int = 2) -> AsyncIterator[int]:
        yield times * sum([len(chunk) async for chunk in chunks])

    @api
    async def double(self, x: int) -> int:
        return 2 * x

    @api(method="GET", route="/site/{name}")
    def site(self, name: str, times: int = 1) -> Path:
        return SITE / name

    @api
    async def listed(self) -> list[Path]:
        return [SITE / "style.css"] * 2


class Asks:
    """What a caller of it does."""

    @api
    async def uploads(self) -> list[Any]:
        async def pieces() -> AsyncIterator[bytes]:
            for index in range(100):
                yield b"abc" * index

        said = [
            await self.far.total(pieces()),
            await self.far.total(chunks=pieces(), name="a b&c=ä"),
            await self.far.total(pieces(), '"5"'),
        ]  # type: ignore[attr-defined]
        return [*said, [item async for item in self.far.doubled(pieces(), times=3)]]  # type: ignore[attr-defined]

    @api
    async def furthest(self, pieces: int) -> int:
        """Bytes that an upload was ahead of the API at most."""
        made = most = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal made, most
            for index in range(pieces):
                if index % 10 == 9:
                    most = max(most, made - (await self.far.state())[0])  # type: ignore[attr-defined]
                made += len(PIECE)
                yield PIECE

        assert await self.far.slowly(body()) == pieces * len(PIECE)  # type: ignore[attr-defined]
        return most

    @api
    async def cancelled(self) -> list[int]:
        """Cancel an upload whose next piece never comes; alive before, alive after, and whether the
        iterator ended.
        """
        ended = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            try:
                yield b"x"
                await asyncio.Event().wait()
            finally:
                ended.set()

        call = asyncio.ensure_future(self.far.hang(body()))  # type: ignore[attr-defined]
        while not (before := (await self.far.state())[1]):  # type: ignore[attr-defined]
            pass
        call.cancel()
        await asyncio.wait_for(ended.wait(), 20)
        while after := (await self.far.state())[1]:  # type: ignore[attr-defined]
            pass
        return [before, after]

    @api
    async def wrong_upload(self, kind: str) -> list[str]:
        async def pieces() -> AsyncIterator[Any]:
            yield b"x"
            if kind == "raises":
                raise httpx.ConnectError("of its own")
            yield "text"

        try:
            return [await self.far.total(pieces())]  # type: ignore[attr-defined]
        except Exception as exc:
            return [type(exc).__name__, str(exc)]

    @api
    async def files(self) -> list[list[str]]:
        one = await self.far.site("style.css", times=2)  # type: ignore[attr-defined]
        several = await self.far.listed()  # type: ignore[attr-defined]
        return [[path.name, path.read_text(), str(path.parent)] for path in (one, *several)]

    @api
    async def streamed(self, n: int) -> list[int]:
        return [item async for item in self.far.count(n)]  # type: ignore[attr-defined]

    @api
    async def doubles(self, x: int) -> int:
        return await self.far.double(x)  # type: ignore[attr-defined]

    @api
    async def raw(self, path: str, body: str, headers: dict[str, str]) -> list[Any]:
        """Status, the headers that matter and the body that an httpx client sees, or the error."""
        try:
            answer = await self.http.post(path, content=body.encode(), headers=headers)  # type: ignore[attr-defined]
        except httpx.HTTPError as exc:
            return [type(exc).__name__, str(exc)]
        return _seen(answer)

    @api
    def raw_in_thread(self, path: str, body: str, headers: dict[str, str]) -> list[Any]:
        try:
            answer = self.sync_http.post(path, content=body.encode(), headers=headers)  # type: ignore[attr-defined]
        except httpx.HTTPError as exc:
            return [type(exc).__name__, str(exc)]
        return _seen(answer)


def _seen(answer: httpx.Response) -> list[Any]:
    problem = answer.json() if "problem" in answer.headers["content-type"] else {}
    text = str(problem.get("detail", "")) or answer.text
    return [
        answer.status_code,
        answer.headers["content-type"],
        answer.headers.get("cache-control"),
        text,
    ]


@service(name="Gateway")
class Beside(Asks):
    far = depends(Far)
    http = depends(Far, client=httpx.AsyncClient)
    sync_http = depends(Far, client=httpx.Client)


@service(name="Gateway")
class Gateway(Asks):
    far = depends(Far, url=URL)
    http = depends(Far, url=URL, client=httpx.AsyncClient)
    sync_http = depends(Far, url=URL, client=httpx.Client)


@service(name="Gateway")
class Typed(Asks):
    far = depends(Far, url=URL)
