"""A call to a node of a local graph, in place of bytes on a socket, and what becomes of its stream.

Items go to their consumer through the wire's types. Runs where `local()` was called.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphserve.call.connection import CUT
from graphserve.call.context import CallContext, traced
from graphserve.call.exchange import Compose, Exchange
from graphserve.call.request import new_request_id
from graphserve.call.request_head import NOBODY, RequestHead
from graphserve.errors import CallError
from graphserve.graph.plan import ApiPlan
from graphserve.wire import formats, problem
from graphserve.wire.formats import (
    AnswerFormat,
    AnyStreamFormat,
    Format,
    MediaFormat,
    StreamFormat,
)
from graphserve.wire.headers import CACHE_CONTROL, CONTENT_TYPE, Headers
from graphserve.wire.trust import PEER, PUBLIC, Trust
from graphserve.worker.dispatch.executor import BoundApi

if TYPE_CHECKING:
    from graphserve.call.answer import Answer


@dataclass(frozen=True, slots=True)
class LocalRequest:
    """What a caller sends.

    Args:
        api: the API's name.
        context: what travels with the call.
        body: the encoded arguments.
        format: how they are written.
        accept: how the result, or each item of a stream, shall be written.
        stream: how the items of a stream shall be written; None for a typed caller, who takes them
            one by one.
        trust: who the caller is.
        media_type: what the body is, of an HTTP client.
        query: of the URL, of an HTTP client whose body is whole.
    """

    api: str
    context: CallContext
    body: bytes
    format: Format = Format.TYPED
    accept: AnswerFormat = Format.TYPED
    stream: AnyStreamFormat | None = None
    trust: Trust = PUBLIC
    media_type: bytes = b""
    query: bytes = b""


AnyExchange = Exchange[LocalRequest] | Exchange[bytes]  # of a typed call; of an httpx client


@dataclass(frozen=True, slots=True, eq=False)
class LocalCall:
    """A request, and who waits for its answer.

    Args:
        request: what is asked.
        exchange: the caller's.
        upload: the body that comes in pieces, if there is one.
    """

    request: LocalRequest
    exchange: AnyExchange
    upload: AsyncIterator[bytes] | None


def composer(api: ApiPlan, *, checked: bool, caller: str) -> Compose[LocalRequest]:
    """Return a function that makes requests to one API, as every `TypedLane` does."""
    accept = Format.CHECKED if checked else Format.TYPED
    head = RequestHead(b"POST", api.route.encode(), [], NOBODY, caller or None)

    def compose(context: CallContext | None, deadline_ns: int | None, body: bytes) -> LocalRequest:
        request_id = (
            context.request_id if context is not None and context.request_id else new_request_id()
        )
        made = CallContext(request_id, deadline_ns)
        if context is not None:
            trace = traced(context)
            made.traceparent = trace.traceparent
            made.tracestate = trace.tracestate
            made.baggage = trace.baggage
            made.forwarded = context.forwarded
        made.head = head
        return LocalRequest(api.name, made, body, accept=accept, trust=PEER)

    return compose


class ExchangeSink:
    """Gives items to the exchange that waits for them: what the sinks of local streams share.

    Args:
        exchange: the caller's.
        headers: of the answer, which the first item begins.
    """

    def __init__(self, exchange: AnyExchange, headers: Headers) -> None:
        self.exchange = exchange
        self.headers = headers
        self.status = 200
        self.begun = False

    def write(self, data: bytes) -> None:
        """Give an item to the consumer; the first one begins the answer."""
        if not self.begun:
            self.begun = True
            self.exchange.head(self.headers, self.status)
        self.exchange.chunk(data)

    @property
    def slow(self) -> bool:
        """Return whether writing an item takes so long that a thread does it."""
        return False

    @property
    def blocked(self) -> bool:
        """Return whether the consumer is slow."""
        return self.exchange.full

    async def drained(self) -> None:
        """Wait until the consumer has taken enough."""
        await self.exchange.room()


class LocalSink(ExchangeSink):
    """Gives the items of a stream to the exchange that waits for them.

    Args:
        exchange: the caller's.
        api: the API.
        items: how it wants each item.
        failed: called with what the API raised.
    """

    def __init__(
        self,
        exchange: AnyExchange,
        api: BoundApi,
        items: AnswerFormat,
        failed: Callable[[BaseException], None],
    ) -> None:
        super().__init__(exchange, [])
        self.api = api
        self._failed = failed
        self._items = items

    def encode(self, item: object) -> bytes:
        """Return an item in the format of the stream."""
        return formats.pack(formats.ITEM, self.api.result.encode(item, self._items, paths=True))

    def end(self) -> None:
        """Say that there are no more items."""
        self.exchange.chunk(formats.pack(formats.END))
        self.exchange.answered(200, [], b"")

    def fail(self, error: BaseException) -> None:
        """End the answer with what the API raised."""
        self._failed(error)


class BodySink(ExchangeSink):
    """Writes the items of a stream as the body that an HTTP client reads.

    Args:
        call: the client's.
        api: the API.
        format: how it wants the stream.
        items: how it wants each item.
        note: makes of what the API raised what stands for it, and says it to the log.
        failed: called with what the API raised before its first item.
        last_event: the number of the event that the client had last.
    """

    def __init__(
        self, call: LocalCall, api: BoundApi, format: AnyStreamFormat, items: AnswerFormat,
        note: Callable[[BaseException], CallError], failed: Callable[[BaseException], None],
        last_event: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(
            call.exchange, [(CONTENT_TYPE, format.content_type), (CACHE_CONTROL, b"no-store")]
        )
        self.api = api
        self.format = format
        self._note = note
        self._failed = failed
        self._items = items
        self._number = last_event
        self._request_id = call.request.context.request_id.decode("latin-1")
        self._context = call.request.context

    def write(self, data: bytes) -> None:
        """Give an item to the consumer; the first one begins the answer, as user code has said."""
        if not self.begun and (answer := self._context.answer) is not None:
            self.headers = _headers(self.headers, answer)
        super().write(data)

    @property
    def slow(self) -> bool:
        """Return whether writing an item takes so long that a thread does it."""
        return self.api.writes_slowly

    def encode(self, item: object) -> bytes:
        """Return an item in the format of the stream."""
        if not self.begun and self._context.answer is not None:
            self._begin(self._context.answer)
        payload = self.api.result.encode(item, self._items)
        if isinstance(self.format, MediaFormat):
            return payload
        self._number += 1
        return self.format.item(payload, self._number)

    def end(self) -> None:
        """Say that there are no more items."""
        if not self.begun and (answer := self._context.answer) is not None:
            try:
                self._begin(answer)
            except RuntimeError as exc:
                self._failed(exc)
                return
            self.headers = _headers(self.headers, answer)
        end = b"" if isinstance(self.format, MediaFormat) else self.format.end()
        self.exchange.answered(self.status, self.headers, end)

    def _begin(self, answer: Answer) -> None:
        """Take no changes of the answer any more."""
        media_type = answer.begin_stream(raw=isinstance(self.format, MediaFormat))
        if media_type is not None:
            self.headers = [(CONTENT_TYPE, media_type), *self.headers[1:]]
        self.status = answer.status

    def fail(self, error: BaseException) -> None:
        """End the answer with what the API raised."""
        if not self.begun:
            self._failed(error)
            return
        said, node = self._note(error), self.exchange.node
        if isinstance(self.format, MediaFormat):
            self.exchange.lost(CUT, unread=False)
            return
        last = problem.in_stream(
            said,
            self.format,
            node=node,
            request_id=self._request_id,
            with_details=True,
            internal=False,
        )
        # over a socket the missing end of the chunks says it
        if self.format is StreamFormat.NDJSON:
            self.exchange.chunk(last)
            self.exchange.lost(CUT, unread=False)
        else:
            self.exchange.answered(self.status, self.headers, last)


def _headers(ours: Headers, answer: Answer) -> Headers:
    """Return the headers of a stream: ours, unless user code has set one of that name."""
    fields = answer.fields()
    said = {name for name, _ in fields}
    return [*(field for field in ours if field[0] not in said), *fields]
