"""httpx clients of a local graph: what `depends(X, client=httpx.AsyncClient)` injects under `local()`."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from graphserve.call.context import CallContext, current, earliest
from graphserve.call.exchange import Exchange, Lane
from graphserve.call.request import new_request_id
from graphserve.errors import CallError, DeadlineExceeded, InvalidArguments, Unavailable
from graphserve.plan import EdgePlan, NodePlan
from graphserve.worker.app import App, Health
from graphserve.worker.execute import BoundApi
from graphserve.wire import problem
from graphserve.wire.codec import Format, MalformedBody, accept_format, content_format
from graphserve.wire.problem import HttpProblem


class LocalTransport(httpx.AsyncBaseTransport):
    """Requests to one node of a local graph, answered as its worker would."""

    def __init__(self, node: NodePlan, apis: dict[str, BoundApi], lane: Lane, timeout: float | None) -> None:
        self.node, self.lane, self.timeout = node, lane, timeout
        self.routes = {api.plan.route: api for api in apis.values()}
        health = Health(node.name, list)
        health.state = "ready"
        self.rest = httpx.ASGITransport(App(health, apis))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        api = self.routes.get(request.url.path)
        if request.method != "POST" or api is None:
            return await self.rest.handle_async_request(request)
        accept = accept_format(request.headers.get("accept", "").encode())
        try:
            result = await self._call(api, request, await request.aread())
            status, headers, body = 200, [(b"content-type", accept.value)], api.result.encode(result, accept)
        except DeadlineExceeded as exc:
            raise httpx.ReadTimeout(str(exc), request=request) from exc
        except Unavailable as exc:
            raise httpx.ConnectError(str(exc), request=request) from exc
        except CallError as exc:
            status, headers, body = problem.encode(exc, node=self.node.name, request_id="", open_book=True)
        return httpx.Response(status, headers=headers, content=body)

    async def _call(self, api: BoundApi, request: httpx.Request, body: bytes) -> Any:
        format = content_format(request.headers.get("content-type", "").encode())
        if format is None or (format is Format.RAW and not api.signature.raw_body):
            raise HttpProblem(415, f"{api.plan.route} takes application/json or application/msgpack")
        try:
            arguments = api.arguments.encode(api.arguments.decode(body, format))
        except MalformedBody as exc:
            raise HttpProblem(400, str(exc)) from None
        except InvalidArguments as exc:
            exc.node = self.node.name
            raise
        context = current.get() or CallContext(new_request_id())
        timeouts = (self.timeout, api.timeout, request.extensions.get("timeout", {}).get("read"))
        deadline_ns = earliest(context.deadline_ns, timeouts)
        packed = self.lane.composer(api.plan)(context, deadline_ns, arguments)
        loop = asyncio.get_running_loop()
        exchange = Exchange(loop, self.lane, self.node.name, packed, deadline_ns, 0.0, False, _reader(api, self.node.name))
        exchange.start()
        return await exchange.reply


class _FromThreads(httpx.BaseTransport):
    def __init__(self, transport: LocalTransport) -> None:
        self.transport, self.loop = transport, asyncio.get_running_loop()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        response = asyncio.run_coroutine_threadsafe(self._send(request), self.loop).result()
        return httpx.Response(response.status_code, headers=response.headers, content=response.content)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        response = await self.transport.handle_async_request(request)
        await response.aread()
        return response


def client(node: NodePlan, apis: dict[str, BoundApi], lane: Lane, edge: EdgePlan) -> httpx.AsyncClient | httpx.Client:
    """The client for an edge of a local graph."""
    transport = LocalTransport(node, apis, lane, edge.timeout)
    base = f"http://{node.name}"
    if edge.client == "httpx.AsyncClient":
        return httpx.AsyncClient(transport=transport, base_url=base, timeout=None, trust_env=False)
    return httpx.Client(transport=_FromThreads(transport), base_url=base, timeout=None, trust_env=False)


def _reader(api: BoundApi, node: str) -> Any:
    def read(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Any:
        if status == 200:
            return api.result.decode(body)
        named = {name.decode(): value.decode() for name, value in headers}
        raise problem.decode(status, named.get("x-graphserve-error"), body, named, node)

    return read
