"""APIs with methods, paths and queries of their own, at a port and below one."""

from __future__ import annotations

import datetime
import enum
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import httpx

import graphserve
from graphserve import Body, Problem, api, depends, service


class Color(enum.Enum):
    RED = "red"
    FIVE = "5"


@dataclass
class Item:
    name: str
    prices: list[float]


@service
class Shop:
    @api(method="GET", route="/users/{user}/scores")
    def scores(
        self,
        user: str,
        limit: int = 10,
        all: bool = False,
        since: datetime.date | None = None,
        tags: list[str] = [],  # noqa: B006
        color: Color = Color.RED,
        order: Literal["up", "down", 1] = "up",
    ) -> list[object]:
        """Return what was asked.

        Args:
            user: who.
            limit: how many.
        """
        return [user, limit, all, since, tags, color, order]

    @api(method="PUT", route="/items/{number}")
    async def put(
        self, number: int, item: Annotated[Item, Body], dry: bool = False
    ) -> list[object]:
        return [number, item, dry]

    @api(method="DELETE", route="/items/{number}")
    async def delete(self, number: int) -> int:
        return number

    @api(method="PATCH", route="/items/{number}")
    async def rename(self, number: int, name: str) -> list[object]:
        return [number, name]

    @api(route="/items/{number}/photo")
    def photo(self, number: int, data: bytes, turns: int = 0) -> list[int]:
        return [number, len(data), turns]

    @api(method=["GET", "POST"])
    async def either(self, value: int) -> int:
        return value

    @api(method="GET", route="/items/best")
    async def best(self) -> str:
        return "the best"

    @api(method="GET")
    async def refuses(self, status: int) -> None:
        raise Problem(status, "as asked")

    @api(method="GET")
    async def numbers(self, to: int, last_event_id: int = 0) -> AsyncIterator[int]:
        for number in range(last_event_id + 1, to + 1):
            yield number

    @api(method="GET")
    def breaks(self) -> Iterator[int]:
        yield 1
        raise Problem(409, "broken")

    @api(method="PUT", route="/files/{name}")
    async def upload(self, name: str, data: AsyncIterator[bytes], times: int = 1) -> list[object]:
        size = sum([len(chunk) async for chunk in data])
        return [name, size * times]


@service
class Front(Shop):
    shop = depends(Shop)
    http = depends(Shop, client=httpx.AsyncClient)

    @api(method="GET", route="/")
    async def below(self) -> list[object]:
        """Call each API of the service below by its name."""

        async def chunks() -> AsyncIterator[bytes]:
            yield b"abc"

        return [
            await self.shop.scores("a/b", limit=3, tags=["x"], since=datetime.date(2024, 1, 2)),
            await self.shop.put(5, Item("a", [1.5]), dry=True),
            await self.shop.delete(6),
            await self.shop.rename(7, "b"),
            await self.shop.photo(8, b"abc"),
            await self.shop.either(9),
            [number async for number in self.shop.numbers(3)],
            await self.shop.upload('"q"', chunks(), times=2),
        ]

    @api(method="GET")
    async def by_httpx(self) -> list[object]:
        """Ask the service below as an HTTP client does."""
        got = await self.http.get("/users/x%2Fy/scores", params={"limit": "7", "tags": ["a", "b"]})
        head = await self.http.head("/users/x/scores")
        put = await self.http.put("/items/5", json={"name": "a", "prices": [1]}, params={"dry": 1})
        events = await self.http.get(
            "/numbers?to=4", headers={"accept": "text/event-stream", "last-event-id": "2"}
        )
        wrong = await self.http.post("/users/x/scores", json={})
        return [
            got.json(),
            [head.status_code, head.text],
            put.json(),
            events.text,
            [wrong.status_code, wrong.headers["allow"]],
        ]


@service(workers=2, concurrency=1)
class Busy:
    """Each of its workers executes one call."""

    @api
    def hold(self, gate: str) -> None:
        """Hold the only slot of one worker until a file is there."""
        Path(f"{gate}.begun").touch()
        while not Path(gate).exists():
            time.sleep(0.01)

    @api(method="GET", route="/asked/{name}")
    def asked(self, name: str, times: int = 1) -> list[object]:
        """Return what was asked, and how."""
        request = graphserve.request()
        return [name, times, request.method, request.path]

    @api(method="PUT", route="/items/{number}")
    def put(self, number: int, item: Annotated[Item, Body]) -> list[object]:
        """Return what was put."""
        return [number, item]

    @api(method="GET")
    def numbers(self, to: int, last_event_id: int = 0) -> Iterator[int]:
        """Count on."""
        yield from range(last_event_id + 1, to + 1)


BELOW = [
    ["a/b", 3, False, "2024-01-02", ["x"], "red", "up"],
    [5, {"name": "a", "prices": [1.5]}, True],
    6,
    [7, "b"],
    [8, 3, 0],
    9,
    [1, 2, 3],
    ['"q"', 6],
]
BY_HTTPX = [
    ["x/y", 7, False, None, ["a", "b"], "red", "up"],
    [200, ""],
    [5, {"name": "a", "prices": [1.0]}, True],
    "id: 3\ndata: 3\n\nid: 4\ndata: 4\n\nevent: end\ndata:\n\n",
    [405, "GET, HEAD"],
]


async def in_one_process() -> tuple[list[object], list[object]]:
    """Return what `below` and `by_httpx` say without processes."""
    async with graphserve.local(Front) as front:
        return await front.below(), await front.by_httpx()
