"""A small HTTP/1.1 server on a Unix socket: one request a connection, everything bounded. Runs in the supervisor.

uvicorn and starlette would cost the supervisor 20 MB for a few requests a day.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from graphserve.supervise.process.sockets import NamedSocket
from graphserve.wire.problem import phrase

HEAD, BODY = 16 * 1024, 64 * 1024  # bytes of a request
READING, WRITING = 5.0, 5.0  # seconds that a client has to send its request, and to take its answer
CONNECTIONS = 64  # at once; more are closed
UNREAD = 256 * 1024  # bytes of an answer that a client may leave unread
LINES = b"application/x-ndjson"
_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,1023}) HTTP/1\.[01]")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*?)[ \t]*")


@dataclass(frozen=True)
class ControlRequest:
    """One request: its body is JSON, or None if there was none."""

    method: str
    path: str
    body: Any
    lines: bool  # whether the client takes an answer line by line, as it comes


class HttpError(Exception):
    """Raised for a request that is answered with an error.

    Args:
        status: the HTTP status.
        detail: what is wrong.
        more: further members of the answer.
    """

    def __init__(self, status: int, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.more = more

    def problem(self) -> dict[str, Any]:
        """As RFC 9457 says."""
        title = phrase(self.status)
        return {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail} | self.more


class Answer:
    """The way back to one client."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.begun = False

    def json(self, value: Any, status: int = 200, kind: bytes = b"application/json") -> None:
        """Answer with one JSON value."""
        body = json.dumps(value).encode() + b"\n"
        self._head(status, kind, b"content-length: %d\r\n" % len(body))
        self._write(body)

    def problem(self, error: HttpError) -> None:
        """Answer with an error; after lines, as the last one."""
        if self.begun:
            self.line({"error": error.problem()})
        else:
            self.json(error.problem(), error.status, b"application/problem+json")

    def line(self, value: Any) -> None:
        """Send one line of an answer that comes in lines; the last says `done`, or `error`."""
        if not self.begun:
            self._head(200, LINES, b"")
        self._write(json.dumps(value).encode() + b"\n")

    def _head(self, status: int, kind: bytes, more: bytes) -> None:
        self.begun = True
        head = b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\n" % (status, phrase(status).encode(), kind)
        self._write(head + more + b"connection: close\r\ncache-control: no-store\r\n\r\n")

    def _write(self, data: bytes) -> None:
        transport = self._writer.transport
        if transport.get_write_buffer_size() > UNREAD:
            transport.abort()  # it does not read: nobody waits for it
        if not transport.is_closing():
            self._writer.write(data)


class UnixServer:
    """Serves on a Unix socket of mode 0600.

    Args:
        path: where.
        handle: answers a request; what it raises as `HttpError` is the answer.
    """

    def __init__(self, path: str, handle: Callable[[ControlRequest, Answer], Awaitable[None]]) -> None:
        self._path = path
        self._handle = handle
        self._clients: set[asyncio.Task[None]] = set()
        self._reopening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to listen."""
        self._named = NamedSocket(self._path, CONNECTIONS)
        self._server = await asyncio.start_unix_server(self._connected, sock=self._named.sock, limit=HEAD)

    def restore(self) -> list[str]:
        """Make the socket anew if others have removed it; returns its name then. Who is connected stays so.

        Raises:
            OSError: it cannot be made.
        """
        if not self._named.lost or self._reopening is not None:
            return []
        self._named = NamedSocket(self._path, CONNECTIONS)
        self._reopening = asyncio.ensure_future(self._reopen(self._named.sock))
        return [os.path.basename(self._path)]

    async def _reopen(self, sock: socket.socket) -> None:
        before = self._server
        self._server = await asyncio.start_unix_server(self._connected, sock=sock, limit=HEAD)
        before.close()
        self._reopening = None

    async def close(self) -> None:
        """Accept no more, give what was answered a moment to go out, and end."""
        if self._reopening is not None:
            await self._reopening
        self._server.close()
        if self._clients:
            await asyncio.wait(self._clients, timeout=0.1)
        for task in self._clients:
            task.cancel()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = Answer(writer)
        try:
            async with asyncio.timeout(READING):
                request = await read(reader)
            await self._handle(request, answer)
        except HttpError as exc:
            answer.problem(exc)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except Exception as exc:  # a bug of ours
            answer.problem(HttpError(500, repr(exc)))
            raise
        finally:
            with contextlib.suppress(Exception):
                writer.close()
                async with asyncio.timeout(WRITING):
                    await writer.wait_closed()
            writer.transport.abort()


async def read(reader: asyncio.StreamReader) -> ControlRequest:
    """Read one request.

    Raises:
        HttpError: it is none that is understood here.
    """
    try:
        line, *rest = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
    except asyncio.LimitOverrunError:
        raise HttpError(431, f"the head of a request has at most {HEAD} bytes") from None
    found = _LINE.fullmatch(line)
    pairs = [match.groups() if (match := _HEADER.fullmatch(each)) else None for each in rest]
    if found is None or None in pairs:
        raise HttpError(400, "this is no HTTP/1.1 request")
    headers: dict[bytes, bytes] = {}
    for name, value in filter(None, pairs):
        if name.lower() in headers and name.lower() in (b"content-length", b"transfer-encoding"):
            raise HttpError(400, f"{name.decode()} stands there twice")
        headers[name.lower()] = value
    body = await _body(reader, headers)
    method, path = (part.decode() for part in found.groups())
    return ControlRequest(method, path.partition("?")[0], body, LINES in headers.get(b"accept", b""))


async def _body(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> Any:
    if b"transfer-encoding" in headers:
        raise HttpError(411, "say the length of the body (content-length)")
    length = headers.get(b"content-length", b"0")
    if not re.fullmatch(rb"[0-9]{1,18}", length):
        raise HttpError(400, "content-length is no number")
    if int(length) > BODY:
        raise HttpError(413, f"a body has at most {BODY} bytes")
    if not int(length):
        return None
    try:
        return json.loads(await reader.readexactly(int(length)), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise HttpError(400, "the body is not JSON, or has a name twice in one object") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found
