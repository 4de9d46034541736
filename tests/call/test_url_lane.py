"""Calls to a service at a URL: the time that making a client takes is not the first call's."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from graphserve.call.exchange import Exchange
from graphserve.call.fetched import FetchedFiles
from graphserve.call.lanes.url import UrlLane

# nanoseconds that making a client takes here: more than is waited past a deadline
MAKING = 50_000_000


@pytest.mark.parametrize("early", [False, True])
def test_the_deadline_that_is_said_counts_from_when_it_is_sent(early: bool) -> None:
    made: list[int] = []
    said: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        said.append(float(request.headers["x-request-timeout"]))
        return httpx.Response(200, content=b"7")

    def connect() -> httpx.AsyncClient:
        client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        end = time.monotonic_ns() + MAKING
        while time.monotonic_ns() < end:
            pass
        made.append(time.monotonic_ns())
        return client

    async def call() -> float:
        lane = UrlLane("Far", "http://far", connect, files=FetchedFiles("/nowhere", by_call=True))
        if early:
            lane.prepare()
            assert len(made) == 1, "before there is a call"
        deadline_ns = time.monotonic_ns() + 10_000_000_000
        headers = {"x-request-timeout": "10.000"}
        request = httpx.Request("POST", "http://far/run", headers=headers, content=b"{}")
        loop = asyncio.get_running_loop()
        exchange = Exchange(
            loop, lane, "Far", request, deadline_ns, 0.0, False, lambda status, headers, body: body
        )
        exchange.start()
        assert await exchange.reply == b"7"
        await lane.close()
        return (deadline_ns - made[0]) / 1e9

    left = asyncio.run(call())
    assert len(made) == 1
    assert said[0] <= min(left, 10.0) + 0.001, "it is said in milliseconds"


def test_a_client_that_cannot_be_made_fails_each_call_and_not_the_start() -> None:
    def connect() -> httpx.AsyncClient:
        raise ValueError("no such proxy")

    async def call() -> str:
        lane = UrlLane("Far", "http://far", connect, files=FetchedFiles("/nowhere", by_call=True))
        lane.prepare()
        request = httpx.Request("POST", "http://far/run", content=b"{}")
        loop = asyncio.get_running_loop()
        exchange = Exchange(
            loop, lane, "Far", request, None, 0.0, False, lambda status, headers, body: body
        )
        exchange.start()
        with pytest.raises(Exception, match="Far cannot be reached") as failed:
            await exchange.reply
        await lane.close()
        return str(failed.value)

    assert asyncio.run(call()) == "Far cannot be reached"
