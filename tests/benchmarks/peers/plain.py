"""The floor: one process with Starlette on uvicorn, no second node, no supervisor."""

import asyncio
import time

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


async def local(request: Request) -> Response:
    arguments = msgspec.json.decode(await request.body())
    return Response(msgspec.json.encode(arguments["x"] + 1), media_type="application/json")


async def stream(request: Request) -> Response:
    arguments = msgspec.json.decode(await request.body())

    async def lines():
        for number in range(arguments["count"]):
            if arguments["gap"]:
                await asyncio.sleep(arguments["gap"])
            yield msgspec.json.encode({"number": number, "made": time.monotonic_ns()}) + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


app = Starlette(
    routes=[
        Route("/local", local, methods=["POST"]),
        Route("/stream", stream, methods=["POST"]),
    ]
)
