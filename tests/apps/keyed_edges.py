"""A graph that asks for API keys calls itself at its own port, as a graph elsewhere: with a key that
is known there, one that is not, and none.
"""

from __future__ import annotations

import os

import httpx

import graphserve
from graphserve import Problem, api, depends, service

URL = os.environ.get("OWN_URL", "http://127.0.0.1:1")
KNOWN = os.environ.get("KNOWN_KEY", "known.key")
WRONG = os.environ.get("WRONG_KEY", "wrong.key")


@service
class Far:
    @api
    async def whose(self) -> str | None:
        return graphserve.request().principal

    @api
    async def refuses(self) -> None:
        raise Problem(401, "Log in", headers={"www-authenticate": "Bearer realm=far"})


@service
class Keyed(Far):
    known = depends(Far, url=URL, api_key_file=KNOWN)
    wrong = depends(Far, url=URL, api_key_file=WRONG)
    none = depends(Far, url=URL)
    each = depends.each(Far, url={"a": URL, "b": URL}, api_key_file={"a": KNOWN})
    http = depends(Far, url=URL, api_key_file=KNOWN, client=httpx.AsyncClient)
    sync_http = depends(Far, url=URL, api_key_file=KNOWN, client=httpx.Client)

    @api
    async def asks(self, by: str) -> str | None:
        client: Far = getattr(self, by) if len(by) > 1 else self.each[by]
        return await client.whose()

    @api
    async def refused(self) -> None:
        await self.known.refuses()

    @api
    async def by_http(self, url: str = "") -> object:
        answer = await self.http.post(f"{url}/whose", json={})
        return answer.json()

    @api
    def by_sync_http(self) -> object:
        return self.sync_http.post("/whose", json={}).json()
