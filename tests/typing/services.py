"""The services that the cases call; the checkers find nothing to say about them."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel

from graphserve import Batch, Body, api, service


@dataclass
class Page:
    number: int
    text: str = ""


class Query(BaseModel):
    text: str
    limit: int = 10


class Answer(BaseModel):
    hits: list[str]


@service
class Model:
    def __init__(self, lang: str = "en") -> None:
        self.lang = lang

    @api
    def embed(self, texts: list[str], scale: float = 1.0) -> np.ndarray:
        return np.zeros(len(texts)) * scale

    @api
    async def count(self, text: str) -> int:
        return len(text)

    @api
    async def tokens(self, text: str, *, limit: int = 10) -> AsyncIterator[str]:
        for token in text.split()[:limit]:
            yield token

    @api
    def pages(self, path: str) -> Iterator[Page]:
        yield Page(1, path)

    @api
    async def reset(self) -> None: ...

    def helper(self) -> int:
        return 1


@service(workers="cpus", concurrency=1, timeout=2.5, gpus=0.5, env={"A": "b"})
class Tuned:
    @api(batch=Batch(max_size=8, max_wait=0.002), idempotent=True)
    def read(self, crops: list[bytes]) -> list[str]:
        return ["" for _ in crops]

    @api(route="/find", timeout=1.0)
    async def search(self, query: Query, page: Page | None = None) -> Answer:
        return Answer(hits=[query.text])

    @api(method="GET", route="/pages/{number}")
    async def show(self, number: int) -> Page:
        return Page(number)

    @api(method=["PUT", "PATCH"], route="/pages/{number}")
    def put(self, number: int, page: Annotated[Page, Body]) -> Page:
        return page

    @api(timeout=3)
    async def stream(self, text: str) -> AsyncIterator[bytes]:
        yield text.encode()

    @api(idempotent=True)
    def lines(self, text: str) -> Iterator[str]:
        yield text
