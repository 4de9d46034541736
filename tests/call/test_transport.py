"""The transport of injected httpx clients, against a scripted peer: timeouts, retries, early
answers, what is left.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from graphserve.call.context import CallContext, current
from graphserve.call.exchange import ANY_RUNS
from graphserve.call.httpx_transport import NodeTransport, async_client
from graphserve.call.lanes.pooled import PooledLane
from graphserve.call.membership import KnownNode
from graphserve.errors import DeadlineExceeded, RemoteError, Unavailable
from graphserve.loop.loop_thread import LoopThread
from graphserve.wire.problem import as_call_error
from tests.call.test_retries import node, until

pytestmark = pytest.mark.anyio
SECONDS = 20.0  # that anything here may take, on a loaded machine


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client_of(lane: PooledLane, runs: int = ANY_RUNS) -> httpx.AsyncClient:
    return async_client(
        NodeTransport(LoopThread.here(), "Model", {}, lane, None, 0.01, "Gateway", runs)
    )


def problem(kind: str, status: int, service: str = "Leaf") -> bytes:
    body = json.dumps(
        {
            "type": f"urn:graphserve:problem:{kind}",
            "status": status,
            "service": service,
            "detail": "so",
        }
    )
    head = (
        f"HTTP/1.1 {status} X\r\nx-graphserve-error: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


async def test_no_worker_in_time_is_a_connect_timeout() -> None:
    async with node("answer") as (lane, _):
        lane._changed(KnownNode("Model", "starting", ()))
        client = client_of(lane)
        with pytest.raises(
            httpx.ConnectTimeout, match="no worker of Model took the request in time"
        ):
            await client.get("/x", timeout=httpx.Timeout(SECONDS, connect=0.02))
        assert not lane.waiting, "and it does not wait on"
        with pytest.raises(httpx.TimeoutException):
            await client.get("/x", timeout=0.02)
        waiting = asyncio.ensure_future(client.get("/x", timeout=SECONDS))
        await until(lambda: len(lane.waiting) == 1)
        waiting.cancel()
        await until(lambda: not lane.waiting)


async def test_no_answer_in_time_is_a_read_timeout() -> None:
    async with node("hold") as (lane, (worker,)):
        with pytest.raises(httpx.ReadTimeout):
            await client_of(lane).get("/x", timeout=httpx.Timeout(SECONDS, read=0.05))
        assert worker.requests == 1


async def test_an_upload_that_is_not_taken_is_a_write_timeout() -> None:
    async with node("hold") as (lane, _):  # reads 1 MiB, and waits

        async def body() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 65536

        with pytest.raises(httpx.WriteTimeout, match="Model did not take the body in time"):
            await client_of(lane).post(
                "/x", content=body(), timeout=httpx.Timeout(SECONDS, write=0.05)
            )


async def test_a_deadline_that_was_ours_is_a_timeout_and_another_a_status() -> None:
    async with node("hold", answer=problem("deadline", 504)) as (lane, (worker,)):
        client = client_of(lane)
        worker.go.set()
        assert (await client.get("/x", timeout=SECONDS)).status_code == 504, "its own"
        worker.go.clear()
        core = client._transport.core  # type: ignore[attr-defined]
        core.slack = SECONDS  # the answer is late, and comes
        # long enough to be sent, however busy the machine is
        deadline = time.monotonic_ns() + 1_000_000_000
        token = current.set(CallContext(b"id", deadline))
        try:
            call = asyncio.ensure_future(client.get("/x", timeout=SECONDS))
            await until(lambda: time.monotonic_ns() > deadline)
            worker.go.set()
            with pytest.raises(httpx.ReadTimeout, match="so") as caught:
                await call
        finally:
            current.reset(token)
    error = as_call_error(caught.value, "Gateway")
    assert isinstance(error, DeadlineExceeded) and error.node == "Leaf"


@pytest.mark.parametrize(("method", "runs"), [("GET", ANY_RUNS), ("GET", 1), ("POST", ANY_RUNS)])
async def test_what_was_lost_goes_again_if_its_method_is_idempotent(method: str, runs: int) -> None:
    again = method == "GET" and runs > 1
    async with node("lose", "answer") as (lane, (loses, answers)):
        client = client_of(lane, runs)
        asked = [client.request(method, "/x", content=b"x") for _ in range(2)]  # one goes to each
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert (loses.requests, answers.requests) == (1, 2 if again else 1)
    lost = [each for each in found if isinstance(each, Exception)]
    assert [type(each) for each in lost] == ([] if again else [httpx.RemoteProtocolError])
    for each in lost:
        error = as_call_error(each, "Gateway")
        assert isinstance(error, RemoteError) and error.node == "Model"


async def test_a_node_that_cannot_take_it_is_a_connect_error() -> None:
    async with node("answer") as (lane, _):
        lane._changed(KnownNode("Model", "failed", ()))
        with pytest.raises(httpx.ConnectError) as caught:
            await client_of(lane).get("/x")
    error = as_call_error(caught.value, "Gateway")
    assert isinstance(error, Unavailable) and (error.node, error.status) == ("Model", 503)


HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"


@pytest.mark.parametrize("how", ["leave", "forget", "raise"])
async def test_a_response_that_is_not_read_to_its_end_frees_its_connection(how: str) -> None:
    async with node("answer", answer=HEAD) as (lane, (worker,)):
        client = client_of(lane)
        request = client.build_request("POST", "/x", timeout=httpx.Timeout(SECONDS))
        endpoint = next(iter(lane.endpoints.values()))
        if how == "leave":
            async with client.stream("POST", "/x") as answer:
                assert await anext(answer.aiter_raw()) == b"abc"
        elif how == "raise":
            with pytest.raises(KeyError):
                async with client.stream("POST", "/x") as answer:
                    raise KeyError(answer.status_code)
        else:
            answer = await client.send(request, stream=True)
            assert endpoint.in_flight == 1
            del answer
            gc.collect()
        await until(lambda: endpoint.in_flight == 0)
        assert worker.requests == 1


async def test_a_slow_reader_holds_the_node_back() -> None:
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + piece * 200 + b"0\r\n\r\n"
    async with (
        node("answer", answer=answer) as (lane, (worker,)),
        client_of(lane).stream("POST", "/x") as response,
    ):
        exchange: Any = response.stream._stream._exchange  # type: ignore[attr-defined]
        await until(lambda: exchange.paused)
        assert len(worker.tasks) == 1 and exchange.size < 2 * 2**20, "it still sends"
        assert sum([len(chunk) async for chunk in response.aiter_raw()]) == 200 * 65536
