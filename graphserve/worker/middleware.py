"""Middleware around everything at the port: `@service(middleware=[Middleware(...)])`. Runs in
entry workers.

Without middleware a connection executes its calls itself. With middleware each request goes
through it as a request to an application, and `PortApp` stands in the middle: what is for an API
is executed as it ever is, by an `HttpRequest` whose connection is a `MiddlewareConnection`, which
makes ASGI messages of what that writes. Probes (`/livez`, `/readyz`) are answered before any
middleware.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import quote, unquote

from graphserve.call.request_head import RequestHead
from graphserve.errors import StartupError
from graphserve.logs.exception_text import described
from graphserve.logs.tracebacks import formatted
from graphserve.wire.headers import CONNECTION, TRANSFER_ENCODING, Headers
from graphserve.wire.trust import PUBLIC
from graphserve.worker.dispatch.slots import Permit
from graphserve.worker.http.access_log import HEALTH
from graphserve.worker.http.asgi import (
    CUT,
    REQUEST_HEAD,
    SCOPE_PRINCIPAL,
    AsgiApp,
    Message,
    Receive,
    Scope,
    Send,
    send_problem,
)
from graphserve.worker.http.contexts import HandedContext
from graphserve.worker.http.request import HttpRequest
from graphserve.worker.http.strict import RequestRefused
from graphserve.worker.http.transport import FlowControl
from graphserve.worker.stream.request_body import RequestBody

if TYPE_CHECKING:
    from graphserve.worker.dispatch.executor import BoundApi
    from graphserve.worker.http.listener import Listener
    from graphserve.worker.http.routing import RoutedCall

SOCKET = "graphserve.socket"  # in the scope: the name of the WebSocket that it is for
HIGH_BYTES = 64 * 1024  # of an answer that wait for the middleware, before who makes it waits
_DATE = b"date"
_VARY = b"vary"
_HEAD_END = b"\r\n\r\n"
_LINE_END = b"\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class DeclaredMiddleware(Protocol):
    """What `Middleware(...)` of Starlette makes."""

    @property
    def cls(self) -> object:
        """Return what makes the middleware."""
        ...

    @property
    def args(self) -> Sequence[object]:
        """Return its arguments behind the application."""
        ...

    @property
    def kwargs(self) -> Mapping[str, object]:
        """Return its arguments by name."""
        ...


def stack(declared: Sequence[object], innermost: AsgiApp, node: str) -> AsgiApp:
    """Return an application inside of middleware, the first one outermost.

    Args:
        declared: what `@service(middleware=…)` was given.
        innermost: what answers.
        node: the node's name, for messages.

    Raises:
        StartupError: one cannot be made.
    """
    app: AsgiApp = innermost
    for each in reversed(cast("Sequence[DeclaredMiddleware]", declared)):
        make = each.cls
        assert callable(make)
        try:
            app = make(app, *each.args, **each.kwargs)
        except BaseException as exc:  # user code may raise anything
            name = getattr(make, "__qualname__", repr(make))
            said = f"{node}: the middleware {name} raised {described(exc)}"
            raise StartupError(said, node, formatted(exc)) from exc
    return _Probes(app, innermost)


class _Probes:
    """Answers probes before any middleware: they ask this process, and nothing may hold them up."""

    def __init__(self, app: AsgiApp, innermost: AsgiApp) -> None:
        self._app = app
        self._innermost = innermost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        inside = scope["type"] == "http" and path in HEALTH and scope["method"] in ("GET", "HEAD")
        await (self._innermost if inside else self._app)(scope, receive, send)


class SocketByName:
    """Says for which WebSocket a client asks, and hands it to the middleware.

    Args:
        app: with the middleware around it.
        name: of the WebSocket.
    """

    def __init__(self, app: AsgiApp, name: str) -> None:
        self._app = app
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a client's WebSocket go through the middleware (ASGI, for `websocket` scopes)."""
        await self._app({**scope, SOCKET: self._name}, receive, send)


class PortApp:
    """What middleware is around: executes APIs, runs WebSockets, and has the application answer all
    else.

    Args:
        app: the application of health, pages and mounts.
        sockets: what runs each WebSocket, by its name.
    """

    def __init__(self, app: AsgiApp, sockets: Mapping[str, AsgiApp]) -> None:
        self._app = app
        self._sockets = sockets
        self.listener: Listener | None = None  # of the port, from when it listens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI, for `http` and `websocket` scopes)."""
        if scope["type"] == "websocket":
            await self._sockets[scope[SOCKET]](scope, receive, send)
            return
        listener = self.listener
        assert listener is not None
        method = scope["method"].encode("latin-1")
        url = _target(scope)
        api = listener.route(url) if method == b"POST" else None
        routed = None
        if api is None:
            routed = listener.find(method, url)
            if routed is None:
                await self._app(scope, receive, send)
                return
            api = routed.api
        await _execute(listener, api, routed, method, url, scope, receive, send)


def _target(scope: Scope) -> bytes:
    """Return path and query, as they came unless some middleware has changed them."""
    raw: bytes = scope["raw_path"]
    if unquote(raw.replace(b"%2F", b"%252F").decode("ascii")) != scope["path"]:
        raw = quote(scope["path"], safe="/!$&'()*+,;=:@-._~").encode("ascii")
    query: bytes = scope["query_string"]
    return raw + b"?" + query if query else raw


async def _execute(
    listener: Listener,
    api: BoundApi,
    routed: RoutedCall | None,
    method: bytes,
    url: bytes,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Execute a call of an API, and send its answer."""
    headers: Headers = [(name.lower(), value) for name, value in scope["headers"]]
    came: RequestHead = scope[REQUEST_HEAD]
    head = RequestHead(method, url, headers, came.sender)
    context = HandedContext(head, scope[SCOPE_PRINCIPAL])
    connection = MiddlewareConnection(listener)
    request = HttpRequest(connection, api, True, context, is_next=True, routed=routed)
    body = None
    if api.signature.input_stream is not None or api.signature.spools:
        body = RequestBody(connection.flow, connection.caller_left, connection.abort)
    try:
        request.headers_complete(headers, url.partition(b"?")[2], body)
    except RequestRefused as exc:
        await send_problem(send, exc.problem, listener.responder.node)
        return
    reading = asyncio.get_running_loop().create_task(_read(request, connection, receive))
    try:
        await connection.pump(send, scope[CUT])
    finally:
        if not request.response_complete:
            connection.lose()
            request.abandon()
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading


async def _read(request: HttpRequest, connection: MiddlewareConnection, receive: Receive) -> None:
    """Give the request its body as it comes; behind that, wait for its client to leave."""
    try:
        await _receive(request, connection, receive)
    finally:  # it has left, or some middleware failed
        if not request.response_complete:
            connection.lose()
            request.abandon()


async def _receive(
    request: HttpRequest, connection: MiddlewareConnection, receive: Receive
) -> None:
    more = True
    # (of a request that was refused by its head, nobody asks for the body)
    while not request.response_complete:
        await connection.flow.readable.wait()
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not more:
            continue
        if (chunk := message.get("body", b"")) and not request.response_complete:
            request.body_received(chunk)
        more = message.get("more_body", False)
        if not more:
            request.message_complete()


class PulledFlow(FlowControl):
    """Holds back what is pulled and not pushed: the body comes when it is asked for."""

    def __init__(self) -> None:
        self.readable = asyncio.Event()
        self.readable.set()
        self._writable = asyncio.Event()
        self._writable.set()
        self.read_paused = False
        self.write_paused = False

    def pause_reading(self) -> None:
        """Ask for no more of the body."""
        self.read_paused = True
        self.readable.clear()

    def resume_reading(self) -> None:
        """Ask for more of the body again."""
        self.read_paused = False
        self.readable.set()


class MiddlewareConnection:
    """A connection as a request knows it, that is none: what is written becomes ASGI messages.

    Args:
        listener: of the port.
    """

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.permit = Permit(listener.slots)
        self.trust = PUBLIC
        self.flow = PulledFlow()
        self._lost = False
        # the answer
        self._messages: deque[Message] = deque()
        self._waiting = 0  # bytes of bodies in there
        self._news = asyncio.Event()
        self._begun = False
        self._chunked = False
        self._whole = False  # whether the last chunk was written, if there are chunks
        self._over = False

    # --- what its request needs ---

    @property
    def transport(self) -> MiddlewareConnection:
        """Return what its request writes to: this connection."""
        return self

    def caller_left(self) -> bool:
        """Return whether the client is gone."""
        return self._lost

    def end(self, *, unread: bool) -> None:
        """Do nothing: the connection under the middleware sees to its own end."""

    def close(self) -> None:
        """Do nothing: whether the connection goes on, is not for one call to say here."""

    def abort(self) -> None:
        """End the answer: its client is gone."""
        self.lose()

    def lose(self) -> None:
        """Note that nobody takes the answer."""
        self._lost = True
        self._over = True
        self.flow.resume_writing()
        self._news.set()

    def on_response_complete(self) -> None:
        """Note that the answer is complete."""
        self._over = True
        self._news.set()

    def write(self, data: bytes) -> None:
        """Take a part of the answer: first its head, then its body, in whole chunks if it is in
        chunks.
        """
        if not self._begun:
            head, _, data = data.partition(_HEAD_END)
            if head.startswith(b"HTTP/1.1 100"):
                return  # whoever reads the body says that it is wanted
            self._begun = True
            self._begin(head)
        for part in self._parts(data) if self._chunked else (data,):
            if part:
                self._waiting += len(part)
                self._messages.append(
                    {"type": "http.response.body", "body": part, "more_body": True}
                )
        if self._waiting > HIGH_BYTES:
            self.flow.pause_writing()
        self._news.set()

    def _begin(self, head: bytes) -> None:
        line, *lines = head.split(_LINE_END)
        fields = [(name, value) for name, _, value in (each.partition(b": ") for each in lines)]
        self._chunked = any(name == TRANSFER_ENCODING for name, _ in fields)
        own = (CONNECTION, TRANSFER_ENCODING, _DATE)  # of the connection, which says them itself
        common = self.listener.cors.always if self.listener.cors is not None else []
        self._messages.append(
            {
                "type": "http.response.start",
                "status": int(line.split(b" ", 2)[1]),
                "headers": [
                    field for field in fields if field[0] not in own and field not in common
                ],
            }
        )

    def _parts(self, data: bytes) -> list[bytes]:
        """Return what is in the chunks of a part of an answer."""
        parts, at = [], 0
        while at < len(data):
            if data.startswith(_LAST_CHUNK, at):
                self._whole = True
                break
            end = data.index(_LINE_END, at)
            size = int(data[at:end], 16)
            begin = end + len(_LINE_END)
            parts.append(data[begin : begin + size])
            at = begin + size + len(_LINE_END)
        return parts

    # --- what sends it ---

    async def pump(self, send: Send, cut: list[bool]) -> None:
        """Send the answer, until it is complete or nobody takes it.

        Args:
            send: takes its messages.
            cut: told if it broke off; middleware has no way to pass that on.
        """
        while True:
            while self._messages:
                message = self._messages.popleft()
                size = len(message.get("body", b""))
                await send(message)  # (middleware may change it: `GZipMiddleware` does)
                self._waiting -= size
                if self._waiting <= HIGH_BYTES // 4:
                    self.flow.resume_writing()
            if self._over:
                break
            self._news.clear()
            await self._news.wait()
        if self._lost:
            return
        if self._chunked and not self._whole:
            cut.append(True)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
