"""What APIs may ask of the request that they execute: at the port, behind a sibling that passes it on,
over each kind of hop, in batches, and afterwards.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

import graphserve
from graphserve import Batch, BatchedRequest, Request, api, depends, service


def described(request: Request) -> dict[str, Any]:
    client = request.client
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": dict(request.headers),
        "cookies": dict(request.cookies),
        "client": None if client is None else client[0],
        "scheme": request.scheme,
        "service": request.service,
        "principal": request.principal,
        "id": request.id,
        "deadline": request.deadline() is not None,
    }


def refusal(ask: Any) -> str:
    try:
        ask()
    except LookupError as exc:
        return str(exc)
    return ""


@service
class Deep:
    @api
    async def tell(self) -> dict[str, Any]:
        return described(graphserve.request())


@service
class Leaf:
    deep = depends(Deep)

    @api
    async def tell_deep(self) -> dict[str, Any]:
        return await self.deep.tell()

    @api
    async def tell(self) -> dict[str, Any]:
        return described(graphserve.request())

    @api
    def tell_in_turn(self) -> dict[str, Any]:
        return described(graphserve.request())

    @api
    async def tell_stream(self) -> AsyncIterator[dict[str, Any]]:
        yield described(graphserve.request())

    @api(batch=Batch(max_size=8, max_wait=0.02))
    async def tell_all(self, xs: list[int]) -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        for request in graphserve.requests():
            assert isinstance(request, BatchedRequest)
            said += [described(request) | {"items": request.items}] * request.items
        return said

    @api(batch=Batch(max_size=8, max_wait=0.001))
    async def ask_for_one(self, xs: list[int]) -> list[str]:
        return [refusal(graphserve.request) for _ in xs]


@service(workers=2, concurrency=1, forward_headers=["X-Tenant", "x-user"])
class Top:
    leaf = depends(Leaf)
    raw = depends(Leaf, client=httpx.AsyncClient)

    def __init__(self) -> None:
        self.before = refusal(graphserve.request)
        self.found: list[Any] = []

    @api
    async def tell(self) -> dict[str, Any]:
        return described(graphserve.request())

    @api
    def tell_in_turn(self) -> dict[str, Any]:
        return described(graphserve.request())

    @api
    def pid(self) -> int:
        return os.getpid()

    @api
    def hold(self, gate: str) -> None:
        Path(f"{gate}.held").touch()
        while not Path(gate).exists():
            time.sleep(0.005)

    @api
    async def below(self, how: str) -> dict[str, Any]:
        if how == "stream":
            (only,) = [item async for item in self.leaf.tell_stream()]
            return only
        if how == "queue":
            return await self.leaf.tell_in_turn()
        if how == "deep":
            return await self.leaf.tell_deep()
        if how == "batch":
            return (await self.leaf.tell_all([1]))[0]
        if how == "httpx deep":
            answer = await self.raw.post("/tell_deep", json={})
            return dict(answer.json())
        if how == "httpx":
            answer = await self.raw.post("/tell", json={}, headers={"x-mine": "1"})
            said: dict[str, Any] = answer.json()
            return said
        return await self.leaf.tell()

    @api
    async def batch(self, sizes: list[int]) -> list[list[dict[str, Any]]]:
        return await asyncio.gather(*[self.leaf.tell_all([0] * size) for size in sizes])

    @api
    async def refusals(self) -> list[str]:
        one = await self.leaf.ask_for_one([1])
        loose: list[str] = []
        thread = threading.Thread(target=lambda: loose.append(refusal(graphserve.request)))
        thread.start()
        thread.join()
        return [self.before, one[0], refusal(graphserve.requests), loose[0]]

    @api
    async def outlived(self, go: bool) -> list[Any]:
        """Start a task that asks once this call was answered; then what it found."""
        if not go:
            return self.found
        self.found = []

        async def later() -> None:
            request = graphserve.request()
            while graphserve.deadline() is not None:  # noqa: ASYNC110
                await asyncio.sleep(0)
            self.found += [described(request), described(graphserve.request())]
            self.found.append(await asyncio.to_thread(lambda: described(graphserve.request())))

        self.task = asyncio.create_task(later())
        return []

    @api
    async def shielded(self) -> list[dict[str, Any]]:
        """What a shielded call sees whose waiter gave up."""
        inner = asyncio.ensure_future(self.leaf.tell_all([1]))
        waiter = asyncio.ensure_future(asyncio.shield(inner))
        await asyncio.sleep(0)
        waiter.cancel()
        return await inner


@service(forward_headers=["x-tenant", "authorization"])
class Far:
    leaf = depends(Leaf, url=os.environ.get("LEAF_URL", "http://127.0.0.1:1"))
    raw = depends(Leaf, url=os.environ.get("LEAF_URL", "http://127.0.0.1:1"), client=httpx.Client)

    @api
    async def tell(self) -> dict[str, Any]:
        return await self.leaf.tell()

    @api
    def tell_by_httpx(self) -> dict[str, Any]:
        answer = self.raw.post("/tell", json={}, headers={"authorization": "mine"})
        return dict(answer.json())
