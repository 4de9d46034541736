"""One request to one API: it is read and checked, and decides what becomes of the call.

Runs in workers and fallback servers. How it is answered is in `answering`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container
from functools import partial
from typing import Protocol

from graphserve.call.context import CallContext, earliest, shortest
from graphserve.call.request_head import Address, RequestHead, pack_fields
from graphserve.errors import CallError, InvalidArguments
from graphserve.metrics.layout import CLIENT_LEFT, QUARANTINED
from graphserve.metrics.recorder import RequestSeries
from graphserve.wire.codec import Format, content_format
from graphserve.wire.exceptions import MalformedBody
from graphserve.wire.formats import (
    CHECKED_FRAMES,
    AnswerFormat,
    StreamFormat,
    is_form,
    is_multipart,
    last_event,
)
from graphserve.wire.headers import LONGEST_TRAVELLER
from graphserve.wire.media.bodies import file_refusal
from graphserve.wire.media.kinds import packs_quickly
from graphserve.wire.trust import RELAYED
from graphserve.wire.url_arguments import whole
from graphserve.worker.dispatch.decoding import Decoding, malformed, read_arguments
from graphserve.worker.dispatch.encoding import (
    EncodedResult,
    encode_for_service,
    encode_result,
    encoding,
)
from graphserve.worker.dispatch.executor import BoundApi
from graphserve.worker.dispatch.opened import OpenedFile
from graphserve.worker.dispatch.shedding import refusal
from graphserve.worker.dispatch.slots import WaitingUpload
from graphserve.worker.flight_recorder import CallNotes
from graphserve.worker.http.answering import AnswerableRequest, RequestConnection
from graphserve.worker.http.headers import RequestHeaders
from graphserve.worker.http.limits import too_large, too_long_to_travel
from graphserve.worker.http.response import EventSink, HttpSink
from graphserve.worker.http.routing import RoutedCall
from graphserve.worker.stream.form_body import FormFile
from graphserve.worker.stream.producer import StreamExecution
from graphserve.worker.stream.receiving import FilesOfCall, ReceivingFields, ReceivingFiles
from graphserve.worker.stream.request_body import RequestBody, hold

# (looked up once: a member of an enum is slow to find, and says its value by two calls)
_FRAMES = StreamFormat.FRAMES.value
_TYPED = Format.TYPED
_CHECKED = Format.CHECKED
_JSON = Format.JSON
_RAW = Format.RAW
_BY_URL = Format.BY_URL
_EVENTS = StreamFormat.EVENTS


class KnownHead(Protocol):
    """A head whose meaning is known before it is read: see `RepeatedHead`."""

    @property
    def format(self) -> Format | None:
        """Return the format of the body."""
        ...

    @property
    def accept(self) -> AnswerFormat:
        """Return the format of the answer."""
        ...

    @property
    def accepts(self) -> bytes:
        """Return the Accept header as it came."""
        ...


class Cancellable(Protocol):
    """Something that is done for a request: an execution, a place in a batch, a body that is read,
    a relayed call.
    """

    def cancel(self) -> object:
        """Stop it: the client has left."""
        ...


def _never(value: object) -> bool:
    return False


class HttpRequest(AnswerableRequest):
    """A request to an API: it is read, and decides what becomes of the call.

    Args:
        connection: what it came by.
        api: the API that it is for.
        keep_alive: whether the connection stays open behind the answer.
        context: what travels with it.
        is_next: whether all requests before it on its connection have their answers.
        http_1_0: whether it speaks HTTP/1.0.
        client: who sent it, for the access log; behind a proxy that is trusted, who the proxy says.
        routed: how its API was found, if not by the bytes of its path and POST.

    `length` is how much of its body is here, `query` the URL's if the body is a stream or a file,
    `media_type` what the body is if it is neither JSON nor msgpack, `sink` where items go.
    """

    __slots__ = (
        "_body",
        "_execution",
        "_form_file",
        "_format",
        "_is_composed",
        "_is_next",
        "_limit",
        "_problem",
        "_relay",
        "media_type",
        "query",
        "sink",
    )  # fmt: skip

    def __init__(
        self,
        connection: RequestConnection,
        api: BoundApi,
        keep_alive: bool,
        context: CallContext,
        # (given by their places: to make an object by names takes twice as long)
        is_next: bool = False,
        http_1_0: bool = False,
        client: Address | None = None,
        routed: RoutedCall | None = None,
    ) -> None:
        listener = connection.listener
        # who asks, and for what
        self.connection = connection
        self.client = client
        self.trust = connection.trust
        self.context = context
        self.routed = routed
        self.http_1_0 = http_1_0
        self.started = time.perf_counter_ns()
        self._api = api
        series: RequestSeries | None = None
        if listener.counts_calls:
            if routed is None and (series := listener.posts.get(api.index)) is not None:
                series.begin()
            else:
                method = b"POST" if routed is None else b"HEAD" if routed.head else routed.method
                series = listener.counted(method, api.index)
        self.series = series
        # what is read of it
        self._is_next = is_next
        self._limit = listener.max_body_size
        self._body: list[bytes | bytearray] | None = None
        self._format: Format | None = None
        self._problem: CallError | None = None
        self.query = b""
        self.media_type = b""
        self._form_file: FormFile | None = None  # what the API reads of the form that its body is
        self._is_composed = False  # whether its arguments are a file and others, or a form
        # what is done for it
        self._execution: Cancellable | None = None
        self._relay: Cancellable | None = None
        self.sink: HttpSink | None = None
        # how it is answered
        self.accepts = b""
        self._accept: AnswerFormat = _JSON
        self.keep_alive = keep_alive and not listener.closing
        self.responder = listener.responder
        self._throttle = listener.throttles.get(api.plan.name)
        # how far it is
        self.body_stream: RequestBody | None = None
        self._whole = False
        self._noted = -1
        self._noted_body: bytes | None = None
        self.lost = False
        self.response_complete = False
        self.length = 0
        self._files: FilesOfCall | None = None

    # --- reading ---

    def execute_prepared(self, checked: bool, body: bytes) -> None:
        """Execute a whole request of a caller of ours, which waits for no other; see `composer` of
        `checked`.
        """
        context = self.context
        self.length = len(body)
        self._format = _TYPED
        self._accept = _CHECKED if checked else _TYPED
        if self._api.signature.stream:
            self.accepts = CHECKED_FRAMES if checked else _FRAMES
        context.deadline_ns = earliest(context.deadline_ns, self._api.timeout)
        self._whole = True
        self._is_next = True
        self._execute(body)

    def execute_repeated(self, head: KnownHead, body: bytes) -> None:
        """Execute a whole request of a client whose head is known, and which waits for no other."""
        self._format = head.format
        self._accept = head.accept
        self.accepts = head.accepts
        self.length = len(body)
        self._whole = True
        self._execute(body)

    @property
    def may_come_again(self) -> bool:
        """Return whether nothing was wrong with its head, and its body is no stream."""
        return (
            self._problem is None
            and self.keep_alive
            and self.body_stream is None
            and self._files is None
            and not self._is_composed
        )

    @property
    def is_read_by_api(self) -> bool:
        """Return whether its API reads the body as it comes, at its own pace."""
        if self.body_stream is None or self._files is not None:
            return False
        return not isinstance(self._execution, ReceivingFields)

    def headers_complete(
        self, headers: list[tuple[bytes, bytes]], query: bytes, body_stream: RequestBody | None
    ) -> None:
        """Decide what can be decided by the head, which is complete.

        Args:
            headers: names in lower case.
            query: what stands behind the path.
            body_stream: the body, if the API reads it as it comes.
        """
        api, context = self._api, self.context
        head = RequestHeaders(headers, context, self.trust)
        self.accepts = head.accept or b""
        format = content_format(head.content_type)
        if format is _BY_URL and self.trust is not RELAYED:
            format = _RAW
        self._accept = api.accepts(head.accept)
        routed = self.routed
        if routed is not None:
            query = routed.query(query, headers)
            if not routed.has_body:
                format = _JSON
        self._format = format
        self.query = query
        self.body_stream = body_stream
        problem = self._problem = head.problem(api, format, self._limit, query, routed)
        if format is _RAW or body_stream is not None:
            self._take_as_it_is(head.content_type or b"")
        forwarded = self.connection.listener.forward_headers
        if forwarded and not self.trust.values and context.head is not None:
            self._forward(context.head.unpack(), forwarded)
            problem = self._problem
        timeout = api.timeout if head.timeout is None else shortest(head.timeout, api.timeout)
        context.deadline_ns = earliest(context.deadline_ns, timeout)
        if problem is not None and not self._whole:
            self._refuse_unread()
        elif head.expects and not self.http_1_0 and self._is_next:
            # (behind others the answer is enough)
            self.connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if body_stream is not None and self._is_next and problem is None:
            self._go_on()

    def _take_as_it_is(self, content_type: bytes) -> None:
        """Note of which type a body is that is a file, a form or a stream, and how large it may
        be.
        """
        api, is_stream = self._api, self.body_stream is not None
        if is_stream or self._problem is None:
            self.media_type = content_type
        if not is_stream and self._problem is None:
            bodies = api.bodies
            self._is_composed = bodies is None or not bodies.is_plain(content_type, self.query)
        if not self.trust.values and (raw := api.signature.raw_media) is not None:
            most = raw[1].max_size
            if most is not None and not is_form(content_type):
                self._limit = min(self._limit, most)

    def _forward(self, head: RequestHead, names: Container[bytes]) -> None:
        """Have the headers of these names travel down with each call that is made for it."""
        fields = [field for field in head.headers if field[0] in names]
        if sum(len(name) + len(value) for name, value in fields) > LONGEST_TRAVELLER:
            self._problem = self._problem or too_long_to_travel(LONGEST_TRAVELLER)
        elif fields:
            self.context.forwarded = pack_fields(fields)

    def body_received(self, chunk: bytes) -> None:
        """Take a part of the body."""
        if self.response_complete:
            return
        self.length += len(chunk)
        if self.length > self._limit:
            self._problem = self._too_large()
            self._refuse_unread()
        elif self.body_stream is not None:
            self.body_stream.push(chunk)
        else:
            if self._body is None:
                self._body = [chunk]
            else:
                hold(self._body, chunk)

    def _too_large(self) -> CallError:
        """Return the refusal of a body that is larger than what is taken."""
        if self._limit == self.connection.listener.max_body_size:
            return too_large(self._limit)
        signature = self._api.signature
        assert signature.raw_media is not None
        told = file_refusal(signature.where, *signature.raw_media, None, self.length)
        return told or too_large(self._limit)

    def message_complete(self) -> None:
        """Go on, since the whole request is here."""
        self._whole = True
        if self.body_stream is not None:
            self.body_stream.end()
        elif self._is_next and not self.response_complete:
            self._execute()

    def begin(self) -> None:
        """Go on, since all requests before this one have their answers."""
        self._is_next = True
        if self._problem is not None and not self._whole:
            self._refuse_unread()
        elif self._whole or self.body_stream is not None:
            self._go_on()

    def _go_on(self) -> None:
        """Execute it, or receive it first: all of it, if its files are put on disk, or a form up to
        the file that is read as it comes.
        """
        stream, api, listener = self.body_stream, self._api, self.connection.listener
        executor, routed = listener.executor, self.routed
        if stream is None or self._problem is not None or listener.passes_on:
            self._execute()
            return
        if api.signature.input_stream is not None:
            if self.trust.values or not is_multipart(self.media_type):
                self._execute()
                return
            self._execution = ReceivingFields(
                executor, api, self.context, stream, self.media_type, self.query, self._on_fields
            )
            return
        self._files = FilesOfCall(executor.call_folder())
        self._execution = ReceivingFiles(
            executor,
            api,
            self.context,
            stream,
            self._format,
            self.media_type,
            self.query,
            routed.method if routed is not None and routed.by_url else None,
            self._files.folder,
            self._on_received,
        )

    def _on_fields(self, file: FormFile | None, error: BaseException | None) -> None:
        self._execution = None
        if self.response_complete or self.lost:
            return
        if error is not None:
            if not self._whole:
                self.keep_alive = False
            self._refuse_arguments(error)
            return
        self._form_file = file
        self._execute()

    def _on_received(
        self, arguments: dict[str, object] | None, error: BaseException | None
    ) -> None:
        self._execution = None
        if self.response_complete or self.lost:  # what it was refused for says more
            self._remove_files()
            return
        if error is not None:
            if not self._whole:
                self.keep_alive = False
            self._refuse_arguments(error)
            return
        self.body_stream = None
        assert self._files is not None
        assert arguments is not None
        self._files.arguments = arguments
        self._execute()

    # --- executing ---

    def _joined(self) -> bytes:
        """Return its whole body, and keep it no longer."""
        parts = self._body
        self._body = None
        if parts is None:
            return b""
        first = parts[0]
        return first if len(parts) == 1 and type(first) is bytes else b"".join(parts)

    def _execute(self, body: bytes | None = None) -> None:
        """Execute it, or refuse it.

        Args:
            body: its whole body; None: it has come in parts.
        """
        connection, api = self.connection, self._api
        listener = connection.listener
        try:
            if self._problem is not None:
                self.refuse(self._problem)
                return
            if body is None:
                try:
                    body = self._joined()
                except MemoryError as exc:  # it was not executed
                    self._refuse_arguments(exc)
                    return
            if self.routed is not None and self.routed.by_url and self._files is None:
                kind = self.media_type or (self._format or _JSON).value
                body = whole(self.routed.method, kind, self.query, body)
                self._format = _BY_URL
                self.media_type = b""
            if self.context.sent_ns:
                listener.executor.taken(api.index, self.context.sent_ns)
            permit = connection.permit
            if (permit.slot or permit.batcher is not None) and connection.caller_left():  # (`held`)
                connection.transport.close()
                return
            suspicions = listener.suspicions
            if (
                suspicions is not None
                and self.body_stream is None
                and self._files is None
                and (killer := suspicions.refusal(self._fingerprint(body))) is not None
            ):
                listener.executor.shed(QUARANTINED)
                self.refuse(killer)
            elif (
                refused := refusal(listener.executor, permit, api, self.context, self._throttle)
            ) is not None:
                self.refuse(refused)
            elif api.plan.batch is not None and not listener.passes_on:
                self._batch(body)
            elif listener.passes_on or (api.plan.lane == "queue" and not permit.take_slot()):
                self._pass_on(body)
            else:
                self._run(body)
        except Exception as exc:  # whatever it is, the call is answered
            self.fail(exc)

    def _add_note(self, notes: CallNotes, body: bytes) -> None:
        """Leave a note for the supervisor: if this call ends the worker, nobody else of ours has
        its bytes.
        """
        self._noted = notes.add(self._api.index, body)
        if self.connection.listener.suspicions is not None:
            self._noted_body = body

    def _run(self, body: bytes) -> None:
        listener = self.connection.listener
        if (notes := listener.notes) is not None:
            if self.body_stream is not None or self._files is not None:
                self._noted = notes.add_upload(self._api.index)
            elif listener.suspicions is None:
                self._noted = notes.add(self._api.index, body)
            else:
                self._add_note(notes, body)
        if self._files is not None:
            self._files.runs = True
            self._start(self._files.arguments)
        elif len(body) >= self._api.large_from and self._is_large(body):
            self._decode(body, self._start, self._on_freed)
        elif (arguments := self._arguments(body)) is None:
            self._on_freed()
        else:
            self._start(arguments)

    def _start(self, arguments: dict[str, object]) -> None:
        listener, api = self.connection.listener, self._api
        if api.signature.stream:
            format = api.streams(self.accepts)
            if self.routed is not None and self.routed.head:
                HttpSink(self, api, format).end()  # what it would stream is not made
                self._on_freed()
                return
            if format is _EVENTS:
                self.sink = EventSink(self, api, format, last_event(arguments))
            else:
                self.sink = HttpSink(self, api, format)
            self._execution = StreamExecution(
                listener.executor, api, self.context, self.sink, self._on_freed
            )
            self._execution.start(arguments)
        else:
            on_end = self._on_ended
            if api.writes_slowly:
                is_quick = packs_quickly if self.trust.values else _never
                api = encoding(api, self._result_writer(), listener.executor, is_quick)
                on_end = self._on_encoded
            execution = listener.executor.start(
                api, arguments, self.context, on_end, self._on_freed, at_once=True
            )
            if not self.response_complete:
                self._execution = execution

    def _batch(self, body: bytes) -> None:
        batcher = self.connection.listener.batchers[self._api.plan.name]
        came_for_it = self.connection.permit.take_place()
        if not came_for_it and not batcher.can_take():
            self._pass_on(body)
            return
        if (notes := self.connection.listener.notes) is not None and self.body_stream is None:
            self._add_note(notes, body)
        if self._is_large(body):
            if came_for_it:  # a batch is not held up by a body that is still to be read
                batcher.release_place()
            self._decode(body, self._join, batcher.drop_if_empty)
            return
        arguments = self._arguments(body)
        if arguments is not None:
            self._join(arguments, expected=came_for_it)
        elif came_for_it:
            batcher.release_place()
        else:
            batcher.drop_if_empty()

    def _join(self, arguments: dict[str, object], expected: bool = False) -> None:
        batcher = self.connection.listener.batchers[self._api.plan.name]
        try:
            self._execution = batcher.join(
                arguments, self.context, self._on_batch_ended, expected=expected
            )
        except InvalidArguments as exc:
            self.refuse(exc)
        except Exception as exc:
            self.fail(exc)

    def _result_writer(self) -> Callable[[object], EncodedResult | OpenedFile]:
        """Return what writes a result that takes long to write, in a thread."""
        if not self.trust.values:
            answer = self.context.answer
            return partial(encode_result, self._api.result, format=self._accept, answer=answer)
        return partial(encode_for_service, self.encoded, format=self._accept)

    def _on_batch_ended(self, result: object, error: BaseException | None) -> None:
        """Answer with what a batch has for this call; what takes long to write, a thread writes."""
        api = self._api
        if error is not None or not api.writes_slowly:
            self._on_ended(result, error)
            return
        executor = self.connection.listener.executor
        written = executor.loop.run_in_executor(executor.decoders, self._result_writer(), result)
        written.add_done_callback(self._on_written)

    def _on_written(self, written: asyncio.Future[EncodedResult | OpenedFile]) -> None:
        if written.cancelled():
            return
        error = written.exception()
        self._on_encoded(None if error is not None else written.result(), error)

    def _is_large(self, body: bytes) -> bool:
        return (
            len(body) >= self._api.large_from
            and not self.trust.values
            and self.body_stream is None
            and (self._format is not _RAW or self._is_composed)
        )

    def _decode(
        self, body: bytes, then: Callable[[dict[str, object]], None], give_up: Callable[[], None]
    ) -> None:
        """Read the arguments in a thread, and go on with them."""

        def ended(arguments: dict[str, object] | None, error: BaseException | None) -> None:
            self._execution = None
            if arguments is not None:
                then(arguments)
            elif error is not None:
                self._refuse_arguments(error)

        read_it = partial(
            read_arguments,
            self._api,
            self.query,
            body,
            self._format,
            None,
            None,
            self.media_type,
        )
        self._execution = Decoding(
            self.connection.listener.executor, self.context, read_it, ended, give_up
        )

    def _arguments(self, body: bytes) -> dict[str, object] | None:
        """Return the arguments; None when they do not fit, which is answered then."""
        fetch = self.connection.listener.fetch if self.trust.values else None
        format = self._format
        stream = self._form_file or self.body_stream
        try:
            # what nearly every call comes in, without a call between
            if (format is _JSON or format is _TYPED) and stream is None:
                try:
                    return self._api.arguments.decode(body, format, fetch)
                except MalformedBody as exc:
                    raise malformed(exc, format) from None
            return read_arguments(
                self._api, self.query, body, format, stream, fetch, self.media_type
            )
        except Exception as exc:
            self._refuse_arguments(exc)
        return None

    def _pass_on(self, body: bytes) -> None:
        """Relay the call, since every slot is taken: a free sibling takes it from the node's
        queue.
        """
        listener, api = self.connection.listener, self._api
        # it comes to us: it waits for a slot of ours
        is_here = self.body_stream is not None or self._files is not None
        if is_here and not listener.passes_on:
            run = lambda: self._run(body)  # noqa: E731
            self._execution = WaitingUpload(
                listener.executor, listener.slots, self.context, run, self.fail
            )
        else:
            self._relay = listener.relay.take(api, body, self._format, self._accept, self)

    def _on_freed(self) -> None:
        self._execution = None
        listener = self.connection.listener
        if (place := self._noted) >= 0:
            if listener.suspicions is None and (notes := listener.notes) is not None:
                notes.remove(place)
                self._noted = -1
            else:
                self._remove_note()
        if self._api.plan.lane == "queue":
            listener.slots.release()
        files = self._files
        if files is not None:
            files.runs = False
            self._remove_files()
        elif self.context.files is not None:
            self._remove_files()

    # --- ending early ---

    def abandon(self) -> None:
        """Cancel everything below: the client has left."""
        self.lost = True
        if self.series is not None:
            self.count(CLIENT_LEFT)
        if self._noted >= 0 and self._api.plan.batch is not None:
            self._remove_note()
        if self.body_stream is not None:
            self.body_stream.fail()
        if self._execution is not None:
            self._execution.cancel()
        if self._relay is not None:
            self._relay.cancel()
        if self._files is not None:
            self._remove_files()

    def drop(self) -> None:
        """Give the request up, and answer it no more: another answer takes the place of its own."""
        self.abandon()
        self.response_complete = True

    def _refuse_unread(self) -> None:
        """Answer before the body is read; the connection cannot go on, since nobody will read the
        rest.
        """
        self.keep_alive = False
        if not self._is_next or self.response_complete:
            return
        assert self._problem is not None
        if self.body_stream is not None:
            self.body_stream.fail()
        if self._relay is not None:
            self._relay.cancel()
        self.refuse(self._problem, close=False)
        self.connection.end(unread=True)
