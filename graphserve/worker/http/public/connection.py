"""A connection of the public port, where nobody is trusted. Runs in entry workers and
fallback servers.

What could be read in two ways is refused (see `strict`), what is too long too; who is too slow is
told so by `Timeouts`. Every refusal is a problem, comes in its turn behind the answers to earlier
requests, and ends the connection.
"""

from __future__ import annotations

import asyncio
import re

import httptools

from graphserve.call.context import CallContext, earliest
from graphserve.call.request import new_request_id
from graphserve.call.request_head import RequestHead
from graphserve.wire.api_keys import ApiKeyCheck, NoSuchKey
from graphserve.wire.headers import (
    CONTENT_LENGTH,
    HOST,
    ORIGIN,
    TRANSFER_ENCODING,
    UPGRADE,
    WWW_AUTHENTICATE,
)
from graphserve.wire.problem import HttpProblem
from graphserve.worker.http import browsers, strict
from graphserve.worker.http.fast_parser import LESSONS, RepeatedHead
from graphserve.worker.http.limits import (
    CHUNK_BYTES,
    FIELDS,
    HEAD_BYTES,
    LEAST_RATE,
    PORTION,
    SPARE_CHUNK_BYTES,
    TARGET_BYTES,
    head_problem,
    head_too_long,
    too_large,
)
from graphserve.worker.http.listener import Listener
from graphserve.worker.http.protocol import STOPPED, HttpConnection
from graphserve.worker.http.public.timeouts import HEALTH, Timeouts
from graphserve.worker.http.request import HttpRequest
from graphserve.worker.http.response import Responder
from graphserve.worker.http.strict import RequestRefused
from graphserve.worker.http.transport import unsent_bytes
from graphserve.worker.websockets.door import Begin, SocketDoor

_NOTHING = memoryview(b"")
# The header of a chunk that has no extensions, whole: what ends a line before it, and its size.
_CHUNK_HEADER = re.compile(rb"\r\n([0-9a-fA-F]{1,15})\r\n\Z")
_LONGEST_CHUNK_HEADER = 2 + 15 + 2  # bytes
_BETWEEN_CHUNKS = -1


class PublicConnection(HttpConnection):
    """A connection of the public port: what is too long, too slow or ambiguous is rejected.

    Args:
        listener: where it was accepted.
        timeouts: end it when it is too slow, or idle too long.
        door: takes it when it asks for a WebSocket; None where there are none.
    """

    repeats = True  # whether a head that has come before is known without the parser

    def __init__(
        self, listener: Listener, timeouts: Timeouts, door: SocketDoor | None = None
    ) -> None:
        super().__init__(listener)
        self.timeouts = timeouts
        self.door = door
        # Of the connection. `since` is when it was accepted, when its last answer was complete, or
        # when a head began that did not come at once.
        self.since = 0.0
        self._behind = 0.0  # seconds that the client is behind the least rate
        self._unsent_bytes = 0  # bytes of answers that it had not taken at the last look
        self.spare = False  # beyond the limit: it may only ask for health, once
        self._held = _NOTHING
        self._in_portions = False
        self._going_on = False
        # the head of a request that it made, if that may come again
        self._repeated: RepeatedHead | None = None
        self._lessons = LESSONS if self.repeats else 0
        # Of the message that comes.
        self.arrived = 0  # bytes; 0 for what comes at once
        self._counted = 0  # bytes of the body that were here at the last look
        self._passed_over = 0  # bytes of a body that nobody reads
        self._chunks = 0
        # the bytes of the body before the chunk that comes, and with it, as far as that is known
        self._chunk_begin = _BETWEEN_CHUNKS
        self._chunk_end = 0
        self._said: dict[bytes, bytes] = {}
        # whether its head came at once and is none of those that need a closer look
        self._plain = False
        self._line = b""  # what has come of its first line, if that is not complete
        self._begin_socket: Begin | None = None  # goes on as a WebSocket

    # --- asyncio ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place at the port, or be told that there is none (asyncio)."""
        super().connection_made(transport)
        self.since = self.loop.time()
        self.timeouts.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave its place to others, and end as every connection does (asyncio)."""
        self.flow.forget_end()
        self.timeouts.lost(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a request whose head is known, or give the bytes to the parser: what is more than a
        portion piece by piece (asyncio).
        """
        if self.discarding:
            return
        if len(data) > PORTION or self._held:
            self._held = memoryview(bytes(self._held) + data) if self._held else memoryview(data)
            self._take_held()
        elif self._repeated is None or not self._execute_repeated(self._repeated, data):
            self._feed(data)

    def pause_writing(self) -> None:
        """Read no further requests: the client does not take its answers (asyncio)."""
        super().pause_writing()
        if self._is_free:
            self.flow.pause_reading()
        self._behind = 0.0
        self._unsent_bytes = 0

    def resume_writing(self) -> None:
        """Go on with what waits: the client has taken its answers (asyncio)."""
        super().resume_writing()
        self._behind = 0.0
        if self._is_free:
            self._go_on_soon()

    # --- parser ---

    def on_headers_complete(self) -> None:
        """Check the head, and begin the request; one that has nothing rare in it needs no closer
        look (httptools).
        """
        headers = self.headers
        self._said = said = dict(headers)
        plain = (
            self.parser.get_http_version() == "1.1"
            and len(said) == len(headers) <= FIELDS
            and self.url[:1] == b"/"
            and b"#" not in self.url
            and strict.RARE.isdisjoint(said)
            and self.listener.hosts.allows(said.get(HOST))
            and not (self.arrived or self._in_portions)
        )
        self._plain = plain
        if not plain:
            if (
                b"upgrade" in said
                and self.parser.should_upgrade()
                and self.parser.get_method() != b"CONNECT"
            ):
                # declined, the same headers come again, without the offer
                self._upgrade_offered = True
                self._begin_socket = self._asks_for_socket()
                return
            self._examine()
        elif self.listener.keys is not None:
            self._identify(self.listener.keys)
        if self.spare and (problem := self.timeouts.refusal(self, self.url)) is not None:
            raise RequestRefused(problem)
        self.begin_request(http_1_0=False if plain else None)
        if self.spare and self.request is not None:
            self.request.close_after_answer()
        if self.flow.read_paused:  # it waits behind others
            self.flow.watch_end(self.listener.readers)
        if not plain:
            # trailers are no headers
            self.headers = []
            self._chunks = 0

    def on_body(self, body: bytes) -> None:
        """Give a part of the body to the request, or count it if nobody reads it (httptools)."""
        request = self.request
        if type(request) is HttpRequest:
            request.body_received(body)
        else:
            self._passed_over += len(body)
            if request is not None:
                if self._passed_over > self.listener.max_body_size:
                    raise RequestRefused(too_large(self.listener.max_body_size))
                request.body_received(body)

    def on_chunk_header(self) -> None:
        """Count the chunks of a body (httptools)."""
        self._chunks += 1
        self._chunk_begin = self.body_seen
        self._chunk_end = 0

    def on_chunk_complete(self) -> None:
        """Note that no byte of the chunk's data is to come (httptools)."""
        self._chunk_begin = _BETWEEN_CHUNKS

    def on_message_complete(self) -> None:
        """Tell the request that it is here whole; the next one is counted anew (httptools)."""
        if self._upgrade_offered:
            return
        self.receiving = False
        if self.arrived or self._passed_over:
            self.arrived = 0
            self._counted = 0
            self._passed_over = 0
        if self.request is not None:
            self.request.message_complete()

    def to_application(self) -> None:
        """Hand a request to the application that is for no API."""
        if self.parser.get_method() not in strict.METHODS:
            self._examine()
        if self._length() > self.listener.max_body_size:
            raise RequestRefused(too_large(self.listener.max_body_size))
        try:
            super().to_application()
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            raise RequestRefused(HttpProblem(400, "the request target is not a path")) from None

    def on_response_complete(self) -> None:
        """Go on with what waits behind the answer that is complete."""
        if self.transport.is_closing():
            return
        self.since = self.loop.time()
        self._behind = 0.0
        is_rejected = self.rejection is not None and not self.rejection.over  # (without a call)
        if self.pipeline or self._held or self.flow.write_paused or is_rejected:
            self._go_on_soon()
        elif self.flow.read_paused:
            self.flow.resume_reading()

    # --- ours ---

    @property
    def idle(self) -> bool:
        """Return whether no request is in progress."""
        return super().idle and not self._held

    @property
    def unused(self) -> bool:
        """Return whether no request is in progress, and none of the next one but a part of its
        headers is here.
        """
        return self.idle and not (self.receiving and self.head_complete) and not self._is_rejected

    @property
    def silent(self) -> bool:
        """Return whether nothing has come yet."""
        return self.request is None and not self.receiving

    @property
    def between_requests(self) -> bool:
        """Return whether a request was answered, and nothing of the next one is here."""
        return self.request is not None and not self.receiving

    @property
    def body_waits(self) -> bool:
        """Return whether the body waits for us and not for the client: it is held back, or an API
        reads it.
        """
        request = self.request
        return self.flow.read_paused or (type(request) is HttpRequest and request.is_read_by_api)

    @property
    def deadline_ns(self) -> int | None:
        """Return when the request that was read last has to be answered, by CLOCK_MONOTONIC."""
        request = self.request
        return request.deadline_ns if type(request) is HttpRequest else None

    @property
    def body_seen(self) -> int:
        """Return the bytes of the body that are here."""
        request = self.request
        return request.length if type(request) is HttpRequest else self._passed_over

    def make_spare(self) -> None:
        """Let it only ask for health, once: it is beyond the limit."""
        self.spare = True

    def make_regular(self) -> None:
        """Let it ask for anything: there is a place for it."""
        self.spare = False

    def body_moved(self) -> int:
        """Return how many bytes of the body have come since the last look."""
        before = self._counted
        self._counted = self.body_seen
        return self._counted - before

    def answers_moved(self) -> int:
        """Return how many bytes of answers the client has taken since the last look: nothing is
        written meanwhile, so it is what has gone from the buffer.
        """
        before = self._unsent_bytes
        self._unsent_bytes = unsent_bytes(self.transport)
        return max(0, before - self._unsent_bytes)

    def note_progress(self, seconds: float, moved: int) -> float:
        """Note how many bytes have moved in these seconds, and return how many seconds the client
        is behind the least rate by now.
        """
        self._behind = max(0.0, self._behind + seconds - moved / LEAST_RATE)
        return self._behind

    @property
    def began(self) -> float:
        """Return when what is being read began, on the loop's clock."""
        return self.since

    def _feed(self, data: bytes | memoryview) -> None:
        if len(data) > PORTION:  # a part of one body, or of one chunk of it
            super()._feed(data)
            return
        begins = not self.receiving and self._lessons > 0
        before = self.request
        text = data if type(data) is bytes else bytes(data)
        # one byte is found far sooner than five
        if self._line or (b"R" in text and b"RTSP/" in text):
            self._feed_up_to_rtsp(text)
        else:
            stopped = None  # (as in `HttpConnection`: a call for each request is worth avoiding)
            try:
                self.parser.feed_data(text)
            except STOPPED as exc:
                stopped = exc
            if stopped is not None:
                self._stopped(stopped, text)
            if not self.receiving:
                if begins and self._plain and before is not None and self.request is not before:
                    # (not of the first request: many connections carry no second one)
                    self._learn(text)
                return
            if not self.discarding:
                self.came_in_part(len(text))
        if self.receiving and not self.head_complete and not self.discarding:
            self._line = strict.first_line_begun(self._line + text)
        elif self._line:
            self._line = b""

    def _learn(self, data: bytes) -> None:
        """Remember the head that these bytes begin with, where a request began: the next one may be
        the same.
        """
        request = self.request
        if type(request) is HttpRequest:
            self._lessons -= 1
            self._repeated = RepeatedHead.of(data, self._said, self.listener.apis, request)

    def _execute_repeated(self, known: RepeatedHead, data: bytes) -> bool:
        """Take a request whose head is known, as `begin_request` does, and return whether it was
        one.
        """
        before = self.request
        body = known.body(data)
        listener = self.listener
        if (
            body is None or before is None or self.receiving or self.pipeline or self.spare
            or not (before.response_complete and before.keep_alive)
            or known.apis is not listener.apis or len(body) > listener.max_body_size
        ):  # fmt: skip
            return False
        context = CallContext(new_request_id(), earliest(None, known.api.timeout))
        context.head = known.head
        if known.forwarded is not None:
            context.forwarded = known.forwarded
        if known.principal is not None:
            context.principal = known.principal
        request = HttpRequest(self, known.api, True, context, True, False, known.client)
        self.request = request
        request.execute_repeated(known, body)
        return True

    def _feed_up_to_rtsp(self, data: bytes) -> None:
        # llhttp takes `POST / RTSP/1.1` too, and does not tell it from HTTP.
        text, before, fed = self._line + data, len(self._line), 0
        for start, end in strict.rtsp_targets(text):
            begins = start - before < 0  # what is in `_line` is the beginning of a first line
            for place in (start - before, end - before):
                if place > fed and not self.discarding:
                    super()._feed(data[fed:place])
                    fed = place
                begins = begins or (self.receiving and not self.head_complete and not self.url)
            if (
                begins
                and not self.discarding
                and not self.head_complete
                and self.url == text[start:end]
            ):
                self.reject(HttpProblem(400, "this port speaks HTTP, not RTSP"))
            if self.discarding:
                return
        super()._feed(data[fed:])

    def end(self, *, unread: bool) -> None:
        """Close it behind its last answer; a spare connection leaves its place to others now."""
        super().end(unread=unread)
        if self.spare:
            self.timeouts.told(self)

    def discard(self) -> None:
        """Throw away what still comes, and what is held."""
        self._held = _NOTHING
        super().discard()

    def came_in_part(self, size: int) -> None:
        """Note that these bytes have come, and the request is not complete: it is bounded, and has
        its time.
        """
        if not self.arrived and self.request is not None and not self.head_complete:
            self.since = self.loop.time()
        self.arrived += size
        if self.head_complete:
            self._check_body()
        elif len(self.url) > TARGET_BYTES or len(self.headers) > FIELDS:
            self.reject(head_problem(self.url, self.headers) or head_too_long())
        elif self.arrived > HEAD_BYTES:
            self.reject(head_too_long())

    def _check_body(self) -> None:
        around = self.arrived - self.body_seen - HEAD_BYTES
        if (
            TRANSFER_ENCODING in self._said
            and around > SPARE_CHUNK_BYTES + self._chunks * CHUNK_BYTES
        ):
            self.reject(
                HttpProblem(400, "there is more around the chunks of the body than in them")
            )
        elif self.body_seen > self.listener.max_body_size and not isinstance(
            self.request, HttpRequest
        ):
            self.reject(too_large(self.listener.max_body_size))

    def _length(self) -> int:
        return strict.number("Content-Length", self._said.get(CONTENT_LENGTH, b"0"))

    def _examine(self, *, opens_socket: bool = False) -> None:
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if (problem := strict.fault(method, version, self.url, self.headers)) is not None:
            raise RequestRefused(problem)
        asked = [value for name, value in self.headers if name == HOST]
        self.url, named = strict.in_origin_form(self.url)
        for host in (*asked, *named):
            if not self.listener.hosts.allows(host):
                raise RequestRefused(browsers.foreign_host(host))
        if self.listener.keys is not None:
            self._identify(self.listener.keys)
        executes = self.listener.executes(method, self.url)
        if self.door is not None and (opens_socket or self.door.find(self.url) is not None):
            executes = True
        own = lambda: self._origins([*asked, *named])  # noqa: E731
        cors = self.listener.cors
        allows = None if cors is None else cors.allows
        problem = browsers.fault(method, executes, self.headers, own, allows)
        if problem is not None:
            raise RequestRefused(problem)

    def _identify(self, keys: ApiKeyCheck) -> None:
        """Find out by its key who a request is from, before anything is looked up for it: of the
        APIs, of the pages, of what is mounted.

        Probes need none. Nor does what a browser asks before a request of a page of another origin,
        since it never sends one with that.
        """
        self.principal = None
        listener = self.listener
        method = self.parser.get_method()
        if method in (b"GET", b"HEAD") and listener.path(self.url) in HEALTH:
            return
        if listener.cors is not None and listener.cors.asks(method, self.headers):
            return
        try:
            self.principal, self.headers = keys.identify(self.headers)
        except NoSuchKey as exc:
            challenge = 'Bearer error="invalid_token"' if exc.is_wrong else "Bearer"
            headers = {WWW_AUTHENTICATE.decode(): challenge}
            raise RequestRefused(HttpProblem(401, str(exc), headers=headers)) from None

    def responder_of_request(self) -> Responder:
        """Return what answers the request whose head came last: a page of another origin may have
        leave to read it.
        """
        listener = self.listener
        if listener.cors is None or ORIGIN not in self._said:
            return listener.responder
        return listener.cors.responder(listener.responder, self._said[ORIGIN])

    def _asks_for_socket(self) -> Begin | None:
        """Return what goes on with the connection as a WebSocket; None if this asks for none.

        Raises:
            RequestRefused: it does, and gets none.
        """
        door = self.door
        if door is None or self.parser.get_method() != b"GET":
            return None
        target = strict.in_origin_form(self.url)[0]
        found = door.find(target)
        if found is None and b"websocket" in self._said.get(UPGRADE, b"").lower():
            found = door.find_mounted(target)
        if found is None:
            return None
        self._examine(opens_socket=True)
        if self.spare and (problem := self.timeouts.refusal(self, self.url)) is not None:
            raise RequestRefused(problem)
        if not self.answered:
            raise RequestRefused(HttpProblem(400, "a handshake waits for the answers before it"))
        if self.parser.get_http_version() != "1.1":
            raise RequestRefused(HttpProblem(400, "the handshake of a WebSocket is in HTTP/1.1"))
        head = RequestHead(b"GET", self.url, self.headers, self._sender)
        return door.open(self, found, head)

    def _stopped(self, exc: Exception, data: bytes | memoryview) -> None:
        """Go on as a WebSocket, or as `HttpConnection` does."""
        begin = self._begin_socket
        if begin is None or not isinstance(exc, httptools.HttpParserUpgrade):
            super()._stopped(exc, data)
            return
        rest = bytes(data[exc.args[0] :]) + bytes(self._held)
        self.discard()
        self.flow.forget_end()
        self.listener.connections.discard(self)
        self.timeouts.lost(self)
        begin(rest)

    def _origins(self, hosts: list[bytes]) -> list[tuple[str, bytes]]:
        """Return the origins of the pages of this port, as scheme and host."""
        proxies = self.listener.proxies
        if proxies is not None:
            return proxies.origins(self.client, self.headers, self.scheme, hosts)
        return [(self.scheme, host) for host in hosts]

    def _take_held(self) -> None:
        # One read may hold thousands of small requests: only what can be worked on is parsed, the
        # rest stays bytes.
        self._in_portions = True
        while self._held and not (self.discarding or self.pipeline or self.flow.write_paused):
            size = PORTION
            if self.receiving and self.head_complete:
                left = (self._chunk_end or self._length()) - self.body_seen
                size = max(size, left)
            chunks = self._chunks
            portion = self._held[:size]
            self._held = self._held[size:]
            self._feed(portion)
            if self._chunks != chunks and len(portion) == size:
                self._measure_chunk(portion)
        self._in_portions = False
        if self._held:
            self.flow.pause_reading()
            self.flow.watch_end(self.listener.readers)

    def _measure_chunk(self, portion: memoryview) -> None:
        """Find out where the chunk ends whose header was in these bytes, if they end within it: a
        large chunk is parsed as a whole.

        The parser has the size, and does not tell it, so its header is looked at again.
        """
        came = self.body_seen - self._chunk_begin
        if self._chunk_begin == _BETWEEN_CHUNKS or not 0 < came < len(portion):
            return
        header = _CHUNK_HEADER.search(bytes(portion[:-came][-_LONGEST_CHUNK_HEADER:]))
        if header is not None:
            self._chunk_end = self._chunk_begin + int(header[1], 16)

    def _go_on_soon(self) -> None:
        # In a turn of its own: answers that are there at once would call each other, as deep as a
        # client likes.
        if not self._going_on:
            self._going_on = True
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._going_on = False
        if self.transport.is_closing() or not self._is_free:
            return
        if self.flow.write_paused:
            self.flow.pause_reading()
        elif self.pipeline:
            self.current = self.pipeline.pop()
            self.current.begin()
        else:
            self._answer_rejection()
        if not (self.pipeline or self.flow.write_paused or self.transport.is_closing()):
            self._take_held()
            if not (self._held or self.pipeline):
                self.flow.resume_reading()

    @property
    def _is_free(self) -> bool:  # for the next request
        first = self.current if self.pipeline else self.request
        return first is None or bool(first.response_complete)

    @property
    def _is_rejected(self) -> bool:  # and not told so yet
        return self.rejection is not None and not self.rejection.over
