"""The HTTP protocol of the public port: a `Protocol` that trusts nobody. Runs in entry workers.

What could be read in two ways is refused (see `strict`), what is too long too; who is too slow is told so by
`Timeouts`. Every refusal is a problem, comes in its turn behind the answers to earlier requests, and ends the
connection.
"""

from __future__ import annotations

from typing import Any

import httptools

from graphserve.call.context import CallContext, earliest
from graphserve.call.request import new_request_id
from graphserve.wire.headers import CONTENT_LENGTH, HOST, TRANSFER_ENCODING
from graphserve.wire.problem import HttpProblem
from graphserve.worker.http import browsers, strict
from graphserve.worker.http.headers import too_large
from graphserve.worker.http.limits import CHUNK_BYTES, FIELDS, HEAD_BYTES, PORTION, SPARE_CHUNK_BYTES, TARGET_BYTES
from graphserve.worker.http.listener import Listener
from graphserve.worker.http.presence import Presence
from graphserve.worker.http.protocol import STOPPED, Protocol
from graphserve.worker.http.repeated_heads import LESSONS, Repeated
from graphserve.worker.http.request import HttpRequest
from graphserve.worker.http.strict import RequestRefused
from graphserve.worker.http.timeouts import Timeouts

_NOTHING = memoryview(b"")


class PublicProtocol(Protocol):
    """One public connection.

    Args:
        listener: where it was accepted.
        patrol: looks after it.
    """

    repeats = True  # whether a head that has come before is known without the parser

    def __init__(self, listener: Listener, patrol: Timeouts) -> None:
        super().__init__(listener)
        self.patrol = patrol
        # Of the connection. `since` is when it was accepted, when its last answer was complete, or when a head began
        # that did not come at once.
        self.since = 0.0
        self.behind = 0.0  # seconds that the client is behind the least rate
        self.unread = 0  # bytes of answers that it had not taken at the last look
        self.spare = False  # beyond the limit: it may only ask for health, once
        self._held = _NOTHING
        self._in_portions = False
        self._going_on = False
        self._repeated: Repeated | None = None  # the head of a request that it made, if that may come again
        self._lessons = LESSONS if self.repeats else 0
        # Of the message that comes.
        self.arrived = self.counted = self._passed_over = self._chunks = 0  # `arrived`: 0 for what comes at once
        self._said: dict[bytes, bytes] = {}
        self._plain = False  # whether its head came at once and is none of those that need a closer look
        self._line = b""  # what has come of its first line, if that is not complete

    # --- asyncio ---

    def connection_made(self, transport: Any) -> None:
        """asyncio callback."""
        super().connection_made(transport)
        self._presence = Presence(self.listener.readers, transport, self.flow)
        self.since = self.loop.time()
        self.patrol.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio callback."""
        self._presence.forget()
        self.patrol.lost(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """asyncio callback."""
        if self.refused:
            return
        if len(data) > PORTION or self._held:
            self._held = memoryview(bytes(self._held) + data) if self._held else memoryview(data)
            self._take_held()
        elif self._repeated is None or not self._take_again(self._repeated, data):
            self._feed(data)

    def pause_writing(self) -> None:
        """asyncio callback: the client does not take its answers, so it gets no further ones."""
        super().pause_writing()
        if self._is_free:
            self.flow.pause_reading()
        self.behind = 0.0
        self.unread = 0

    def resume_writing(self) -> None:
        """asyncio callback."""
        super().resume_writing()
        self.behind = 0.0
        if self._is_free:
            self._go_on_soon()

    # --- parser ---

    def on_headers_complete(self) -> None:
        """Parser callback."""
        headers = self.headers
        self._said = said = dict(headers)
        plain = (
            self.parser.get_http_version() == "1.1" and len(said) == len(headers) <= FIELDS
            and self.url[:1] == b"/" and b"#" not in self.url and strict.RARE.isdisjoint(said)
            and self.listener.hosts.allows(said.get(HOST)) and not (self.arrived or self._in_portions)
        )  # fmt: skip
        self._plain = plain
        if not plain:
            if b"upgrade" in said and self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
                self._upgrade_offered = True  # the same headers come again, without the offer
                return
            self._examine()
        if self.spare and (problem := self.patrol.refusal(self, self.url)) is not None:
            raise RequestRefused(problem)
        self.begin_request(old=False if plain else None)
        if self.spare and self.cycle is not None:
            self.cycle.keep_alive = False
        if self.flow.read_paused:  # it waits behind others
            self._presence.watch()
        if not plain:
            # trailers are no headers
            self.headers = []
            self._chunks = 0

    def on_body(self, body: bytes) -> None:
        """Parser callback."""
        cycle = self.cycle
        if type(cycle) is HttpRequest:
            cycle.body_received(body)
        else:
            self._passed_over += len(body)

    def on_chunk_header(self) -> None:
        """Parser callback."""
        self._chunks += 1

    def on_message_complete(self) -> None:
        """Parser callback."""
        if self._upgrade_offered:
            return
        self.receiving = False
        if self.arrived or self._passed_over:
            self.arrived = self.counted = self._passed_over = 0
        if self.cycle is not None:
            self.cycle.message_complete()

    def to_application(self) -> None:
        """Hand a request to the application that is for no API."""
        if self.parser.get_method() not in strict.METHODS:
            self._examine()
        if self._length() > self.listener.max_body_size:
            raise RequestRefused(too_large(self.listener.max_body_size))
        try:
            super().to_application()
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            raise RequestRefused(HttpProblem(400, "the request target is no path")) from None

    def on_response_complete(self) -> None:
        """An answer is complete: on with what waits behind it."""
        if self.transport.is_closing():
            return
        self.since = self.loop.time()
        self.behind = 0.0
        if self.pipeline or self._held or self.flow.write_paused or (self.denial is not None and self._denied):
            self._go_on_soon()
        elif self.flow.read_paused:
            self.flow.resume_reading()

    # --- ours ---

    @property
    def idle(self) -> bool:
        """Whether no request is in progress."""
        return super().idle and not self._held

    @property
    def unused(self) -> bool:
        """Whether no request is in progress, and none of the next one but a part of its headers is here."""
        return self.idle and not (self.receiving and self.headed) and not self._denied

    @property
    def silent(self) -> bool:
        """Whether nothing has come yet."""
        return self.cycle is None and not self.receiving

    @property
    def body_seen(self) -> int:
        """Bytes of the body that are here."""
        cycle = self.cycle
        return cycle.length if type(cycle) is HttpRequest else self._passed_over

    @property
    def began(self) -> float:
        """See `Protocol`."""
        return self.since

    def _feed(self, data: bytes | memoryview) -> None:
        if len(data) > PORTION:  # a part of one body
            super()._feed(data)
            return
        begins = not self.receiving and self._lessons > 0
        before = self.cycle
        text = data if type(data) is bytes else bytes(data)
        if self._line or (b"R" in text and b"RTSP/" in text):  # one byte is found far sooner than five
            self._feed_up_to_rtsp(text)
        else:
            stopped = None  # (as in `Protocol`: a call for each request is worth avoiding)
            try:
                self.parser.feed_data(text)
            except STOPPED as exc:
                stopped = exc
            if stopped is not None:
                self._stopped(stopped, text)
            if not self.receiving:
                if begins and self._plain and before is not None and self.cycle is not before:
                    self._learn(text)  # (not of the first request: many connections carry no second one)
                return
            if not self.refused:
                self.came_in_part(len(text))
        if self.receiving and not self.headed and not self.refused:
            self._line = strict.first_line_begun(self._line + text)
        elif self._line:
            self._line = b""

    def _learn(self, data: bytes) -> None:
        """The next head may be the one that these bytes begin with, where a request began."""
        cycle = self.cycle
        if type(cycle) is HttpRequest:
            self._lessons -= 1
            self._repeated = Repeated.of(data, self._said, self.listener.apis, cycle)

    def _take_again(self, known: Repeated, data: bytes) -> bool:
        """Take a request whose head is known; whether it is one. It goes on as with `begin_request`."""
        before = self.cycle
        body = known.body(data)
        listener = self.listener
        if (
            body is None or before is None or self.receiving or self.pipeline or self.spare
            or not (before.response_complete and before.keep_alive)
            or known.apis is not listener.apis or len(body) > listener.max_body_size
        ):  # fmt: skip
            return False
        context = CallContext(new_request_id(), earliest(None, known.api.timeout))
        inbound = HttpRequest(self, known.api, True, context, turn=True)
        self.cycle = inbound
        inbound.take_again(known, body)
        return True

    def _feed_up_to_rtsp(self, data: bytes) -> None:
        # llhttp takes `POST / RTSP/1.1` too, and does not tell it from HTTP.
        text, before, fed = self._line + data, len(self._line), 0
        for start, end in strict.rtsp_targets(text):
            begins = start - before < 0  # what is in `_line` is the beginning of a first line
            for place in (start - before, end - before):
                if place > fed and not self.refused:
                    super()._feed(data[fed:place])
                    fed = place
                begins = begins or (self.receiving and not self.headed and not self.url)
            if begins and not self.refused and not self.headed and self.url == text[start:end]:
                self.deny(HttpProblem(400, "this port speaks HTTP, not RTSP"))
            if self.refused:
                return
        super()._feed(data[fed:])

    def refuse(self) -> None:
        """See `Protocol`."""
        super().refuse()
        if self.spare:
            self.patrol.told(self)

    def stop_reading(self) -> None:
        """See `Protocol`."""
        self._held = _NOTHING
        super().stop_reading()

    def came_in_part(self, size: int) -> None:
        """See `Protocol`: what is not complete is bounded, and has its time."""
        if not self.arrived and self.cycle is not None and not self.headed:
            self.since = self.loop.time()
        self.arrived += size
        if self.headed:
            self._check_body()
        elif len(self.url) > TARGET_BYTES or len(self.headers) > FIELDS:
            self.deny(strict.too_long(self.url, self.headers) or strict.head_too_long())
        elif self.arrived > HEAD_BYTES:
            self.deny(strict.head_too_long())

    def _check_body(self) -> None:
        around = self.arrived - self.body_seen - HEAD_BYTES
        if TRANSFER_ENCODING in self._said and around > SPARE_CHUNK_BYTES + self._chunks * CHUNK_BYTES:
            self.deny(HttpProblem(400, "there is more around the chunks of the body than in them"))
        elif self.body_seen > self.listener.max_body_size and not isinstance(self.cycle, HttpRequest):
            self.deny(too_large(self.listener.max_body_size))

    def _length(self) -> int:
        return strict.number("Content-Length", self._said.get(CONTENT_LENGTH, b"0"))

    def _examine(self) -> None:
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if (problem := strict.fault(method, version, self.url, self.headers)) is not None:
            raise RequestRefused(problem)
        asked = [value for name, value in self.headers if name == HOST]
        self.url, named = strict.in_origin_form(self.url)
        for host in (*asked, *named):
            if not self.listener.hosts.allows(host):
                raise RequestRefused(browsers.foreign_host(host))
        executes = self.listener.route(self.url) is not None
        own = lambda: self._origins([*asked, *named])  # noqa: E731
        if (problem := browsers.fault(method, executes, self.headers, own)) is not None:
            raise RequestRefused(problem)

    def _origins(self, hosts: list[bytes]) -> list[tuple[str, bytes]]:
        """What pages of this port have as their origin, as scheme and host; a proxy that is trusted may say it."""
        scheme = self.scheme
        proxies = self.listener.proxies
        if proxies is not None and proxies.trusts(self.client):
            said = {name: value.rpartition(b",")[2].strip() for name, value in self.headers}
            scheme = said.get(b"x-forwarded-proto", scheme.encode()).decode("latin-1").lower()
            if b"x-forwarded-host" in said:
                hosts = [said[b"x-forwarded-host"]]
        return [(scheme, host) for host in hosts]

    def _take_held(self) -> None:
        # One read may hold thousands of small requests: only what can be worked on is parsed, the rest stays bytes.
        self._in_portions = True
        while self._held and not (self.refused or self.pipeline or self.flow.write_paused):
            size = PORTION
            if self.receiving and self.headed:
                size = max(size, self._length() - self.body_seen)
            portion = self._held[:size]
            self._held = self._held[size:]
            self._feed(portion)
        self._in_portions = False
        if self._held:
            self.flow.pause_reading()
            self._presence.watch()

    def _go_on_soon(self) -> None:
        # In a turn of its own: answers that are there at once would call each other, as deep as a client likes.
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
            self.first = self.pipeline.pop()
            self.first.begin()
        else:
            self._say_no()
        if not (self.pipeline or self.flow.write_paused or self.transport.is_closing()):
            self._take_held()
            if not (self._held or self.pipeline):
                self.flow.resume_reading()

    @property
    def _is_free(self) -> bool:  # for the next request
        first = self.first if self.pipeline else self.cycle
        return first is None or bool(first.response_complete)

    @property
    def _denied(self) -> bool:  # and not told so yet
        return self.denial is not None and not self.denial.over
