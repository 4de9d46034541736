"""The access log: a line for each answer, and for each request whose client did not wait for one. Runs in workers.

A refusal is an answer, of whatever came. Health is not logged: probes would be most of it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from graphserve.logs import records
from graphserve.wire.headers import REQUEST_ID
from graphserve.wire.trust import RELAYED

if TYPE_CHECKING:
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    from graphserve.worker.http.protocol import Protocol
    from graphserve.worker.http.request import HttpRequest

HEALTH = ("/livez", "/readyz")
CAME = "graphserve.path"  # in the scope: the path as it came, in bytes
LONGEST = 200  # bytes of a path that are shown
CLIENT_LEFT = 499  # no status of HTTP, since nobody is there to get it; proxies log this number too
LOGGER = "graphserve.access"


def log_request(request: HttpRequest, status: int) -> None:
    """A request to an API has come to its end. One that a sibling has passed on to us is noted there, by its client."""
    if request.trust is RELAYED:
        return
    context, began, protocol = request.context, request.started, request.protocol
    client = protocol.client if protocol.listener.clients is None else request.client
    _write("POST", request.path, status, context.request_id, time.perf_counter() - began, client)


def log_refusal(connection: Protocol, began: float, line: tuple[bytes, bytes], status: int, request_id: bytes) -> None:
    """A refusal that no request made whole has: of a head or a body that is not here, or that nobody may read.

    Args:
        connection: where it was said.
        began: when what was refused began, on the loop's clock.
        line: method and target, as far as they came.
        status: the answer.
        request_id: and its id.
    """
    method, target = line
    listener, client = connection.listener, connection.client
    if listener.clients is not None:
        client = listener.clients.of(client, connection.headers or [])
    path = shown(target.partition(b"?")[0]) or "-"
    _write(method.decode() or "-", path, status, request_id, connection.loop.time() - began, client)


def shown(path: bytes) -> str:
    """A path as it came, on one line: no escape becomes a line end."""
    return path[:LONGEST].decode("ascii", "backslashreplace")


class ForwardedClients:
    """Who is whose client behind a proxy, by uvicorn's own rules.

    Args:
        rules: what has these rules for the application.
    """

    def __init__(self, rules: ProxyHeadersMiddleware) -> None:
        self._trusted = rules.trusted_hosts

    def of(self, peer: Any, headers: list[tuple[bytes, bytes]]) -> Any:
        """The client that a request is from, if it says so and comes from a proxy that is trusted; else the peer."""
        if not self.trusts(peer):
            return peer
        said = b", ".join(value for name, value in headers if name == b"x-forwarded-for").decode("latin-1")
        client = self._trusted.get_trusted_client_address(said)
        return client if client[0] else peer

    def trusts(self, peer: Any) -> bool:
        """Whether a peer is a proxy that is believed what it says of its clients."""
        return (peer[0] if peer else None) in self._trusted


class AccessLog:
    """The application that is for no API, with a line for each of its answers.

    Args:
        app: what answers.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI, for `http` scopes."""
        path: bytes = scope[CAME]
        if scope["path"].removeprefix(scope.get("root_path", "")) in HEALTH:
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()

        async def noting(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                request_id = dict(message.get("headers", ())).get(REQUEST_ID, b"")
                took = time.perf_counter() - began
                _write(scope["method"], shown(path), message["status"], request_id, took, scope["client"])

        await self.app(scope, receive, noting)


def _write(method: str, path: str, status: int, request_id: bytes, seconds: float, client: Any) -> None:
    took = round(seconds * 1e3, 3)
    fields = {"request_id": request_id.decode("latin-1"), "status": status, "ms": took, "client": client}
    records.note(LOGGER, "info", f"{method} {path} {status} {took:.1f} ms", fields=fields)
