"""HTTP requests at a node of a local graph, as an injected httpx client sends them.

Runs in the process of `local()`.

The clients are those of workers (`call/httpx_transport.py`); this is the lane under them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING

from graphserve.call import httpx_transport
from graphserve.call.context import CallContext, earliest, shortest
from graphserve.call.exchange import Exchange
from graphserve.call.lanes.of_process import slack_to
from graphserve.call.request import new_request_id
from graphserve.call.request_head import NOBODY, RequestHead
from graphserve.errors import CallError
from graphserve.graph.plan import EdgePlan
from graphserve.loop.loop_thread import LoopThread
from graphserve.run.local_node import LocalNode
from graphserve.run.local_transport import LocalCall, LocalRequest
from graphserve.wire import problem
from graphserve.wire.formats import (
    AnswerFormat,
    Format,
    MediaFormat,
    content_format,
    is_multipart,
    item_format,
)
from graphserve.wire.headers import CONTENT_TYPE, Headers
from graphserve.wire.problem import HttpProblem
from graphserve.wire.trust import MADE
from graphserve.wire.url_arguments import whole
from graphserve.worker.dispatch.executor import BoundApi
from graphserve.worker.http.asgi import Message
from graphserve.worker.http.contexts import HandedContext
from graphserve.worker.http.headers import RequestHeaders
from graphserve.worker.http.routing import RoutedCall, RouteTree
from graphserve.worker.http.strict import METHODS, RequestRefused, plain
from graphserve.worker.pages.application import WorkerApp
from graphserve.worker.pages.health import Health
from graphserve.worker.stream.form_body import begin_form

if TYPE_CHECKING:
    from graphserve.call.lanes.of_process import HttpClient


def client(node: LocalNode, edge: EdgePlan, caller: str) -> HttpClient:
    """Return the httpx client for an edge of a local graph."""
    slack = slack_to(node.clients.plan, node.plan.name)
    core = httpx_transport.NodeTransport(
        LoopThread.here(), node.plan.name, {}, HttpLane(node), edge.timeout, slack, caller
    )
    make = (
        httpx_transport.async_client
        if edge.client == "httpx.AsyncClient"
        else httpx_transport.sync_client
    )
    return make(core)


class HttpLane:
    """Takes whole HTTP requests to one node, in bytes.

    Args:
        node: the node, started.
    """

    retry_budget = None  # there is no connection that could be lost

    def __init__(self, node: LocalNode) -> None:
        self.node = node
        self.routes = {api.plan.route.encode(): api for api in node.apis.values()}
        self.tree = RouteTree(node.apis.values())
        health = Health(node.plan.name, list)
        health.begin()
        self.app = WorkerApp(health, node.apis)

    def send(self, exchange: Exchange[bytes]) -> None:
        """Read the request, and execute it as a worker would."""
        request = exchange.request.removeprefix(MADE.opening)
        head, _, body = request.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        method, target, _ = first.split(b" ")
        headers = [
            (name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)
        ]
        if method not in METHODS:  # over a socket the parser refuses it
            self._refuse(
                exchange,
                HttpProblem(400, f"there is no {method.decode()} at this socket"),
                new_request_id(),
            )
            return
        api = self.routes.get(plain(target.partition(b"?")[0])) if method == b"POST" else None
        routed = None
        if api is None:
            routed = self.tree.find(method, target)
            if routed is None:
                self._begin(exchange, self._ask(exchange, method, target))
                return
            api = routed.api
        if exchange.upload is None:
            self._call(exchange, api, target, headers, body, routed)
        elif api.signature.input_stream is not None:
            self._call(exchange, api, target, headers, b"", routed)
        else:
            self._begin(exchange, self._gather(exchange, api, target, headers, routed))

    def forget(self, exchange: Exchange[bytes]) -> None:
        """Drop the exchange at the node, to which its call has gone on."""
        self.node.forget(exchange)

    def _refuse(self, exchange: Exchange[bytes], refusal: CallError, request_id: bytes) -> None:
        id = request_id.decode("latin-1")
        answer = problem.encode(refusal, node=self.node.plan.name, request_id=id, with_details=True)
        exchange.loop.call_soon(exchange.answered, *answer)

    def _begin(self, exchange: Exchange[bytes], work: Coroutine[object, None, None]) -> None:
        task = exchange.loop.create_task(work)
        exchange.reply.add_done_callback(lambda _: task.cancel())

    def _call(
        self,
        exchange: Exchange[bytes],
        api: BoundApi,
        target: bytes,
        headers: Headers,
        body: bytes,
        routed: RoutedCall | None,
    ) -> None:
        method = b"POST" if routed is None else b"HEAD" if routed.head else routed.method
        context = HandedContext(RequestHead(method, target, headers, NOBODY))
        heading, refused = _heading(headers, context)
        format = content_format(heading.content_type)
        if format is Format.BY_URL:  # which only a worker of the entry sends
            format = Format.RAW
        query = target.partition(b"?")[2]
        if routed is not None:
            query = routed.query(query, headers)
        refused = refused or heading.problem(api, format, len(body), query, routed)
        if refused is not None:
            self._refuse(exchange, refused, context.request_id)
            return
        context.deadline_ns = earliest(context.deadline_ns, shortest(heading.timeout, api.timeout))
        upload = None
        if api.signature.input_stream is not None:
            upload = _whole(body) if exchange.upload is None else exchange.upload_pieces()
            body = query
        elif routed is not None and routed.by_url:
            kind = (format or Format.JSON).value if routed.has_body else Format.JSON.value
            if kind == Format.RAW.value:
                kind = heading.content_type or kind
            body = whole(routed.method, kind, query, body)
            format = Format.BY_URL
        if routed is not None and routed.head and api.signature.stream:
            head = [(CONTENT_TYPE, api.streams(heading.accept).content_type)]
            # what it would stream is not made
            exchange.loop.call_soon(exchange.answered, 200, head, b"")
            return
        stream = api.streams(heading.accept) if api.signature.stream else None
        if isinstance(stream, MediaFormat):
            accept: AnswerFormat = stream
        elif stream is not None:
            accept = item_format(heading.accept)
        else:
            accept = api.accepts(heading.accept)
        request = LocalRequest(
            api.plan.name,
            context,
            body,
            format or Format.JSON,
            accept,
            stream,
            MADE,
            heading.content_type or b"",
            query,
        )
        if upload is not None and is_multipart(heading.content_type):
            self._begin(exchange, self._begin_form(exchange, api, request, upload))
        else:
            self.node.submit(LocalCall(request, exchange, upload))

    async def _begin_form(
        self,
        exchange: Exchange[bytes],
        api: BoundApi,
        request: LocalRequest,
        upload: AsyncIterator[bytes],
    ) -> None:
        """Execute a request whose body is a form, when the file in it begins."""
        try:
            file = await begin_form(api, request.media_type, request.query, upload)
        except CallError as exc:
            self._refuse(exchange, exc, request.context.request_id)
        except ConnectionError:  # the exchange has ended with what was raised
            pass
        else:
            self.node.submit(LocalCall(request, exchange, file))

    async def _gather(
        self,
        exchange: Exchange[bytes],
        api: BoundApi,
        target: bytes,
        headers: Headers,
        routed: RoutedCall | None,
    ) -> None:
        """Execute a request whose body comes in pieces, when all of it is here."""
        try:
            body = b"".join([piece async for piece in exchange.upload_pieces()])
        except ConnectionError:  # the exchange has ended with what was raised
            return
        self._call(exchange, api, target, headers, body, routed)

    async def _ask(self, exchange: Exchange[bytes], method: bytes, target: bytes) -> None:
        messages: list[Message] = []

        async def send(message: Message) -> None:
            messages.append(message)

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        path = target.partition(b"?")[0].decode("latin-1")
        await self.app(
            {"type": "http", "method": method.decode("latin-1"), "path": path}, receive, send
        )
        start, body = messages
        exchange.answered(
            start["status"], start["headers"], b"" if method == b"HEAD" else body["body"]
        )


def _heading(
    headers: list[tuple[bytes, bytes]], context: CallContext
) -> tuple[RequestHeaders, CallError | None]:
    try:
        return RequestHeaders(headers, context, MADE), None
    except RequestRefused as exc:
        return RequestHeaders([], context, MADE), exc.problem


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body
