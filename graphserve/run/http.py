"""HTTP requests at a node of a local graph, as an injected httpx client sends them. Runs in the process of `local()`.

The clients are those of workers (`call/transport.py`); this is the lane under them.
"""

from __future__ import annotations

import math
from typing import Any

from graphserve.call import transport
from graphserve.call.calls import Home
from graphserve.call.clients import HOP_SLACK
from graphserve.call.context import CallContext, earliest
from graphserve.call.exchange import Exchange
from graphserve.errors import CallError
from graphserve.plan import ApiPlan, EdgePlan
from graphserve.run.node import LocalNode
from graphserve.run.request import Request
from graphserve.wire import problem
from graphserve.wire.formats import Format, accept_format, content_format
from graphserve.wire.problem import HttpProblem
from graphserve.worker.app import App, Health
from graphserve.worker.execute import BoundApi

Headers = dict[bytes, bytes]


def client(node: LocalNode, edge: EdgePlan) -> Any:
    """The httpx client for an edge of a local graph."""
    slack = HOP_SLACK * (node.plan.level + 1)
    core = transport.NodeTransport(Home.here(), node.plan.name, {}, HttpLane(node), edge.timeout, slack)
    make = transport.async_client if edge.client == "httpx.AsyncClient" else transport.sync_client
    return make(core)


class HttpLane:
    """Takes whole HTTP requests to one node, in bytes.

    Args:
        node: the node, started.
    """

    budget = None

    def __init__(self, node: LocalNode) -> None:
        self.node = node
        self.routes = {api.plan.route.encode(): api for api in node.apis.values()}
        health = Health(node.plan.name, list)
        health.state = "ready"
        self.app = App(health, node.apis)

    def composer(self, api: ApiPlan) -> Any:
        """See `Lane`; httpx clients make their requests themselves."""
        raise NotImplementedError

    def send(self, exchange: Exchange) -> None:
        """See `Lane`."""
        head, _, body = exchange.request.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        method, target, _ = first.split(b" ")
        headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
        api = self.routes.get(target.partition(b"?")[0]) if method == b"POST" else None
        if api is None:
            task = exchange.loop.create_task(self._ask(exchange, method, target))
            exchange.reply.add_done_callback(lambda _: task.cancel())
            return
        context = _context(headers)
        try:
            exchange.request = _request(api, context, headers, body)
        except CallError as exc:
            request_id = context.request_id.decode("latin-1")
            answer = problem.encode(exc, node=self.node.plan.name, request_id=request_id, open_book=True)
            exchange.loop.call_soon(exchange.answered, *answer)
        else:
            exchange.lane = self.node
            self.node.send(exchange)

    def forget(self, exchange: Exchange) -> None:
        """See `Lane`; a call has gone on to the node's own lane."""

    async def _ask(self, exchange: Exchange, method: bytes, target: bytes) -> None:
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        path = target.partition(b"?")[0].decode("latin-1")
        await self.app({"type": "http", "method": method.decode("latin-1"), "path": path}, None, send)
        start, body = messages
        exchange.answered(start["status"], start["headers"], b"" if method == b"HEAD" else body["body"])


def _context(headers: Headers) -> CallContext:
    deadline = headers.get(b"x-graphserve-deadline")
    return CallContext(
        headers[b"x-request-id"], None if deadline is None else int(deadline), headers.get(b"traceparent"),
        headers.get(b"tracestate"),
    )  # fmt: skip


def _request(api: BoundApi, context: CallContext, headers: Headers, body: bytes) -> Request:
    content_type = headers.get(b"content-type")
    format = content_format(content_type)
    if format is None or (format is Format.RAW and not api.signature.raw_body):
        named = (content_type or b"").decode("latin-1")
        raise HttpProblem(415, f"{api.plan.route} takes application/json or application/msgpack, not {named!r}")
    context.deadline_ns = earliest(context.deadline_ns, (_timeout(headers), api.timeout))
    return Request(api.plan.name, context, body, format, accept_format(headers.get(b"accept")))


def _timeout(headers: Headers) -> float | None:
    if (given := headers.get(b"x-request-timeout")) is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e9:
        raise HttpProblem(400, "X-Request-Timeout is a number of seconds above 0")
    return seconds
