"""An entry for clients that mean harm: it echoes, keeps count, holds calls, and fails with secrets
in its hands.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np

from graphserve import api, depends, service

SECRET = "hunter2-the-secret"


class Choice(msgspec.Struct):
    kind: str


class Opaque:
    def __repr__(self) -> str:
        return SECRET


@service
class Inner:
    @api
    async def leak(self) -> int:
        raise RuntimeError(f"{SECRET} in {__file__} with {os.environ['HOSTILE_SECRET']}")

    @api
    async def leak_late(self) -> AsyncIterator[int]:
        yield 1
        raise RuntimeError(f"{SECRET} in {__file__}")


@service
class Gateway:
    inner = depends(Inner)

    def __init__(self) -> None:
        self.smuggled_calls = 0

    @api
    async def echo(self, body: bytes) -> bytes:
        return body

    @api
    async def delaying(self) -> list[bool]:
        from sockets import delaying  # beside this file, whose folder it is served from

        return delaying()

    @api
    async def smuggled(self) -> int:
        self.smuggled_calls += 1
        return self.smuggled_calls

    @api
    async def smuggled_so_far(self) -> int:
        return self.smuggled_calls

    @api
    async def hold(self, gate: str) -> str:
        while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240  (the gate is a file of the test's)
            await asyncio.sleep(0.01)
        return "held"

    @api
    async def large(self, size: int) -> str:
        return "x" * size

    @api
    async def items(self, size: int) -> AsyncIterator[str]:
        while True:
            yield "x" * size

    @api
    async def upload(self, parts: AsyncIterator[bytes]) -> int:
        return sum([len(part) async for part in parts])

    @api
    async def total(self, values: np.ndarray) -> float:
        return float(values.sum())

    @api
    async def leak(self, choice: Choice) -> object:
        if choice.kind == "raises":
            raise ValueError(f"{SECRET} in {__file__} with {os.environ['HOSTILE_SECRET']}")
        if choice.kind == "opens":
            os.open(f"/nowhere/{SECRET}", os.O_RDONLY)
        if choice.kind == "below":
            await self.inner.leak()
        if choice.kind == "validates":
            msgspec.json.decode(b'{"kind": 1}', type=Choice)
        return Opaque()

    @api
    async def leak_late(self) -> AsyncIterator[int]:
        yield 1
        raise ValueError(f"{SECRET} in {__file__}")

    @api
    async def leak_late_below(self) -> AsyncIterator[int]:
        async for item in self.inner.leak_late():
            yield item
