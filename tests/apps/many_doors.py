"""An entry with every door that a client may knock at: files and forms, mounted applications, a
folder, a WebSocket, middleware, and calls below.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.websockets import WebSocket

import graphserve
from graphserve import Array, Media, api, depends, service, websocket

FOLDER = Path(__file__).with_name("files") / "site"


async def told(request: Request) -> JSONResponse:
    size = sum([len(chunk) async for chunk in request.stream()])
    return JSONResponse([request.method, request.url.path, sorted(request.query_params), size])


def by_wsgi(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    size = len(environ["wsgi.input"].read())
    start("200 OK", [("content-type", "text/plain")])
    return [f"{environ['PATH_INFO']} {size}".encode("latin-1", "replace")]


@service
class Below:
    @api
    def size(self, file: Path) -> int:
        return file.stat().st_size

    @api
    async def counted(self, data: AsyncIterator[bytes]) -> int:
        return sum([len(chunk) async for chunk in data])


@service(
    mount={
        "/ui": Starlette(routes=[Route("/{rest:path}", told, methods=["GET", "POST", "PUT"])]),
        "/wsgi": by_wsgi,
        "/static": str(FOLDER),
    },
    middleware=[Middleware(GZipMiddleware, minimum_size=200)],
    cors=["https://elsewhere.example"],
)
class Doors:
    below = depends(Below)

    def __init__(self) -> None:
        self.page = Path(tempfile.mkdtemp()) / "page.txt"
        self.page.write_text("0123456789" * 100)

    @api
    def keep(self, file: Path, title: str = "", times: int = 1) -> list[object]:
        return [self.below.size(file).result(), title, times]

    @api
    async def upload(self, data: AsyncIterator[bytes], name: str = "") -> list[object]:
        return [await self.below.counted(data), name]

    @api
    async def form(
        self,
        pages: list[Annotated[bytes, Media("*/*", max_size="1KB")]],
        title: str,
        ratio: float = 1.0,
        words: Annotated[list[str], "of the form"] = [],  # noqa: B006  (as users write defaults)
    ) -> list[object]:
        return [[len(page) for page in pages], title, ratio, words]

    @api
    async def text(self, title: str, count: int = 1, on: bool = False) -> list[object]:
        return [title, count, on]

    @api
    async def matrix(self, rows: Annotated[np.ndarray, Array(shape=(None, 2))]) -> np.ndarray:
        return rows

    @api(method="GET", route="/pages/{number}")
    async def read(self, number: int) -> Path:
        graphserve.request().answer.headers["x-number"] = str(number)
        return self.page

    @api(method="GET")
    async def ticks(self, to: int = 3, last_event_id: int = 0) -> AsyncIterator[int]:
        for number in range(last_event_id + 1, min(to, 100) + 1):
            yield number

    @websocket
    async def talk(self, socket: WebSocket, times: int = 1) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            for _ in range(min(times, 3)):
                await socket.send_text(text[:100])
