"""What APIs say of their answers: status, headers, cookies and media type, at the port and below."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx

import graphserve
from graphserve import Batch, api, depends, service


def say(status: int, media_type: str | None = None) -> None:
    answer = graphserve.request().answer
    answer.status = status
    answer.headers["X-Said"] = "first"
    answer.headers["x-said"] = "caf\xe9"
    answer.headers["Cache-Control"] = "max-age=5"
    answer.set_cookie("a", "x;y", max_age=5, httponly=True)
    answer.set_cookie("b", path=None, samesite=None)
    answer.media_type = media_type


@service
class Leaf:
    @api
    async def say(self, status: int) -> int:
        say(status)
        return status

    @api
    async def items(self, count: int, status: int = 200) -> AsyncIterator[int]:
        say(status)
        for number in range(count):
            yield number


@service(workers=2, concurrency=1)
class Top:
    leaf = depends(Leaf)
    raw = depends(Leaf, client=httpx.AsyncClient)

    @api
    def pid(self) -> int:
        return os.getpid()

    @api
    def hold(self, gate: str) -> None:
        Path(f"{gate}.held").touch()
        while not Path(gate).exists():
            time.sleep(0.005)

    @api
    def say(self, status: int, media_type: str | None = None) -> int:
        say(status, media_type)
        return status

    @api
    async def text(self, media_type: str | None) -> str:
        say(200, media_type)
        return "<b>caf\xe9</b>"

    @api
    def data(self, media_type: str | None) -> bytes:
        say(200, media_type)
        return b"\x00\xff"

    @api
    def items(self, count: int, status: int = 200, media_type: str | None = None) -> Iterator[Any]:
        say(status, media_type)
        answer = graphserve.request().answer
        yield from range(count)
        if count:
            try:
                answer.status = 201
            except RuntimeError as exc:
                yield str(exc)

    @api
    def fail(self) -> int:
        say(201)
        raise graphserve.Problem(409, "Taken")

    @api
    def refuse(self, part: str, name: str, value: Any) -> str:
        """Set something that may be no part of an answer."""
        answer = graphserve.request().answer
        try:
            if part == "header":
                answer.headers[name] = value
            elif part == "cookie":
                answer.set_cookie("a", **{name: value})
            elif part == "name":
                answer.set_cookie(name, value)
            else:
                setattr(answer, name, value)
        except ValueError as exc:
            return str(exc)
        return ""

    @api
    async def below(self) -> int:
        return await self.leaf.say(201)

    @api
    async def below_by_httpx(self, api: str, arguments: dict[str, int]) -> list[Any]:
        answer = await self.raw.post(f"/{api}", json=arguments)
        cookies = answer.headers.get_list("set-cookie")
        said = [answer.headers.get("x-said"), answer.headers.get("cache-control")]
        return [answer.status_code, answer.text, *said, cookies]

    @api(batch=Batch(max_size=4, max_wait=0.02))
    async def batch(self, xs: list[int]) -> list[int]:
        begin = 0
        for request in graphserve.requests():
            request.answer.status = xs[begin]
            begin += request.items
        return xs
