"""The HTTP protocol of a worker: uvicorn's, with a direct way for `POST /<api>`. Runs in workers.

What is not an API (health, documents, pages, what does not exist) goes uvicorn's own way to the ASGI application.
A lost connection cancels the call from the protocol's callback; no task watches for it.
"""

from __future__ import annotations

import math
import re
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from graphserve.call.context import CallContext, earliest
from graphserve.call.request import new_request_id
from graphserve.errors import CallError, InvalidArguments
from graphserve.worker.execute import BoundApi, Execution
from graphserve.worker.gate import left
from graphserve.worker.listener import Listener
from graphserve.worker.respond import access
from graphserve.wire.codec import Format, MalformedBody, accept_format, content_format
from graphserve.wire.problem import HttpProblem

LINGER = 2.0  # seconds that a refused body is read and thrown away, so the client sees the answer and no reset
HEADERS_TIMEOUT = 5.0  # seconds from accept to complete headers at a shared socket, where a slot is held meanwhile
_ID = re.compile(rb"[\x21-\x7e]{1,128}\Z")


class Protocol(HttpToolsProtocol):
    """One connection.

    Args:
        listener: where it was accepted.
        slot: whether a slot of the gate was taken for it.
    """

    def __init__(self, listener: Listener, slot: bool = False) -> None:
        super().__init__(listener.config, listener.state, {}, _loop=listener.loop)
        self.listener = listener
        self.slot = slot
        self.refused = False

    # --- asyncio ---

    def connection_made(self, transport: Any) -> None:
        """asyncio callback."""
        super().connection_made(transport)
        if self.slot:
            self.loop.call_later(HEADERS_TIMEOUT, self._give_up_waiting)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio callback."""
        cycle = self.cycle
        super().connection_lost(exc)
        for waiting, _ in [(cycle, None), *self.pipeline]:
            if isinstance(waiting, Inbound):
                waiting.abandon()
        self._give_back()

    def data_received(self, data: bytes) -> None:
        """asyncio callback."""
        if not self.refused:
            super().data_received(data)

    # --- uvicorn ---

    def on_headers_complete(self) -> None:  # type: ignore[override]
        """Parser callback: take the direct way, or uvicorn's."""
        api = self.listener.route(self.url) if self.parser.get_method() == b"POST" else None
        if api is None:
            super().on_headers_complete()
            if self.slot:
                self.cycle.keep_alive = False
            return
        inbound = Inbound(self, api)
        before, self.cycle = self.cycle, inbound  # type: ignore[assignment]
        if before is None or before.response_complete:
            inbound.begin()
        else:  # pipelined
            self.flow.pause_reading()
            self.pipeline.appendleft((inbound, None))  # type: ignore[arg-type]
        inbound.headers_complete(self.headers)

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
        if isinstance(self.cycle, Inbound):
            self.cycle.message_complete()
        else:
            super().on_message_complete()

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

    def refuse(self) -> None:
        """Throw away what still comes, and close soon: the body that comes will not be read."""
        self.refused = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER, self.transport.close)
        else:
            self.transport.close()

    def take_slot(self) -> bool:
        """The connection's slot for a call, or a free one."""
        if self.slot:
            self.slot = False
            return True
        return self.listener.gate.take()

    def caller_left(self) -> bool:
        """Whether the other side has closed its end, though its request came whole."""
        return left(self.transport.get_extra_info("socket"))

    def _give_up_waiting(self) -> None:
        if self.slot and self.cycle is None:
            self.transport.close()

    def _give_back(self) -> None:
        if self.slot:
            self.slot = False
            self.listener.gate.release()


class Inbound:
    """One request to one API; stands where uvicorn has its request cycle, with the same attributes."""

    __slots__ = (
        "_accept", "_api", "_body", "_complete", "_context", "_deadline_ns", "_execution", "_format", "_limit", "_length",
        "_lost", "_problem", "_protocol", "_relay", "_started", "_turn", "disconnected", "keep_alive", "message_event",
        "response_complete",
    )  # fmt: skip

    def __init__(self, protocol: Protocol, api: BoundApi) -> None:
        self._protocol, self._api = protocol, api
        self.response_complete = self.disconnected = False
        self.message_event = _NO_EVENT
        parser = protocol.parser
        # The shared socket carries one request a connection: the slot was taken for the connection.
        self.keep_alive = parser.should_keep_alive() and parser.get_http_version() != "1.0" and not protocol.slot
        self._body: list[bytes] = []
        self._length = 0
        self._limit = protocol.listener.max_body_size
        self._complete = self._turn = self._lost = False
        self._problem: BaseException | None = None
        self._execution: Execution | None = None
        self._relay: Any = None
        self._context = CallContext()
        self._started = 0.0

    # --- reading ---

    def headers_complete(self, headers: list[tuple[bytes, bytes]]) -> None:
        """All headers are here: decide what can be decided."""
        listener, context = self._protocol.listener, self._context
        content_type = accept = timeout = None
        expects = False
        for name, value in headers:
            if name == b"content-type":
                content_type = value
            elif name == b"accept":
                accept = value
            elif name == b"x-request-id":
                context.request_id = value if _ID.match(value) else b""
            elif name == b"x-graphserve-deadline":
                if not listener.public:
                    context.deadline_ns = int(value)
            elif name == b"x-request-timeout":
                timeout = value
            elif name == b"content-length":
                self._check_length(int(value))
            elif name == b"traceparent":
                context.traceparent = value
            elif name == b"tracestate":
                context.tracestate = value
            elif name == b"expect":
                expects = value.lower() == b"100-continue"
        context.request_id = context.request_id or new_request_id()
        self._format, self._accept = content_format(content_type), accept_format(accept)
        self._check_format(content_type)
        self._set_deadline(timeout)
        if listener.access_log:
            self._started = time.perf_counter()
        if self._problem is not None and not self._complete:
            self._refuse()
        elif expects:
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def body_received(self, chunk: bytes) -> None:
        """A part of the body is here."""
        if self.response_complete:
            return
        self._length += len(chunk)
        if self._length > self._limit:
            self._check_length(self._length)
            self._refuse()
            return
        self._body.append(chunk)

    def message_complete(self) -> None:
        """The whole request is here."""
        if self.response_complete:
            return
        self._complete = True
        if self._turn:
            self._execute()

    def begin(self) -> None:
        """It is this request's turn on its connection."""
        self._turn = True
        if self._problem is not None and not self._complete:
            self._refuse()
        elif self._complete:
            self._execute()

    def _check_length(self, length: int) -> None:
        if length > self._limit:
            self._problem = HttpProblem(413, f"the body is larger than {self._limit} bytes, which --max-body-size allows")

    def _check_format(self, content_type: bytes | None) -> None:
        if self._format is None or (self._format is Format.RAW and not self._api.signature.raw_body):
            self._problem = self._problem or HttpProblem(415, _wrong_type(self._api, content_type or b""))

    def _set_deadline(self, timeout: bytes | None) -> None:
        seconds = None
        if timeout is not None:
            try:
                seconds = float(timeout)
            except ValueError:
                seconds = math.nan
            if not 0 < seconds < 1e9:
                self._problem = self._problem or HttpProblem(400, "X-Request-Timeout is a number of seconds above 0")
                return
        self._context.deadline_ns = earliest(self._context.deadline_ns, (seconds, self._api.timeout))

    # --- executing ---

    def _execute(self) -> None:
        protocol, api = self._protocol, self._api
        if self._problem is not None:
            self._fail(self._problem)
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if protocol.slot and protocol.caller_left():
            protocol.transport.close()
            return
        if api.plan.lane == "queue" and not protocol.take_slot():
            self._pass_on(body)
            return
        self._body = []
        try:
            assert self._format is not None
            arguments = api.arguments.decode(body, self._format, protocol.listener.fetch)
        except MalformedBody as exc:
            named = "JSON" if self._format is Format.JSON else "MessagePack"
            self._reject(HttpProblem(400, f"the body is not valid {named}: {exc}"))
        except InvalidArguments as exc:
            self._reject(exc)
        except Exception as exc:
            self._fail(exc)
            self._freed()
        else:
            self._execution = protocol.listener.executor.start(api, arguments, self._context, self._ended, self._freed)

    def _reject(self, refusal: CallError) -> None:
        self._fail_quietly(refusal)
        self._freed()

    def _pass_on(self, body: bytes) -> None:
        """Every slot is taken: the node's queue takes the call, and a free sibling takes it from there."""
        listener = self._protocol.listener
        self._relay = listener.relay(self._api, body, self._format, self._accept, self._context)
        self._relay.add_done_callback(self._relayed)

    def _relayed(self, reply: Any) -> None:
        if self._lost or reply.cancelled():
            return
        if (error := reply.exception()) is not None:
            self._fail(error)
            return
        status, headers, body = reply.result()
        responder = self._protocol.listener.responder
        if status == 200:
            self._write(responder.result(body, self._accept, self._context.request_id, self.keep_alive), 200)
        else:
            self._fail_quietly(self._protocol.listener.error_of(status, headers, body))

    def _ended(self, result: Any, error: BaseException | None) -> None:
        if error is None:
            try:
                body = self._api.result.encode(result, self._accept, self._protocol.listener.place)
            except Exception as exc:
                error = exc
            else:
                responder = self._protocol.listener.responder
                self._write(responder.result(body, self._accept, self._context.request_id, self.keep_alive), 200)
                return
        self._fail(error)

    def _freed(self) -> None:
        self._execution = None
        if self._api.plan.lane == "queue":
            self._protocol.listener.gate.release()

    # --- answering ---

    def abandon(self) -> None:
        """The client went away: everything below is cancelled."""
        self._lost = True
        if self._execution is not None:
            self._execution.cancel()
        if self._relay is not None:
            self._relay.cancel()

    def _refuse(self) -> None:
        """Answer before the body is read; the connection cannot go on, since nobody will read the rest."""
        if not self._turn or self.response_complete:
            return
        assert self._problem is not None
        self.keep_alive = False
        self._send_problem(self._problem, close=False)
        self._protocol.refuse()

    def _fail(self, exc: BaseException) -> None:
        self._send_problem(exc)

    def _fail_quietly(self, exc: CallError) -> None:
        status, data = self._protocol.listener.responder.problem(exc, self._context, self.keep_alive)
        self._write(data, status)

    def _send_problem(self, exc: BaseException, close: bool = True) -> None:
        responder = self._protocol.listener.responder
        status, data = responder.error(exc, self._context, self.keep_alive, self._api.plan.name)
        self._write(data, status, close)

    def _write(self, data: bytes, status: int, close: bool = True) -> None:
        if self._lost:
            return
        protocol = self._protocol
        self.response_complete = True
        protocol.transport.write(data)
        if protocol.listener.access_log:
            access(self._api.plan.route, status, self._context.request_id, time.perf_counter() - self._started, protocol.client)
        if not self.keep_alive and close:
            protocol.transport.close()
        protocol.on_response_complete()


def _wrong_type(api: BoundApi, content_type: bytes) -> str:
    named = content_type.decode("latin-1")
    said = f"{api.plan.route} takes application/json or application/msgpack in UTF-8, not {named!r}"
    if named.startswith("application/x-www-form-urlencoded"):  # what `curl -d` says unless it is told otherwise
        said += ": with curl, add -H 'Content-Type: application/json' or use --json"
    return said


class _NoEvent:
    def set(self) -> None:
        """uvicorn sets an event that only ASGI cycles have."""


_NO_EVENT: Any = _NoEvent()
