"""Services that run elsewhere (`depends(X, url=…)`): typed calls over TCP and TLS, through httpx. Runs in workers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from graphserve import records
from graphserve.call.context import CallContext
from graphserve.call.exchange import Exchange
from graphserve.call.request import new_request_id
from graphserve.call.upload import pieces
from graphserve.dependency import credentials
from graphserve.errors import CallError, RemoteError, Unavailable
from graphserve.plan import ApiPlan
from graphserve.wire.formats import Format
from graphserve.wire.frames import StreamFormat

LOGGER = "graphserve.calls"
_ACCEPT = f"{Format.TYPED.value.decode()}, {Format.MSGPACK.value.decode()};q=0.9"
_UNREACHED = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol,
)  # fmt: skip


def basic(user: str, password: str) -> str:
    """The value of `Authorization` for a user and a password (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


class UrlLane:
    """The way to a service at a URL: its deadline travels as `X-Request-Timeout`, since clocks differ.

    Args:
        node: the name for messages.
        url: where it listens.
        connect: makes the httpx client; default: one that checks certificates and uses the environment's proxies.
    """

    budget = None

    def __init__(self, node: str, url: str, connect: Callable[[], httpx.AsyncClient] | None = None) -> None:
        self.node, self._connect = node, connect or _connect
        self.url, login = credentials(url)
        self._login = {} if login is None else {"authorization": basic(*login)}
        self._client: httpx.AsyncClient | None = None
        self._closed = False
        self._reached = True  # by the last call, as far as is known
        self._sending: dict[Exchange, asyncio.Task[None]] = {}

    def composer(self, api: ApiPlan) -> Callable[[CallContext | None, int | None, bytes], httpx.Request]:
        """See `Lane`."""
        url = httpx.URL(self.url.rstrip("/") + api.route)
        accept = StreamFormat.FRAMES.value.decode() if api.stream else _ACCEPT

        def compose(context: CallContext | None, deadline_ns: int | None, body: bytes) -> httpx.Request:
            format = Format.JSON if body[:1] == b"{" else Format.MSGPACK  # see `Writer.public`
            headers = {"content-type": format.value.decode(), "accept": accept, **self._login}
            headers["x-request-id"] = ((context and context.request_id) or new_request_id()).decode("latin-1")
            if context is not None and context.traceparent is not None:
                headers["traceparent"] = context.traceparent.decode("latin-1")
                headers["tracestate"] = (context.tracestate or b"").decode("latin-1")
            if deadline_ns is not None:
                left = CallContext(deadline_ns=deadline_ns).seconds_left() or 0.0
                headers["x-request-timeout"] = f"{max(left, 0.001):.3f}"
            if api.input_stream is None:
                return httpx.Request("POST", url, headers=headers, content=body)
            headers |= {"content-type": "application/octet-stream", "transfer-encoding": "chunked"}
            try:
                return httpx.Request("POST", f"{url}?{body.decode()}", headers=headers)
            except httpx.InvalidURL as exc:  # longer than a URL can be
                raise ValueError(str(exc)) from None

        return compose

    def send(self, exchange: Exchange) -> None:
        """See `Lane`."""
        if self._closed:
            exchange.fail(self._gone())
            return
        task = exchange.loop.create_task(self._send(exchange))
        self._sending[exchange] = task
        task.add_done_callback(lambda _: self._sending.pop(exchange, None))

    def forget(self, exchange: Exchange) -> None:
        """See `Lane`."""
        task = self._sending.pop(exchange, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def close(self) -> None:
        """Close the connections; what is under way fails."""
        self._closed = True
        for exchange in list(self._sending):
            exchange.fail(self._gone())
        if self._client is not None:
            await self._client.aclose()

    def _gone(self) -> Unavailable:
        return Unavailable(f"the connection to {self.node} was closed", node=self.node)

    async def _send(self, exchange: Exchange) -> None:
        try:
            response = await self._opened().send(self._whole(exchange), stream=True)
            self._reached = True
            try:
                body = b""
                if exchange.streams and response.status_code == 200:
                    await _items(response, exchange)
                else:
                    body = await response.aread()
            finally:
                await response.aclose()
        except Exception as exc:  # whatever it is, somebody waits for an answer
            if not exchange.over:
                exchange.fail(self._failure(exc, exchange.request.stream))
        else:
            headers = [(name.lower(), value) for name, value in response.headers.raw]
            exchange.answered(response.status_code, headers, body)

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            try:
                self._client = self._connect()
            except Exception as exc:  # a proxy or a certificate of the environment that is none
                raise httpx.ConnectError(str(exc)) from exc
        return self._client

    def _whole(self, exchange: Exchange) -> httpx.Request:
        request: httpx.Request = exchange.request
        if exchange.upload is not None:
            request.stream = _Body(exchange)
        return request

    def _failure(self, exc: Exception, body: Any) -> CallError:
        """The error for one of httpx's; its text may go to anyone, and so does not say where the service is."""
        if isinstance(exc, _UNREACHED):
            said = f"{self.node} at {self.url} cannot be reached: {exc}"
            if self._reached:  # not with each call
                self._reached = False
                records.note(LOGGER, "warning", said)
            error = Unavailable(f"{self.node} cannot be reached", node=self.node)
            error.add_note(said)  # for who reads the traceback
            return error
        if not isinstance(exc, httpx.HTTPError):
            records.note(LOGGER, "error", f"a call to {self.node} failed", exc)
        if isinstance(body, _Body) and not body.complete:  # httpx reads no answer before it has sent all
            why = f"before it had the whole upload: it answered without, or refused it ({exc!r})"
            return RemoteError(f"{self.node} closed the connection {why}", node=self.node)
        return RemoteError(f"{self.node}: {exc!r}", node=self.node)


class _Body(httpx.AsyncByteStream):
    """A request body that is made while it is sent."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.complete = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in pieces(self._exchange):
            yield piece
        self.complete = True


async def _items(response: httpx.Response, exchange: Exchange) -> None:
    exchange.head()
    async for chunk in response.aiter_raw():
        exchange.chunk(chunk)
        await exchange.room()


def _connect() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None, max_keepalive_connections=32))
