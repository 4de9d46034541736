"""The access log: a line for each answer, and for each request whose client did not wait for one.

Runs in workers.

A refusal is an answer, of whatever came. Health is not logged: probes would be most of it.
"""

from __future__ import annotations

import time

from graphserve.call.request_head import Address
from graphserve.logs import records
from graphserve.wire.headers import REQUEST_ID
from graphserve.worker.http.asgi import AsgiApp, Message, Receive, Scope, Send

HEALTH = ("/livez", "/readyz")
HEALTH_PATHS = tuple(path.encode() for path in HEALTH)  # as they come
CAME = "graphserve.path"  # in the scope: the path as it came, in bytes
LONGEST = 200  # bytes of a path that are shown
LOGGER = "graphserve.access"


def log_answer(
    method: str, path: str, status: int, request_id: bytes, seconds: float, client: Address | None
) -> None:
    """Write the line of one answer.

    Args:
        method: of the request; `-` if it did not come.
        path: likewise, in a form for the log.
        status: of the answer.
        request_id: its id.
        seconds: from the beginning of the request to the answer.
        client: who asked.
    """
    took = round(seconds * 1e3, 3)
    fields = {
        "request_id": request_id.decode("latin-1"),
        "status": status,
        "ms": took,
        "client": client,
    }
    records.note(LOGGER, "info", f"{method} {path} {status} {took:.1f} ms", fields=fields)


def shown(path: bytes) -> str:
    """Return a path as it came, on one line: no escape becomes a line end."""
    return path[:LONGEST].decode("ascii", "backslashreplace")


class AccessLog:
    """Logs each answer of the application that is for no API.

    Args:
        app: what answers.
    """

    def __init__(self, app: AsgiApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does, and log it unless it was health (ASGI, `http` scopes)."""
        path: bytes = scope[CAME]
        if scope["path"].removeprefix(scope.get("root_path", "")) in HEALTH:
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()

        async def noting(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                request_id = dict(message.get("headers", ())).get(REQUEST_ID, b"")
                took = time.perf_counter() - began
                log_answer(
                    scope["method"],
                    shown(path),
                    message["status"],
                    request_id,
                    took,
                    scope["client"],
                )

        await self.app(scope, receive, noting)
