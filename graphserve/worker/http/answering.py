"""The answer to one request of an API: a result, an error or a refusal, written once.

Runs in workers. `HttpRequest` is what reads and executes the request that is answered here.
"""

from __future__ import annotations

import asyncio
import base64
import math
import os
import time
from typing import TYPE_CHECKING, Protocol

from graphserve.call import call_fingerprint
from graphserve.call.context import CallContext
from graphserve.call.request_head import Address, Fields
from graphserve.errors import CallError, InvalidArguments
from graphserve.logs.exception_text import described
from graphserve.loop.reply import Reply
from graphserve.metrics.recorder import RequestSeries
from graphserve.wire import problem
from graphserve.wire.codec import Format, content_format
from graphserve.wire.exceptions import BeyondMsgpack
from graphserve.wire.formats import AnswerFormat, MediaFormat
from graphserve.wire.headers import ANSWER, BODILESS, CONTENT_TYPE, FILE, FILES
from graphserve.wire.problem import HttpProblem
from graphserve.wire.shared_buffers import UnreadableMemory
from graphserve.wire.trust import RELAYED, Trust
from graphserve.worker.dispatch.encoding import EncodedResult
from graphserve.worker.dispatch.executor import BoundApi
from graphserve.worker.dispatch.opened import OpenedFile, open_result
from graphserve.worker.dispatch.shedding import AdaptiveThrottle, noted
from graphserve.worker.dispatch.slots import Permit
from graphserve.worker.http.access_log import CountingWriter, body_length, log_answer, shown
from graphserve.worker.http.listener import Listener
from graphserve.worker.http.response import Responder
from graphserve.worker.http.routing import RoutedCall
from graphserve.worker.http.transport import FlowControl, Writer
from graphserve.worker.stream.receiving import FilesOfCall
from graphserve.worker.stream.request_body import RequestBody

if TYPE_CHECKING:
    from graphserve.call.answer import Answer
    from graphserve.wire.media.received import CallFolder

_BODY = b"\r\n\r\n"  # stands before it
# (looked up once: a member of an enum is slow to find)
_JSON, _TYPED, _CHECKED = Format.JSON, Format.TYPED, Format.CHECKED


class RequestConnection(Protocol):
    """A connection as a request knows it, which came by it."""

    @property
    def listener(self) -> Listener:
        """Return where it was accepted."""
        ...

    @property
    def permit(self) -> Permit:
        """Return what it holds of the worker's slots."""
        ...

    @property
    def trust(self) -> Trust:
        """Return what its requests may do more than those of a client."""
        ...

    @property
    def transport(self) -> Writer:
        """Return where answers are written."""
        ...

    @property
    def flow(self) -> FlowControl | None:
        """Return what holds either side back; None where an answer is one write."""
        ...

    def caller_left(self) -> bool:
        """Return whether the other side has closed its end, though its request came whole."""
        ...

    def end(self, *, unread: bool) -> None:
        """Close it behind its last answer.

        Args:
            unread: whether a part of its request is still to come, which nobody will read.
        """

    def on_response_complete(self) -> None:
        """Go on with the next request."""


def _came_in(content_type: bytes) -> AnswerFormat | None:
    """Return the format of a sibling's answer."""
    format = content_format(content_type)
    return MediaFormat(content_type) if format is Format.RAW else format


class AnswerableRequest:
    """A request to an API, as far as it takes to answer it.

    `HttpRequest` makes it, all fields in one call: one is made for each request. `trust` is what it
    may do more than a client, `accepts` its Accept header as it came, `body_stream` its body if the
    API reads it as it comes, `lost` whether the client is gone, `responder` what makes the bytes of
    its answer, `started` when it began, by `time.perf_counter_ns`, `series` what counts it, until
    that is done.
    """

    __slots__ = (
        "_accept",
        "_api",
        "_files",
        "_noted",
        "_noted_body",
        "_throttle",
        "_whole",
        "accepts",
        "body_stream",
        "client",
        "connection",
        "context",
        "http_1_0",
        "keep_alive",
        "length",
        "lost",
        "responder",
        "response_complete",
        "routed",
        "series",
        "started",
        "trust",
    )  # fmt: skip

    # who asks, and for what
    connection: RequestConnection
    client: Address | None
    trust: Trust
    context: CallContext
    routed: RoutedCall | None
    http_1_0: bool
    started: int
    _api: BoundApi
    series: RequestSeries | None
    # how it is answered
    accepts: bytes
    _accept: AnswerFormat
    keep_alive: bool
    responder: Responder
    _throttle: AdaptiveThrottle | None
    # how far it is
    body_stream: RequestBody | None
    _whole: bool  # whether its whole body is here
    _noted: int  # where the note is that says that it is executed; -1: there is none
    _noted_body: bytes | None  # of that, where calls of its node are suspects
    lost: bool
    response_complete: bool
    length: int  # of its body, as far as it is here
    _files: FilesOfCall | None  # what it was sent on disk, of an API that takes such files

    @property
    def api(self) -> BoundApi:
        """Return the API that it is for."""
        return self._api

    @property
    def transport(self) -> Writer:
        """Return where the answer is written, if it is not one write."""
        connection = self.connection
        if connection.listener.logs_calls:
            return CountingWriter(connection.transport, self.context)
        return connection.transport

    @property
    def flow(self) -> FlowControl:
        """Return what says whether the client takes what is written; asked for streams only, which
        no fast connection carries.
        """
        flow = self.connection.flow
        assert flow is not None
        return flow

    @property
    def deadline_ns(self) -> int | None:
        """Return when it has to be answered, by CLOCK_MONOTONIC."""
        return self.context.deadline_ns

    def close_after_answer(self) -> None:
        """Close the connection behind the answer."""
        self.keep_alive = False

    def log(self, status: int, last: bytes = b"") -> None:
        """Write the line of the access log, unless a sibling has passed the call on and writes it,
        with its client.

        Args:
            status: of the answer.
            last: of the answer, what did not go before.
        """
        if self.trust is not RELAYED:
            now, started = time.perf_counter(), self.started / 1e9
            routed, context = self.routed, self.context
            plan = self._api.plan
            method, path = "POST", plan.route
            if routed is not None:
                method = "HEAD" if routed.head else routed.method.decode()
                path = shown(routed.path)
            log_answer(
                method,
                path,
                status,
                context.request_id,
                now - started,
                self.client,
                route=plan.public_path,
                traceparent=context.traceparent,
                queued=None if context.begun is None else context.begun - started,
                bytes_in=self.length,
                bytes_out=body_length(last) if context.sent is None else context.sent + len(last),
            )

    def count(self, status: int) -> None:
        """Count how it has ended, which is done once."""
        series = self.series
        self.series = None
        if series is not None:
            series.end(status, time.perf_counter_ns() - self.started)

    def began_earlier(self, seconds: float) -> None:
        """Count the time that the request waited before it was read, also as time that its deadline
        allows for.
        """
        nanoseconds = math.floor(seconds * 1e9)
        self.started -= nanoseconds
        if self.context.deadline_ns is not None:
            self.context.deadline_ns -= nanoseconds

    # --- what the answer is ---

    def relayed(self, reply: Reply) -> None:
        """Answer with what the sibling that took the call has answered."""
        if self.lost or reply.cancelled() or self.response_complete:
            return
        try:
            status, headers, body = reply.result()
            packed = dict(headers).get(ANSWER)
            if status == 200 and (where := dict(headers).get(FILE)) is not None:
                kind, fetched = dict(headers).get(CONTENT_TYPE), dict(headers).get(FILES)
                self._send_found(where, kind, packed, fetched)
            elif status == 200 and packed is not None:
                from graphserve.call.answer import RelayedAnswer

                said = RelayedAnswer(packed)
                self._respond_as_said(said.status, said.fields(), said.content_type, body)
            elif status == 200:
                self._accept = _came_in(dict(headers).get(CONTENT_TYPE, b"")) or self._accept
                self.respond(body)
            else:
                self.refuse(
                    noted(self.connection.listener.error_of(status, headers, body), self._throttle)
                )
        except Exception as exc:
            self.fail(exc)

    def _on_ended(self, result: object, error: BaseException | None) -> None:
        """Answer with what the execution has returned, or raised."""
        if error is None:
            try:
                encode = self.encoded if self.trust.values else self._api.result.encode
                answer = self.context.answer
                if answer is not None and self._accept not in (_TYPED, _CHECKED):
                    self._answer_as_said(
                        answer, *answer.body(result, self._accept, self._api.result.encode)
                    )
                    return
                body = encode(result, self._accept)
            except BeyondMsgpack:
                self._accept = Format.JSON
                self._on_ended(result, None)
                return
            except Exception as exc:
                error = exc
            else:
                self.respond(body)
                return
        self.fail(error)

    def _on_encoded(self, result: object, error: BaseException | None) -> None:
        """Answer with a result that is written already, or with what was raised."""
        if isinstance(result, OpenedFile):
            self._send_file(result)
            return
        if not isinstance(result, EncodedResult):
            self._on_ended(result, error)
            return
        self._accept = result.format
        answer = self.context.answer
        if answer is not None and not self.trust.values:
            self._answer_as_said(answer, result.body, result.format.content_type)
        elif self.context.files is not None and self.trust.values:
            fields = [(FILES, self._hand_over(self.context.files))]
            self._respond_as_said(200, fields, result.format.content_type, result.body)
        else:
            self.respond(result.body)

    def _send_file(self, file: OpenedFile) -> None:
        """Answer with a file on disk."""
        answer = self.context.answer
        if answer is not None:
            answer.close()
        if self.trust is not RELAYED:
            status, fields = (200, []) if answer is None else (answer.status, answer.fields())
            self._begin_file(file, status, fields)
            return
        # who has passed it on sends it
        said = [(FILE, base64.b64encode(os.fsencode(file.path)))]
        if answer is not None:
            said.append((ANSWER, answer.pack(file.content_type)))
        if self.context.files is not None:
            said.append((FILES, self._hand_over(self.context.files)))
        self._respond_as_said(200, said, file.content_type, b"")
        file.file.close()

    def _hand_over(self, folder: CallFolder) -> bytes:
        """Leave the files that services have answered this call with to its caller, for a while;
        return what tells it so.
        """
        from graphserve.call.fetched import handed_over, remove_later

        remove_later(folder)
        self.context.files = None
        return handed_over(folder)

    def _send_found(
        self,
        where: bytes,
        content_type: bytes | None,
        packed: bytes | None,
        fetched: bytes | None,
    ) -> None:
        """Answer with a file that the sibling has found which took the call.

        Args:
            where: its path.
            content_type: of it.
            packed: how else it is answered, if user code has said so.
            fetched: the folder that the file may be in, which nobody needs any more when it is
                open.
        """
        from graphserve.call.answer import RelayedAnswer
        from graphserve.call.fetched import remove_handed_over

        said = None if packed is None else RelayedAnswer(packed)
        executor = self.connection.listener.executor
        path = os.fsdecode(base64.b64decode(where))
        name = f"{executor.node.name}.{self._api.plan.name}"
        opening = executor.loop.run_in_executor(
            executor.decoders, open_result, path, content_type, name
        )

        def opened(opening: asyncio.Future[OpenedFile]) -> None:
            if fetched is not None:
                remove_handed_over(fetched)
            if opening.cancelled() or self.lost:
                return
            if (error := opening.exception()) is not None:
                self.fail(error)
            elif said is None:
                self._begin_file(opening.result(), 200, [])
            else:
                self._begin_file(opening.result(), said.status, said.fields())

        opening.add_done_callback(opened)

    def _begin_file(self, file: OpenedFile, status: int, fields: Fields) -> None:
        from graphserve.worker.http.file_answer import FileAnswer, FilePart, part_of

        routed = self.routed
        part = FilePart(200, 0, file.size)
        head = self.context.head
        if routed is not None and routed.method == b"GET" and status == 200 and head is not None:
            part = part_of(file.size, file.modified_ns, dict(head.unpack().headers))
        head_only = (routed is not None and routed.head) or status in BODILESS
        executor = self.connection.listener.executor
        FileAnswer(self, executor, file, part, status, fields, head_only=head_only).start()

    def _answer_as_said(self, answer: Answer, body: bytes, content_type: bytes) -> None:
        """Answer with a result as user code has said; a typed caller takes the result alone."""
        answer.close()
        if self.trust is RELAYED:  # who has passed it on answers so
            fields = [(ANSWER, answer.pack(content_type))]
            self._respond_as_said(200, fields, content_type, body)
        else:
            self._respond_as_said(answer.status, answer.fields(), content_type, body)

    def _respond_as_said(
        self, status: int, fields: Fields, content_type: bytes, body: bytes
    ) -> None:
        if self.body_stream is not None and not self._whole:  # (`respond`)
            self.keep_alive = False
        request_id = self.context.request_id
        whole = None if status in BODILESS else body
        self.finish(
            status,
            self.responder.said(status, fields, content_type, whole, request_id, self.keep_alive),
        )

    def _refuse_arguments(self, error: BaseException) -> None:
        """Answer that the body holds no arguments of the API, or that they found no memory."""
        if isinstance(error, (HttpProblem, InvalidArguments)):
            self.refuse(error)
        elif isinstance(error, UnreadableMemory):
            self._refuse_untaken(
                str(error), "no-memory" if error.short == "memory" else "by-socket"
            )
        elif isinstance(error, MemoryError):
            self._refuse_untaken(described(error), "no-memory")
        else:
            self.fail(error)

    def _refuse_untaken(self, why: str, how: str) -> None:
        node = self.responder.node
        name = f"{node}.{self._api.plan.name}"
        error = problem.UnreadableArguments(
            f"{node} could not take the arguments of {name}: {why}", how, node=node
        )
        if how == "no-memory":  # otherwise they come again by the socket
            problem.log(name, error, None, self.context.request_id.decode("latin-1"))
        self.refuse(error)

    def fail(self, exc: BaseException) -> None:
        """Answer with an error."""
        if self.body_stream is not None and not self._whole:
            self.keep_alive = False
        status, data = self.responder.error(
            noted(exc, self._throttle),
            self.trust,
            self.context,
            self.keep_alive,
            self._api.plan.name,
        )
        self._write(data, status)

    def finish(self, status: int, data: bytes = b"") -> None:
        """Complete the answer with these bytes."""
        if self._throttle is not None and self._throttle.active:
            self._throttle.taken()
        self._write(data, status)

    def respond(self, body: bytes) -> None:
        """Answer with the bytes of a result."""
        # the API did not want the rest of the body
        if self.body_stream is not None and not self._whole:
            self.keep_alive = False
        self.finish(
            200, self.responder.result(body, self._accept, self.context.request_id, self.keep_alive)
        )

    def refuse(self, exc: CallError, close: bool = True) -> None:
        """Answer with a refusal that needs no word in the log."""
        status, data = self.responder.problem(exc, self.trust, self.context, self.keep_alive)
        self._write(data, status, close)

    def _write(self, data: bytes, status: int, close: bool = True) -> None:
        """Write the whole answer, or what is left of it, and let the connection go on or end."""
        if self.lost or self.response_complete:
            return
        if self._noted >= 0 and self._api.plan.batch is not None:
            self._remove_note()
        connection = self.connection
        self.response_complete = True
        if self.routed is not None and self.routed.head:
            data = data[: data.find(_BODY) + len(_BODY)]
        series = self.series
        if series is not None:  # before: who has its answer finds it counted
            # (`count`, without its call)
            self.series = None
            series.end(status, time.perf_counter_ns() - self.started)
        connection.transport.write(data)
        if self.body_stream is not None and not self._whole:
            self.body_stream.fail()  # a thread may wait for more of it
        if connection.listener.logs_calls:
            self.log(status, data)
        if not self.keep_alive and close:
            connection.end(unread=self.body_stream is not None and not self._whole)
        if self._files is not None or self.context.files is not None:
            self._remove_files()
        connection.on_response_complete()

    def _remove_files(self) -> None:
        """Remove the files on disk that it was sent, and those that services have answered it
        with, once it is answered and nothing of it runs any more.
        """
        if not (self.lost or self.response_complete):
            return
        files = self._files
        if files is not None and not files.runs:
            self._files = None
            self.connection.listener.executor.decoders.submit(files.folder.remove)
        if self.context.files is not None and self.context.over:
            self._remove_fetched(self.context.files)

    def _remove_fetched(self, folder: CallFolder) -> None:
        from graphserve.call.fetched import remove_soon

        if self.trust.values and self._api.plan.stream:
            self._hand_over(folder)  # the caller may still have items to take
        else:
            remove_soon(self.context)

    def encoded(self, value: object, format: AnswerFormat) -> bytes:
        """Return a result, or an item of a stream, as bytes for who made this request; see
        `ResultCodec.encode`.
        """
        listener = self.connection.listener
        if not self.trust.memory or listener.sender is None:
            return self._api.result.encode(value, format, paths=self.trust.values)
        body = self._api.result.encode(value, format, listener.place)
        listener.sender.collect()  # a result is watched by whether it was taken
        return body

    # --- the note of it, while it is executed ---

    def _fingerprint(self, body: bytes) -> str:
        """Return what a call with this body is known by, if it kills workers."""
        return call_fingerprint.of(self._api.plan.route, body)

    def _remove_note(self) -> None:
        """Remove the note: the call is over, and has ended no worker."""
        place = self._noted
        self._noted = -1
        listener = self.connection.listener
        if place >= 0 and listener.notes is not None:
            listener.notes.remove(place)
        body = self._noted_body
        self._noted_body = None
        if listener.suspicions is not None and body is not None:
            listener.suspicions.answered(self._fingerprint(body))
