"""The opening handshake of a WebSocket (RFC 6455, 4.2): what is wrong with it, and what its answer
says. Runs in entry workers.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from websockets.datastructures import Headers as HeaderList
from websockets.exceptions import InvalidHandshake, InvalidUpgrade
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from graphserve.declare.options import SocketLimits
from graphserve.wire.headers import (
    CONTENT_LENGTH,
    HOP_BY_HOP,
    TRANSFER_ENCODING,
    Headers,
    is_token,
    is_value,
)
from graphserve.wire.problem import HttpProblem
from graphserve.worker.http.limits import LONGEST_SHOWN
from graphserve.worker.http.strict import RequestRefused

VERSION = b"13"
_PROTOCOL = b"sec-websocket-protocol"
# Of both sides: a window of 4 KiB finds most of what repeats, and takes an eighth of the memory.
_WINDOW_BITS = 12
_MEMORY_LEVEL = 5
_log = logging.getLogger("graphserve.websocket")
_log.setLevel(logging.WARNING)  # (it says of each connection that it was closed)


@dataclass(frozen=True)
class Handshake:
    """A handshake that can be accepted.

    Args:
        protocol: reads and writes frames, once it is.
        key: the value of Sec-WebSocket-Accept.
        extensions: the value of Sec-WebSocket-Extensions, if there is one.
        subprotocols: those that the client offers.
    """

    protocol: ServerProtocol
    key: str
    extensions: str | None
    subprotocols: tuple[str, ...]

    @classmethod
    def of(cls, target: bytes, headers: Headers, limits: SocketLimits) -> Handshake:
        """Check a handshake.

        Args:
            target: path and query.
            headers: of the request, a GET in HTTP/1.1.
            limits: of the WebSocket.

        Raises:
            RequestRefused: it is none.
        """
        if any(
            name == TRANSFER_ENCODING or (name == CONTENT_LENGTH and value.strip() != b"0")
            for name, value in headers
        ):
            raise RequestRefused(HttpProblem(400, "the handshake of a WebSocket has no body"))
        versions = [value.strip() for name, value in headers if name == b"sec-websocket-version"]
        if versions != [VERSION]:
            raise RequestRefused(upgrade_required("the version of the WebSocket protocol is 13"))
        extensions = None
        if limits.compress:
            extensions = [
                ServerPerMessageDeflateFactory(
                    server_max_window_bits=_WINDOW_BITS,
                    client_max_window_bits=_WINDOW_BITS,
                    compress_settings={"memLevel": _MEMORY_LEVEL},
                )
            ]
        protocol = ServerProtocol(
            state=State.OPEN, extensions=extensions, max_size=limits.max_size, logger=_log
        )
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        try:
            key, agreed, _ = protocol.process_request(
                Request(target.decode("latin-1"), HeaderList(pairs))
            )
        except InvalidUpgrade as exc:
            raise RequestRefused(upgrade_required(_words(exc))) from None
        except InvalidHandshake as exc:
            raise RequestRefused(HttpProblem(400, _words(exc))) from None
        offered = [
            each.strip()
            for name, value in pairs
            if name == _PROTOCOL.decode()
            for each in value.split(",")
        ]
        if not all(is_token(each.encode("latin-1")) for each in offered):
            raise RequestRefused(HttpProblem(400, "Sec-WebSocket-Protocol is a list of names"))
        return cls(protocol, key, agreed, tuple(offered))

    def accepted(self, subprotocol: str | None, fields: Headers) -> bytes:
        """Return the answer that accepts it.

        Args:
            subprotocol: the one that was chosen.
            fields: more headers.

        Raises:
            RuntimeError: the client has not offered that, or a header cannot be sent.
        """
        lines = [
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n",
            b"sec-websocket-accept: %s\r\n" % self.key.encode(),
        ]
        if self.extensions is not None:
            lines.append(b"sec-websocket-extensions: %s\r\n" % self.extensions.encode())
        if subprotocol is not None:
            if subprotocol not in self.subprotocols:
                said = ", ".join(self.subprotocols) or "none"
                raise RuntimeError(
                    f"the client has not offered the subprotocol {subprotocol!r}; it offers {said}"
                )
            lines.append(b"%s: %s\r\n" % (_PROTOCOL, subprotocol.encode()))
        return b"".join([*lines, *lines_of(fields), b"\r\n"])


def lines_of(fields: Headers) -> list[bytes]:
    """Return headers that user code has given as lines.

    Raises:
        RuntimeError: one cannot be sent, or is the port's own.
    """
    lines = []
    for given, value in fields:
        name = given.lower()
        if not is_token(name) or not is_value(value):
            raise RuntimeError(f"this is no header: {given!r}")
        if name in HOP_BY_HOP or (name.startswith(b"sec-websocket-")):
            raise RuntimeError(f"the header {given!r} is the port's own")
        lines.append(b"%s: %s\r\n" % (name, value))
    return lines


def upgrade_required(why: str) -> HttpProblem:
    """Return the answer to who asks for a WebSocket in another way (RFC 9110, 15.5.22)."""
    headers = {"upgrade": "websocket", "sec-websocket-version": VERSION.decode()}
    return HttpProblem(426, why, headers=headers)


def _words(exc: BaseException) -> str:
    return f"this is no handshake of a WebSocket: {exc}"[: 2 * LONGEST_SHOWN]
