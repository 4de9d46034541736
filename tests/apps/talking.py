"""WebSockets at the port of an entry, and what their code does below it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

from starlette.exceptions import HTTPException, WebSocketException
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

import graphserve
from graphserve import Problem, api, depends, service, websocket


def note(place: str, text: str) -> None:
    """Leave a word where a test finds it."""
    with open(place, "a") as file:
        file.write(text + "\n")


@service
class Speller:
    """Is called while a socket is open."""

    @api
    async def spell(self, text: str) -> list[str]:
        return [*text, str(graphserve.request().headers.get("x-tenant"))]

    @api
    async def count(self, until: int, place: str) -> AsyncIterator[int]:
        try:
            for number in range(until):
                yield number
                await asyncio.sleep(0.001)
        except (asyncio.CancelledError, GeneratorExit):
            note(place, "count was cancelled")
            raise

    @api
    async def sleep(self, place: str) -> None:
        note(place, "sleep began")
        try:
            await asyncio.sleep(600)
        finally:
            note(place, "sleep was cancelled")

    @api
    async def save(self, text: str, place: str) -> None:
        await asyncio.sleep(0.2)
        note(place, f"saved {text}")


@service(forward_headers=["x-tenant"], graceful_timeout=4)
class Talker:
    """Has a socket for each kind of talk."""

    speller = depends(Speller)

    def __init__(self) -> None:
        while os.path.exists(os.environ.get("SLOW", "/nowhere")):  # starts slowly
            time.sleep(0.01)

    @websocket
    async def echo(self, socket: WebSocket) -> None:
        await socket.accept()
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])

    @websocket(route="/rooms/{room}/{number}")
    async def rooms(self, socket: WebSocket, room: str, number: int, loud: bool = False) -> None:
        await socket.accept()
        await socket.send_json([room, number, loud, socket.path_params, dict(socket.query_params)])

    @websocket
    async def spell(self, socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_json(await self.speller.spell(text))

    @websocket
    async def stream(self, socket: WebSocket, until: int, place: str) -> None:
        await socket.accept()
        async for number in self.speller.count(until, place):
            await socket.send_json(number)

    @websocket
    async def asleep(self, socket: WebSocket, place: str) -> None:
        await socket.accept()
        try:
            await self.speller.sleep(place)
        finally:
            note(place, "the socket was cancelled")

    @websocket
    async def aside(self, socket: WebSocket, place: str) -> None:
        """Reads in one task, and works in another."""
        await socket.accept()

        async def read() -> None:
            try:
                async for _ in socket.iter_text():
                    pass
            finally:
                note(place, "the reader ended")

        reader = asyncio.create_task(read())
        try:
            await self.speller.sleep(place)
        finally:
            note(place, "the socket was cancelled")
            await reader

    @websocket
    async def saving(self, socket: WebSocket, place: str) -> None:
        """Saves what came, when the client is gone."""
        await socket.accept()
        said = []
        try:
            while True:
                said.append(await socket.receive_text())
        except WebSocketDisconnect as exc:
            await self.speller.save(f"{'+'.join(said)} {exc.code} {exc.reason}", place)

    @websocket
    async def who(self, socket: WebSocket) -> None:
        request = graphserve.request()
        request.answer.set_cookie("seen", "1")
        await socket.accept("b" if "b" in socket.scope["subprotocols"] else None)
        said = [request.method, request.path, request.query, request.id, request.cookies]
        await socket.send_json([*said, socket.url.path, graphserve.deadline() is None])

    @websocket
    async def deny(self, socket: WebSocket, how: str) -> None:
        if how == "close":
            await socket.close(4000, "not you")
        elif how == "problem":
            raise Problem(402, "Pay First", detail="it costs 1", headers={"x-price": "1"})
        elif how == "http":
            raise HTTPException(418, "a teapot")
        elif how == "socket":
            raise WebSocketException(1008, "no")
        elif how == "response":
            await socket.send_denial_response(JSONResponse({"no": 1}, 409, {"x-why": "not"}))
        elif how == "raise":
            raise ValueError("a secret")
        elif how == "receive":
            await socket.receive_text()

    @websocket
    async def fall(self, socket: WebSocket, how: str) -> None:
        await socket.accept()
        if how == "problem":
            raise Problem(402, "Pay First")
        if how == "raise":
            raise ValueError("a secret")
        if how == "socket":
            raise WebSocketException(4001, "no")
        if how == "cancel":
            raise asyncio.CancelledError
        if how == "exit":
            raise SystemExit(3)
        if how == "close":
            await socket.close(4002, "é" * 100)
        if how == "text":
            await socket.receive_text()
        if how == "bytes":
            await socket.receive_bytes()
        if how == "json":
            await socket.receive_json()
        if how == "below":
            await self.speller.count(1, "/nowhere/at/all").__anext__()
            await self.speller.save("", "/nowhere/at/all")

    @websocket(max_size=1000)
    async def small(self, socket: WebSocket) -> None:
        await self.echo(socket)

    @websocket(max_size=4 * 1024 * 1024)
    async def slow(self, socket: WebSocket, place: str) -> None:
        """Reads nothing until there is a file."""
        await socket.accept()
        while not os.path.exists(place):  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.005)
        total = 0
        async for data in socket.iter_bytes():
            total += len(data)
            if not data:
                await socket.send_json(total)

    @websocket
    async def flood(self, socket: WebSocket, place: str) -> None:
        """Sends more than a connection holds."""
        await socket.accept()
        try:
            for number in range(10_000):
                await socket.send_bytes(bytes(10_000))
                if number % 100 == 0:
                    note(place, str(number))
        finally:
            note(place, "the flood ended")

    @websocket(idle=0.2)
    async def idle(self, socket: WebSocket) -> None:
        await self.echo(socket)

    @websocket(timeout=0.3, ping=None)
    async def short(self, socket: WebSocket, place: str) -> None:
        await socket.accept()
        await socket.send_json(graphserve.deadline())
        await self.speller.sleep(place)

    @websocket(ping=0.1)
    async def pinged(self, socket: WebSocket) -> None:
        await self.echo(socket)

    @websocket(compress=False)
    async def plain(self, socket: WebSocket) -> None:
        await self.echo(socket)

    @api(method="GET")
    async def hello(self) -> str:
        return "hello"
