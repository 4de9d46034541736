"""An entry with middleware around its port: of Starlette's own, and some that notes, refuses, rewrites."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import graphserve
from graphserve import Problem, api, depends, service, websocket

FLAGS = Path(os.environ.get("FLAGS", "/nowhere"))


def note(place: str, text: str) -> None:
    Path(place).write_text(text)


class Doorkeeper:
    """Refuses who does not say the word, notes the others, and rewrites a path."""

    def __init__(self, app: Any, word: str) -> None:
        self.app = app
        self.word = word.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        if headers.get(b"x-word") != self.word:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 4001})
            else:
                await PlainTextResponse("say the word", 403)(scope, receive, send)
            return
        if scope["path"] == "/alias":
            scope = {**scope, "path": "/twice"}

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {
                    **message,
                    "headers": [*message["headers"], (b"x-kept", scope["path"].encode())],
                }
            await send(message)

        await self.app(scope, receive, sending)


class Timed(BaseHTTPMiddleware):
    """Adds a header, as most middleware of applications is written."""

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        answer = await call_next(request)
        answer.headers["x-timed"] = "yes"
        return answer


@service
class Below:
    @api
    async def tell(self) -> dict[str, Any]:
        request = graphserve.request()
        return {"id": request.id, "service": request.service, "principal": request.principal}

    @api
    async def wait(self, place: str) -> None:
        note(place, "waits")
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            note(place, "cancelled")
            raise


async def _greet(socket: WebSocket) -> None:
    await socket.accept()
    below = await socket.state.service.below.tell()
    await socket.send_text(f"hello from {below['service']}'s page")


async def _page(request: Request) -> JSONResponse:
    return JSONResponse(await request.state.service.below.tell())


@service(
    workers=2,
    concurrency=1,
    middleware=[
        Middleware(Doorkeeper, word="please"),
        Middleware(Timed),
        Middleware(GZipMiddleware, minimum_size=500),
    ],
    mount={"/ui": Starlette(routes=[Route("/", _page), WebSocketRoute("/talk", _greet)])},
)
class Wrapped:
    below = depends(Below)

    def __init__(self) -> None:
        while (FLAGS / "slow").exists():
            time.sleep(0.01)

    @api
    async def twice(self, x: int) -> int:
        return 2 * x

    @api
    def pid(self) -> int:
        return os.getpid()

    @api
    def hold(self, gate: str) -> None:
        Path(f"{gate}.held").touch()
        while not Path(gate).exists():
            asyncio.run(asyncio.sleep(0.005))

    @api
    async def large(self, n: int) -> str:
        return "x" * n

    @api
    async def length(self, body: bytes) -> int:
        return len(body)

    @api
    def kept(self, file: Path) -> Path:
        return file

    @api
    async def upload(self, parts: AsyncIterator[bytes]) -> int:
        return sum([len(part) async for part in parts])

    @api(method="GET", route="/count")
    async def count(self, n: int, breaks: bool = False) -> AsyncIterator[int]:
        for number in range(n):
            yield number
        if breaks:
            raise Problem(409, "Broken")

    @api(method="GET", route="/seen")
    async def seen(self) -> dict[str, Any]:
        request = graphserve.request()
        request.answer.status = 201
        request.answer.headers["x-own"] = "1"
        return {
            "below": await self.below.tell(),
            "path": request.path,
            "word": request.headers["x-word"],
        }

    @api
    async def waits(self, place: str) -> None:
        await self.below.wait(place)

    @api
    async def refuses(self) -> None:
        raise Problem(418, "Teapot")

    @websocket
    async def talk(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
