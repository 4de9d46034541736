"""A connection that is read by the parser: its requests to APIs, and those to the application.

Runs in workers.

The callbacks are asyncio's and those of httptools. What is not an API (health, documents, pages,
what does not exist) goes to the ASGI application. A lost connection cancels the call from the
callback; no task watches for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from urllib.parse import unquote

import httptools

from graphserve.call.context import CallContext
from graphserve.call.request import new_request_id
from graphserve.call.request_head import NOBODY, Address, RequestHead, Sender
from graphserve.errors import CallError
from graphserve.logs import records
from graphserve.logs.exception_text import described
from graphserve.loop.timers import Timer, set_timer
from graphserve.metrics.layout import CLIENT_LEFT, OTHER
from graphserve.metrics.recorder import RequestSeries
from graphserve.wire.headers import EXPECT
from graphserve.wire.problem import HttpProblem, UnreadableArguments
from graphserve.wire.trust import PUBLIC, opened
from graphserve.worker.dispatch.slots import Permit, has_hung_up, has_sent
from graphserve.worker.http.access_log import CAME, HEALTH_PATHS, log_answer, shown
from graphserve.worker.http.asgi import (
    CALLS,
    CUT,
    REQUEST_HEAD,
    SCOPE_PRINCIPAL,
    VERSIONS,
    AsgiRequest,
    Scope,
)
from graphserve.worker.http.fast_parser import FastParser
from graphserve.worker.http.headers import is_large_form
from graphserve.worker.http.listener import HEADERS_TIMEOUT, Listener
from graphserve.worker.http.request import HttpRequest
from graphserve.worker.http.response import Responder
from graphserve.worker.http.strict import RequestRefused
from graphserve.worker.http.transport import FlowControl, local_address, remote_address
from graphserve.worker.stream.request_body import RequestBody

LOGGER = "graphserve.port"

# What the parser raises: it is at an offer of another protocol, or it cannot go on.
STOPPED = (httptools.HttpParserUpgrade, httptools.HttpParserError)
# seconds that what comes behind the last answer is thrown away, if the client does not close
LINGER = 2.0


class LastRequestRead(Exception):
    """Raised in a callback of the parser where a request begins behind the last one that is
    answered here.
    """


class Rejection:
    """The last answer of a connection: a refusal, behind the answers to earlier requests.

    Args:
        problem: the answer.
        line: method and target of what is refused, as far as they came.
        began: when that began, on the loop's clock.
    """

    __slots__ = ("answered", "began", "line", "over", "problem", "series")

    def __init__(self, problem: CallError, line: tuple[bytes, bytes], began: float) -> None:
        self.problem = problem
        self.line = line
        self.began = began
        self.answered = False  # whether the request that is refused gets its own answer instead
        self.over = False  # whether nothing is left to be said
        self.series: RequestSeries | None = None  # what counts the request that it takes over

    def take_over(self, request: HttpRequest | AsgiRequest) -> None:
        """Be counted in place of a request, which is given up."""
        self.series = request.series
        request.series = None

    def count(self, status: int, now: float) -> None:
        """Count how it has ended; `now` is on the loop's clock."""
        series = self.series
        self.series = None
        if series is not None:
            series.end(status, max(0, int((now - self.began) * 1e9)))

    def leave_answer(self) -> None:
        """Say nothing: the request that is refused has its own answer, or will get it."""
        self.answered = True

    def end(self) -> None:
        """Note that nothing is left to be said."""
        self.over = True


class HttpConnection(asyncio.Protocol):
    """A connection that httptools reads: asyncio and the parser call it, and it begins requests.

    Args:
        listener: where it was accepted.
        permit: what it holds, if it came by a shared socket.
        first: what was read of it already.
    """

    # From `connection_made` to `connection_lost`.
    transport: asyncio.Transport
    flow: FlowControl
    parser: httptools.HttpRequestParser

    def __init__(
        self, listener: Listener, permit: Permit | None = None, first: bytes = b""
    ) -> None:
        self.listener = listener
        self.loop = listener.loop
        self.permit = permit or Permit(listener.slots)
        self._shared = permit is not None
        self._read_before = first
        self.parser = self._new_parser()
        # Per connection. Its requests may do nothing more than a client's, unless it opens as one
        # of ours.
        self.client: Address | None = None
        self._sender = NOBODY
        self.trust = PUBLIC
        self._opening: bytes | None = b""  # what came of how it opens; None: that is known
        self._fast_parser: FastParser | None = None
        self.discarding = False  # whether what still comes is thrown away
        self.rejection: Rejection | None = None
        self._linger: Timer | asyncio.TimerHandle | None = None  # behind the last answer
        self.idle_since = listener.now
        self.request: HttpRequest | AsgiRequest | None = None  # the last request that was begun
        # the request in progress, when others wait behind it
        self.current: HttpRequest | AsgiRequest | None = None
        # those that wait, the newest on the left
        self.pipeline: deque[HttpRequest | AsgiRequest] = deque()
        # Per request that is being read.
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.principal: str | None = None  # whose API key it came with
        self.receiving = False  # from its first byte to its last
        # from where its headers are complete, and `request` is this request
        self.head_complete = False
        self._upgrade_offered = False

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # A client may send requests ahead behind one that closes the connection; the first one is
        # answered.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    # --- asyncio ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to read; by a shared socket the headers have to come soon (asyncio)."""
        self.listener.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.client = remote_address(transport)
        if self.listener.public:
            self._sender = Sender(self.client, self.scheme, self.listener.proxies)
        if self._shared:
            set_timer(self.loop, HEADERS_TIMEOUT, self._give_up_waiting)
        if self._read_before:
            first = self._read_before
            self._read_before = b""
            self.data_received(first)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what its requests have begun, and give back what it holds (asyncio)."""
        self.listener.connections.discard(self)
        self.flow.resume_writing()
        if self._linger is not None:
            self._linger.cancel()
        if exc is None:
            self.transport.close()
        del self.parser  # which refers to us
        for request in [self.current, *self.pipeline] if self.pipeline else [self.request]:
            if isinstance(request, HttpRequest):
                request.abandon()
                if self.listener.access_log and not request.response_complete:
                    request.log(CLIENT_LEFT)
            elif request is not None:
                request.disconnect()
        rejection = self.rejection
        if rejection is not None and not rejection.over:
            if rejection.series is None and not rejection.answered:
                rejection.series = self.listener.counted(rejection.line[0])
            rejection.count(CLIENT_LEFT, self.loop.time())
        self.permit.give_back()

    def pause_writing(self) -> None:
        """Hold back answers: the client does not take them (asyncio)."""
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        """Go on with answers: the client has taken enough (asyncio)."""
        self.flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Take a prepared request of our own callers; all else goes to the parser (asyncio)."""
        if self.discarding:
            return
        if self._opening is not None:
            data = self._open(data)
        parser = self._fast_parser
        if (
            parser is not None
            and not self.receiving
            and self.idle
            and (known := parser.read(data)) is not None
        ):
            api, _, checked, context, body = known
            request = HttpRequest(self, api, not self._shared, context)
            self.request = request
            request.execute_prepared(checked, body)
        elif data:
            self._feed(data)

    def _open(self, data: bytes) -> bytes:
        """Read how the connection opens, and return the bytes behind that."""
        assert self._opening is not None
        self._opening += data
        found = opened(self._opening)
        if found is None:
            return b""
        self.trust, rest = found
        self._opening = None
        if self.trust.values:
            self._fast_parser = self.listener.fast_parser
        return rest

    # --- parser ---

    def on_message_begin(self) -> None:
        """Begin a request, unless one before it was the last that is answered (httptools)."""
        self.head_complete = False
        if self.discarding or (self.request is not None and not self.request.keep_alive):
            raise LastRequestRead
        self.receiving = True
        self.url = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        """Add a part of the target (httptools)."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header (httptools)."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin the request; an offer of another protocol is declined first, and CONNECT is refused
        (httptools).
        """
        if not self.parser.should_upgrade():
            self.begin_request()
        elif self.parser.get_method() == b"CONNECT":
            raise RequestRefused(HttpProblem(400, "there is no CONNECT at this socket"))
        else:
            self._upgrade_offered = True  # see `_decline_upgrade`

    def on_body(self, body: bytes) -> None:
        """Give a part of the body to the request; the application reads no bodies (httptools)."""
        if isinstance(self.request, HttpRequest):
            self.request.body_received(body)

    def on_message_complete(self) -> None:
        """Tell the request that it is here whole (httptools)."""
        if self._upgrade_offered:
            return
        self.receiving = False
        if self.request is not None:
            self.request.message_complete()

    def begin_request(self, *, http_1_0: bool | None = None) -> None:
        """Take a request whose headers are complete to its API, or to the application.

        Args:
            http_1_0: whether it is in HTTP/1.0, if that is known.
        """
        parser, listener, url = self.parser, self.listener, self.url
        if listener.middleware:
            self.to_application()
            return
        method = parser.get_method()
        api = listener.route(url) if method == b"POST" else None
        routed = None
        if api is None:
            routed = listener.find(method, url)
            if routed is None:
                self.to_application()
                return
            api = routed.api
        # A shared socket carries one request a connection: the slot was taken for the connection.
        if http_1_0 is None:
            http_1_0 = parser.get_http_version() == "1.0"
        keep_alive = not http_1_0 and not self._shared and parser.should_keep_alive()
        before = self.request
        is_next = before is None or before.response_complete
        proxies = listener.logged_proxies
        client = self.client if proxies is None else proxies.client(self.client, self.headers)
        context = CallContext()
        # (of a typed call they say nothing but how it is read)
        headers = [] if self.trust.values else self.headers
        if self.principal is not None:
            context.principal = self.principal
        context.head = RequestHead(method, url, headers, self._sender)
        request = HttpRequest(self, api, keep_alive, context, is_next, http_1_0, client, routed)
        if listener.cors is not None:
            request.responder = self.responder_of_request()
        self.request = request
        self.head_complete = True
        if not is_next:
            self._queue(request, before)
        body_stream = None
        signature = api.signature
        if signature.input_stream is not None or (
            not self.trust.values
            and (signature.spools or (api.receives_forms and is_large_form(self.headers)))
        ):
            body_stream = RequestBody(self.flow, self.caller_left, self.transport.abort)
        query = url.partition(b"?")[2] if b"?" in url else b""
        request.headers_complete(self.headers, query, body_stream)

    def _queue(
        self, request: HttpRequest | AsgiRequest, before: HttpRequest | AsgiRequest | None
    ) -> None:
        """Let a request wait for the answers to those before it."""
        self.flow.pause_reading()
        if not self.pipeline:
            self.current = before
        self.pipeline.appendleft(request)

    def to_application(self) -> None:
        """Hand a request to the application that is for no API; it reads no body, so no client is
        told to go on.
        """
        listener, parser = self.listener, self.parser
        # The prefix is on every path, and all escapes are taken for what they stand for: of a
        # slash, the application is told the escape of its escape.
        path, mark, query = self.url.partition(b"?")
        raw = listener.path(self.url)
        self.url = raw.replace(b"%2F", b"%252F") + mark + query
        parsed = httptools.parse_url(self.url)
        version = parser.get_http_version()
        scope: Scope = {
            "type": "http",
            "asgi": VERSIONS,
            "http_version": version,
            "method": parser.get_method().decode("ascii"),
            "scheme": self.scheme,
            "path": listener.root_path + unquote(parsed.path.decode("ascii")),
            "raw_path": listener.root_path.encode("ascii") + raw,
            "query_string": parsed.query or b"",
            "root_path": listener.root_path,
            "headers": self.headers,
            "client": self.client,
            "server": local_address(self.transport),
            "state": {},
            CAME: path,
        }
        body: RequestBody | None = None
        expects = False
        mounts = listener.mounts
        if mounts is not None or listener.middleware:
            scope[CALLS] = []
            scope[CUT] = []
            scope[REQUEST_HEAD] = RequestHead(
                parser.get_method(), path + mark + query, self.headers, self._sender
            )
            scope[SCOPE_PRINCIPAL] = self.principal
            inner = unquote(parsed.path.decode("ascii"))
            if listener.middleware or (mounts is not None and mounts.find(inner) is not None):
                body = RequestBody(self.flow, self.caller_left, self.transport.abort)
                expects = version == "1.1" and any(name == EXPECT for name, _ in self.headers)
        series: RequestSeries | None = None
        if listener.recorder is not None and listener.path(path) not in HEALTH_PATHS:
            series = listener.counted(parser.get_method(), self._counted_route())
        keep_alive = version != "1.0" and not self._shared and parser.should_keep_alive()
        before = self.request
        request = AsgiRequest(
            listener.app,
            scope,
            self.transport,
            self.flow,
            listener.default_headers,
            keep_alive,
            listener.tasks,
            self.on_response_complete,
            self.end,
            body,
            expects=expects,
            series=series,
        )
        self.request = request
        self.head_complete = True
        if before is None or before.response_complete:
            request.begin()
        else:
            self._queue(request, before)

    def _counted_route(self) -> int:
        """Return the number of the API that a request is for which goes to the application."""
        listener = self.listener
        if not listener.middleware:
            return OTHER
        method = self.parser.get_method()
        api = listener.route(self.url) if method == b"POST" else None
        if api is None and (routed := listener.find(method, self.url)) is not None:
            api = routed.api
        return OTHER if api is None else api.index

    # --- its requests ---

    def on_response_complete(self) -> None:
        """Go on with the next request, since an answer is complete; the listener closes what is
        idle for too long.
        """
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self.current = self.pipeline.pop()
            self.current.begin()
        else:
            self.idle_since = self.listener.now
            if self.rejection is not None:
                self._answer_rejection()

    # --- ours ---

    @property
    def scheme(self) -> str:
        """Return `https` if the connection has TLS, and else `http`."""
        return "https" if self.transport.get_extra_info("sslcontext") else "http"

    @property
    def idle(self) -> bool:
        """Return whether no request is in progress."""
        # (`answered`)
        return (self.request is None or self.request.response_complete) and not self.pipeline

    def idle_before(self, moment: float) -> bool:
        """Return whether no request is in progress, nor was since then, on the loop's clock."""
        return self.idle and self.idle_since < moment

    def close(self) -> None:
        """Close it when all that was written is sent."""
        self.transport.close()

    def close_after_answer(self) -> None:
        """Let the answer in progress say that it is the last one."""
        request = self.request
        # one that is over has not said so
        if request is not None and not request.response_complete:
            request.close_after_answer()

    @property
    def answered(self) -> bool:
        """Return whether every request that was read has its answer."""
        return (self.request is None or self.request.response_complete) and not self.pipeline

    @property
    def at_rest(self) -> bool:
        """Return whether no request is in progress, and none has come that the loop has yet to
        read.

        While a client takes no answers nothing is read of it, and nothing asked: it may be closed.
        """
        if not self.idle or self.transport.is_closing() or self.flow.read_paused:
            return self.idle
        return not has_sent(self.transport.get_extra_info("socket"))

    @property
    def began(self) -> float:
        """Return when what is being read began, on the loop's clock."""
        return self.idle_since

    def discard(self) -> None:
        """Throw away what still comes."""
        self.discarding = True

    def end(self, *, unread: bool) -> None:
        """Close it behind its last answer: our side now, and the whole when the client has closed
        its own, or soon (RFC 9112, 9.6).

        Whoever sends on meanwhile would read a reset in place of the end of the answer.

        Args:
            unread: whether a part of its request is still to come, which is thrown away.
        """
        self.discard()
        self.permit.give_back()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        elif not unread:  # TLS has no half of a connection, and an answer may last until the end
            self.transport.close()
            return
        self._linger = set_timer(self.loop, LINGER, self.transport.close)

    def caller_left(self) -> bool:
        """Return whether the other side has closed its end, though its request came whole."""
        return has_hung_up(self.transport.get_extra_info("socket"))

    def reject(self, problem: CallError, *, broken: bool = False) -> None:
        """Read no more; answer with a problem when earlier requests are answered, and close.

        Args:
            problem: the answer.
            broken: whether it was our own code that failed, so that the request it failed in cannot
                go on.
        """
        if self.discarding:
            return
        begun = self.receiving or broken  # (else `url` is that of the request before)
        line = (self.parser.get_method(), self.url) if begun and self.url else (b"", b"")
        self.rejection = Rejection(problem, line, self.began)
        self.discard()
        records.note(LOGGER, "debug", f"a client was refused: {problem.status} {problem.detail}")
        if self.head_complete and (self.receiving or broken):
            self._drop_request(self.rejection)
        self._answer_rejection()

    def responder_of_request(self) -> Responder:
        """Return what answers the request whose head came last."""
        return self.listener.responder

    def came_in_part(self, size: int) -> None:
        """Note that these bytes have come, and the request is not complete."""

    def _feed(self, data: bytes | memoryview) -> None:
        """Give bytes to the parser.

        Whatever it finds wrong, or whatever fails in a callback, is answered.
        """
        stopped = None
        try:
            self.parser.feed_data(data)
        except STOPPED as exc:
            stopped = exc
        # (not in there: what is raised while that is handled would have it as its context)
        if stopped is not None:
            self._stopped(stopped, data)
            if self.discarding:
                return
        if self.receiving:
            self.came_in_part(len(data))

    def _stopped(self, exc: Exception, data: bytes | memoryview) -> None:
        """Go on where the parser has stopped, if that was at an offer of another protocol; at all
        else do not.
        """
        rest = memoryview(data)
        while isinstance(exc, httptools.HttpParserUpgrade):
            rest = rest[exc.args[0] :]
            self._decline_upgrade()
            if self.discarding or not rest:
                return
            try:
                self.parser.feed_data(rest)
            except STOPPED as another:
                exc = another
            else:
                return
        self._not_understood(exc)

    def _decline_upgrade(self) -> None:
        # A server that does not want the other protocol goes on in HTTP/1.1 (RFC 9110, 7.8): the
        # request is what it would be without the offer. llhttp ends the message behind the headers
        # instead, so they are read once more, by a parser that does not see the offer; it then
        # finds the body where it is.
        line = b"%b %b HTTP/%b\r\n" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        lines = [b"%b: %b\r\n" % pair for pair in self.headers if pair[0] != b"upgrade"]
        self._upgrade_offered = False
        self.parser = self._new_parser()
        try:
            self.parser.feed_data(b"".join((line, *lines, b"\r\n")))
        except httptools.HttpParserError as exc:
            self._not_understood(exc)

    def _not_understood(self, exc: Exception) -> None:
        if not isinstance(exc, httptools.HttpParserCallbackError):
            # llhttp's words, never the client's
            self.reject(HttpProblem(400, f"this is no valid HTTP request: {exc}"))
            return
        cause = exc.__context__
        if isinstance(cause, LastRequestRead):
            if self.answered:
                self.end(unread=False)
            else:
                self.discard()
        elif isinstance(cause, RequestRefused):
            self.reject(cause.problem)
        else:
            records.note(LOGGER, "error", "reading a request failed", cause or exc)
            self.reject(self._unread(cause), broken=True)

    def _unread(self, cause: BaseException | None) -> CallError:
        if not isinstance(cause, MemoryError):
            return HttpProblem(500, "the request could not be read")
        node = self.listener.responder.node
        return UnreadableArguments(
            f"{node} could not take a request: {described(cause)}", "no-memory", node=node
        )

    def _drop_request(self, rejection: Rejection) -> None:
        """Give the rejection in place of its own answer to the request that was read last, in part
        or whole.
        """
        request = self.request
        assert request is not None
        if request.response_complete:
            rejection.leave_answer()
        elif self.pipeline:  # it waits for those before it: the rejection takes its place
            rejection.take_over(request)
            self.pipeline.popleft()
            self.request = self.pipeline[0] if self.pipeline else self.current
        elif isinstance(request, HttpRequest):
            rejection.take_over(request)
            request.drop()
            # cut off: the client sees that it is not whole
            if request.sink is not None and request.sink.begun:
                rejection.count(CLIENT_LEFT, self.loop.time())
                rejection.end()
                self.transport.close()
        elif request.reads_body:
            rejection.take_over(request)
            request.drop()
            if request.begun:  # cut off: the client sees that it is not whole
                rejection.count(CLIENT_LEFT, self.loop.time())
                rejection.end()
                self.transport.close()
        else:
            rejection.leave_answer()

    def _answer_rejection(self) -> None:
        """Answer with the rejection, if every request before it has its answer, and end the
        connection.
        """
        rejection = self.rejection
        if rejection is None or rejection.over or not self.answered:
            return
        rejection.end()
        if not rejection.answered:
            context = CallContext(new_request_id())
            status, data = self.responder_of_request().problem(
                rejection.problem, self.trust, context, keep=False
            )
            if rejection.series is None:
                rejection.series = self.listener.counted(rejection.line[0])
            rejection.count(status, self.loop.time())
            self.transport.write(data)
            if self.listener.access_log:
                self._log_rejection(rejection, status, context.request_id)
        self.end(unread=True)

    def _log_rejection(self, rejection: Rejection, status: int, request_id: bytes) -> None:
        method, target = rejection.line
        proxies = self.listener.logged_proxies
        client = self.client if proxies is None else proxies.client(self.client, self.headers)
        path = shown(target.partition(b"?")[0]) or "-"
        log_answer(
            method.decode() or "-",
            path,
            status,
            request_id,
            self.loop.time() - rejection.began,
            client,
        )

    def _give_up_waiting(self) -> None:
        if self.permit.held and self.request is None:
            self.transport.close()
