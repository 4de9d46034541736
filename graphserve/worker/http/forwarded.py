"""Who the client of a proxy is, and at which origin it reached the port: `X-Forwarded-For`,
`X-Forwarded-Proto` and `X-Forwarded-Host`.

Runs in entry workers.

A proxy is believed if `--forwarded-allow-ips` names its address; what any other client says of
itself is passed over. The rules for the address and the scheme are those of uvicorn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from graphserve.wire.headers import FORWARDED_HOST, FORWARDED_PROTO
from graphserve.worker.http.asgi import AsgiApp, Message, Receive, Scope, Send
from graphserve.worker.http.transport import Address


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
        self._app = rules(app, trusted)
        self._rules = rules(_nothing, trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does, which is told the client (ASGI, `http` scopes)."""
        await self._app(scope, receive, send)

    def client(self, peer: Address | None, headers: list[tuple[bytes, bytes]]) -> Address | None:
        """Return the client that a request is from: whom its peer names, if that is a proxy that is
        trusted, or else its peer.
        """
        client: Address | None = self._apply(peer, headers)["client"]
        return client

    def scheme(self, peer: Address | None, headers: list[tuple[bytes, bytes]], scheme: str) -> str:
        """Return the scheme by which a client reached the port: that of the connection, unless a
        proxy that is trusted names another.
        """
        said = self.origins(peer, headers, scheme, [b""])[0][0]
        return said if said in ("http", "https") else scheme

    def origins(
        self,
        peer: Address | None,
        headers: list[tuple[bytes, bytes]],
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
            said = {name: value.rpartition(b",")[2].strip() for name, value in headers}
            scheme = said.get(FORWARDED_PROTO, scheme.encode()).decode("latin-1").lower()
            if FORWARDED_HOST in said:
                hosts = [said[FORWARDED_HOST]]
        return [(scheme, host) for host in hosts]

    def _trusts(self, peer: Address | None) -> bool:
        """Return whether a peer is a proxy that is believed what it says of its clients."""
        scheme: str = self._apply(peer, [(FORWARDED_PROTO, b"https")])["scheme"]
        return scheme == "https"

    def _apply(self, peer: Address | None, headers: list[tuple[bytes, bytes]]) -> Scope:
        # The rules are those of an ASGI application that waits for nothing, so its coroutine ends
        # in its first step.
        scope: Scope = {"type": "http", "client": peer, "scheme": "http", "headers": headers}
        try:
            next(self._rules(scope, _receive, _send).__await__())
        except StopIteration:
            return scope
        raise AssertionError("uvicorn's rules for proxy headers wait for something")


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing: what the scope has become is all that is asked."""


async def _receive() -> Message:
    raise AssertionError("nothing is received")


async def _send(message: Message) -> None:
    raise AssertionError("nothing is sent")
