"""The access log: a line for each answer, and for each request whose client did not wait for one.

Runs in workers.

A refusal is an answer, of whatever came. Health is not logged: probes would be most of it.
"""

from __future__ import annotations

import re
import time

from graphserve.call.context import CallContext
from graphserve.call.request_head import Address
from graphserve.logs import records
from graphserve.wire.headers import REQUEST_ID, TRACEPARENT
from graphserve.worker.http.asgi import AsgiApp, Message, Receive, Scope, Send
from graphserve.worker.http.transport import Writer

HEALTH = ("/livez", "/readyz")
HEALTH_PATHS = tuple(path.encode() for path in HEALTH)  # as they come
CAME = "graphserve.path"  # in the scope: the path as it came, in bytes
LONGEST = 200  # bytes of a path that are shown
LOGGER = "graphserve.access"
_BODY = b"\r\n\r\n"  # before it
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-")


def log_answer(
    method: str,
    path: str,
    status: int,
    request_id: bytes,
    seconds: float,
    client: Address | None,
    *,
    route: str | None = None,
    traceparent: bytes | None = None,
    queued: float | None = None,
    bytes_in: int | None = None,
    bytes_out: int | None = None,
) -> None:
    """Write the line of one answer.

    Args:
        method: of the request; `-` if it did not come.
        path: likewise, in a form for the log.
        status: of the answer.
        request_id: its id.
        seconds: from the beginning of the request to the answer.
        client: who asked.
        route: the path as its API declares it; None if it is for no API.
        traceparent: the W3C trace context, as it came.
        queued: seconds from its beginning to that of its execution; None if it was not executed
            here.
        bytes_in: of the body that came.
        bytes_out: of the body that was answered, chunk sizes included.
    """
    took = round(seconds * 1e3, 3)
    trace = _TRACEPARENT.match(traceparent or b"")
    fields = {
        "request_id": request_id.decode("latin-1"),
        "trace_id": trace[1].decode() if trace is not None else None,
        "method": method,
        "path": path,
        "route": route,
        "status": status,
        "ms": took,
        "queue_ms": None if queued is None else round(queued * 1e3, 3),
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
        "client": client,
    }
    records.note(LOGGER, "info", f"{method} {path} {status} {took:.1f} ms", fields=fields)


def shown(path: bytes) -> str:
    """Return a path as it came, on one line: no escape becomes a line end."""
    return path[:LONGEST].decode("ascii", "backslashreplace")


def body_length(answer: bytes) -> int:
    """Return how many bytes an answer has behind its head; 0 if there is no answer."""
    return max(0, len(answer) - answer.find(_BODY) - len(_BODY))


class CountingWriter:
    """Writes an answer that goes in pieces, and counts the bytes of its body.

    Args:
        transport: where it goes.
        context: of its call, which keeps the number.
    """

    def __init__(self, transport: Writer, context: CallContext) -> None:
        self._transport = transport
        self._context = context

    def write(self, data: bytes) -> None:
        """Send these bytes; the first ones have the head."""
        sent = self._context.sent
        self._context.sent = body_length(data) if sent is None else sent + len(data)
        self._transport.write(data)

    def close(self) -> None:
        """Close the connection when all is sent."""
        self._transport.close()


class AccessLog:
    """Logs each answer of the application that is for no API.

    Args:
        app: what answers.
    """

    def __init__(self, app: AsgiApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does, and log it unless it was health (ASGI, `http` scopes)."""
        path: bytes = scope[CAME]
        if scope["path"].removeprefix(scope.get("root_path", "")) in HEALTH:
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        answer = _AsgiAnswer()

        async def counted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                answer.bytes_in += len(message.get("body", b""))
            return message

        async def noting(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.request_id = dict(message.get("headers", ())).get(REQUEST_ID, b"")
            elif message["type"] == "http.response.body":
                answer.bytes_out += len(message.get("body", b""))

        try:
            await self.app(scope, counted, noting)
        finally:
            if answer.status:
                log_answer(
                    scope["method"],
                    shown(path),
                    answer.status,
                    answer.request_id,
                    time.perf_counter() - began,
                    scope["client"],
                    traceparent=dict(scope["headers"]).get(TRACEPARENT),
                    bytes_in=answer.bytes_in,
                    bytes_out=answer.bytes_out,
                )


class _AsgiAnswer:
    """What is known of an answer so far."""

    def __init__(self) -> None:
        self.status = 0
        self.request_id = b""
        self.bytes_in = 0
        self.bytes_out = 0
