"""Services that fail with what cannot be written out as it is: no words, words that are no UTF-8,
no sense.
"""

import math
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np

from graphserve import Batch, Problem, RemoteError, Unavailable, api, depends, service
from graphserve.errors import CallError, InvalidArguments

TEXT = b"caf\xe9".decode("utf-8", "surrogateescape")  # as of a file name in Latin-1
SHOWN = "caf\\udce9"


class Mute(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")


class Empty(Exception):
    def __bool__(self) -> bool:
        raise LookupError("neither")


class Bare(Problem):
    def __init__(self) -> None:
        """It leaves out what every Problem has."""


class Opaque:
    def __str__(self) -> str:
        raise LookupError("no words")


def tampered() -> Problem:
    problem = Problem(409, "Tampered")
    problem.headers["X-Split"] = "b\r\nSet-Cookie: x"
    return problem


def circular() -> Problem:
    circle: list[Any] = []
    circle.append(circle)
    return Problem(409, "Circular", extensions={"circle": circle})


# By name: what is raised, and the status and the title of the answer of the service that raised it.
FAILURES: dict[str, tuple[Callable[[], BaseException], int, str]] = {
    "mute": (Mute, 500, "Internal Server Error"),
    "empty": (Empty, 500, "Internal Server Error"),
    "other": (lambda: ValueError(TEXT), 500, "Internal Server Error"),
    "problem": (
        lambda: Problem(409, TEXT, detail=TEXT, type=TEXT, extensions={TEXT: [{TEXT: TEXT}]}), 409, SHOWN
    ),
    "header": (lambda: Problem(409, "Taken", headers={"X-Name": TEXT}), 500, "Internal Server Error"),
    "number": (lambda: Problem(409, "Taken", headers={"Retry-After": 3}), 500, "Internal Server Error"),  # type: ignore[dict-item]
    "tampered": (tampered, 500, "Internal Server Error"),
    "bare": (Bare, 500, "Internal Server Error"),
    "opaque": (lambda: Problem(409, "Taken", extensions={"what": Opaque()}), 500, "Internal Server Error"),
    "circular": (circular, 500, "Internal Server Error"),
    "unavailable": (lambda: Unavailable(TEXT), 503, "Service Unavailable"),
    "endless": (lambda: Unavailable("gone", retry_after=math.inf), 503, "Service Unavailable"),
    "arguments": (lambda: InvalidArguments(TEXT), 500, "Internal Server Error"),
    "remote": (lambda: RemoteError(TEXT), 502, "Bad Gateway"),
}  # fmt: skip


def end(kind: str) -> str:
    """What an API of these does."""
    if kind == "result":
        return TEXT
    if kind in FAILURES:
        raise FAILURES[kind][0]()
    return kind


@service  # one slot for what is no async API
class Leaf:
    @api
    def limited(self, kind: str) -> str:
        return end(kind)

    @api
    async def unlimited(self, kind: str) -> str:
        return end(kind)

    @api(batch=Batch(max_size=2, max_wait=0.001))
    def batched(self, kinds: list[str]) -> list[str]:
        return [end(kind) for kind in kinds]

    @api(batch=Batch(max_size=2, max_wait=0.001))
    def batched_items(self, kinds: list[str]) -> list[str]:
        return [_item(kind) for kind in kinds]

    @api(batch=Batch(max_size=2, max_wait=0.001))
    def uneven(self, values: list[int]) -> np.ndarray:
        return np.zeros((len(values), len(values)))

    @api
    async def items(self, kind: str, before: int) -> AsyncIterator[str]:
        for number in range(before):
            yield str(number)
        yield end(kind)

    @api
    def items_in_thread(self, kind: str, before: int) -> Iterator[str]:
        for number in range(before):
            yield str(number)
        yield end(kind)


def _item(kind: str) -> Any:
    try:
        return end(kind)
    except Exception as exc:
        return exc


@service
class Gateway:
    leaf = depends(Leaf)

    @api
    async def limited(self, kind: str) -> str:
        return await self.leaf.limited(kind)

    @api
    async def unlimited(self, kind: str) -> str:
        return await self.leaf.unlimited(kind)

    @api
    async def batched(self, kinds: list[str]) -> list[str]:
        return await self.leaf.batched(kinds)

    @api
    async def batched_items(self, kinds: list[str]) -> list[str]:
        return await self.leaf.batched_items(kinds)

    @api
    async def items(self, kind: str, before: int) -> AsyncIterator[str]:
        async for item in self.leaf.items(kind, before):
            yield item

    @api
    async def items_in_thread(self, kind: str, before: int) -> AsyncIterator[str]:
        async for item in self.leaf.items_in_thread(kind, before):
            yield item

    @api
    async def caught(self, kind: str) -> dict[str, Any]:
        try:
            return {"result": await self.leaf.limited(kind)}
        except CallError as exc:
            return {
                "class": type(exc).__name__,
                "title": exc.title,
                "detail": exc.detail,
                "node": exc.node,
            }
