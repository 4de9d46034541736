"""httpx on the core of the hop: real `httpx.AsyncClient` and `httpx.Client` over our lanes. Runs in workers.

As users of httpx expect: statuses are responses, and connection failures are httpx's own errors.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Mapping
from typing import Any

import httpx

from graphserve.call.connection import CUT
from graphserve.call.context import current, earliest
from graphserve.call.exchange import Answer, Exchange, Lane
from graphserve.call.home import Home
from graphserve.call.request import trail
from graphserve.errors import CallError, DeadlineExceeded, Unavailable
from graphserve.wire.headers import INTERNAL_PREFIX
from graphserve.wire.trust import MADE

_OURS = frozenset((
    b"content-length", b"transfer-encoding", b"connection", b"x-request-id", b"traceparent", b"tracestate",
))  # fmt: skip


class RawExchange(Exchange):
    """An exchange whose answer is the bytes of a response."""

    __slots__ = ()
    trust = MADE

    def _loss(self, reason: str) -> str:
        if reason is CUT:  # a stream whose API raises ends so too
            return f"the answer of {self.node} was cut before its end: its API raised, or its worker ended; see its log"
        return super()._loss(reason)


class NodeTransport:
    """What both transports share: from an httpx request to an exchange, and from its end to a response or an error.

    Args:
        home: the loop that calls run on.
        node: the node's name.
        lanes: the lane of each route that is limited; other paths take `other`.
        other: the pooled lane.
        timeout: seconds one call may take, of the edge.
        slack: see `Exchange`.
    """

    def __init__(
        self, home: Home, node: str, lanes: Mapping[bytes, Lane], other: Lane, timeout: float | None, slack: float
    ) -> None:
        self.home, self.node, self.lanes, self.other = home, node, dict(lanes), other
        self.timeout, self.slack = timeout, slack

    def exchange(self, request: httpx.Request, body: bytes) -> Exchange:
        """The exchange for a request whose body has been read."""
        context = current.get()
        inherited = context.deadline_ns if context is not None else None
        deadline_ns = earliest(inherited, (self.timeout, request.extensions.get("timeout", {}).get("read")))
        lane = self.lanes.get(request.url.raw_path.partition(b"?")[0], self.other)
        opening = MADE.opening if lane is not self.other else b""
        lines = [opening, b"%s %s HTTP/1.1\r\n" % (request.method.encode("ascii"), request.url.raw_path)]
        lines += [b"%s: %s\r\n" % (name, value) for name, value in request.headers.raw if not _is_ours(name.lower())]
        if lane is not self.other:
            lines.append(b"connection: close\r\n")
        data = b"".join(lines) + trail(context, deadline_ns, body)
        # What httpx users send again is theirs to decide: idempotent by method, as RFC 9110 (9.2.2) has it.
        again = request.method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
        return RawExchange(self.home.loop, lane, self.node, data, deadline_ns, self.slack, again, _raw)

    def mapped(self, error: CallError, request: httpx.Request) -> httpx.TransportError:
        """The httpx error for one of ours."""
        if isinstance(error, DeadlineExceeded):
            return httpx.ReadTimeout(str(error), request=request)
        if isinstance(error, Unavailable):
            return httpx.ConnectError(str(error), request=request)
        return httpx.RemoteProtocolError(str(error), request=request)


class AsyncTransport(httpx.AsyncBaseTransport):
    """The transport of an injected `httpx.AsyncClient`."""

    def __init__(self, core: NodeTransport) -> None:
        self.core = core

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        exchange = self.core.exchange(request, await request.aread())
        exchange.start()
        try:
            return _response(await exchange.reply)
        except CallError as exc:
            raise self.core.mapped(exc, request) from exc


class SyncTransport(httpx.BaseTransport):
    """The transport of an injected `httpx.Client`, for the threads of sync APIs."""

    def __init__(self, core: NodeTransport) -> None:
        self.core = core

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, and wait in this thread."""
        home = self.core.home
        if threading.get_ident() == home.thread:
            raise RuntimeError(
                "httpx.Client would block the event loop: use client=httpx.AsyncClient, or a plain `def` API"
            )
        exchange = self.core.exchange(request, request.read())
        waiter: concurrent.futures.Future[Answer] = concurrent.futures.Future()

        def copy(reply: Any) -> None:
            if reply.cancelled():  # the API that waits here lost its caller
                waiter.cancel()
                return
            error = reply.exception()
            waiter.set_exception(error) if error is not None else waiter.set_result(reply.result())

        def start() -> None:
            exchange.reply.add_done_callback(copy)
            exchange.start(threaded=True)

        home.loop.call_soon_threadsafe(start)
        try:
            return _response(waiter.result())
        except CallError as exc:
            raise self.core.mapped(exc, request) from exc


def _is_ours(name: bytes) -> bool:
    return name in _OURS or name.startswith(INTERNAL_PREFIX)


def _raw(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Answer:
    return status, headers, body


def _response(answer: Answer) -> httpx.Response:
    status, headers, body = answer
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))


def async_client(core: NodeTransport) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` that is bound to a node."""
    return httpx.AsyncClient(
        transport=AsyncTransport(core), base_url=f"http://{core.node}", timeout=None, trust_env=False
    )


def sync_client(core: NodeTransport) -> httpx.Client:
    """An `httpx.Client` that is bound to a node."""
    return httpx.Client(transport=SyncTransport(core), base_url=f"http://{core.node}", timeout=None, trust_env=False)
