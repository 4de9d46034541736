"""An entry with two workers of one slot each, so that busy ones pass calls on, and a service behind
it.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pydantic

from graphserve import Batch, api, depends, service


class Account(pydantic.BaseModel):
    name: str
    admin: bool = pydantic.Field(False, alias="x-admin")


class Held(msgspec.Struct):
    account: Account


@service
class Model:
    """What run-folder sockets are tried at."""

    @api
    async def size(self, x: bytes) -> int:
        return len(x)

    @api
    async def anything(self, x: Any) -> str:
        return type(x).__name__

    @api
    def size_in_turn(self, x: bytes) -> int:
        return len(x)

    @api
    async def is_admin(self, x: Account) -> bool:
        return x.admin

    @api
    async def large(self, size: int) -> np.ndarray:
        return np.ones(size)

    @api
    def large_in_turn(self, size: int) -> np.ndarray:
        return np.ones(size)

    @api
    async def raises(self) -> int:
        raise ValueError("a text of an exception")

    @api
    async def raises_late(self) -> AsyncIterator[int]:
        yield 1
        raise ValueError("a text of an exception")


@service(workers=2, concurrency=1)
class Gateway:
    """The entry."""

    model = depends(Model)
    raw = depends(Model, client=httpx.AsyncClient)

    @api
    def pid(self) -> int:
        return os.getpid()

    @api
    def hold(self, gate: str) -> int:
        Path(gate + ".held").touch()
        while not Path(gate).exists():
            time.sleep(0.01)
        return os.getpid()

    @api
    def size(self, x: bytes) -> int:
        return len(x)

    @api
    def sizes(self, x: dict[str, list[bytes]]) -> int:
        return len(x)

    @api
    def anything(self, x: Any) -> str:
        return type(x).__name__

    @api
    def total(self, x: np.ndarray) -> float:
        return float(x.sum())

    @api(batch=Batch(max_size=4))
    def together(self, x: list[bytes]) -> list[int]:
        return [len(each) for each in x]

    @api
    def is_admin(self, x: Account) -> bool:
        return x.admin

    @api
    def holds_admin(self, x: Held) -> bool:
        return x.account.admin

    @api
    def large(self, size: int) -> np.ndarray:
        return np.ones(size)

    @api
    def account(self) -> Account:
        return Account.model_validate({"name": "a", "x-admin": True})

    @api
    async def larges(self, size: int) -> AsyncIterator[np.ndarray]:
        yield np.ones(size)

    @api
    async def upload(self, parts: AsyncIterator[bytes], x: Any = None) -> str:
        return f"{type(x).__name__} {len([part async for part in parts])}"

    @api
    async def raises_late(self) -> AsyncIterator[int]:
        yield 1
        raise ValueError("a text of an exception")

    @api
    async def left(self, headers: dict[str, str]) -> list[Any]:
        """What an injected client gets that passes a client's headers and body on."""
        answer = await self.raw.post("/anything", content=b'{"x": 1}', headers=headers)
        return [answer.status_code, answer.text]

    @api
    async def made(self, body: str) -> list[Any]:
        headers = {
            "content-type": "application/vnd.graphserve+msgpack",
            "accept": "application/vnd.graphserve+msgpack",
        }
        answer = await self.raw.post("/size", content=bytes.fromhex(body), headers=headers)
        return [answer.status_code, answer.text]

    @api
    async def made_large(self, path: str) -> list[Any]:
        headers = {"accept": "application/vnd.graphserve+msgpack"}
        answer = await self.raw.post(path, json={"size": 100_000}, headers=headers)
        return [answer.status_code, len(answer.content)]
