"""A service with the pages, as a process of its own: `python pages_app.py [OPTIONS]`.

It prints its port. With `--plain` the extra `docs-ui` counts as not installed. `--mount` serves
everything below a prefix, as a proxy and the ASGI scope would have it; `--root-path` is a prefix
that only the pages are told.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from graphserve.worker.pages.docs import routes

PROBLEM = {
    "type": "about:blank",
    "title": "Unprocessable Content",
    "status": 422,
    "service": "Gateway",
    "request_id": "r-17",
}


def operation(
    summary: str, properties: dict[str, Any], answer: dict[str, Any], **more: Any
) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    schema |= more.pop("schema", {})
    return {
        "post": (
            {
                "summary": summary,
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": schema}},
                },
                "responses": {"200": {"description": "The result", "content": answer}},
            }
            | more
        )
    }


def as_json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


INTEGER = {"type": "integer"}
NUMBER = {"type": "number"}
TEXT = {"type": "string"}
BOX = {
    "type": "object",
    "properties": {
        "x": NUMBER,
        "y": NUMBER,
        "label": {"anyOf": [TEXT, {"type": "null"}], "default": None},
    },
    "required": ["x", "y"],
}
PAGE = {
    "type": "object",
    "properties": {
        "title": TEXT | {"description": "Stands above the page.", "maxLength": 80},
        "language": {"enum": ["en", "ja", "zh"]},
        "box": {"$ref": "#/components/schemas/Box"},
        "crop": {
            "anyOf": [{"$ref": "#/components/schemas/Box"}, {"type": "null"}],
            "default": None,
        },
        "draft": {"type": "boolean", "default": False},
    },
    "required": ["title", "language", "box"],
}
FILE = {
    "type": "object",
    "properties": {"image": {"type": "string", "contentEncoding": "base64"}},
    "required": ["image"],
}
BINARY: dict[str, Any] = {
    "schema": {"type": "string", "contentMediaType": "application/octet-stream"}
}
FORM = {
    "type": "object",
    "properties": {
        "image": BINARY["schema"] | {"format": "binary"},
        "title": TEXT,
        "times": INTEGER,
        "tags": {"type": "array", "items": TEXT},
    },
    "required": ["image"],
}
BYTES = {"application/json": {"schema": FILE}, "application/octet-stream": BINARY, "*/*": BINARY}
OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Gateway", "version": "0.1.0", "description": "Reads pages: finds the lines, then their text."},
    "paths": {
        "/add": operation(
            "Add two whole numbers", {"a": INTEGER | {"minimum": 0}, "b": INTEGER | {"default": 1}}, as_json(INTEGER),
            description="Adds two whole numbers of any length.\nThe second is 1 where it is left out.",
            schema={"required": ["a"]},
        ),
        "/shout": operation("Write a text in capitals", {"text": TEXT}, as_json(TEXT)),
        "/read": operation("Read one page", {"page": {"$ref": "#/components/schemas/Page"}}, as_json({})),
        "/total": operation("Add up numbers", {"values": {"type": "array", "items": NUMBER}}, as_json(NUMBER)),
        "/size": operation("Measure a file", {}, as_json(INTEGER), requestBody={"required": True, "content": BYTES}),
        "/scan": operation(
            "Read a form", {}, as_json({}), requestBody={"required": True, "content": as_json({}) | {"multipart/form-data": {"schema": FORM}}},
        ),
        "/fail": operation("Answer with an error", {"text": TEXT}, as_json({})),
        "/store": operation(
            "Keep a file", {}, as_json({}), requestBody={"required": True, "content": {"*/*": BINARY}},
            parameters=[
                {"name": "name", "in": "query", "required": True, "content": as_json(TEXT)},
                {"name": "copies", "in": "query", "required": False, "content": as_json(INTEGER)},
            ],
        ),
        "/count": operation("Count, one number at a time", {"to": INTEGER}, {"application/x-ndjson": {}}),
    },
    "components": {"schemas": {"Box": BOX, "Page": PAGE}},
}  # fmt: skip


async def add(request: Request) -> Response:
    given = await request.json()
    return JSONResponse(given["a"] + given.get("b", 1))


async def shout(request: Request) -> Response:
    return JSONResponse((await request.json())["text"].upper())


async def read(request: Request) -> Response:
    return JSONResponse(await request.json())


async def total(request: Request) -> Response:
    return JSONResponse(sum((await request.json())["values"]))


async def size(request: Request) -> Response:
    body, kind = await request.body(), request.headers["content-type"]
    data = base64.b64decode(json.loads(body)["image"]) if kind == "application/json" else body
    return JSONResponse({"bytes": len(data), "type": kind})


async def store(request: Request) -> Response:
    said = {name: json.loads(value) for name, value in request.query_params.items()}
    if said.get("copies", 1) > 9:
        errors = [{"loc": ["copies"], "msg": "Expected at most 9", "type": "too_large"}]
        return JSONResponse(
            PROBLEM | {"errors": errors}, 422, media_type="application/problem+json"
        )
    return JSONResponse(said | {"bytes": len(await request.body())})


async def scan(request: Request) -> Response:
    async with request.form() as form:
        values = [
            [name, len(await value.read()) if isinstance(value, UploadFile) else value]
            for name, value in form.multi_items()
        ]
    return JSONResponse(dict(values))


async def fail(request: Request) -> Response:
    errors = [{"loc": ["text"], "msg": "Expected at least 3 characters", "type": "too_short"}]
    problem = PROBLEM | {"detail": "The arguments do not fit the signature.", "errors": errors}
    return JSONResponse(problem, 422, media_type="application/problem+json")


async def count(request: Request) -> Response:
    to = (await request.json())["to"]

    async def items() -> AsyncIterator[bytes]:
        for number in range(to):
            yield json.dumps({"number": number}).encode() + b"\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(items(), media_type="application/x-ndjson")


APIS = (add, shout, read, total, size, store, scan, fail, count)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--mount")
    parser.add_argument("--root-path", default="")
    parser.add_argument("--cert")
    options = parser.parse_args()
    if options.plain:
        sys.modules["swagger_ui_bundle"] = None  # type: ignore[assignment]  # this is how an import is refused
    apis = [Route(f"/{api.__name__}", api, methods=["POST"]) for api in APIS]
    pages = routes("Gateway <1>", lambda: json.dumps(OPENAPI).encode(), options.root_path)
    app = Starlette(
        routes=[Mount(options.mount, routes=[*pages, *apis])] if options.mount else [*pages, *apis]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, ssl_certfile=options.cert, log_level="warning", lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
