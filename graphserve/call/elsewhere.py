"""Services that run elsewhere (`depends(X, url=…)`): typed calls over TCP and TLS, through httpx. Runs in workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx

from graphserve.call.context import CallContext
from graphserve.call.exchange import Exchange
from graphserve.call.request import new_request_id
from graphserve.errors import RemoteError, Unavailable
from graphserve.plan import ApiPlan
from graphserve.wire.frames import StreamFormat


class UrlLane:
    """The way to a service at a URL: its deadline travels as `X-Request-Timeout`, since clocks differ.

    Args:
        node: the name for messages.
        url: where it listens.
        connect: makes the httpx client; default: one that checks certificates and uses the environment's proxies.
    """

    budget = None

    def __init__(self, node: str, url: str, connect: Callable[[], httpx.AsyncClient] | None = None) -> None:
        self.node, self.url, self._connect = node, url, connect or _connect
        self._client: httpx.AsyncClient | None = None
        self._closed = False
        self._sending: dict[Exchange, asyncio.Task[None]] = {}

    def composer(self, api: ApiPlan) -> Callable[[CallContext | None, int | None, bytes], httpx.Request]:
        """See `Lane`."""
        url = self.url.rstrip("/") + api.route
        accept = StreamFormat.FRAMES.value.decode() if api.stream else "application/msgpack"

        def compose(context: CallContext | None, deadline_ns: int | None, body: bytes) -> httpx.Request:
            headers = {"content-type": "application/msgpack", "accept": accept}
            headers["x-request-id"] = ((context and context.request_id) or new_request_id()).decode("latin-1")
            if context is not None and context.traceparent is not None:
                headers["traceparent"] = context.traceparent.decode("latin-1")
                headers["tracestate"] = (context.tracestate or b"").decode("latin-1")
            if deadline_ns is not None:
                left = CallContext(deadline_ns=deadline_ns).seconds_left() or 0.0
                headers["x-request-timeout"] = f"{max(left, 0.001):.3f}"
            if api.input_stream is None:
                return httpx.Request("POST", url, headers=headers, content=body)
            headers["content-type"] = "application/octet-stream"
            return httpx.Request("POST", f"{url}?{body.decode()}", headers=headers, content=_Later())

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
        return Unavailable(f"the connection to {self.node} at {self.url} was closed", node=self.node)

    async def _send(self, exchange: Exchange) -> None:
        if self._client is None:
            self._client = self._connect()
        if exchange.upload is not None:
            exchange.request.stream.chunks = exchange.upload
        try:
            response = await self._client.send(exchange.request, stream=exchange.streams)
            if exchange.streams and response.status_code == 200:
                await _items(response, exchange)
            body = await response.aread()
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            exchange.fail(Unavailable(f"{self.node} at {self.url} cannot be reached: {exc}", node=self.node))
        except httpx.HTTPError as exc:
            exchange.fail(RemoteError(f"{self.node} at {self.url}: {exc!r}", node=self.node))
        else:
            headers = [(name.lower(), value) for name, value in response.headers.raw]
            exchange.answered(response.status_code, headers, body)


class _Later(httpx.AsyncByteStream):
    """A request body that is known when the request is sent."""

    chunks: AsyncIterator[bytes]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks


async def _items(response: httpx.Response, exchange: Exchange) -> None:
    exchange.head()
    async for chunk in response.aiter_raw():
        exchange.chunk(chunk)
        await exchange.room()


def _connect() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None, max_keepalive_connections=32))
