"""Has an API of each kind that a document can describe; generated clients call all of them."""

# ruff: noqa: B006  (as users write defaults)

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
import numpy as np
import pydantic
from PIL import Image

from graphserve import Body, Problem, api, service
from graphserve.wire.arrays import Array


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float


@dataclass
class Item:
    """One thing to sell."""

    name: str
    price: float
    colour: Colour = Colour.RED
    added: dt.datetime | None = None
    tags: list[str] = field(default_factory=list)


class Person(pydantic.BaseModel):
    name: str
    born: dt.date
    id: uuid.UUID | None = None


@service(version="1.0.0")
class Everything:
    """Has an API of each kind."""

    # --- routes ---

    @api(method="GET", route="/users/{user}/scores/{day}")
    async def scores(
        self,
        user: str,
        day: dt.date,
        limit: int = 10,
        descending: bool = False,
        tags: list[str] = [],
        since: dt.datetime | None = None,
        colour: Colour = Colour.RED,
        order: Literal["up", "down"] = "up",
    ) -> dict[str, object]:
        """Return what was asked.

        Args:
            user: who.
            limit: how many at most.
        """
        return {
            "user": user,
            "day": day.isoformat(),
            "limit": limit,
            "descending": descending,
            "tags": tags,
            "since": since and since.isoformat(),
            "colour": colour.value,
            "order": order,
        }

    @api(method="PUT", route="/items/{number}")
    async def put(self, number: int, item: Annotated[Item, Body], dry: bool = False) -> Item:
        """Store an item."""
        return item

    @api(method="PATCH", route="/items/{number}")
    async def change(
        self, number: int, price: float, colour: Colour | None = None
    ) -> tuple[int, float]:
        return number, price

    @api(method="DELETE", route="/items/{number}")
    async def remove(self, number: int) -> None:
        if number > 9:
            raise Problem(404, "No Such Item")

    @api(method=["GET", "POST"])
    async def either(self, value: int) -> int:
        return value

    # --- values ---

    @api
    async def shapes(self, shapes: list[Circle | Square]) -> Circle | Square | None:
        return shapes[0] if shapes else None

    @api
    async def person(self, person: Person, level: Level, mixed: int | str | None = None) -> Person:
        return person

    @api
    async def times(
        self, at: dt.datetime, day: dt.date, hour: dt.time, length: dt.timedelta, id: uuid.UUID
    ) -> dict[str, dt.datetime]:
        return {"at": at}

    @api
    async def matrix(
        self, rows: Annotated[np.ndarray, Array("float32", (None, 2))]
    ) -> Annotated[np.ndarray, Array("float32", (None, 2))]:
        return rows * 2

    @api
    async def nothing(self) -> None: ...

    # --- files ---

    @api
    async def file(self, data: bytes, name: str = "", times: int = 1) -> list[int | str]:
        return [len(data), name, times]

    @api
    async def form(
        self, pages: list[bytes], title: str, item: Item | None = None, words: list[str] = []
    ) -> list[object]:
        return [[len(page) for page in pages], title, item and item.name, words]

    @api
    async def turned(self, image: Image.Image, degrees: int = 90) -> Image.Image:
        return image.rotate(degrees, expand=True)

    @api
    async def echo(self, data: bytes) -> bytes:
        return data

    # --- streams ---

    @api
    async def count(self, to: int) -> AsyncIterator[Item]:
        for number in range(to):
            yield Item(str(number), 1.0)

    @api(method="GET")
    async def ticks(self, to: int, last_event_id: int = 0) -> AsyncIterator[int]:
        for number in range(last_event_id + 1, to + 1):
            yield number

    @api(method="PUT", route="/files/{name}")
    async def upload(
        self, name: str, data: AsyncIterator[bytes], tags: list[str] = []
    ) -> list[object]:
        return [name, sum([len(chunk) async for chunk in data]), tags]
