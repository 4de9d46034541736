"""Who the client of a proxy is, and at which origin it reached the port: `X-Forwarded-For`,
`X-Forwarded-Proto` and `X-Forwarded-Host`, or `Forwarded` (RFC 7239).

Runs in entry workers and fallback servers.

A proxy is believed if `--forwarded-allow-ips` names its address; what any other client says of
itself is passed over. The rules for the address and the scheme are those of uvicorn.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

from graphserve.call.request_head import Address
from graphserve.wire.headers import FORWARDED_HOST, FORWARDED_PROTO, Headers
from graphserve.worker.http.asgi import AsgiApp, Message, Receive, Scope, Send

_FORWARDED = b"forwarded"
_FOR = b"x-forwarded-for"
# one `name=value` of it, and what follows: another one of the same proxy (;), or of the next (,)
_PAIR = re.compile(
    rb"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    rb'(?:"((?:[^"\\]|\\.)*)"|([^",;\s]*))[ \t]*([;,]|\Z)'
)
# an address with a port, as `for` has it
_NODE = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([^:]*))(?::[^:]*)?")


class TrustedProxies:
    """Tells the application who the clients of a proxy are.

    Args:
        app: what answers.
        trusted: the proxies that are believed, as `--forwarded-allow-ips` has them.
    """

    def __init__(self, app: AsgiApp, trusted: str) -> None:
        # a worker without proxies needs none of it
        from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

        # (its types are uvicorn's own names for those of ASGI)
        rules = cast("Callable[[AsgiApp, str], AsgiApp]", ProxyHeadersMiddleware)
        self._bare = app
        self._app = rules(app, trusted)
        self._rules = rules(_nothing, trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does, which is told the client (ASGI, `http` scopes)."""
        headers: Headers = scope["headers"]
        said = _translated(headers)
        if said is headers:
            await self._app(scope, receive, send)
            return
        found = self._apply(scope["client"], said, scope["scheme"])
        told = {"client": found["client"], "scheme": found["scheme"]}
        await self._bare({**scope, **told}, receive, send)

    def client(self, peer: Address | None, headers: Headers) -> Address | None:
        """Return the client that a request is from: whom its peer names, if that is a proxy that is
        trusted, or else its peer.
        """
        client: Address | None = self._apply(peer, _translated(headers))["client"]
        return client

    def scheme(self, peer: Address | None, headers: Headers, scheme: str) -> str:
        """Return the scheme by which a client reached the port: that of the connection, unless a
        proxy that is trusted names another.
        """
        said = self.origins(peer, headers, scheme, [b""])[0][0]
        return said if said in ("http", "https") else scheme

    def origins(
        self,
        peer: Address | None,
        headers: Headers,
        scheme: str,
        hosts: list[bytes],
    ) -> list[tuple[str, bytes]]:
        """Return the schemes and hosts by which a client reached this port: those of the request,
        unless a proxy that is trusted names others.

        Args:
            peer: who sent the request.
            headers: names in lower case.
            scheme: of the connection.
            hosts: those that the request names.
        """
        if self._trusts(peer):
            told = _translated(headers)
            said = {name: value.rpartition(b",")[2].strip() for name, value in told}
            scheme = said.get(FORWARDED_PROTO, scheme.encode()).decode("latin-1").lower()
            if FORWARDED_HOST in said:
                hosts = [said[FORWARDED_HOST]]
        return [(scheme, host) for host in hosts]

    def _trusts(self, peer: Address | None) -> bool:
        """Return whether a peer is a proxy that is believed what it says of its clients."""
        scheme: str = self._apply(peer, [(FORWARDED_PROTO, b"https")])["scheme"]
        return scheme == "https"

    def _apply(self, peer: Address | None, headers: Headers, scheme: str = "http") -> Scope:
        # The rules are those of an ASGI application that waits for nothing, so its coroutine ends
        # in its first step.
        scope: Scope = {"type": "http", "client": peer, "scheme": scheme, "headers": headers}
        try:
            next(self._rules(scope, _receive, _send).__await__())
        except StopIteration:
            return scope
        raise AssertionError("uvicorn's rules for proxy headers wait for something")


def _translated(headers: Headers) -> Headers:
    """Return the headers with what `Forwarded` says in the words of X-Forwarded-*.

    If one of these is there, `Forwarded` is passed over: the proxy writes those, and has let this
    one pass as its client sent it.
    """
    lines = [value for name, value in headers if name == _FORWARDED]
    if not lines or any(name in (_FOR, FORWARDED_PROTO, FORWARDED_HOST) for name, _ in headers):
        return headers
    elements = _elements(b",".join(lines))
    if not elements:
        return headers
    clients = [_address(element.get(b"for", b"unknown")) for element in elements]
    last = elements[-1]  # of the proxy that we are connected to
    told = [
        (name, last[key])
        for name, key in ((FORWARDED_PROTO, b"proto"), (FORWARDED_HOST, b"host"))
        if key in last
    ]
    return [*headers, (_FOR, b", ".join(clients)), *told]


def _elements(value: bytes) -> list[dict[bytes, bytes]]:
    """Return what each proxy has said, the nearest one last; nothing if it cannot be read."""
    elements: list[dict[bytes, bytes]] = [{}]
    at = 0
    while at < len(value):
        found = _PAIR.match(value, at)
        if found is None:
            return []
        quoted = found[2]
        text = found[3] if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted)
        if b"," in text:  # no address, scheme or host has one
            return []
        elements[-1][found[1].lower()] = text
        if found[4] == b",":
            elements.append({})
        at = found.end()
    return [element for element in elements if element]


def _address(node: bytes) -> bytes:
    """Return the address that `for` names, without its port."""
    found = _NODE.fullmatch(node)
    return (found[1] or found[2] or b"unknown") if found is not None else b"unknown"


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing: what the scope has become is all that is asked."""


async def _receive() -> Message:
    raise AssertionError("nothing is received")


async def _send(message: Message) -> None:
    raise AssertionError("nothing is sent")
