"""The HTTP protocol of a worker: uvicorn's, with a direct way for `POST /<api>`. Runs in workers.

What is not an API (health, documents, pages, what does not exist) goes uvicorn's own way to the ASGI application.
A lost connection cancels the call from the protocol's callback; no task watches for it.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from graphserve.call.alarms import alarm
from graphserve.worker.admission import Admission
from graphserve.worker.gate import has_sent, left
from graphserve.worker.inbound import Inbound
from graphserve.worker.journal import CAME, CLIENT_LEFT, log_request
from graphserve.worker.listener import Listener

LINGER = 2.0  # seconds that a refused body is read and thrown away, so the client sees the answer and no reset
HEADERS_TIMEOUT = 5.0  # seconds from accept to complete headers at a shared socket, where a slot is held meanwhile


class Protocol(HttpToolsProtocol):
    """One connection.

    Args:
        listener: where it was accepted.
        admission: what it holds at the gate, if it came by a shared socket.
        first: what was read of it already.
    """

    parser: Any  # there until the connection is lost

    def __init__(self, listener: Listener, admission: Admission | None = None, first: bytes = b"") -> None:
        super().__init__(listener.config, listener.state, {}, _loop=listener.loop)
        self.listener = listener
        self.admission = admission or Admission(listener.gate)
        self._shared, self._first = admission is not None, first
        self.refused = False
        self._parsing = False  # whether the parser is inside a request
        self.idle_since = listener.now
        self.first: Any = None  # the request in progress, when others wait behind it

    # --- asyncio ---

    def connection_made(self, transport: Any) -> None:
        """asyncio callback."""
        super().connection_made(transport)
        if self._shared:
            alarm(self.loop, HEADERS_TIMEOUT, self._give_up_waiting)
        if self._first:
            first, self._first = self._first, b""
            self.data_received(first)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio callback."""
        under_way = [self.first, *(cycle for cycle, _ in self.pipeline)] if self.pipeline else [self.cycle]
        super().connection_lost(exc)
        for cycle in under_way:
            if isinstance(cycle, Inbound):
                cycle.abandon()
                if self.listener.access_log and not cycle.response_complete:
                    log_request(cycle, CLIENT_LEFT)
        self.admission.give_back()

    def data_received(self, data: bytes) -> None:
        """asyncio callback."""
        if self.refused:
            return
        prepared = self.listener.prepared
        if prepared is not None and not self._parsing and self.idle and (request := prepared.read(data)) is not None:
            api, context, body = request
            inbound = Inbound(self, api, not self._shared)
            self.cycle = inbound  # type: ignore[assignment]
            inbound.take(context, body)
        else:
            super().data_received(data)

    # --- uvicorn ---

    def on_message_begin(self) -> None:
        """Parser callback; what only the ASGI application needs is made in `to_application`."""
        self._parsing = True
        self.url, self.headers = b"", []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser callback."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Parser callback: take the direct way, or uvicorn's."""
        parser = self.parser
        api = self.listener.route(self.url) if parser.get_method() == b"POST" else None
        if api is None:
            self.to_application()
            return
        # A shared socket carries one request a connection: the slot was taken for the connection.
        old = parser.get_http_version() == "1.0"
        inbound = Inbound(self, api, parser.should_keep_alive() and not old and not self._shared, old=old)
        if self.listener.clients is not None:
            inbound.client = self.listener.clients.of(self.client, self.headers)
        before, self.cycle = self.cycle, inbound  # type: ignore[assignment]
        if before is None or before.response_complete:
            inbound.begin()
        else:  # pipelined
            self.flow.pause_reading()
            self.first = self.first if self.pipeline else before
            self.pipeline.appendleft((inbound, None))  # type: ignore[arg-type]
        inbound.headers_complete(self.headers)

    def to_application(self) -> None:
        """Hand a request to the application that is for no API; it reads no body, so no client is told to go on."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        # uvicorn puts the prefix on every path, and takes all escapes for what they stand for: of a slash, it is told
        # the escape of its escape.
        path, mark, query = url.partition(b"?")
        self.url = self.listener.path(url).replace(b"%2F", b"%252F") + mark + query
        self.headers[:] = headers
        scope: Any = self.scope
        scope[CAME] = path
        before, waiting = self.cycle, bool(self.pipeline)
        super().on_headers_complete()
        if self.pipeline and not waiting:
            self.first = before
        if self._shared:
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, Inbound):
            cycle.begin()
        else:
            super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Parser callback."""
        if isinstance(self.cycle, Inbound):
            self.cycle.body_received(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Parser callback."""
        self._parsing = False
        if isinstance(self.cycle, Inbound):
            self.cycle.message_complete()
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is complete: the next request may come. The listener closes what is idle for too long."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self.first, app = self.pipeline.pop()
            self._start_asgi_task(self.first, app)
        else:
            self.idle_since = self.listener.now

    def shutdown(self) -> None:
        """Close if idle, else after the answer."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    # --- ours ---

    @property
    def idle(self) -> bool:
        """Whether no request is in progress."""
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    @property
    def at_rest(self) -> bool:
        """Whether no request is in progress, and none has come that the loop has yet to read.

        While a client takes no answers nothing is read of it, and nothing asked: it may be closed.
        """
        if not self.idle or self.transport.is_closing() or self.flow.read_paused:
            return self.idle
        return not has_sent(self.transport.get_extra_info("socket"))

    def refuse(self) -> None:
        """Throw away what still comes, and close soon: the body that comes will not be read."""
        self.refused = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():  # not with TLS
            self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)

    def caller_left(self) -> bool:
        """Whether the other side has closed its end, though its request came whole."""
        return left(self.transport.get_extra_info("socket"))

    def _give_up_waiting(self) -> None:
        if self.admission.held and self.cycle is None:
            self.transport.close()
