"""The ASGI application of a worker: health, the entry's pages, words for what does not exist. Runs in workers.

APIs do not come here; the protocol takes them a direct way. Starlette is for the pages, so only the entry imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphserve.call.request import new_request_id
from graphserve.errors import CallError, closest
from graphserve.system import own_json
from graphserve.wire import problem
from graphserve.wire.formats import Format
from graphserve.wire.headers import CONTENT_LENGTH, CONTENT_TYPE, INTERNAL_PREFIX, REQUEST_ID
from graphserve.wire.problem import HttpProblem
from graphserve.worker.dispatch.executor import BoundApi


class Health:
    """Readiness of this worker, from state that is already here; nothing is asked, so nothing hangs.

    Args:
        node: this node's name.
        missing: gives what is missing below, in words.
        outdated: gives why that may not be true any more, in words.
    """

    def __init__(self, node: str, missing: Callable[[], list[str]], outdated: Callable[[], list[str]] = list) -> None:
        self.node = node
        self._missing = missing
        self._outdated = outdated
        self.state = "starting"

    def live(self) -> tuple[int, dict[str, Any]]:
        """`GET /livez`."""
        return 200, {"status": "ok", "service": self.node}

    def ready(self) -> tuple[int, dict[str, Any]]:
        """`GET /readyz`."""
        missing = [*self._outdated(), *self._missing()]
        if self.state != "ready":
            missing.insert(0, f"{self.node} is {self.state}")
        if not missing:
            return 200, {"status": "ready", "service": self.node}
        return 503, {"status": "not ready", "service": self.node, "missing": missing}


class App:
    """The application.

    Args:
        health: what answers `/livez` and `/readyz`.
        apis: the node's APIs, for the words of 404 and 405.
        pages: the ASGI application of the pages, if this is the entry; it answers 404 to what it does not have.
    """

    def __init__(self, health: Health, apis: dict[str, BoundApi], pages: Any = None) -> None:
        self.health = health
        self.pages = pages
        self.serve(apis)
        self._health = {"/livez": health.live, "/readyz": health.ready}

    def serve(self, apis: dict[str, BoundApi]) -> None:
        """Know these from now on."""
        self.routes = [api.plan.route for api in apis.values()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI, for `http` scopes."""
        path, method = scope["path"].removeprefix(scope.get("root_path", "")), scope["method"]
        if path in self._health and method in ("GET", "HEAD"):
            status, value = self._health[path]()
            await _send(send, status, [(CONTENT_TYPE, Format.JSON.value)], own_json.dumps(value).encode())
        elif method == "OPTIONS" and (allow := self._allowed(path)):
            await self.tell(send, allow)
        elif self.pages is not None and path not in self._health and path not in self.routes:
            await self.pages(scope, receive, send)
        else:
            await self.refuse(send, path, method, 404)

    async def refuse(self, send: Any, path: str, method: str, status: int, allow: str = "") -> None:
        """Answer that there is no such thing here, or not with that method."""
        if path in self.routes or path in self._health:
            status, allow = 405, self._allowed(path)
        if status == 405 and method == "OPTIONS":
            await self.tell(send, allow)
            return
        if status == 405:
            detail, headers = f"{path} takes {allow}, not {method}", {"allow": allow}
        else:
            guess = closest(path, self.routes)
            hint = f"did you mean {guess}?" if guess else f"there are: {', '.join(self.routes)}"
            detail, headers = f"there is no API at {path}; {hint}", {}
        await self.answer(send, HttpProblem(status, detail, headers=headers))

    async def tell(self, send: Any, allow: str) -> None:
        """Answer `OPTIONS`."""
        await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", allow.encode())]})
        await send({"type": "http.response.body", "body": b""})

    async def answer(self, send: Any, error: CallError) -> None:
        """Answer with an error."""
        request_id = new_request_id()
        status, pairs, body = problem.encode(
            error, node=self.health.node, request_id=request_id.decode(), open_book=False
        )
        kept = [(name, value) for name, value in pairs if not name.startswith(INTERNAL_PREFIX)]
        await _send(send, status, [*kept, (REQUEST_ID, request_id)], body)

    def _allowed(self, path: str) -> str:
        if path == "*":
            return "GET, HEAD, POST"
        return "POST" if path in self.routes else "GET, HEAD" if path in self._health else ""


async def _send(send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (CONTENT_LENGTH, b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def openapi_document(name: str, cls: type, apis: dict[str, BoundApi], version: str | None = None) -> bytes:
    """`/openapi.json`: the node's APIs as OpenAPI 3.1, from their signatures."""
    from graphserve.declare.service import apis as declared
    from graphserve.wire import openapi

    specs = declared(cls)
    described = [(specs[api.plan.name], api.signature, api.method.__doc__) for api in apis.values()]
    return own_json.dumps(openapi.document(name, cls.__doc__, version or "0", described)).encode()
