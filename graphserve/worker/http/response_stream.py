"""Where the items of a stream go: frames between nodes, NDJSON or Server-Sent Events outside. Runs in workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from graphserve.wire import formats, problem
from graphserve.wire.formats import StreamFormat

if TYPE_CHECKING:
    from graphserve.worker.dispatch.executor import BoundApi
    from graphserve.worker.http.request import HttpRequest


class HttpSink:
    """A streamed answer to one request. Its head is sent with the first item, so an early failure has its own status.

    Args:
        inbound: the request.
        api: the API.
        format: how the items are written.
    """

    def __init__(self, inbound: HttpRequest, api: BoundApi, format: StreamFormat) -> None:
        self.inbound = inbound
        self.api = api
        self.format = format
        self.items = formats.item_format(inbound.accepts)
        self.begun = False
        self.chunked = not inbound.old  # HTTP/1.0 knows no chunks: there the end of the connection ends the stream

    def encode(self, item: Any) -> bytes:
        """See `Sink`."""
        if self.format is StreamFormat.FRAMES:
            return formats.pack(formats.ITEM, self.inbound.encoded(item, self.items))
        return self.format.item(self.api.result.encode(item, self.items))

    def write(self, data: bytes) -> None:
        """See `Sink`."""
        if self.inbound.lost:
            return
        body = self._chunk(data)
        self.inbound.protocol.transport.write(body if self.begun else self._head() + body)
        self.begun = True

    @property
    def blocked(self) -> bool:
        """See `Sink`."""
        return bool(self.inbound.protocol.flow.write_paused)

    async def drained(self) -> None:
        """See `Sink`."""
        await self.inbound.protocol.flow.drain()

    def end(self) -> None:
        """See `Sink`."""
        end = self.format.end()
        last = self._chunk(end) if end else b""
        self.inbound.finish(200, (b"" if self.begun else self._head()) + last + (b"0\r\n\r\n" if self.chunked else b""))

    def fail(self, error: BaseException) -> None:
        """See `Sink`."""
        if not self.begun:
            self.inbound.fail(error)
            return
        inbound = self.inbound
        listener = inbound.protocol.listener
        responder, request_id = listener.responder, inbound.context.request_id.decode("latin-1")
        said = responder.note(error, inbound.context, self.api.plan.name)
        trust = inbound.trust
        last = problem.in_stream(
            said, self.format, node=responder.node, request_id=request_id, open_book=responder.tells(trust),
            internal=trust.values,
        )  # fmt: skip
        # NDJSON has no place for an error: the last line is the problem, and the missing end of the chunks says that
        # the stream was cut.
        whole = self.chunked and self.format is not StreamFormat.NDJSON
        inbound.keep_alive = inbound.keep_alive and whole
        inbound.finish(200, self._chunk(last) + (b"0\r\n\r\n" if whole else b""))

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data

    def _head(self) -> bytes:
        if not self.chunked:
            self.inbound.keep_alive = False
        responder = self.inbound.protocol.listener.responder
        request_id, keep = self.inbound.context.request_id, self.inbound.keep_alive
        return responder.stream_head(self.format.value, request_id, keep, self.chunked)


class RelaySink:
    """A stream that a sibling makes, passed on byte by byte to the client of this worker.

    Args:
        inbound: the request.
    """

    def __init__(self, inbound: HttpRequest) -> None:
        self.inbound = inbound
        self.format = formats.stream_format(inbound.accepts)
        self.begun = False

    def write(self, data: bytes) -> None:
        """A part of the sibling's answer."""
        head = b""
        if not self.begun:
            self.begun = True
            responder = self.inbound.protocol.listener.responder
            head = responder.stream_head(
                self.format.value, self.inbound.context.request_id, self.inbound.keep_alive, not self.inbound.old
            )
        if not self.inbound.lost:
            part = data if self.inbound.old else b"%x\r\n%b\r\n" % (len(data), data)
            self.inbound.protocol.transport.write(head + part)

    @property
    def blocked(self) -> bool:
        """Whether the client is slow."""
        return bool(self.inbound.protocol.flow.write_paused)

    def when_drained(self, then: Any) -> None:
        """Call `then` when the client has taken enough."""
        task = asyncio.get_running_loop().create_task(self.inbound.protocol.flow.drain())
        task.add_done_callback(lambda _: then())

    def end(self, whole: bool) -> None:
        """The sibling's answer is complete, or was cut."""
        self.inbound.keep_alive = self.inbound.keep_alive and whole
        self.inbound.finish(200, b"0\r\n\r\n" if whole and not self.inbound.old else b"")
