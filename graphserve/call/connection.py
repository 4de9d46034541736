"""One HTTP/1.1 connection of a caller: a socket, a response parser, one exchange at a time.

Runs in workers.

Reads and writes the socket itself instead of through a transport: what `send` and `recv` return
then tells exactly whether the other side had read a request before it went (see `Exchange.lost`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Protocol

import httptools

from graphserve.logs import records
from graphserve.loop.poller import Poller
from graphserve.wire.formats import Format
from graphserve.wire.headers import (
    CLOSE,
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    MOST_DIGITS,
    STATUS_OK,
)
from graphserve.wire.trust import PUBLIC, Trust

LOGGER = "graphserve.calls"

READ_SIZE = 256 * 1024  # bytes
# What a worker's answer with a result begins with, most of the time; such an answer needs no
# parser.
_TYPED = Format.TYPED.value
RESULT = STATUS_OK + b"%s: %s\r\n%s: " % (CONTENT_TYPE, _TYPED, CONTENT_LENGTH)
CLOSED_AFTER = b"\r\n" + CLOSE.removesuffix(b"\r\n")
BODILESS = (204, 304)  # statuses of answers that never have a body (RFC 9112, 6.3)
CUT = "the connection was closed before the end of the answer"

_open: set[Connection] = set()


class Receiver(Protocol):
    """What waits for the answer on a connection: an `Exchange`."""

    streams: bool  # whether it takes the body of a success in chunks, as they come
    # whether its answer has no body, whatever the headers say of one: it asked with HEAD
    bodiless: bool

    def head(self, headers: list[tuple[bytes, bytes]], status: int = 200) -> None:
        """Take the headers and the status of a success whose body comes in chunks."""

    def chunk(self, data: bytes) -> None:
        """Take a part of that body."""

    def answered(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Take the whole answer, or what is left of the body after its chunks."""

    def lost(self, reason: str, unread: bool) -> None:
        """Learn that the connection ended before the whole answer.

        Args:
            reason: why, in words.
            unread: whether the other side cannot have read the request.
        """


class Connection:
    """Sends requests on a connected socket, and reads the answers, one after the other.

    Args:
        sock: connected, non-blocking; owned by the connection.
        on_idle: called when an answer was complete and the connection can take the next request.
        on_close: called once when it is closed, for whatever reason.
        readers: who watches the socket, if not the loop: for connections that live for one call.
        trust: what it was opened as.
    """

    __slots__ = (
        "_all_sent",
        "_body",
        "_headers",
        "_loop",
        "_on_close",
        "_on_idle",
        "_parser",
        "_readers",
        "_receiver",
        "_sock",
        "_streaming",
        "_unsent",
        "broken",
        "closed",
        "idle",
        "idle_since",
        "trust",
    )

    def __init__(
        self,
        sock: socket.socket,
        on_idle: Callable[[Connection], None],
        on_close: Callable[[Connection], None],
        readers: Poller | None = None,
        trust: Trust = PUBLIC,
    ) -> None:
        self._sock = sock
        self._on_idle = on_idle
        self._on_close = on_close
        self.trust = trust
        self._loop = asyncio.get_running_loop()
        self._readers = readers or self._loop
        # per request
        self._receiver: Receiver | None = None
        self._unsent: memoryview | None = None
        self._all_sent: asyncio.Future[None] | None = None  # what waits until nothing is unsent
        # per answer
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._streaming = False
        # its state
        self.closed = False
        self.broken = False  # the other side ended it and owes an answer
        self.idle = False
        self.idle_since = 0.0  # on the clock of the loop
        self._readers.add_reader(sock, self._readable)
        _open.add(self)

    def send(self, request: bytes, receiver: Receiver) -> None:
        """Send a whole request and wait for its answer.

        An error is reported to the receiver, never raised.
        """
        self.idle = False
        self._receiver = receiver
        try:
            sent = self._sock.send(request)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            self._end(exc)
            return
        if sent < len(request):
            self._unsent = memoryview(request)[sent:]
            self._loop.add_writer(self._sock, self._writable)

    def send_more(self, data: bytes) -> None:
        """Send a further part of a request whose body is streamed."""
        if self.closed:
            return
        if self._unsent is not None:
            self._unsent = memoryview(bytes(self._unsent) + data)
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the reader sees the end, or an answer that came early
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]
            self._loop.add_writer(self._sock, self._writable)

    async def sent(self) -> None:
        """Wait until the other side has taken what was sent; also ends when the connection does."""
        if self._unsent is not None and not self.closed:
            self._all_sent = self._loop.create_future()
            await self._all_sent

    def pause(self) -> None:
        """Read no more for now: the consumer is slow."""
        if not self.closed:
            self._readers.remove_reader(self._sock)

    def resume(self) -> None:
        """Read on."""
        if not self.closed:
            self._readers.add_reader(self._sock, self._readable)

    def close(self) -> None:
        """Close it; a receiver that waits is not told, since whoever gives up a call knows."""
        if self.closed:
            return
        self.closed = True
        _open.discard(self)
        self._readers.remove_reader(self._sock)
        if self._unsent is not None:
            self._sent_all()
        self._shut()
        self._on_close(self)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._end(exc)
            return
        # an idle connection has nothing to say: it ends, or it lies
        if not data or self._receiver is None:
            self._end(None)
            return
        if self._parser is None and self._plain_result(data):
            return
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as exc:
            records.note(LOGGER, "error", "an answer could not be read", exc.__context__ or exc)
            self._end(exc)
        except httptools.HttpParserError as exc:
            self._end(exc)
        except httptools.HttpParserUpgrade:
            self._end(ValueError("it goes on in another protocol, which nobody asked for"))

    def _plain_result(self, data: bytes) -> bool:
        """Take an answer that came in one piece and in the words that our workers use;
        False if it is another.
        """
        if not data.startswith(RESULT):
            return False
        end = data.find(b"\r\n\r\n", len(RESULT))
        length = data[len(RESULT) : end]
        keep = not length.endswith(CLOSED_AFTER)
        if not keep:
            length = length[: -len(CLOSED_AFTER)]
        if (
            end < 0
            or not length.isdigit()
            or len(length) > MOST_DIGITS
            or len(data) != end + 4 + int(length)
        ):
            return False
        headers = [(CONTENT_TYPE, _TYPED), (CONTENT_LENGTH, length)]
        self._answered(
            200, headers if keep else [*headers, (CONNECTION, b"close")], data[end + 4 :], keep
        )
        return True

    def _writable(self) -> None:
        assert self._unsent is not None
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            # The other side may have answered before it closed (413 while we still send): read on.
            self._sent_all()
            if isinstance(exc, ConnectionResetError):
                self._end(exc)
            return
        if not self._unsent:
            self._sent_all()

    def _sent_all(self) -> None:
        self._loop.remove_writer(self._sock)
        self._unsent = None
        if self._all_sent is not None and not self._all_sent.done():
            self._all_sent.set_result(None)

    def _end(self, exc: Exception | None) -> None:
        receiver = self._receiver
        self._receiver = None
        begun = self._streaming or bool(self._headers or self._body)
        cut = self._unsent is not None
        self.broken = receiver is not None
        self.close()
        if receiver is not None:
            # Linux, af_unix.c: closing a socket with unread data resets the peer; writing to a
            # closed one is EPIPE.
            unread = not begun and (isinstance(exc, (ConnectionResetError, BrokenPipeError)) or cut)
            closed = CUT if begun else "the connection was closed without an answer"
            receiver.lost(str(exc) if exc else closed, unread)

    def _shut(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # a forked child may hold a copy
        self._sock.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header from the parser."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Hand the head to a receiver that takes chunks, as the parser has it."""
        receiver = self._receiver
        if receiver is None or self._parser is None:
            return
        status = self._parser.get_status_code()
        if status in BODILESS or (receiver.bodiless and status >= 200):
            self._end_with_head(status)
        elif receiver.streams and 200 <= status < 300:
            self._streaming = True
            receiver.head(self._headers, status)

    def on_body(self, chunk: bytes) -> None:
        """Take a part of the body from the parser."""
        if self.closed:
            return  # more came behind an answer without a body
        if self._streaming:
            if self._receiver is not None:
                self._receiver.chunk(chunk)
        else:
            self._body.append(chunk)

    def on_message_complete(self) -> None:
        """End the answer: the parser has read all of it."""
        if self._parser is None:
            return  # it was with its head
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue, 103 Early Hints: the answer comes after them
            self._headers = []
            self._body = []
            return
        headers = self._headers
        chunks = self._body
        streamed = self._streaming
        self._headers = []
        self._body = []
        self._streaming = False
        keep = self._parser.should_keep_alive()
        self._parser = None
        if keep and streamed:
            # its consumer may have held it back in this very read; the next request has another
            self.resume()
        self._answered(status, headers, chunks[0] if len(chunks) == 1 else b"".join(chunks), keep)

    def _end_with_head(self, status: int) -> None:
        # What the headers say of a body is that of another answer (RFC 9110, 8.6), but the parser
        # waits for it. So this connection ends here, and nobody has to know whether something else
        # comes.
        headers = self._headers
        self._headers = []
        self._parser = None
        self._answered(status, headers, b"", keep=False)

    def _answered(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, keep: bool
    ) -> None:
        receiver = self._receiver
        self._receiver = None
        if keep and self._unsent is None and not self.closed:
            self.idle = True
            self.idle_since = self._loop.time()
            self._on_idle(self)
        else:
            self.close()
        if receiver is not None:
            receiver.answered(status, headers, body)


def _close_in_forked_child() -> None:
    # User code may fork: without this the child would keep our connections open (no shutdown: that
    # would end them for the parent too).
    for connection in list(_open):
        with contextlib.suppress(OSError):
            os.close(connection._sock.detach())


os.register_at_fork(after_in_child=_close_in_forked_child)
