"""What the head of a request says, kept as it came: it is read when user code asks for it.

Runs in workers.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Address = tuple[str, int]  # host and port
Fields = Sequence[tuple[bytes, bytes]]  # headers; names in lower case

_SEPARATOR = b"\n"  # no name and no value of a header has a line end in it


def pack_fields(fields: Fields) -> bytes:
    """Return headers as the value of one header."""
    return base64.b64encode(_SEPARATOR.join([part for field in fields for part in field]))


def unpack_fields(packed: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers that `pack_fields` has packed."""
    parts = base64.b64decode(packed).split(_SEPARATOR)
    return list(zip(parts[::2], parts[1::2], strict=True))


class Proxies(Protocol):
    """Knows the proxies that are believed: `TrustedProxies`."""

    def client(self, peer: Address | None, headers: list[tuple[bytes, bytes]]) -> Address | None:
        """Return the client that a request is from."""
        ...

    def scheme(self, peer: Address | None, headers: list[tuple[bytes, bytes]], scheme: str) -> str:
        """Return the scheme by which it reached the first proxy."""
        ...


class Sender:
    """Who sends the requests of one connection.

    Args:
        address: the other side; None at a Unix socket.
        scheme: `https` if the connection has TLS, and else `http`.
        proxies: the proxies that are believed, if any are.
    """

    __slots__ = ("address", "proxies", "scheme")

    def __init__(
        self, address: Address | None = None, scheme: str = "http", proxies: Proxies | None = None
    ) -> None:
        self.address = address
        self.scheme = scheme
        self.proxies = proxies


NOBODY = Sender()  # the other side of a hop: that it is a service says `RequestHead.service`


@dataclass(eq=False)
class RequestHead:
    """The head of a request.

    Args:
        method: of the request.
        target: path and query, as they came.
        headers: likewise; names in lower case.
        sender: who sent it.
        service: the node that calls; None for a client.
        fields: the headers as text, once they were asked.
        packed: what `pack` returns, once it was asked.
    """

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    sender: Sender
    service: str | None = None
    # A head is made for every request, and most never set these: until they do, the class has them.
    fields: Mapping[str, str] | None = field(default=None, init=False)
    packed: bytes | None = field(default=None, init=False)

    @property
    def client(self) -> Address | None:
        """Return who sent it; behind a proxy that is believed, whom the proxy names."""
        sender = self.sender
        if sender.proxies is None:
            return sender.address
        return sender.proxies.client(sender.address, self.headers)

    @property
    def scheme(self) -> str:
        """Return `https` or `http`; behind a proxy that is believed, what the proxy says."""
        sender = self.sender
        if sender.proxies is None:
            return sender.scheme
        return sender.proxies.scheme(sender.address, self.headers, sender.scheme)

    def unpack(self) -> RequestHead:
        """Return itself: it was not relayed."""
        return self

    def pack(self) -> bytes:
        """Return it as the value of a header, for a sibling that the request is passed on to."""
        if self.packed is None:
            host, port = self.client or ("", 0)
            service = self.service or ""
            parts = [
                self.method,
                self.target,
                *(text.encode() for text in (host, str(port), self.scheme, service)),
                *(part for field in self.headers for part in field),
            ]
            self.packed = base64.b64encode(_SEPARATOR.join(parts))
        return self.packed


class RelayedHead:
    """The head of a request that a sibling has passed on.

    Args:
        packed: what `RequestHead.pack` has made of it.
    """

    __slots__ = ("_packed",)

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def pack(self) -> bytes:
        """Return it as the value of a header."""
        return self._packed

    def unpack(self) -> RequestHead:
        """Return the head itself."""
        method, target, host, port, scheme, service, *rest = base64.b64decode(self._packed).split(
            _SEPARATOR
        )
        address = (host.decode(), int(port)) if host else None
        headers = list(zip(rest[::2], rest[1::2], strict=True))
        sender = Sender(address, scheme.decode())
        return RequestHead(method, target, headers, sender, service.decode() or None)
