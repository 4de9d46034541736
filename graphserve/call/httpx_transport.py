"""Transports for httpx: real `httpx.AsyncClient` and `httpx.Client` send their requests over our
lanes.

Runs in workers.

As users of httpx expect: statuses are responses, bodies stream both ways, and what fails on the way
is an error of httpx's own. Those errors carry ours: one that an API lets pass is answered as a
typed call's would be.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import TypeVar

import httpx

from graphserve.call.connection import CUT, Connection
from graphserve.call.context import CallContext, current, earliest, shortest
from graphserve.call.exchange import (
    ANY_RUNS,
    Lane,
    NotSent,
    error_of,
)
from graphserve.call.lanes.url import carrying
from graphserve.call.pieces import PiecewiseExchange, wake
from graphserve.call.request import with_travellers
from graphserve.call.upload import ThreadUpload, Upload
from graphserve.errors import CallError, DeadlineExceeded, RemoteError, Unavailable
from graphserve.loop.loop_thread import LoopThread
from graphserve.loop.reply import Reply
from graphserve.metrics.layout import DEADLINE as DEADLINE_PASSED, ERROR, OK, UNAVAILABLE
from graphserve.metrics.recorder import CallSeries
from graphserve.wire.formats import StreamFormat
from graphserve.wire.headers import (
    CALLER,
    CHUNKED,
    CLOSE,
    CONTENT_TYPE,
    DEADLINE,
    ERROR_KIND,
    FORWARDED,
    HOP_BY_HOP,
    INTERNAL_PREFIX,
    PRINCIPAL,
    Headers,
    head_fault,
)
from graphserve.wire.reason_phrases import phrase
from graphserve.wire.trust import MADE

T = TypeVar("T")

Head = tuple[int, Headers, bytes | None]  # of an answer; the body, if it is whole
NDJSON = StreamFormat.NDJSON.value
HIGH_BYTES = 256 * 1024  # what waits for a slow reader at most, before the connection is held back

# as what a response is counted that is no success
_OUTCOMES = {
    Unavailable.default_status: UNAVAILABLE,
    DeadlineExceeded.default_status: DEADLINE_PASSED,
}
_IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")  # RFC 9110, 9.2.2


class NotConnected(DeadlineExceeded):
    """Raised when no worker took the request within httpx's `connect` timeout."""


class HttpExchange(PiecewiseExchange[bytes]):
    """One request of an httpx client, whose answer is the bytes of a response.

    The body of a success comes in pieces, as they are made.

    Args:
        bodiless: whether it asks with HEAD.
        write_timeout: seconds that a piece of the upload may take to be taken.
        series: as of `Exchange`.
    """

    __slots__ = (
        "bodiless",
        "connecting",
        "feeding",
        "headers",
        "latest",
        "pieces",
        "status",
        "write_timeout",
    )
    trust = MADE

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lane: Lane[bytes],
        node: str,
        request: bytes,
        deadline_ns: int | None,
        slack: float,
        runs: int,
        upload: Upload | ThreadUpload | None,
        *,
        bodiless: bool,
        write_timeout: float | None,
        series: CallSeries | None = None,
    ) -> None:
        left = None if deadline_ns is None else (deadline_ns - time.monotonic_ns()) / 1e9
        super().__init__(
            loop, lane, node, request, deadline_ns, slack, runs, _raw, upload, series=series,
            piece_timeout=left,
        )  # fmt: skip
        self.bodiless = bodiless
        self.write_timeout = write_timeout
        self.connecting: asyncio.TimerHandle | None = None
        self.feeding: asyncio.Task[None] | None = None
        # what has come of the answer
        self.headers: Headers | None = None  # once it has begun
        self.status = 200
        self.pieces: deque[bytes] = deque()
        self.latest = b""

    def watch(self, connect: float | None) -> None:
        """Give it up if no worker has taken it within so many seconds; after `start`."""
        if (
            connect is not None
            and not self.over
            and self.connection is None
            and self.lane.retry_budget is not None
        ):
            self.connecting = self.loop.call_later(connect, self._not_connected)

    def head(self, headers: Headers, status: int = 200) -> None:
        """Begin the answer; from here on it cannot be sent again."""
        self.headers = list(headers)
        self.status = status
        super().head(headers, status)
        if self.connecting is not None:
            self.connecting.cancel()
        # Mostly the rest is in what is being read just now: then it is one answer, and not one that
        # comes in pieces.
        self.loop.call_soon(self._open)

    def chunk(self, data: bytes) -> None:
        """Keep a part of the answer for the reader."""
        self._came()
        self.pieces.append(data)
        self.latest = data
        self.size += len(data)
        if self.size >= HIGH_BYTES:
            self._pause()
        wake(self.piece_waiter)

    def answered(self, status: int, headers: Headers, body: bytes) -> None:
        """End the answer, which is complete."""
        if self.bodiless:  # (of a socket no body came)
            body = b""
        if self.headers is None or self.over:
            super().answered(status, headers, body)
            return
        by_socket = self.connection is not None
        self.connection = None
        if body:
            self.pieces.append(body)
        whole = None if self.reply.done() else b"".join(self.pieces)
        self._finish(None, (status, self.headers, whole), at_once=by_socket)

    def feed(self, connection: Connection) -> None:
        """Send the streamed part of the request, also while the answer comes."""
        self.feeding = self.loop.create_task(self.send_upload(connection))

    def lost(self, reason: str, unread: bool) -> None:
        """End the answer early: the connection ended."""
        if self.headers is None:
            super().lost(reason, unread)
            return
        self.connection = None
        # The last line of NDJSON that was cut says why; a deadline that passed has an error of its
        # own.
        line = (
            self.latest.rstrip(b"\n").rpartition(b"\n")[2]
            if (CONTENT_TYPE, NDJSON) in self.headers
            else b""
        )
        said = error_of(0, [], line, self.node)
        late = reason is CUT and isinstance(said, DeadlineExceeded)
        self.fail(said if late else RemoteError(self._loss(reason), node=self.node))

    @property
    def streaming(self) -> bool:
        """Return whether its answer has begun."""
        return self.headers is not None

    @property
    def waiting(self) -> bool:
        """Return whether the head of the answer is due, or a piece that somebody waits for."""
        return self.headers is None or (
            self.piece_waiter is not None and not self.piece_waiter.done()
        )

    @property
    def full(self) -> bool:  # type: ignore[override]
        """Return whether the reader has enough to do; for a producer in this process."""
        return self.size >= HIGH_BYTES

    async def piece(self) -> bytes:
        """Return what has come of the body meanwhile, or comes next; empty at the end.

        Raises:
            CallError: it was cut, or is late.
        """
        while not self.pieces:
            if self.error is not None:
                raise self.error
            if self.over:
                return b""
            self.piece_waiter = self.loop.create_future()
            await self.piece_waiter
        pieces = self.pieces
        self.pieces = deque()
        self.size = 0
        if self.paused:
            self._came()
            self._resume()
        wake(self.room_waiter)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _came(self) -> None:
        self.last = self.loop.time()
        if self.connecting is not None:
            self.connecting.cancel()

    def _open(self) -> None:
        """Give the head to whoever waits for the answer, which comes in pieces."""
        if not self.reply.done():
            self.reply.set_result((self.status, self.headers, None))
            self.reply.wake(at_once=asyncio.current_task(self.loop) is None)

    def _not_connected(self) -> None:
        if not self.over and self.connection is None and self.headers is None:
            self.fail(
                NotConnected(f"no worker of {self.node} took the request in time", node=self.node)
            )

    def _holds(self) -> bool:
        return bool(self.pieces)

    def _late(self) -> str:
        return f"{self.node} sent nothing more before the deadline"

    def _loss(self, reason: str) -> str:
        if reason is CUT:  # a stream whose API raises ends so too
            return (
                f"the answer of {self.node} was cut before its end: its API raised, or its worker"
                " ended; see its log"
            )
        return super()._loss(reason)

    def _finish(
        self, error: BaseException | None, result: object = None, *, at_once: bool = False
    ) -> None:
        if self.reply.done() and error is not None:
            self.error = error
        super()._finish(error, result, at_once=at_once)

    def _outcome(self, error: BaseException | None, result: object) -> int:
        outcome = super()._outcome(error, result)
        if outcome != OK:
            return outcome
        # a response, of whatever status, is a success to httpx, and not to who counts
        status = result[0] if isinstance(result, tuple) else self.status
        return _OUTCOMES.get(status, ERROR if status >= 400 else OK)

    def _end(self) -> None:
        super()._end()
        if self.connecting is not None:
            self.connecting.cancel()
        if self.feeding is not None:
            self.feeding.cancel()
        if isinstance(self.upload, ThreadUpload):
            self.upload.close()  # a thread may wait with a piece
        wake(self.piece_waiter)
        wake(self.room_waiter)


class NodeTransport:
    """Makes an exchange of an httpx request, and of its end a response or an error: what both
    transports share.

    Args:
        loop_thread: the loop that calls run on.
        node: the node's name.
        lanes: the lane of each route that is limited; other paths take `other`.
        other: the pooled lane.
        timeout: seconds one call may take, of the edge.
        slack: seconds after the deadline that we wait for the node's own word.
        caller: the node that calls.
        runs: how often a request whose method is idempotent may run at most.
        series: gives what counts a request, by its path; default: nothing does.
    """

    def __init__(
        self,
        loop_thread: LoopThread,
        node: str,
        lanes: Mapping[bytes, Lane[bytes]],
        other: Lane[bytes],
        timeout: float | None,
        slack: float,
        caller: str,
        runs: int = ANY_RUNS,
        series: Callable[[bytes], CallSeries | None] = lambda path: None,
    ) -> None:
        self._series = series
        self.loop_thread = loop_thread
        self.node = node
        self.lanes = dict(lanes)
        self.other = other
        self.timeout = timeout
        self.slack = slack
        self._says = (CALLER, caller.encode())
        self.runs = runs

    def exchange(self, request: httpx.Request, body: bytes | Upload | ThreadUpload) -> HttpExchange:
        """Make the exchange for a request.

        Args:
            request: the request.
            body: its body, or what gives it piece by piece.

        Raises:
            httpx.LocalProtocolError: it cannot be written: a header with a line end, a method that
                is none, …
            httpx.UnsupportedProtocol: it is for somebody else.
        """
        if request.url.scheme != "http" or request.url.host.lower() != self.node.lower():
            said = (
                f"this client is bound to {self.node} and reaches nothing else: make one of your"
                " own for other hosts"
            )
            raise httpx.UnsupportedProtocol(said, request=request)
        context = current.get()
        timeouts = request.extensions.get("timeout", {})
        inherited = context.deadline_ns if context is not None else None
        deadline_ns = earliest(inherited, shortest(self.timeout, timeouts.get("read")))
        method = request.method.encode("ascii", "backslashreplace")
        target = request.extensions.get("target", request.url.raw_path)
        own = [(name, value) for name, value in request.headers.raw if not _is_ours(name.lower())]
        fault = head_fault(method, target, own)
        if fault is not None:
            raise httpx.LocalProtocolError(fault, request=request)
        own.append(self._says)
        lane = self.lanes.get(target.partition(b"?")[0], self.other)
        data = _head(method, target, own, context, deadline_ns, close=lane is not self.other)
        upload = None
        if isinstance(body, bytes):
            data += b"content-length: %d\r\n\r\n%b" % (len(body), body)
        else:
            upload = body
            data += CHUNKED + b"\r\n"
        # What httpx users send again is theirs to decide: idempotent by method.
        runs = self.runs if request.method in _IDEMPOTENT else 0
        return HttpExchange(
            self.loop_thread.loop,
            lane,
            self.node,
            data,
            deadline_ns,
            self.slack,
            runs,
            upload,
            bodiless=request.method == "HEAD",
            write_timeout=timeouts.get("write"),
            series=self._series(target.partition(b"?")[0]),
        )

    def start(self, exchange: HttpExchange, request: httpx.Request, *, threaded: bool) -> None:
        """Send it; on the loop's thread."""
        exchange.start(threaded)
        exchange.watch(request.extensions.get("timeout", {}).get("connect"))

    def raise_if_late(self, exchange: HttpExchange, answer: Head) -> None:
        """Raise an error where a node answers that the deadline which we gave it has passed.

        Where a deadline of its own passed, its answer is a response with that status, and nothing
        is raised.

        Raises:
            DeadlineExceeded: it names the node that the call waited for.
        """
        status, headers, body = answer
        if (
            status != DeadlineExceeded.default_status
            or (ERROR_KIND, DeadlineExceeded.kind.encode()) not in headers
        ):
            return
        if exchange.deadline_ns is not None and exchange.deadline_ns <= time.monotonic_ns():
            raise error_of(status, headers, body or b"", self.node)

    def mapped(self, error: CallError, request: httpx.Request) -> httpx.TransportError:
        """Return the httpx error for one of ours."""
        kind: type[httpx.TransportError] = httpx.RemoteProtocolError
        if isinstance(error, NotConnected):
            kind = httpx.ConnectTimeout
        elif isinstance(error, NotSent):
            kind = httpx.WriteTimeout
        elif isinstance(error, DeadlineExceeded):
            kind = httpx.ReadTimeout
        elif isinstance(error, Unavailable):
            kind = httpx.ConnectError
        return carrying(error, kind(str(error), request=request))


class AsyncTransport(httpx.AsyncBaseTransport):
    """Sends the requests of an injected `httpx.AsyncClient`."""

    def __init__(self, core: NodeTransport) -> None:
        self.core = core

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; the response is there when its head is, or all of it."""
        core = self.core
        body = request.stream
        if isinstance(body, httpx.ByteStream):
            exchange = core.exchange(request, await request.aread())
        else:
            assert isinstance(body, httpx.AsyncByteStream)
            exchange = core.exchange(
                request, Upload(body.__aiter__(), core.loop_thread.loop, _no_bytes)
            )
        threaded = threading.get_ident() != core.loop_thread.thread
        try:
            answer = await _on(core.loop_thread, lambda: _answer(core, exchange, request, threaded))
            core.raise_if_late(exchange, answer)
        except CallError as exc:
            raise core.mapped(exc, request) from exc
        return _response(answer, AsyncBody(core, exchange, request))


class SyncTransport(httpx.BaseTransport):
    """Sends the requests of an injected `httpx.Client`, in the threads of sync APIs."""

    def __init__(self, core: NodeTransport) -> None:
        self.core = core

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, and wait in this thread until the head of the response is there, or all
        of it.
        """
        core = self.core
        loop_thread, body = core.loop_thread, request.stream
        if threading.get_ident() == loop_thread.thread:
            raise RuntimeError(
                "httpx.Client would block the event loop: use client=httpx.AsyncClient, or a plain"
                " `def` API"
            )
        handed = None if isinstance(body, httpx.ByteStream) else ThreadUpload(loop_thread.loop)
        exchange = core.exchange(request, request.read() if handed is None else handed)
        waiter: concurrent.futures.Future[Head] = concurrent.futures.Future()

        def copy(reply: Reply) -> None:
            if reply.cancelled():  # the API that waits here lost its caller
                waiter.cancel()
                return
            error = reply.exception()
            if error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(reply.result())

        def start() -> None:
            exchange.reply.add_done_callback(copy)
            core.start(exchange, request, threaded=True)

        loop_thread.loop.call_soon_threadsafe(start)
        try:
            if handed is not None:
                assert isinstance(body, httpx.SyncByteStream)
                handed.hand_over(body)
            answer = waiter.result()
            core.raise_if_late(exchange, answer)
        except CallError as exc:
            raise core.mapped(exc, request) from exc
        return _response(answer, SyncBody(core, exchange, request))


class _Body:
    """Reads the body of a response whose head is here."""

    def __init__(self, core: NodeTransport, exchange: HttpExchange, request: httpx.Request) -> None:
        self._core = core
        self._exchange = exchange
        self._request = request

    def _give_up(self) -> None:
        loop_thread, exchange = self._core.loop_thread, self._exchange
        if exchange.over or loop_thread.loop.is_closed():
            return
        if threading.get_ident() == loop_thread.thread:
            exchange.abandon()
        else:
            loop_thread.loop.call_soon_threadsafe(exchange.abandon)

    def __del__(self) -> None:
        self._give_up()  # it was never closed


class AsyncBody(_Body, httpx.AsyncByteStream):
    """Reads the body of a response for an `httpx.AsyncClient`."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while piece := await _on(self._core.loop_thread, self._exchange.piece):
                yield piece
        except CallError as exc:
            raise self._core.mapped(exc, self._request) from exc

    async def aclose(self) -> None:
        """Read no more: what is below is cancelled."""
        self._give_up()


class SyncBody(_Body, httpx.SyncByteStream):
    """Reads the body of a response for an `httpx.Client`."""

    def __iter__(self) -> Iterator[bytes]:
        loop = self._core.loop_thread.loop
        try:
            while piece := asyncio.run_coroutine_threadsafe(self._exchange.piece(), loop).result():
                yield piece
        except CallError as exc:
            raise self._core.mapped(exc, self._request) from exc

    def close(self) -> None:
        """Read no more: what is below is cancelled."""
        self._give_up()


async def _answer(
    core: NodeTransport, exchange: HttpExchange, request: httpx.Request, threaded: bool
) -> Head:
    core.start(exchange, request, threaded=threaded)
    answer: Head = await exchange.reply
    return answer


async def _on(loop_thread: LoopThread, work: Callable[[], Coroutine[object, None, T]]) -> T:
    """Await on the loop that calls run on; a client may be used on another one, in a thread."""
    if threading.get_ident() == loop_thread.thread:
        return await work()
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), loop_thread.loop))


def _is_ours(name: bytes) -> bool:
    return name in HOP_BY_HOP or name.startswith(INTERNAL_PREFIX)


def _head(
    method: bytes, target: bytes, headers: Headers, context: CallContext | None,
    deadline_ns: int | None, *, close: bool,
) -> bytes:  # fmt: skip
    opening = MADE.opening if close else b""  # a connection that stays open has said it
    lines = [b"%s%s %s HTTP/1.1\r\n" % (opening, method, target)]
    lines += [b"%s: %s\r\n" % field for field in with_travellers(context, headers)]
    if context is not None and context.forwarded is not None:
        lines.append(b"%s: %s\r\n" % (FORWARDED, context.forwarded))
    if context is not None and context.principal is not None:
        lines.append(b"%s: %s\r\n" % (PRINCIPAL, context.principal.encode("latin-1")))
    if deadline_ns is not None:
        lines.append(b"%s: %d\r\n" % (DEADLINE, deadline_ns))
    if close:
        lines.append(CLOSE)
    return b"".join(lines)


def _no_bytes(piece: object) -> CallError:
    return RemoteError(f"a piece of the body of a request is bytes, not {type(piece).__name__}")


def _raw(status: int, headers: Headers, body: bytes) -> Head:
    return status, headers, body


def _response(
    answer: tuple[int, Headers, bytes | None], rest: AsyncBody | SyncBody
) -> httpx.Response:
    status, headers, body = answer
    stream = rest if body is None else httpx.ByteStream(body)
    # (what httpx's own transports say, beside `network_stream`: there is none of one's own)
    extensions = {"http_version": b"HTTP/1.1", "reason_phrase": phrase(status).encode()}
    return httpx.Response(status, headers=headers, stream=stream, extensions=extensions)


def async_client(core: NodeTransport) -> httpx.AsyncClient:
    """Return an `httpx.AsyncClient` that is bound to a node."""
    return httpx.AsyncClient(
        transport=AsyncTransport(core),
        base_url=f"http://{core.node}",
        timeout=None,
        trust_env=False,
    )


def sync_client(core: NodeTransport) -> httpx.Client:
    """Return an `httpx.Client` that is bound to a node."""
    return httpx.Client(
        transport=SyncTransport(core), base_url=f"http://{core.node}", timeout=None, trust_env=False
    )
