"""The bytes of an answer: status line, headers and body in one write; errors as problem+json.

`Responder` makes them, and `HttpSink` writes those of a stream, item by item. Runs in workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from graphserve.call.context import CallContext
from graphserve.call.request_head import Fields
from graphserve.errors import CallError, DeadlineExceeded, InvalidArguments, Problem, Unavailable
from graphserve.logs.exception_text import described
from graphserve.wire import formats, problem
from graphserve.wire.formats import (
    AnswerFormat,
    AnyStreamFormat,
    Format,
    MediaFormat,
    StreamFormat,
)
from graphserve.wire.headers import (
    ANSWER,
    CACHE_CONTROL,
    CHUNKED,
    CLOSE,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    INTERNAL_PREFIX,
    REQUEST_ID,
    STATUS_OK,
    http_date,
)
from graphserve.wire.problem import HttpProblem
from graphserve.wire.reason_phrases import phrase
from graphserve.wire.trust import RELAYED, Trust
from graphserve.worker.dispatch.executor import BoundApi
from graphserve.worker.http.transport import FlowControl, Writer

if TYPE_CHECKING:
    from graphserve.call.answer import Answer

# (looked up once: a member of an enum is slow to find)
_FRAMES = StreamFormat.FRAMES
_NDJSON = StreamFormat.NDJSON


class _TypeLines(dict[AnswerFormat, bytes]):
    """The line of the content type, by format."""

    def __missing__(self, format: AnswerFormat) -> bytes:
        return _MEDIA_LINES % format.content_type


_TYPES = _TypeLines({each: b"%s: %s\r\n" % (CONTENT_TYPE, each.content_type) for each in Format})
_STATUS = {code: b"HTTP/1.1 %d %s\r\n" % (code, phrase(code).encode()) for code in range(200, 600)}
_NO_SNIFFING = b"x-content-type-options: nosniff\r\n"
# A client chose what is in it, perhaps: no browser is to take it for a page.
_MEDIA_LINES = CONTENT_TYPE + b": %s\r\n" + _NO_SNIFFING
_LENGTH_LINE = CONTENT_LENGTH + b": %d\r\n"
_REQUEST_ID_LINE = REQUEST_ID + b": %s\r\n"
_STREAM_TYPES = frozenset(format.value for format in StreamFormat)
_END = b"\r\n"
RESET_CONTENT = 205  # has a length, 0, where the other statuses without a body have none
_CLOSE_END = CLOSE + b"\r\n"
# seconds after which an EventSource is told that the connection lives: browsers' and proxies'
# patience with a silent one begins at half a minute
HEARTBEAT = 15.0
_COMMENT = b":\n\n"
_EXPECTED = (Problem, HttpProblem, InvalidArguments, Unavailable, DeadlineExceeded)


class Responder:
    """Makes the answers of one kind of listener.

    Args:
        node: the node that answers.
        public: whether they have what clients expect: a date, and the request's id.
        debug: whether answers carry exception text, whoever asked.
        lines: of headers that each of them has.
    """

    def __init__(self, node: str, *, public: bool, debug: bool, lines: bytes = b"") -> None:
        self.node = node
        self.public = public
        self.debug = debug
        self._lines = lines
        self._common = b""
        self.refresh()

    def refresh(self) -> None:
        """Note the time, for the date header; called once a second."""
        date = b"date: " + http_date() + b"\r\n" if self.public else b""
        self._common = date + self._lines

    def _ending(self, names: Iterable[bytes]) -> bytes:
        """Return the last lines of a head that has headers of these names."""
        return self._common

    def result(self, body: bytes, format: AnswerFormat, request_id: bytes, keep: bool) -> bytes:
        """Return the answer with a result."""
        return b"".join((
            STATUS_OK, _TYPES[format], _LENGTH_LINE % len(body),
            _REQUEST_ID_LINE % request_id if self.public else b"",
            self._common, _END if keep else _CLOSE_END, body,
        ))  # fmt: skip

    def said(
        self,
        status: int,
        fields: Fields,
        content_type: bytes,
        body: bytes | None,
        request_id: bytes,
        keep: bool,
    ) -> bytes:
        """Return the answer with a result whose status and headers user code has set.

        Args:
            status: of the answer.
            fields: its headers; names in lower case.
            content_type: of the body.
            body: None for a status without a body.
            request_id: of the request.
            keep: whether the connection stays open behind it.
        """
        lines = [_STATUS[status]]
        if body is not None:
            lines += [b"%s: %s\r\n" % (CONTENT_TYPE, content_type), _LENGTH_LINE % len(body)]
        elif status == RESET_CONTENT:
            lines.append(_LENGTH_LINE % 0)
        lines += [b"%s: %s\r\n" % field for field in fields]
        if self.public:
            lines.append(_REQUEST_ID_LINE % request_id)
        ending = self._ending(name for name, _ in fields)
        return b"".join((*lines, ending, _END if keep else _CLOSE_END, body or b""))

    def error(
        self, exc: BaseException, trust: Trust, context: CallContext, keep: bool, api: str = ""
    ) -> tuple[int, bytes]:
        """Return the answer with an error, and its status."""
        try:
            noted = self.note(exc, context, api, is_hop=trust.values)
            return self.problem(noted, trust, context, keep)
        except Exception as broken:  # whatever it is, the call is answered
            plain = problem.as_call_error(
                RuntimeError(f"its error cannot be told: {described(broken)}"), self.node
            )
            return self.problem(plain, trust, context, keep)

    def note(
        self, exc: BaseException, context: CallContext, api: str = "", *, is_hop: bool = False
    ) -> CallError:
        """Return what an exception means for the caller; what is nobody's plan is logged with its
        traceback, and where the caller is no service, with those of all services below.
        """
        request_id = context.request_id.decode("latin-1")
        exc = problem.carried_error(exc)
        error = problem.as_call_error(exc, self.node)
        if error is not exc or not isinstance(error, _EXPECTED):
            where = f"{self.node}.{api}" if api else self.node
            return problem.log(where, error, exc, request_id, whole=not is_hop)
        return error

    def stream_head(
        self,
        content_type: bytes,
        request_id: bytes,
        keep: bool,
        chunked: bool,
        fields: Fields = (),
        status: int = 200,
    ) -> bytes:
        """Return the head of an answer that is a stream, with the headers and the status that user
        code has set.
        """
        lines = [b"\r\n", *(b"%s: %s\r\n" % field for field in fields)]
        if not any(name == CACHE_CONTROL for name, _ in fields):
            lines.append(b"cache-control: no-store\r\n")
        if content_type not in _STREAM_TYPES:
            lines.append(_NO_SNIFFING)
        ending = self._ending(name for name, _ in fields)
        return b"".join((
            _STATUS[status], CONTENT_TYPE, b": ", content_type, *lines,
            CHUNKED if chunked else b"",
            _REQUEST_ID_LINE % request_id if self.public else b"",
            ending, _END if keep else _CLOSE_END,
        ))  # fmt: skip

    def problem(
        self, error: CallError, trust: Trust, context: CallContext, keep: bool
    ) -> tuple[int, bytes]:
        """Return the answer with an error that needs no word in the log."""
        request_id = context.request_id.decode("latin-1")
        with_details = self.tells(trust)
        status, headers, body = problem.encode(
            error,
            node=self.node,
            request_id=request_id,
            with_details=with_details,
            with_trace=trust.values or (self.debug and not trust.hop),
        )
        lines = [_STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in headers:
            if trust.hop or not name.startswith(INTERNAL_PREFIX):
                lines.append(b"%s: %s\r\n" % (name, value))
        names = [name for name, _ in headers if not name.startswith(INTERNAL_PREFIX)]
        lines += [_LENGTH_LINE % len(body), _REQUEST_ID_LINE % context.request_id]
        lines.append(self._ending(names))
        lines += [_END if keep else _CLOSE_END, body]
        return status, b"".join(lines)

    def tells(self, trust: Trust) -> bool:
        """Return whether an answer may have the text of an exception."""
        return self.debug or trust.texts


class CrossOriginResponder(Responder):
    """Makes the answers to one request of a page of another origin, which may read them.

    Args:
        base: makes the answers to others.
        leave: makes the lines that let it, of the names of headers that the answer has.
    """

    def __init__(self, base: Responder, leave: Callable[[Iterable[bytes]], bytes]) -> None:
        self._base = base
        self._leave = leave
        super().__init__(base.node, public=base.public, debug=base.debug)

    def _ending(self, names: Iterable[bytes]) -> bytes:
        return self._base._ending(names) + self._leave(names)

    def result(self, body: bytes, format: AnswerFormat, request_id: bytes, keep: bool) -> bytes:
        """Return the answer with a result."""
        self._common = self._ending(())
        return super().result(body, format, request_id, keep)


class StreamedRequest(Protocol):
    """A request as a sink knows it, which writes its answer piece by piece."""

    @property
    def accepts(self) -> bytes:
        """Return the Accept header as it came."""
        ...

    @property
    def keep_alive(self) -> bool:
        """Return whether the connection stays open behind the answer."""
        ...

    @property
    def context(self) -> CallContext:
        """Return what travels with the call."""
        ...

    @property
    def flow(self) -> FlowControl:
        """Return what says whether the client takes what is written."""
        ...

    @property
    def lost(self) -> bool:
        """Return whether the client is gone."""
        ...

    @property
    def http_1_0(self) -> bool:
        """Return whether it speaks HTTP/1.0."""
        ...

    @property
    def responder(self) -> Responder:
        """Return what makes the bytes of answers."""
        ...

    @property
    def response_complete(self) -> bool:
        """Return whether it has its whole answer."""
        ...

    @property
    def transport(self) -> Writer:
        """Return where the answer is written."""
        ...

    @property
    def trust(self) -> Trust:
        """Return what the request may do more than a client."""
        ...

    def close_after_answer(self) -> None:
        """Close the connection behind the answer."""

    def encoded(self, value: object, format: AnswerFormat) -> bytes:
        """Return an item as bytes for who made the request."""
        ...

    def fail(self, exc: BaseException) -> None:
        """Answer with an error; nothing of the answer has been written."""

    def finish(self, status: int, data: bytes = b"") -> None:
        """Complete the answer with these bytes."""


class HttpSink:
    """Writes the answer to one request as a stream: frames between nodes; NDJSON, Server-Sent
    Events or the bytes themselves outside.

    Its head is sent with the first item, so an early failure has its own status.

    Args:
        request: the request.
        api: the API.
        format: how the items are written.
    """

    def __init__(self, request: StreamedRequest, api: BoundApi, format: AnyStreamFormat) -> None:
        self.request = request
        self._transport = request.transport
        self._flow = request.flow
        self.api = api
        self.format = format
        self._content_type = format.content_type
        self.items = (
            format if isinstance(format, MediaFormat) else formats.item_format(request.accepts)
        )
        self.begun = False
        self._status = 200
        # HTTP/1.0 knows no chunks: there the end of the connection ends the stream
        self.chunked = not request.http_1_0

    def encode(self, item: object) -> bytes:
        """Return an item in the format of the stream."""
        if not self.begun and self._said is not None:
            self._begin(self._said)
        if self.format is _FRAMES:
            return formats.pack(formats.ITEM, self.request.encoded(item, self.items))
        return self._item(self.api.result.encode(item, self.items))

    def _item(self, payload: bytes) -> bytes:
        return payload if isinstance(self.format, MediaFormat) else self.format.item(payload)

    @property
    def slow(self) -> bool:
        """Return whether writing an item takes so long that a thread does it."""
        return self.api.writes_slowly and self.format is not _FRAMES

    @property
    def _said(self) -> Answer | None:
        """Return what user code has said of the answer; frames are for a service, which is told
        nothing of it.
        """
        return None if self.format is _FRAMES else self.request.context.answer

    def write(self, data: bytes) -> None:
        """Write an item; the first one begins the answer."""
        if self.request.lost or not data:  # (an empty chunk would be the last one)
            return
        body = self._chunk(data)
        self._transport.write(body if self.begun else self._head() + body)
        self.begun = True

    @property
    def blocked(self) -> bool:
        """Return whether the client is slow: no more items are made until `drained` returns."""
        return self._flow.write_paused

    async def drained(self) -> None:
        """Wait until the client has taken enough."""
        await self._flow.drain()

    def end(self) -> None:
        """End the stream: there are no more items."""
        if not self.begun and self._said is not None:
            try:
                self._begin(self._said)
            except RuntimeError as exc:
                self.request.fail(exc)
                return
        end = b"" if isinstance(self.format, MediaFormat) else self.format.end()
        last = self._chunk(end) if end else b""
        begin = b"" if self.begun else self._head()
        self.request.finish(self._status, begin + last + (b"0\r\n\r\n" if self.chunked else b""))

    def fail(self, error: BaseException) -> None:
        """End the stream with an error; where no item was sent, the error is the whole answer."""
        if not self.begun:
            self.request.fail(error)
            return
        request = self.request
        responder = request.responder
        request_id = request.context.request_id.decode("latin-1")
        trust = request.trust
        said = responder.note(error, request.context, self.api.plan.name, is_hop=trust.values)
        if isinstance(self.format, MediaFormat):
            last = b""
        else:
            last = problem.in_stream(
                said,
                self.format,
                node=responder.node,
                request_id=request_id,
                with_details=responder.tells(trust),
                internal=trust.values,
            )
        # NDJSON has no place for an error: the last line is the problem, and the missing end of the
        # chunks says that the stream was cut. Bytes have no place for a problem either.
        whole = bool(last) and self.chunked and self.format is not _NDJSON
        if not whole:
            request.close_after_answer()
        end = self._chunk(last) if last else b""
        request.finish(self._status, end + (b"0\r\n\r\n" if whole else b""))

    def _begin(self, said: Answer) -> None:
        """Take no changes of the answer any more."""
        if (media_type := said.begin_stream(raw=isinstance(self.format, MediaFormat))) is not None:
            self._content_type = media_type
        self._status = said.status

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data

    def _head(self) -> bytes:
        if not self.chunked:
            self.request.close_after_answer()
        responder = self.request.responder
        request_id, keep = self.request.context.request_id, self.request.keep_alive
        fields: Fields = ()
        status = self._status
        if (said := self._said) is not None:
            fields = said.fields()
            if self.request.trust is RELAYED:  # who passes it on says them
                fields = [(ANSWER, said.pack(self._content_type))]
                status = 200
        return responder.stream_head(
            self._content_type, request_id, keep, self.chunked, fields, status
        )


class EventSink(HttpSink):
    """Writes a stream as Server-Sent Events: each with its number as its id, and a comment while
    nothing comes, so that neither the client nor a proxy takes the connection for dead.

    Args:
        request: the request.
        api: the API.
        format: how the items are written.
        number: of the event that the client had last; they are counted on from there.
    """

    def __init__(
        self, request: StreamedRequest, api: BoundApi, format: StreamFormat, number: int
    ) -> None:
        super().__init__(request, api, format)
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._wrote = self._loop.time()
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(HEARTBEAT, self._beat)

    def _item(self, payload: bytes) -> bytes:
        self._number += 1
        return StreamFormat.EVENTS.item(payload, self._number)

    def write(self, data: bytes) -> None:
        """Write an event; the first one begins the answer."""
        self._wrote = self._loop.time()
        super().write(data)

    def end(self) -> None:
        """End the stream: there are no more items."""
        self._rest()
        super().end()

    def fail(self, error: BaseException) -> None:
        """End the stream with an error, which is an event if the answer has begun."""
        self._rest()
        super().fail(error)

    def _beat(self) -> None:
        request = self.request
        if request.lost or request.response_complete:
            self._timer = None
            return
        left = self._wrote + HEARTBEAT - self._loop.time()
        if left <= 0:
            if not self.blocked:
                self.write(_COMMENT)
            left = HEARTBEAT
        self._timer = self._loop.call_later(left, self._beat)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
