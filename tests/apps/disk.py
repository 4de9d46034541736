"""Takes and gives files on disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import httpx

import graphserve
from graphserve import Media, api, depends, service


@service
class Archive:
    @api
    def size(self, file: Path) -> int:
        return file.stat().st_size

    @api
    def copy(self, file: Path) -> Path:
        copied = Path(tempfile.mkdtemp()) / "copy.txt"
        copied.write_bytes(file.read_bytes())
        return copied

    @api
    async def plain(self, x: int) -> int:
        return x


@service(workers=2, concurrency=1)
class Disk:
    archive = depends(Archive)
    http = depends(Archive, client=httpx.AsyncClient)

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.page = folder / "page.html"
        self.page.write_text("0123456789")
        os.utime(self.page, (1_000_000_000, 1_000_000_000))
        self.odd = folder / 'ü "x".bin'
        self.odd.write_bytes(b"odd")

    @api
    def keep(self, file: Path, name: str = "", times: int = 1) -> list[object]:
        size = self.archive.size(file).result()
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        mode = oct(file.stat().st_mode & 0o777)
        return [file.name, size * times, digest, name, mode, str(file)]

    @api
    def counted(self, file: Path) -> int:
        return self.archive.size(file).result()

    @api
    def several(self, files: list[Path], title: str = "", data: bytes = b"") -> list[object]:
        return [[[file.name, file.stat().st_size] for file in files], title, len(data)]

    @api
    def maybe(self, file: Path | None = None) -> bool:
        return file is None

    @api
    def back(self, file: Path) -> Path:
        return file

    @api
    async def copied(self, file: Path) -> Annotated[Path, Media("text/x-copy")]:
        return await self.archive.copy(file)

    @api
    def picture(self, file: Annotated[Path, Media("image/*", max_size="1kB")]) -> int:
        return file.stat().st_size

    @api(method="PUT", route="/files/{name}")
    def put(self, name: str, file: Path, times: int = 1) -> list[object]:
        return [name, file.stat().st_size * times]

    @api(method="GET")
    def read(self, odd: bool = False, status: int = 200) -> Path:
        answer = graphserve.request().answer
        answer.headers["x-said"] = "so"
        answer.status = status
        return self.odd if odd else self.page

    @api
    def listed(self) -> list[Path]:
        return [self.page]

    @api
    async def each(self) -> AsyncIterator[Path]:
        yield self.page

    @api
    def nowhere(self, path: str) -> Path:
        return Path(path)

    @api
    async def by_http(self, file: Path) -> list[object]:
        with file.open("rb") as opened:
            answer = await self.http.post("/size", files={"file": ("a.png", opened)})
            opened.seek(0)
            copied = await self.http.post("/copy", files={"file": opened})
        return [answer.json(), copied.headers["content-type"], len(copied.content)]

    @api
    def hold(self, file: Path, gate: str) -> str:
        Path(f"{gate}.begun").write_text(str(file))
        while not Path(gate).exists():
            time.sleep(0.01)
        return str(file.exists())

    @api
    async def die(self, file: Path) -> None:
        os.kill(os.getpid(), 9)
