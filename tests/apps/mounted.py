"""An entry with everything that can be mounted: FastAPI, Starlette by an import string, WSGI, a folder, and one
application for all other paths.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import BackgroundTasks, FastAPI, Request, UploadFile, WebSocket
from fastapi.responses import FileResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute

import graphserve
from graphserve import api, depends, service

NOTES = Path(os.environ.get("NOTES", "/nowhere"))
FOLDER = Path(__file__).with_name("files") / "site"


def note(text: str) -> None:
    with (NOTES / "notes").open("a") as file:
        file.write(text + "\n")


def described() -> dict[str, Any]:
    request = graphserve.request()
    return {
        "id": request.id,
        "principal": request.principal,
        "path": request.path,
        "tenant": request.headers.get("x-tenant"),
        "service": request.service,
        "deadline": request.deadline() is not None,
    }


@service
class Below:
    @api
    async def tell(self) -> dict[str, Any]:
        return described()

    @api
    async def wait(self) -> None:
        note("waits")
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            note("cancelled")
            raise


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    if (NOTES / "broken").exists():
        raise RuntimeError("the database is gone")
    note("app starts")
    yield {"opened": os.getpid()}
    note("app stops")


app = FastAPI(lifespan=lifespan)


@app.get("/hello/{name}")
async def hello(name: str, request: Request) -> dict[str, Any]:
    below = await request.state.service.below.tell()
    return {"name": name, "here": described(), "below": below, "principal": request.state.principal,
            "opened": request.state.opened == os.getpid(), "root": request.scope["root_path"]}  # fmt: skip


@app.get("/sync")
def sync(request: Request) -> dict[str, Any]:
    return dict(request.state.service.below.tell().result())


@app.get("/path/{rest:path}")
async def path(rest: str, request: Request) -> dict[str, Any]:
    return {
        "rest": rest,
        "url": str(request.url_for("hello", name="x")),
        "raw": request.scope["raw_path"].decode(),
    }


@app.post("/upload")
async def upload(file: UploadFile) -> dict[str, Any]:
    digest = hashlib.sha256()
    size = 0
    while chunk := await file.read(1 << 16):
        digest.update(chunk)
        size += len(chunk)
    return {"name": file.filename, "size": size, "sha256": digest.hexdigest()}


@app.post("/count")
async def count(request: Request) -> int:
    return sum([len(chunk) async for chunk in request.stream()])


@app.post("/ignores")
async def ignores() -> str:
    return "ignored"


@app.get("/stream")
async def stream(n: int) -> StreamingResponse:
    async def numbers() -> AsyncIterator[str]:
        for number in range(n):
            yield f"{number}\n"

    return StreamingResponse(numbers())


@app.get("/wait")
async def wait(request: Request) -> None:
    await request.state.service.below.wait()


@app.get("/slow")
async def slow(gate: str) -> str:
    note("slow begins")
    while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.01)
    return "done"


@app.get("/later")
async def later(tasks: BackgroundTasks) -> str:
    async def work() -> None:
        await asyncio.sleep(0.3)
        note("later is done")

    tasks.add_task(work)
    return "now"


@app.get("/raises")
async def raises() -> None:
    raise RuntimeError("no")


@app.get("/download")
async def download() -> FileResponse:
    return FileResponse(FOLDER / "index.html")


@app.websocket("/talk/{room}")
async def talk(socket: WebSocket, room: str, loud: bool = False) -> None:
    await socket.accept(subprotocol=next(iter(socket.scope["subprotocols"]), None))
    async for text in socket.iter_text():
        below = await socket.state.service.below.tell()
        said = {"room": room, "loud": loud, "text": text, "here": described(), "below": below}
        urls = {"url": str(socket.url_for("talk", room="x")), "principal": socket.state.principal}
        await socket.send_json({**said, **urls, "opened": socket.state.opened == os.getpid()})


@app.websocket("/refuses")
async def refuses(socket: WebSocket) -> None:
    await socket.close(reason="not you")


@app.websocket("/fails")
async def fails(socket: WebSocket) -> None:
    await socket.accept()
    raise RuntimeError("no more words")


@app.websocket("/hangs")
async def hangs(socket: WebSocket) -> None:
    await socket.accept()
    await socket.state.service.below.wait()


async def _echo(socket: WebSocket) -> None:
    await socket.accept()
    async for data in socket.iter_bytes():
        await socket.send_bytes(data)


async def _inner(request: Any) -> JSONResponse:
    return JSONResponse({"path": request.url.path})


starlette = Starlette(
    routes=[Route("/", _inner), Route("/deep/er", _inner), WebSocketRoute("/echo", _echo)]
)


def wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("content-type", "text/plain"), ("x-script", environ["SCRIPT_NAME"])])
    return [b"%s %s " % (environ["PATH_INFO"].encode(), environ["REQUEST_METHOD"].encode()), body,
            b" in a thread" if threading.current_thread() is not threading.main_thread() else b""]  # fmt: skip


async def rest(scope: Any, receive: Any, send: Any) -> None:
    """An application that knows no lifespan, and no WebSocket."""
    assert scope["type"] == "http"
    await PlainTextResponse(f"the rest: {scope['method']} {scope['path']}")(scope, receive, send)


@service(
    workers=2,
    concurrency=1,
    forward_headers=["x-tenant"],
    mount={
        "/ui": app,
        "/ui/star/": "mounted:starlette",
        "/old": wsgi,
        "/site": "files/site",
        "/": rest,
    },
)
class Gateway:
    below = depends(Below)

    def __init__(self) -> None:
        while (NOTES / "slow").exists():
            time.sleep(0.01)

    async def __aenter__(self) -> None:
        note("service enters")

    async def __aexit__(self, *exc: object) -> None:
        note("service leaves")

    @api
    async def run(self) -> str:
        return "an API"

    @api(method="GET", route="/items/{item}")
    async def item(self, item: str) -> str:
        return item
