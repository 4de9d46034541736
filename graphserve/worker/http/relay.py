"""Passing a call on to the node's own queue, where a free sibling takes it.

Runs in entry workers, fallback servers.

Public connections are kept alive by their clients and cannot be gated: a worker whose slots are
taken relays, and holds no slot for it. A fallback server relays every call, by the lane that it
has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from graphserve.call.exchange import ANY_RUNS, Exchange, Lane
from graphserve.call.lanes.of_process import Lanes
from graphserve.call.request import trail, travels
from graphserve.call.request_head import Fields
from graphserve.graph.plan import NodePlan
from graphserve.loop.reply import Reply
from graphserve.wire import formats
from graphserve.wire.formats import AnswerFormat, Format, MediaFormat
from graphserve.wire.headers import ANSWER, CHUNKED, CLOSE, CONTENT_TYPE, HEAD
from graphserve.wire.trust import RELAYED
from graphserve.worker.dispatch.executor import BoundApi
from graphserve.worker.http.response import StreamedRequest


class RelayedRequest(StreamedRequest, Protocol):
    """A request as a relay knows it, which passes it on."""

    @property
    def query(self) -> bytes:
        """Return what stands behind the path, where the body is a stream or a file."""
        ...

    @property
    def media_type(self) -> bytes:
        """Return what the body is, where it is neither JSON nor msgpack; else nothing."""
        ...

    @property
    def body_stream(self) -> AsyncIterator[bytes] | None:
        """Return the body, if it is passed on as it comes."""
        ...

    def relayed(self, reply: Reply) -> None:
        """Answer with the sibling's status, headers and body."""


class Relay:
    """Passes calls on to the workers of this node.

    Args:
        node: this node.
        lanes: the lanes of this process.
        slack: see `Exchange`.
    """

    def __init__(self, node: NodePlan, lanes: Lanes, slack: float) -> None:
        self.node = node
        self.lanes = lanes
        self.slack = slack
        self.loop = asyncio.get_running_loop()

    def take(
        self,
        api: BoundApi,
        body: bytes,
        format: Format | None,
        accept: AnswerFormat,
        request: RelayedRequest,
    ) -> Reply:
        """Pass a call on; `request.relayed` is called with the sibling's status, headers and body.

        The bytes of a stream go to the client as they come, those of an upload to the sibling.
        """
        if api.signature.stream:
            parts = self._parts(api, body, request, format, request.accepts or b"*/*")
            streamed = _Streamed(RelaySink(request), self.loop, *parts, request.body_stream)
            streamed.start()
            streamed.reply.add_done_callback(request.relayed)
            return streamed.reply
        # (what a result can be besides, only the process knows that executes the call)
        wanted = (
            b"*/*" if isinstance(accept, MediaFormat) or accept is Format.JSON else accept.value
        )
        parts = self._parts(api, body, request, format, request.accepts or wanted)
        runs = ANY_RUNS if api.plan.idempotent else 0
        exchange = _Relayed(self.loop, *parts, runs, _raw, request.body_stream)
        exchange.start()
        exchange.reply.add_done_callback(request.relayed)
        return exchange.reply

    def _parts(
        self,
        api: BoundApi,
        body: bytes,
        request: RelayedRequest,
        format: Format | None,
        accept: bytes,
    ) -> tuple[Lane[bytes], str, bytes, int | None, float]:
        context = request.context
        target, kind = api.plan.route.encode(), (format or Format.JSON).value
        if request.media_type:
            kind = request.media_type
            if request.query:
                target += b"?" + request.query
        timed = api.plan.lane == "queue" and self.lanes.plan.metrics
        end = trail(context, context.deadline_ns, body, timed=timed)
        if api.plan.input_stream is not None:
            target = api.plan.route.encode() + b"?" + request.query
            kind = request.media_type or Format.RAW.value
            end = CHUNKED + b"%s\r\n" % travels(context, context.deadline_ns)
        line = b"POST %s HTTP/1.1\r\nhost: %s\r\n" % (target, self.node.name.encode())
        formats = b"content-type: %s\r\naccept: %s\r\n" % (kind, accept)
        if context.head is not None:
            formats += b"%s: %s\r\n" % (HEAD, context.head.pack())
        if api.plan.lane == "queue":  # a connection of its own
            line, formats = RELAYED.opening + line, formats + CLOSE
        head = line + formats + end
        return (
            self.lanes.to(self.node, api.plan),
            self.node.name,
            head,
            context.deadline_ns,
            self.slack,
        )


class RelaySink:
    """Passes a stream that a sibling makes on to the client of this worker, byte by byte.

    Args:
        request: the request.
    """

    def __init__(self, request: StreamedRequest) -> None:
        self.request = request
        self._transport = request.transport
        self._flow = request.flow
        self._content_type = formats.stream_format(request.accepts).value
        self.begun = False
        self._fields: Fields = ()
        self._status = 200

    def take_head(self, headers: Fields) -> None:
        """Take the headers and the status that user code has set where the stream is made."""
        said = dict(headers)
        self._content_type = said.get(CONTENT_TYPE, self._content_type)
        packed = said.get(ANSWER)
        if packed is not None:
            from graphserve.call.answer import RelayedAnswer

            answer = RelayedAnswer(packed)
            self._fields = answer.fields()
            self._status = answer.status

    def write(self, data: bytes) -> None:
        """Pass a part of the sibling's answer on."""
        head = self._begin()
        if not self.request.lost:
            part = data if self.request.http_1_0 else b"%x\r\n%b\r\n" % (len(data), data)
            self._transport.write(head + part)

    @property
    def blocked(self) -> bool:
        """Return whether the client is slow."""
        return self._flow.write_paused

    def when_drained(self, then: Callable[[], None]) -> None:
        """Call `then` when the client has taken enough."""
        task = asyncio.get_running_loop().create_task(self._flow.drain())
        task.add_done_callback(lambda _: then())

    def end(self, whole: bool) -> None:
        """End the answer: the sibling's is complete, or was cut."""
        if not whole:
            self.request.close_after_answer()
        last = b"0\r\n\r\n" if whole and not self.request.http_1_0 else b""
        begin = self._begin()
        self.request.finish(self._status, begin + last)

    def _begin(self) -> bytes:
        """Return the head of the answer, if that is not on its way."""
        if self.begun:
            return b""
        self.begun = True
        return self.request.responder.stream_head(
            self._content_type,
            self.request.context.request_id,
            self.request.keep_alive,
            not self.request.http_1_0,
            self._fields,
            self._status,
        )


class _Relayed(Exchange[bytes]):
    """A call that is passed on: its hop is ours, its bytes are a client's."""

    __slots__ = ()
    trust = RELAYED


class _Streamed(_Relayed):
    """A call that is passed on, and whose answer is a stream."""

    __slots__ = ("sink",)
    streams = True
    repeatable = False

    def __init__(
        self,
        sink: RelaySink,
        loop: asyncio.AbstractEventLoop,
        lane: Lane[bytes],
        node: str,
        request: bytes,
        deadline_ns: int | None,
        slack: float,
        upload: AsyncIterator[bytes] | None,
    ) -> None:
        super().__init__(loop, lane, node, request, deadline_ns, slack, 0, _raw, upload)
        self.sink = sink

    def head(self, headers: list[tuple[bytes, bytes]], status: int = 200) -> None:
        """Stop the deadline here: the stream has begun."""
        if self.timer is not None:  # from here on the sibling watches the time between items
            self.timer.cancel()
        self.sink.take_head(headers)

    def chunk(self, data: bytes) -> None:
        """Pass a part on; while the client is slow, the sibling is held back."""
        self.sink.write(data)
        if self.sink.blocked and self.connection is not None:
            self.connection.pause()
            self.sink.when_drained(self._resume)

    def _resume(self) -> None:
        if self.connection is not None:
            self.connection.resume()

    def answered(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """End the stream, or answer with the error that came in its place."""
        self.connection = None
        if self.over:
            return
        if status == 200:
            self.sink.end(True)
            self._finish(None, None)
        else:
            super().answered(status, headers, body)

    def lost(self, reason: str, unread: bool) -> None:
        """End a stream that has begun as one that was cut, and else fail as any call does."""
        if not self.sink.begun:
            super().lost(reason, unread)
            return
        self.connection = None
        if not self.over:
            self.sink.end(False)
            self._finish(None, None)


def _raw(
    status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    return status, headers, body
