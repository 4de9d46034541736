"""HTTP requests at a node of a local graph, as an injected httpx client sends them. Runs in the process of `local()`.

The clients are those of workers (`call/transport.py`); this is the lane under them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from graphserve.call import transport
from graphserve.call.clients import HOP_SLACK
from graphserve.call.context import CallContext, earliest
from graphserve.call.exchange import Exchange
from graphserve.call.home import Home
from graphserve.errors import CallError
from graphserve.plan import ApiPlan, EdgePlan
from graphserve.run.node import LocalNode
from graphserve.run.request import Request
from graphserve.wire import problem
from graphserve.wire.formats import Format, accept_format, content_format
from graphserve.wire.frames import stream_format
from graphserve.wire.trust import MADE
from graphserve.worker.app import App, Health
from graphserve.worker.grammar import Refused
from graphserve.worker.heading import Heading


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
        request = exchange.request.removeprefix(MADE.opening)
        head, _, body = request.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        method, target, _ = first.split(b" ")
        headers = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]
        api = self.routes.get(target.partition(b"?")[0]) if method == b"POST" else None
        if api is None:
            task = exchange.loop.create_task(self._ask(exchange, method, target))
            exchange.reply.add_done_callback(lambda _: task.cancel())
            return
        context = CallContext()
        heading, refused = _heading(headers, context)
        format = content_format(heading.content_type)
        refused = refused or heading.problem(api, format, len(body), target.partition(b"?")[2])
        if refused is not None:
            request_id = context.request_id.decode("latin-1")
            answer = problem.encode(refused, node=self.node.plan.name, request_id=request_id, open_book=True)
            exchange.loop.call_soon(exchange.answered, *answer)
            return
        context.deadline_ns = earliest(context.deadline_ns, (heading.timeout, api.timeout))
        if api.signature.input_stream is not None:
            exchange.upload, body = _pieces(body), target.partition(b"?")[2]
        stream = stream_format(heading.accept) if api.signature.stream else None
        accept = accept_format(heading.accept)
        exchange.request = Request(api.plan.name, context, body, format or Format.JSON, accept, stream, MADE)
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


def _heading(headers: list[tuple[bytes, bytes]], context: CallContext) -> tuple[Heading, CallError | None]:
    try:
        return Heading(headers, context, MADE), None
    except Refused as exc:
        return Heading([], context, MADE), exc.problem


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body
