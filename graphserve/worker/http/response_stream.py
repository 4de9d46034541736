"""Where the items of a stream go: frames between nodes, NDJSON or Server-Sent Events outside.

Runs in workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from graphserve.call.context import CallContext
from graphserve.wire import formats, problem
from graphserve.wire.formats import Format, StreamFormat
from graphserve.wire.trust import Trust
from graphserve.worker.dispatch.executor import BoundApi
from graphserve.worker.http.response import Responder
from graphserve.worker.http.transport import FlowControl, Writer


class StreamedRequest(Protocol):
    """What a sink needs of the request that it answers."""

    keep_alive: bool  # whether the connection stays open behind the answer

    @property
    def accepts(self) -> bytes:
        """The Accept header as it came."""
        ...

    @property
    def context(self) -> CallContext:
        """What travels with the call."""
        ...

    @property
    def flow(self) -> FlowControl:
        """Whether the client takes what is written."""
        ...

    @property
    def lost(self) -> bool:
        """Whether the client is gone."""
        ...

    @property
    def old(self) -> bool:
        """Whether it speaks HTTP/1.0."""
        ...

    @property
    def responder(self) -> Responder:
        """What makes the bytes of answers."""
        ...

    @property
    def transport(self) -> Writer:
        """Where the answer is written."""
        ...

    @property
    def trust(self) -> Trust:
        """What the request may do more than a client."""
        ...

    def encoded(self, value: Any, format: Format) -> bytes:
        """Return an item as bytes for who made the request."""
        ...

    def fail(self, exc: BaseException) -> None:
        """Answer with an error; nothing of the answer has been written."""

    def finish(self, status: int, data: bytes = b"") -> None:
        """Complete the answer with these bytes."""


class HttpSink:
    """A streamed answer to one request.

    Its head is sent with the first item, so an early failure has its own status.

    Args:
        request: the request.
        api: the API.
        format: how the items are written.
    """

    def __init__(self, request: StreamedRequest, api: BoundApi, format: StreamFormat) -> None:
        self.request = request
        self._transport = request.transport
        self._flow = request.flow
        self.api = api
        self.format = format
        self.items = formats.item_format(request.accepts)
        self.begun = False
        # HTTP/1.0 knows no chunks: there the end of the connection ends the stream
        self.chunked = not request.old

    def encode(self, item: Any) -> bytes:
        """Return an item in the format of the stream."""
        if self.format is StreamFormat.FRAMES:
            return formats.pack(formats.ITEM, self.request.encoded(item, self.items))
        return self.format.item(self.api.result.encode(item, self.items))

    def write(self, data: bytes) -> None:
        """Write an item; the first one begins the answer."""
        if self.request.lost:
            return
        body = self._chunk(data)
        self._transport.write(body if self.begun else self._head() + body)
        self.begun = True

    @property
    def blocked(self) -> bool:
        """Whether the client is slow: make no more items until `drained`."""
        return self._flow.write_paused

    async def drained(self) -> None:
        """Wait until the client has taken enough."""
        await self._flow.drain()

    def end(self) -> None:
        """End the stream: there are no more items."""
        end = self.format.end()
        last = self._chunk(end) if end else b""
        self.request.finish(
            200,
            (b"" if self.begun else self._head()) + last + (b"0\r\n\r\n" if self.chunked else b""),
        )

    def fail(self, error: BaseException) -> None:
        """End the stream with an error; where no item was sent, the error is the whole answer."""
        if not self.begun:
            self.request.fail(error)
            return
        request = self.request
        responder = request.responder
        request_id = request.context.request_id.decode("latin-1")
        said = responder.note(error, request.context, self.api.plan.name)
        trust = request.trust
        last = problem.in_stream(
            said,
            self.format,
            node=responder.node,
            request_id=request_id,
            with_details=responder.tells(trust),
            internal=trust.values,
        )
        # NDJSON has no place for an error: the last line is the problem, and the missing end of the
        # chunks says that the stream was cut.
        whole = self.chunked and self.format is not StreamFormat.NDJSON
        request.keep_alive = request.keep_alive and whole
        request.finish(200, self._chunk(last) + (b"0\r\n\r\n" if whole else b""))

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data

    def _head(self) -> bytes:
        if not self.chunked:
            self.request.keep_alive = False
        responder = self.request.responder
        request_id, keep = self.request.context.request_id, self.request.keep_alive
        return responder.stream_head(self.format.value, request_id, keep, self.chunked)


class RelaySink:
    """A stream that a sibling makes, passed on byte by byte to the client of this worker.

    Args:
        request: the request.
    """

    def __init__(self, request: StreamedRequest) -> None:
        self.request = request
        self._transport = request.transport
        self._flow = request.flow
        self.format = formats.stream_format(request.accepts)
        self.begun = False

    def write(self, data: bytes) -> None:
        """Pass a part of the sibling's answer on."""
        head = b""
        if not self.begun:
            self.begun = True
            responder = self.request.responder
            head = responder.stream_head(
                self.format.value,
                self.request.context.request_id,
                self.request.keep_alive,
                not self.request.old,
            )
        if not self.request.lost:
            part = data if self.request.old else b"%x\r\n%b\r\n" % (len(data), data)
            self._transport.write(head + part)

    @property
    def blocked(self) -> bool:
        """Whether the client is slow."""
        return self._flow.write_paused

    def when_drained(self, then: Callable[[], None]) -> None:
        """Call `then` when the client has taken enough."""
        task = asyncio.get_running_loop().create_task(self._flow.drain())
        task.add_done_callback(lambda _: then())

    def end(self, whole: bool) -> None:
        """End the answer: the sibling's is complete, or was cut."""
        self.request.keep_alive = self.request.keep_alive and whole
        self.request.finish(200, b"0\r\n\r\n" if whole and not self.request.old else b"")
