"""A small HTTP/1.1 server: one request a connection, everything bounded.

Runs in the supervisor.

h11 parses the head of a request; answers are a few fixed lines. uvicorn and starlette would cost
the supervisor 20 MB for a few requests a day.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence

from graphserve.supervise.process.sockets import NamedSocket
from graphserve.system.frozen import dataclass
from graphserve.wire.formats import PROBLEM, Format, StreamFormat
from graphserve.wire.headers import ACCEPT, CONTENT_LENGTH, TRANSFER_ENCODING
from graphserve.wire.reason_phrases import phrase

MAX_HEAD_BYTES = 16 * 1024  # of a request
MAX_TARGET_BYTES = 4096  # many nodes may be named in one
MAX_BODY_BYTES = 64 * 1024
READ_TIMEOUT = 5.0  # seconds that a client has to send its request
WRITE_TIMEOUT = 5.0  # seconds that a client has to take its answer
MAX_CONNECTIONS = 64  # at once; more are closed
MAX_UNREAD_BYTES = 256 * 1024  # of an answer that a client does not read
MAX_REASON = 200  # characters of what h11 says, which may quote a whole line
NDJSON = StreamFormat.NDJSON.value
_END_OF_HEAD = b"\r\n\r\n"
# h11 takes both for the sake of old peers: a line that ends in LF alone, and a header that goes on
# in the next line.
_LENIENT_LINE = re.compile(rb"(?<!\r)\n|\n[ \t]")
# h11 takes a second length that equals the first, and makes one of both.
_LENGTHS = re.compile(rb"\r\n%b:([^\r]*)" % CONTENT_LENGTH, re.IGNORECASE)
_QUOTED_LINE = re.compile(r"bytearray\((b.*)\)", re.DOTALL)  # as h11 quotes a line
_LENGTH_REQUIRED = "give the length of the body (content-length)"


@dataclass(frozen=True)
class ControlRequest:
    """One request.

    Args:
        method: the HTTP method.
        path: the path, without the query.
        query: what stands behind the `?`.
        body: what the JSON of the body says; None if there was no body.
        wants_lines: whether the client takes an answer line by line, as it comes.
        accept: the Accept header as it came.
    """

    method: str
    path: str
    body: object
    wants_lines: bool
    query: str = ""
    accept: bytes = b""


class HttpError(Exception):
    """Raised for a request that is answered with an error.

    Args:
        status: the HTTP status.
        detail: what is wrong.
        headers: further headers of the answer.
        more: further members of the answer.
    """

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: object
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.more = more

    def problem(self) -> dict[str, object]:
        """Return the answer as RFC 9457 describes one."""
        title = phrase(self.status)
        return {
            "type": "about:blank",
            "title": title,
            "status": self.status,
            "detail": self.detail,
        } | self.more


class ControlResponse:
    """The answer to one client: one JSON value, or lines of JSON.

    Args:
        reader: the connection, as it is read.
        writer: and as it is written.
        patience: seconds in which a client takes something of an answer in lines; None: it may take
            as long as it likes.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        patience: float | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._patience = patience
        self._begun = False
        self._headers: Mapping[str, str] = {}  # further ones
        self.without_body = False  # it answers HEAD

    def json(
        self, value: object, status: int = 200, content_type: bytes = Format.JSON.value
    ) -> None:
        """Answer with one JSON value."""
        self.whole(json.dumps(value).encode() + b"\n", content_type, status)

    def whole(self, body: bytes, content_type: bytes, status: int = 200) -> None:
        """Answer with a body of any type."""
        self._head(status, content_type, b"content-length: %d\r\n" % len(body))
        self._write(body)

    def problem(self, error: HttpError) -> None:
        """Answer with an error; if lines were sent already, the error is the last line."""
        if self._begun:
            self.line({"error": error.problem()})
        else:
            self._headers = error.headers
            self.json(error.problem(), error.status, PROBLEM)

    def line(self, value: object) -> None:
        """Send one line of an answer that comes in lines; the last one says `done` or `error`."""
        if not self._begun:
            self._head(200, NDJSON, b"")
        self._write(json.dumps(value).encode() + b"\n")

    async def lines(self, lines: bytes) -> None:
        """Send whole lines, and wait until the client has taken nearly all of what was sent.

        Raises:
            ConnectionError: the client is gone.
            TimeoutError: it takes nothing.
        """
        if not self._begun:
            self._head(200, NDJSON, b"")
        self._write(lines)
        async with asyncio.timeout(self._patience):
            await self._writer.drain()

    async def client_left(self) -> None:
        """Wait until the client closes the connection, or its half of it."""
        with contextlib.suppress(OSError):
            while await self._reader.read(MAX_HEAD_BYTES):
                pass

    def _head(self, status: int, content_type: bytes, length: bytes) -> None:
        self._begun = True
        head = b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\n" % (
            status,
            phrase(status).encode(),
            content_type,
        )
        more = "".join(f"{name}: {value}\r\n" for name, value in self._headers.items()).encode()
        head += length + more + b"connection: close\r\ncache-control: no-store\r\n\r\n"
        self._send(head)

    def _write(self, data: bytes) -> None:
        if not self.without_body:
            self._send(data)

    def _send(self, data: bytes) -> None:
        transport = self._writer.transport
        if transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            transport.abort()  # the client does not read: nobody waits for it
        if not transport.is_closing():
            self._writer.write(data)


Handler = Callable[[ControlRequest, ControlResponse], Awaitable[None]]


CheckHead = Callable[[str, Sequence[tuple[bytes, bytes]]], None]


class HttpServer:
    """Serves HTTP on connections that are given to it.

    Args:
        handle: answers a request; an `HttpError` that it raises is the answer.
        permit: takes the method and the headers of a request before its body is read, and raises an
            `HttpError` for one that is refused.
        patience: seconds in which a client takes something of an answer in lines; None: it may take
            as long as it likes.
    """

    def __init__(
        self, handle: Handler, permit: CheckHead | None = None, patience: float | None = None
    ) -> None:
        self._handle = handle
        self._permit = permit
        self._patience = patience
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def full(self) -> bool:
        """Return whether there are as many clients as there may be."""
        return len(self._clients) >= MAX_CONNECTIONS

    def protocol(self) -> asyncio.StreamReaderProtocol:
        """Return what serves one connection."""
        return asyncio.StreamReaderProtocol(
            asyncio.StreamReader(limit=MAX_HEAD_BYTES), self.connected
        )

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection, if there is room for one more."""
        if self.full:
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self.done)

    def done(self, task: asyncio.Task[None]) -> None:
        """Note that a client is served."""
        self._clients.discard(task)

    async def close(self) -> None:
        """Give answers a moment to go out, and end."""
        if self._clients:
            await asyncio.wait(self._clients, timeout=0.1)
        for task in self._clients:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        response = ControlResponse(reader, writer, self._patience)
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                request = await read(reader, self._permit)
            response.without_body = request.method == "HEAD"
            await self._handle(request, response)
        except HttpError as exc:
            response.problem(exc)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except Exception as exc:  # a bug of ours
            response.problem(HttpError(500, repr(exc)))
            raise
        finally:
            with contextlib.suppress(Exception):
                writer.close()
                async with asyncio.timeout(WRITE_TIMEOUT):
                    await writer.wait_closed()
            writer.transport.abort()


class UnixHttpServer(HttpServer):
    """Serves HTTP on a Unix socket of mode 0600, from `open` on.

    Args:
        path: where the socket is made.
        handle: answers a request; an `HttpError` that it raises is the answer.
    """

    def __init__(self, path: str, handle: Handler) -> None:
        super().__init__(handle)
        self._path = path
        self._named = NamedSocket(path, MAX_CONNECTIONS)
        self._listener: asyncio.Server | None = None
        self._reopening: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: str, handle: Handler) -> UnixHttpServer:
        """Make a server and begin to listen.

        Raises:
            OSError: the socket cannot be made.
        """
        server = cls(path, handle)
        await server._listen()
        return server

    def restore(self) -> list[str]:
        """Make the socket again if somebody has removed it, and return its name then; who is
        connected stays so.

        Raises:
            OSError: it cannot be made.
        """
        if not self._named.lost or self._reopening is not None:
            return []
        self._named = NamedSocket(self._path, MAX_CONNECTIONS)
        self._reopening = asyncio.ensure_future(self._reopen())
        return [os.path.basename(self._path)]

    async def _reopen(self) -> None:
        before = self._listener
        await self._listen()
        if before is not None:
            before.close()
        self._reopening = None

    async def _listen(self) -> None:
        self._listener = await asyncio.start_unix_server(
            self.connected, sock=self._named.sock, limit=MAX_HEAD_BYTES
        )

    async def close(self) -> None:
        """Stop accepting, give answers a moment to go out, and end."""
        if self._reopening is not None:
            await self._reopening
        if self._listener is not None:
            self._listener.close()
        await super().close()


async def read(reader: asyncio.StreamReader, permit: CheckHead | None = None) -> ControlRequest:
    """Read one request.

    Args:
        reader: the connection.
        permit: see `HttpServer`.

    Raises:
        HttpError: the request is malformed, or larger than the bounds of this module.
    """
    try:
        head = await reader.readuntil(_END_OF_HEAD)
    except asyncio.LimitOverrunError:
        raise HttpError(431, f"the head of a request has at most {MAX_HEAD_BYTES} bytes") from None
    method, target, fields = parse_head(head)
    if permit is not None:
        permit(method, fields)
    headers = dict(fields)
    if TRANSFER_ENCODING in headers:
        raise HttpError(411, _LENGTH_REQUIRED)
    body = await _read_body(reader, int(headers.get(CONTENT_LENGTH, b"0")))
    path, _, query = target.partition("?")
    accept = headers.get(ACCEPT, b"")
    return ControlRequest(method, path, body, NDJSON in accept, query, accept)


def parse_head(head: bytes) -> tuple[str, str, list[tuple[bytes, bytes]]]:
    """Return the method, the target and the headers (names in lower case) of a request.

    Args:
        head: all bytes of the head, with the empty line at its end.

    Raises:
        HttpError: this is no HTTP/1.1 request.
    """
    import h11  # here: it costs 10 ms and 300 KB, and most graphs are never asked anything

    if _LENIENT_LINE.search(head):
        raise HttpError(
            400, "this is no HTTP/1.1 request: its lines end in CR LF, and a header has one line"
        )
    lengths = _LENGTHS.findall(head)
    if len(lengths) > 1 or b"," in b"".join(lengths):
        raise HttpError(400, "this is no HTTP/1.1 request: it has more than one Content-Length")
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    try:
        parser.receive_data(head)
        event = parser.next_event()
    except h11.RemoteProtocolError as exc:
        if exc.error_status_hint == 501:  # a transfer coding that h11 does not know
            raise HttpError(411, _LENGTH_REQUIRED) from None
        raise HttpError(400, f"this is no HTTP/1.1 request: {_reason(exc)}") from None
    if not isinstance(event, h11.Request) or event.http_version not in (b"1.0", b"1.1"):
        raise HttpError(400, "this is no HTTP/1.1 request")
    if not event.target.startswith(b"/") or len(event.target) > MAX_TARGET_BYTES:
        raise HttpError(
            400,
            f"a request names a path that begins with / and has at most {MAX_TARGET_BYTES} bytes",
        )
    return event.method.decode(), event.target.decode(), list(event.headers)


def _reason(error: Exception) -> str:
    """Return what h11 says, with the line that it quotes as text instead of Python's bytes."""
    reason = _QUOTED_LINE.sub(_quoted_text, str(error))
    return reason[:MAX_REASON]


def _quoted_text(quoted: re.Match[str]) -> str:
    line: bytes = ast.literal_eval(quoted[1])
    return line.decode("ascii", "backslashreplace")


async def _read_body(reader: asyncio.StreamReader, length: int) -> object:
    if length > MAX_BODY_BYTES:
        raise HttpError(413, f"a body has at most {MAX_BODY_BYTES} bytes")
    if not length:
        return None
    try:
        value: object = json.loads(await reader.readexactly(length), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise HttpError(400, "the body is not JSON, or has a name twice in one object") from None
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found
