"""The access log: a line for each answer, and for each request whose client did not wait for one. Runs in workers.

Health is not logged: probes would be most of it.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphserve.worker.inbound import Inbound

HEALTH = (b"/livez", b"/readyz")
LONGEST = 200  # bytes of a path that are shown
CLIENT_LEFT = 499  # no status of HTTP, since nobody is there to get it; proxies log this number too
_logger = logging.getLogger("graphserve.access")


def log_request(request: Inbound, status: int) -> None:
    """A request to an API has come to its end. One that a sibling has passed on to us is noted there, by its client."""
    if request.public != request.protocol.listener.public:
        return
    context, began = request.context, request.started
    _write("POST", request.path, status, context.request_id, began, request.protocol.client)


class Journal:
    """The application that is for no API, with a line for each of its answers.

    Args:
        app: what answers.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI, for `http` scopes."""
        path: bytes = scope["raw_path"]
        if path.removeprefix(scope.get("root_path", "").encode()) in HEALTH:
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()

        async def noting(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                request_id = dict(message.get("headers", ())).get(b"x-request-id", b"")
                shown = path[:LONGEST].decode("ascii", "backslashreplace")  # as it came: no escape becomes a line end
                _write(scope["method"], shown, message["status"], request_id, began, scope["client"])

        await self.app(scope, receive, noting)


def _write(method: str, path: str, status: int, request_id: bytes, began: float, client: Any) -> None:
    took = round((time.perf_counter() - began) * 1e3, 3)
    fields = {"request_id": request_id.decode("latin-1"), "status": status, "ms": took, "client": client}
    _logger.info("%s %s %d %.1f ms", method, path, status, took, extra={"fields": fields})
