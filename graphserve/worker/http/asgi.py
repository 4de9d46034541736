"""One request to the ASGI application: health, documents and pages, what is mounted, and what does
not exist.

Runs in workers.

Only what is mounted reads bodies: what a client sends with any other request is read from the
connection and thrown away, so the application is told of an empty body.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from graphserve.call.request import new_request_id
from graphserve.errors import CallError
from graphserve.logs import records
from graphserve.metrics.layout import CLIENT_LEFT
from graphserve.metrics.recorder import RequestSeries
from graphserve.wire import problem
from graphserve.wire.headers import (
    CHUNKED,
    CLOSE,
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    INTERNAL_PREFIX,
    REQUEST_ID,
    TRANSFER_ENCODING,
)
from graphserve.wire.reason_phrases import phrase
from graphserve.worker.http.transport import FlowControl
from graphserve.worker.stream.request_body import RequestBody

Scope = dict[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# In the scope, for what is mounted:
REQUEST_HEAD = "graphserve.head"  # the head of the request
SCOPE_PRINCIPAL = "graphserve.principal"  # whose API key it came with
CALLS = "graphserve.calls"  # a list of contexts, which are left when the client is gone
CUT = "graphserve.cut"  # a list with something in it once the answer has broken off

LOGGER = "graphserve.port"
VERSIONS = {"version": "3.0", "spec_version": "2.3"}
_NO_NAME = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \t\\"]')
_NO_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_WITHOUT_BODY = frozenset({204, 304})


class EndConnection(Protocol):
    """Closes a connection behind its last answer."""

    def __call__(self, *, unread: bool) -> None:
        """Close it.

        Args:
            unread: whether a part of its request is still to come.
        """


class AsgiRequest:
    """A request that the application answers.

    Args:
        app: the application.
        scope: what it is told of the request.
        transport: where the answer is written.
        flow: says whether the client takes it.
        default_headers: stand in each answer.
        keep_alive: whether the connection stays open behind the answer.
        tasks: keep the task that answers, until it ends.
        on_complete: called when the answer is complete.
        end: closes the connection behind it.
        body: what comes of its body, if the application reads it.
        expects: whether the client waits to be told that its body is wanted.
        series: counts it; None: nothing does.
    """

    def __init__(
        self,
        app: AsgiApp,
        scope: Scope,
        transport: asyncio.Transport,
        flow: FlowControl,
        default_headers: list[tuple[bytes, bytes]],
        keep_alive: bool,
        tasks: set[asyncio.Task[None]],
        on_complete: Callable[[], None],
        end: EndConnection,
        body: RequestBody | None = None,
        *,
        expects: bool = False,
        series: RequestSeries | None = None,
    ) -> None:
        self.series = series
        self._came = time.perf_counter_ns() if series is not None else 0
        self._status = 0  # of the answer, once that has begun
        self.app = app
        self.scope = scope
        self._transport = transport
        self._flow = flow
        self._default_headers = default_headers
        self._tasks = tasks
        self._on_complete: Callable[[], None] | None = on_complete
        self._end = end
        # The request.
        # the body is complete, the answer is, or the client has left
        self._changed = asyncio.Event()
        self._more_body = True
        self._disconnected = False
        self._body = body
        self._reading = asyncio.Lock()  # one at a time reads the body
        self._body_read = False  # to its end
        self._expects = expects
        # The answer.
        self.keep_alive = keep_alive
        self.response_complete = False
        self._started = False
        self._chunked: bool | None = None
        self._left = 0  # bytes of the Content-Length that are still to come
        self._until_close = False  # whether the end of the connection ends the body

    def begin(self) -> None:
        """Have the application answer: the requests before this one have their answers."""
        task = asyncio.get_running_loop().create_task(self._run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def begun(self) -> bool:
        """Return whether a part of the answer is written."""
        return self._started

    @property
    def reads_body(self) -> bool:
        """Return whether the application reads the body, and may wait for more of it."""
        return self._body is not None and self._more_body

    def body_received(self, chunk: bytes) -> None:
        """Take a part of the body; behind the answer it is thrown away."""
        if self._body is not None and not self.response_complete:
            self._body.push(chunk)

    def message_complete(self) -> None:
        """Note that the whole request is here."""
        if self._body is not None:
            self._more_body = False
            self._body.end()
        elif not self.response_complete:
            self._more_body = False
            self._changed.set()

    def count(self, status: int) -> None:
        """Count how it has ended, which is done once."""
        series = self.series
        self.series = None
        if series is not None:
            series.end(status, time.perf_counter_ns() - self._came)

    def drop(self) -> None:
        """Answer it no more: another answer takes the place of its own."""
        self.disconnect()
        self.response_complete = True

    def close_after_answer(self) -> None:
        """Close the connection behind the answer."""
        self.keep_alive = False

    def disconnect(self) -> None:
        """Note that the connection is lost."""
        if not self.response_complete:
            self._disconnected = True
            self.count(CLIENT_LEFT)
            for context in self.scope.get(CALLS, ()):
                context.leave()
        if self._body is not None:
            self._body.fail()
        self._changed.set()

    # --- ASGI ---

    async def _run(self) -> None:
        try:
            await self.app(self.scope, self.receive, self.send)
        except BaseException as exc:  # whatever it is, the request is answered
            if not self._disconnected:
                path = self.scope["path"]
                records.note(LOGGER, "error", f"the application failed at {path}", exc)
                await self._end_badly()
        else:
            if not self.response_complete and not self._disconnected:
                records.note(
                    LOGGER, "error", f"the application did not answer {self.scope['path']}"
                )
                await self._end_badly()
        finally:
            self._on_complete = None

    async def _end_badly(self) -> None:
        if self._started:
            if not self.response_complete:
                self.count(self._status)
                self._transport.close()
            return
        text = b"Internal Server Error"
        headers = [
            (CONTENT_TYPE, b"text/plain; charset=utf-8"),
            (CONTENT_LENGTH, b"%d" % len(text)),
            (CONNECTION, b"close"),
        ]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": text})

    async def receive(self) -> Message:
        """Return the next part of the body, or that it is complete, once; then wait for the end of
        the answer or of the connection.
        """
        if self._body is not None and not self._body_read:
            async with self._reading:
                return await self._receive_body(self._body)
        if not self._disconnected and not self.response_complete:
            self._flow.resume_reading()
            await self._changed.wait()
            self._changed.clear()
        if self._disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": self._more_body}

    async def _receive_body(self, body: RequestBody) -> Message:
        if self._expects and not self._started and not self._disconnected:
            self._expects = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            chunk = await anext(body)
        except StopAsyncIteration:
            self._body_read = True
            return {"type": "http.request", "body": b"", "more_body": False}
        except ConnectionError:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(self, message: Message) -> None:
        """Write the head or a part of the body of the answer.

        Raises:
            RuntimeError: it is no message that ASGI allows here.
        """
        if self._flow.write_paused and not self._disconnected:
            await self._flow.drain()
        if self._disconnected:
            return
        expected = "http.response.body" if self._started else "http.response.start"
        if message["type"] != expected or self.response_complete:
            end = "nothing, since the answer is complete" if self.response_complete else expected
            raise RuntimeError(f"the application sent {message['type']!r} in place of {end}")
        if self._started:
            self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            self._started = True
            self._status = message["status"]
            self._send_head(message["status"], list(message.get("headers", ())))

    def _send_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        lines = [b"HTTP/1.1 %d %b\r\n" % (status, phrase(status).encode())]
        says_close = False
        for given, value in self._default_headers + headers:
            if _NO_NAME.search(given) or _NO_VALUE.search(value):
                raise RuntimeError(f"the application sent an invalid header: {given!r}")
            name = given.lower()
            if name == CONTENT_LENGTH and self._chunked is None:
                self._left = int(value)
                self._chunked = False
            elif name == TRANSFER_ENCODING and value.lower() == b"chunked":
                self._left = 0
                self._chunked = True
            elif name == CONNECTION and b"close" in [
                token.strip() for token in value.lower().split(b",")
            ]:
                self.keep_alive = False
                says_close = True
            lines.append(b"%b: %b\r\n" % (name, value))
        if self._chunked is None and self.scope["method"] != "HEAD" and status not in _WITHOUT_BODY:
            if self.scope["http_version"] == "1.0":  # which knows no chunks
                self._until_close = True
            else:
                self._chunked = True
                lines.append(CHUNKED)
        if self._until_close or self._expects:  # who was not told to go on may send it, or not
            self.keep_alive = False
        if not self.keep_alive and not says_close:
            lines.append(CLOSE)
        lines.append(b"\r\n")
        self._transport.write(b"".join(lines))

    def _send_body(self, body: bytes, more: bool) -> None:
        if not more:  # before it is sent: who has its answer finds it counted
            self.count(self._status)
        if not more and self.scope.get(CUT):  # the client is to see that it is not whole
            self.keep_alive = False
            self._left = 0
            if body:
                part = b"%x\r\n%b\r\n" % (len(body), body) if self._chunked else body
                self._transport.write(part)
        elif self.scope["method"] == "HEAD":
            self._left = 0
        elif self._chunked:
            part = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self._transport.write(part if more else part + b"0\r\n\r\n")
        elif self._until_close:
            self._transport.write(body)
        elif len(body) > self._left:
            raise RuntimeError("the answer of the application is longer than its Content-Length")
        else:
            self._left -= len(body)
            self._transport.write(body)
        if more:
            return
        if self._left:
            raise RuntimeError("the answer of the application is shorter than its Content-Length")
        self.response_complete = True
        self._changed.set()
        if self._body is not None:
            self._body.fail()
        if not self.keep_alive:
            self._end(unread=self._body is not None and self._more_body)
        if self._on_complete is not None:
            self._on_complete()


async def send_answer(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Send a whole answer; its length is added to the headers."""
    length = (CONTENT_LENGTH, b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def send_problem(send: Send, error: CallError, node: str) -> None:
    """Send an error as an answer of a node."""
    request_id = new_request_id()
    status, pairs, body = problem.encode(
        error, node=node, request_id=request_id.decode(), with_details=False
    )
    kept = [(name, value) for name, value in pairs if not name.startswith(INTERNAL_PREFIX)]
    await send_answer(send, status, [*kept, (REQUEST_ID, request_id)], body)
