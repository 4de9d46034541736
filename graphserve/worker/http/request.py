"""One request to one API: read, checked, executed, answered. Runs in workers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from graphserve.call import call_fingerprint
from graphserve.call.context import CallContext, earliest, shortest
from graphserve.errors import CallError, InvalidArguments
from graphserve.logs.exception_text import described
from graphserve.loop.reply import Reply
from graphserve.wire import problem
from graphserve.wire.codec import Format, accept_format, content_format
from graphserve.wire.costs.bounds import LARGE_BODY
from graphserve.wire.exceptions import BeyondMsgpack
from graphserve.wire.formats import CHECKED_FRAMES, StreamFormat, stream_format
from graphserve.wire.headers import CONTENT_TYPE
from graphserve.wire.memory import UnreadableMemory
from graphserve.wire.problem import HttpProblem
from graphserve.wire.trust import RELAYED, Trust
from graphserve.worker.dispatch.decoding import Decoding
from graphserve.worker.dispatch.executor import BoundApi
from graphserve.worker.dispatch.slots import Permit, WaitingUpload
from graphserve.worker.flight_recorder import CallNotes
from graphserve.worker.http.access_log import log_answer
from graphserve.worker.http.headers import RequestHeaders, read
from graphserve.worker.http.limits import too_large
from graphserve.worker.http.listener import Listener
from graphserve.worker.http.response import HttpSink, Responder
from graphserve.worker.http.shedding import noted, refusal
from graphserve.worker.http.transport import Address, FlowControl, Writer
from graphserve.worker.stream.producer import StreamExecution
from graphserve.worker.stream.request_body import RequestBody, hold

# (looked up once: a member of an enum is slow to find, and says its value by two calls)
_FRAMES = StreamFormat.FRAMES.value
_JSON, _TYPED, _CHECKED = Format.JSON, Format.TYPED, Format.CHECKED


class RequestConnection(Protocol):
    """What a request needs of the connection that it came by."""

    @property
    def listener(self) -> Listener:
        """Where it was accepted."""
        ...

    @property
    def permit(self) -> Permit:
        """What it holds of the worker's slots."""
        ...

    @property
    def trust(self) -> Trust:
        """What its requests may do more than those of a client."""
        ...

    @property
    def transport(self) -> Writer:
        """Where answers are written."""
        ...

    @property
    def flow(self) -> FlowControl | None:
        """Holds either side back; None where an answer is one write."""
        ...

    def caller_left(self) -> bool:
        """Return whether the other side has closed its end, though its request came whole."""
        ...

    def close_unread(self) -> None:
        """Close it soon, and throw away what still comes: the body will not be read."""

    def on_response_complete(self) -> None:
        """Go on with the next request."""


class KnownHead(Protocol):
    """What the head of a request says, if that is known before it is read."""

    @property
    def format(self) -> Format | None:
        """The format of the body."""
        ...

    @property
    def accept(self) -> Format:
        """The format of the answer."""
        ...

    @property
    def accepts(self) -> bytes:
        """The Accept header as it came."""
        ...


class Cancellable(Protocol):
    """What is done for a request: an execution, a place in a batch, a body that is read, a relayed
    call.
    """

    def cancel(self) -> object:
        """Stop it: the client has left."""
        ...


class HttpRequest:
    """A request to an API: it decides what becomes of the call, and writes its answer.

    Args:
        connection: what it came by.
        api: the API that it is for.
        keep_alive: whether the connection stays open behind its answer.
        context: what travels with it.
        is_next: whether all requests before it on its connection have their answers.
        old: whether it speaks HTTP/1.0.
        client: who sent it, for the access log; behind a proxy that is trusted, who the proxy says.

    `trust` is what it may do more than a client, `accepts` its Accept header as it came, `length`
    how much of its body is here, `body_stream` its body if the API reads it as it comes, `query`
    the URL's then, `lost` whether the client is gone, `sink` where items go.
    """

    __slots__ = (
        "_accept",
        "_api",
        "_body",
        "_complete",
        "_execution",
        "_format",
        "_is_next",
        "_limit",
        "_noted",
        "_problem",
        "_relay",
        "_throttle",
        "accepts",
        "body_stream",
        "client",
        "connection",
        "context",
        "keep_alive",
        "length",
        "lost",
        "old",
        "path",
        "query",
        "response_complete",
        "sink",
        "started",
        "trust",
    )  # fmt: skip

    def __init__(
        self,
        connection: RequestConnection,
        api: BoundApi,
        keep_alive: bool,
        context: CallContext,
        *,
        is_next: bool = False,
        old: bool = False,
        client: Address | None = None,
    ) -> None:
        listener = connection.listener
        self.connection = connection
        self.client = client
        self._api = api
        self.response_complete = False
        self.old = old
        self.keep_alive = keep_alive and not listener.closing
        self._body: list[bytes | bytearray] = []
        self.query = b""
        self.length = 0
        self._noted = -1  # where a note of it is
        self._limit = listener.max_body_size
        self._is_next = is_next
        self._complete = False
        self.lost = False
        self._problem: CallError | None = None
        self._format: Format | None = None
        self._accept = _JSON
        self.accepts = b""
        self._execution: Cancellable | None = None
        self._relay: Cancellable | None = None
        self.body_stream: RequestBody | None = None
        self.sink: HttpSink | None = None
        self.context = context
        self._throttle = listener.throttles.get(api.plan.name)
        self.path = api.plan.route
        self.trust = connection.trust
        self.started = time.perf_counter()

    # --- reading ---

    def take(self, checked: bool, body: bytes) -> None:
        """Execute a whole request of a caller of ours, which waits for no other; see `composer` of
        `checked`.
        """
        context = self.context
        self._body = [body]
        self._format = _TYPED
        self._accept = _CHECKED if checked else _TYPED
        if self._api.signature.stream:
            self.accepts = CHECKED_FRAMES if checked else _FRAMES
        context.deadline_ns = earliest(context.deadline_ns, self._api.timeout)
        self._complete = True
        self._is_next = True
        self._execute()

    def take_again(self, head: KnownHead, body: bytes) -> None:
        """Execute a whole request of a client whose head is known, and which waits for no other."""
        self._format = head.format
        self._accept = head.accept
        self.accepts = head.accepts
        self._body = [body]
        self.length = len(body)
        self._complete = True
        self._execute()

    @property
    def api(self) -> BoundApi:
        """The API that it is for."""
        return self._api

    @property
    def responder(self) -> Responder:
        """What makes the bytes of answers."""
        return self.connection.listener.responder

    @property
    def transport(self) -> Writer:
        """Where the answer is written."""
        return self.connection.transport

    @property
    def flow(self) -> FlowControl:
        """Whether the client takes what is written; asked for streams only, which no fast
        connection carries.
        """
        flow = self.connection.flow
        assert flow is not None
        return flow

    @property
    def deadline_ns(self) -> int | None:
        """When it has to be answered, by CLOCK_MONOTONIC."""
        return self.context.deadline_ns

    @property
    def may_come_again(self) -> bool:
        """Whether nothing was wrong with its head, and its body is no stream."""
        return (
            self._problem is None and self.keep_alive and self._api.signature.input_stream is None
        )

    def headers_complete(
        self, headers: list[tuple[bytes, bytes]], query: bytes, body_stream: RequestBody | None
    ) -> None:
        """Decide what can be decided by the head, which is complete.

        Args:
            headers: names in lower case.
            query: what stands behind the path.
            body_stream: the body, if the API reads it as it comes.
        """
        context = self.context
        head = RequestHeaders(headers, context, self.trust)
        self.accepts = head.accept or b""
        self._format = content_format(head.content_type)
        self._accept = accept_format(head.accept)
        self.query = query
        self.body_stream = body_stream
        self._problem = head.problem(self._api, self._format, self._limit, self.query)
        timeout = (
            self._api.timeout if head.timeout is None else shortest(head.timeout, self._api.timeout)
        )
        context.deadline_ns = earliest(context.deadline_ns, timeout)
        if self._problem is not None and not self._complete:
            self._refuse()
        elif head.expects and not self.old and self._is_next:  # behind others the answer is enough
            self.connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.body_stream is not None and self._is_next and self._problem is None:
            self._execute()

    def body_received(self, chunk: bytes) -> None:
        """Take a part of the body."""
        if self.response_complete:
            return
        self.length += len(chunk)
        if self.length > self._limit:
            self._problem = too_large(self._limit)
            self._refuse()
        elif self.body_stream is not None:
            self.body_stream.push(chunk)
        else:
            if self._body:
                hold(self._body, chunk)
            else:
                self._body.append(chunk)

    def message_complete(self) -> None:
        """Go on, since the whole request is here."""
        self._complete = True
        if self.body_stream is not None:
            self.body_stream.end()
        elif self._is_next and not self.response_complete:
            self._execute()

    def begin(self) -> None:
        """Go on, since all requests before this one have their answers."""
        self._is_next = True
        if self._problem is not None and not self._complete:
            self._refuse()
        elif self._complete or self.body_stream is not None:
            self._execute()

    # --- executing ---

    def _execute(self) -> None:
        connection, api = self.connection, self._api
        listener = connection.listener
        try:
            if self._problem is not None:
                self._quiet(self._problem)
                return
            parts = self._body
            body = parts[0] if len(parts) == 1 and type(parts[0]) is bytes else b"".join(parts)
            self._body = []
            permit = connection.permit
            if (permit.slot or permit.batcher is not None) and connection.caller_left():  # (`held`)
                connection.transport.close()
                return
            suspicions = listener.suspicions
            if (
                suspicions is not None
                and self.body_stream is None
                and (killer := suspicions.refusal(self._call(body))) is not None
            ):
                self._quiet(killer)
            elif (
                refused := refusal(listener.executor, permit, api, self.context, self._throttle)
            ) is not None:
                self._quiet(refused)
            elif api.plan.batch is not None and not listener.passes_on:
                self._batch(body)
            elif listener.passes_on or (api.plan.lane == "queue" and not permit.take_slot()):
                self._pass_on(body)
            else:
                self._run(body)
        except Exception as exc:  # whatever it is, the call is answered
            self.fail(exc)

    def _call(self, body: bytes) -> str:
        return call_fingerprint.of(self._api.plan.route, body)

    def _note(self, notes: CallNotes, body: bytes) -> None:
        """Leave a note for the supervisor: if this call ends the worker, nobody else of ours has
        its bytes.
        """
        self._noted = notes.add(self._api.index, body)
        if self.connection.listener.suspicions is not None:
            self._body = [body]

    def _unnote(self) -> None:
        """Remove the note: the call is over, and has ended no worker."""
        place = self._noted
        self._noted = -1
        listener = self.connection.listener
        if place >= 0 and listener.notes is not None:
            listener.notes.remove(place)
        if listener.suspicions is not None and self._body:
            listener.suspicions.answered(self._call(bytes(self._body[0])))
        self._body = []

    def _run(self, body: bytes) -> None:
        listener = self.connection.listener
        if (notes := listener.notes) is not None:
            if self.body_stream is not None:
                self._noted = notes.add_upload(self._api.index)
            elif listener.suspicions is None:
                self._noted = notes.add(self._api.index, body)
            else:
                self._note(notes, body)
        if len(body) >= LARGE_BODY and self._is_large(body):
            self._decode(body, self._start, self._freed)
        elif (arguments := self._arguments(body)) is None:
            self._freed()
        else:
            self._start(arguments)

    def _start(self, arguments: dict[str, Any]) -> None:
        listener, api = self.connection.listener, self._api
        if api.signature.stream:
            self.sink = HttpSink(self, api, stream_format(self.accepts))
            self._execution = StreamExecution(
                listener.executor, api, self.context, self.sink, self._freed
            )
            self._execution.start(arguments)
        else:
            execution = listener.executor.start(
                api, arguments, self.context, self._ended, self._freed, at_once=True
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
            self._note(notes, body)
        if self._is_large(body):
            if came_for_it:  # a batch is not held up by a body that is still to be read
                batcher.release_place()
            self._decode(body, self._join, batcher.close_if_done)
            return
        arguments = self._arguments(body)
        if arguments is not None:
            self._join(arguments, expected=came_for_it)
        elif came_for_it:
            batcher.release_place()
        else:
            batcher.close_if_done()

    def _join(self, arguments: dict[str, Any], expected: bool = False) -> None:
        batcher = self.connection.listener.batchers[self._api.plan.name]
        try:
            self._execution = batcher.join(arguments, self.context, self._ended, expected=expected)
        except InvalidArguments as exc:
            self._quiet(exc)
        except Exception as exc:
            self.fail(exc)

    def _is_large(self, body: bytes) -> bool:
        return (
            len(body) >= LARGE_BODY
            and not self.trust.values
            and self.body_stream is None
            and self._format is not Format.RAW
        )

    def _decode(
        self, body: bytes, then: Callable[[dict[str, Any]], None], give_up: Callable[[], None]
    ) -> None:
        """Read the arguments in a thread, and go on with them."""

        def ended(arguments: dict[str, Any] | None, error: BaseException | None) -> None:
            self._execution = None
            if arguments is not None:
                then(arguments)
            elif error is not None:
                self._misfit(error)

        read_it = partial(read, self._api, self.query, body, self._format, None, None)
        self._execution = Decoding(
            self.connection.listener.executor, self.context, read_it, ended, give_up
        )

    def _arguments(self, body: bytes) -> dict[str, Any] | None:
        """Return the arguments; None when they do not fit, which is answered then."""
        try:
            fetch = self.connection.listener.fetch if self.trust.values else None
            return read(self._api, self.query, body, self._format, self.body_stream, fetch)
        except Exception as exc:
            self._misfit(exc)
        return None

    def _misfit(self, error: BaseException) -> None:
        if isinstance(error, (HttpProblem, InvalidArguments)):
            self._quiet(error)
        elif isinstance(error, UnreadableMemory):
            self._untakable(str(error), "no-memory" if error.short == "memory" else "by-socket")
        elif isinstance(error, MemoryError):
            self._untakable(described(error), "no-memory")
        else:
            self.fail(error)

    def _untakable(self, why: str, how: str) -> None:
        node = self.connection.listener.responder.node
        name = f"{node}.{self._api.plan.name}"
        error = problem.UnreadableArguments(
            f"{node} could not take the arguments of {name}: {why}", how, node=node
        )
        if how == "no-memory":  # otherwise they come again by the socket
            problem.log(name, error, None, self.context.request_id.decode("latin-1"))
        self._quiet(error)

    def _pass_on(self, body: bytes) -> None:
        """Relay the call, since every slot is taken: a free sibling takes it from the node's
        queue.
        """
        listener, api = self.connection.listener, self._api
        # it comes to us: it waits for a slot of ours
        if self.body_stream is not None and not listener.passes_on:
            run = lambda: self._run(body)  # noqa: E731
            self._execution = WaitingUpload(
                listener.executor, listener.slots, self.context, run, self.fail
            )
        else:
            self._relay = listener.relay.take(api, body, self._format, self._accept, self)

    def relayed(self, reply: Reply) -> None:
        """Answer with what the sibling that took the call has answered."""
        if self.lost or reply.cancelled() or self.response_complete:
            return
        try:
            status, headers, body = reply.result()
            if status == 200:
                self._accept = content_format(dict(headers).get(CONTENT_TYPE)) or self._accept
                self._result(body)
            else:
                self._quiet(
                    noted(self.connection.listener.error_of(status, headers, body), self._throttle)
                )
        except Exception as exc:
            self.fail(exc)

    def _ended(self, result: Any, error: BaseException | None) -> None:
        if error is None:
            try:
                encode = self.encoded if self.trust.memory else self._api.result.encode
                body = encode(result, self._accept)
            except BeyondMsgpack:
                self._accept = Format.JSON
                self._ended(result, None)
                return
            except Exception as exc:
                error = exc
            else:
                self._result(body)
                return
        self.fail(error)

    def encoded(self, value: Any, format: Format) -> bytes:
        """Return a result, or an item of a stream, as bytes for who made this request; see
        `ResultCodec.encode`.
        """
        listener = self.connection.listener
        if not self.trust.memory or listener.sender is None:
            return self._api.result.encode(value, format)
        body = self._api.result.encode(value, format, listener.place)
        listener.sender.collect()  # a result is watched by whether it was taken
        return body

    def _freed(self) -> None:
        self._execution = None
        listener = self.connection.listener
        if (place := self._noted) >= 0:
            if listener.suspicions is None and (notes := listener.notes) is not None:
                notes.remove(place)
                self._noted = -1
            else:
                self._unnote()
        if self._api.plan.lane == "queue":
            listener.slots.release()

    # --- answering ---

    def close_after_answer(self) -> None:
        """Close the connection behind the answer."""
        self.keep_alive = False

    def abandon(self) -> None:
        """Cancel everything below: the client has left."""
        self.lost = True
        if self._noted >= 0 and self._api.plan.batch is not None:
            self._unnote()
        if self.body_stream is not None:
            self.body_stream.fail()
        if self._execution is not None:
            self._execution.cancel()
        if self._relay is not None:
            self._relay.cancel()

    def drop(self) -> None:
        """Give the request up, and answer it no more: another answer takes the place of its own."""
        self.abandon()
        self.response_complete = True

    def log(self, status: int) -> None:
        """Write the line of the access log, unless a sibling has passed the call on and writes it,
        with its client.
        """
        if self.trust is not RELAYED:
            seconds = time.perf_counter() - self.started
            log_answer("POST", self.path, status, self.context.request_id, seconds, self.client)

    def began_earlier(self, seconds: float) -> None:
        """Count the time that the request waited before it was read, also as time that its deadline
        allows for.
        """
        self.started -= seconds
        if self.context.deadline_ns is not None:
            self.context.deadline_ns -= math.floor(seconds * 1e9)

    def fail(self, exc: BaseException) -> None:
        """Answer with an error."""
        if self.body_stream is not None and not self._complete:
            self.keep_alive = False
        responder = self.connection.listener.responder
        status, data = responder.error(
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

    def _result(self, body: bytes) -> None:
        # the API did not want the rest of the body
        if self.body_stream is not None and not self._complete:
            self.keep_alive = False
        responder = self.connection.listener.responder
        self.finish(
            200, responder.result(body, self._accept, self.context.request_id, self.keep_alive)
        )

    def _quiet(self, exc: CallError, close: bool = True) -> None:
        """Answer with a refusal that needs no word in the log."""
        status, data = self.connection.listener.responder.problem(
            exc, self.trust, self.context, self.keep_alive
        )
        self._write(data, status, close)

    def _refuse(self) -> None:
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
        self._quiet(self._problem, close=False)
        self.connection.close_unread()

    def _write(self, data: bytes, status: int, close: bool = True) -> None:
        if self.lost or self.response_complete:
            return
        if self._noted >= 0 and self._api.plan.batch is not None:
            self._unnote()
        connection = self.connection
        self.response_complete = True
        connection.transport.write(data)
        if connection.listener.access_log:
            self.log(status)
        if not self.keep_alive and close:
            if self.body_stream is not None and not self._complete:
                connection.close_unread()
            else:
                connection.transport.close()
        connection.on_response_complete()
