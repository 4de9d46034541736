"""Gets files from a service elsewhere, itself and through another service."""

from __future__ import annotations

import os
import resource
from collections.abc import AsyncIterator
from pathlib import Path

from graphserve import api, depends, service

URL = os.environ.get("FAR_URL", "http://127.0.0.1:1")


@service
class Far:
    """What is at the URL, by its types; a test answers in its place."""

    @api(method="GET", route="/files/{name}")
    def get(self, name: str) -> Path:
        raise NotImplementedError

    @api
    def several(self) -> list[Path]:
        raise NotImplementedError

    @api
    def anything(self) -> object:
        raise NotImplementedError


def seen(path: Path) -> list[str]:
    """What a test is told of a file."""
    return [path.name, path.read_text(), str(path)]


@service
class Middle:
    far = depends(Far, url=URL)

    @api
    async def get(self, name: str) -> Path:
        return await self.far.get(name)

    @api
    def in_thread(self, name: str) -> Path:
        return self.far.get(name).result()

    @api
    async def each(self, names: list[str]) -> AsyncIterator[Path]:
        for name in names:
            yield await self.far.get(name)

    @api
    def several(self) -> list[Path]:
        return self.far.several().result()


@service
class Gate:
    middle = depends(Middle)
    far = depends(Far, url=URL, timeout=20)
    unknown = depends("tests.apps.fetching:Far", url=URL)

    @api
    async def seen(self, name: str) -> list[str]:
        return seen(await self.far.get(name))

    @api
    async def by_hop(self, name: str) -> list[list[str]]:
        first = await self.middle.get(name)
        second = await self.middle.in_thread(name)
        return [seen(first), seen(second)]

    @api
    async def each_by_hop(self, name: str) -> list[list[str]]:
        return [seen(path) async for path in self.middle.each([name, name])]

    @api
    async def untyped(self, name: str) -> list[str]:
        path = await self.unknown.get(name)
        assert isinstance(path, Path)
        return seen(path)

    @api
    async def forwarded(self, name: str, hop: bool = False) -> Path:
        return await (self.middle if hop else self.far).get(name)

    @api
    async def several(self) -> list[list[str]]:
        return [seen(path) for path in await self.far.several()]

    @api
    async def several_by_hop(self) -> list[list[str]]:
        return [seen(path) for path in await self.middle.several()]

    @api
    async def anything(self, typed: bool = True) -> object:
        return await (self.far if typed else self.unknown).anything()

    @api
    def size(self, name: str) -> int:
        return self.far.get(name).result().stat().st_size

    @api
    async def without_room(self, name: str) -> None:
        """Have a disk that takes no more."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            await self.far.get(name)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    @api
    async def hurried(self, name: str) -> None:
        await self.quick.get(name)

    quick = depends(Far, url=URL, timeout=1, name="Quick")
