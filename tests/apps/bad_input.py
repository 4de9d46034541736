"""An entry for all kinds of wrong requests, and a dependency that fails in every way."""

import os
from dataclasses import dataclass

from graphserve import Problem, api, depends, service
from tests.apps import sockets


@dataclass
class Box:
    left: int
    label: str = ""


@service
class Below:
    @api
    async def raises(self, kind: str) -> int:
        if kind == "problem":
            raise Problem(
                409,
                "Taken",
                detail="seat 4",
                type="https://example.org/taken",
                extensions={"seat": 4},
            )
        if kind == "exit":
            os._exit(9)
        raise KeyError("a secret")

    @api
    async def takes(self, x: int) -> int:
        return x


@service
class Gateway:
    below = depends(Below)
    untyped = depends("tests.apps.bad_input:Below")

    @api
    async def add(self, a: int, b: float = 1.0) -> float:
        return a + b

    @api
    async def boxes(self, boxes: list[Box]) -> int:
        return sum(box.left for box in boxes)

    @api
    async def delaying(self) -> list[bool]:
        return sockets.delaying()

    @api
    async def size(self, body: bytes) -> int:
        return len(body)

    @api
    async def below_raises(self, kind: str) -> int:
        return await self.below.raises(kind)

    @api
    async def below_wrong(self) -> int:
        return await self.untyped.takes(x="no number")

    @api
    async def raises(self) -> int:
        raise ValueError("a secret of mine")

    @api
    def threaded(self, x: int) -> str:
        return str(self.below.takes(x).result())
