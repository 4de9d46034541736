"""The ASGI application of a worker: it answers health, leads to the entry's pages, and says what
does not exist.

APIs do not come here: the HTTP protocol executes them itself. Starlette is for the pages, so only
the entry imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from graphserve.errors import CallError, closest
from graphserve.system import own_json
from graphserve.wire.formats import Format
from graphserve.wire.headers import ALLOW, CONTENT_TYPE
from graphserve.wire.problem import HttpProblem
from graphserve.worker.dispatch.executor import BoundApi
from graphserve.worker.http.asgi import (
    CALLS,
    AsgiApp,
    Receive,
    Scope,
    Send,
    send_answer,
    send_problem,
)
from graphserve.worker.http.routing import RouteTree
from graphserve.worker.websockets.routes import SocketRoutes

if TYPE_CHECKING:
    from graphserve.worker.mounts.mounts import Mounts


class Health:
    """Says whether this worker is ready, from state that is already here; nothing is asked, so
    nothing hangs.

    Args:
        node: this node's name.
        missing: returns what is missing below, in words.
        outdated: returns why that may not be true any more, in words.
    """

    def __init__(
        self, node: str, missing: Callable[[], list[str]], outdated: Callable[[], list[str]] = list
    ) -> None:
        self.node = node
        self._missing = missing
        self._outdated = outdated
        self._state: Literal["starting", "ready", "draining"] = "starting"

    def begin(self) -> None:
        """Say from now on that this worker is ready, if what it needs is."""
        self._state = "ready"

    def drain(self) -> None:
        """Say from now on that this worker drains."""
        self._state = "draining"

    def live(self) -> tuple[int, dict[str, object]]:
        """Answer `GET /livez`."""
        return 200, {"status": "ok", "service": self.node}

    def ready(self) -> tuple[int, dict[str, object]]:
        """Answer `GET /readyz`."""
        missing = [*self._outdated(), *self._missing()]
        if self._state != "ready":
            missing.insert(0, f"{self.node} is {self._state}")
        if not missing:
            return 200, {"status": "ready", "service": self.node}
        return 503, {"status": "not ready", "service": self.node, "missing": missing}


class App:
    """The application of a worker.

    Args:
        health: what answers `/livez` and `/readyz`.
        apis: the node's APIs, for the words of 404 and 405.
        make_pages: makes the application of the pages, if this is the entry, out of this one, which
            says for it what does not exist.
        sockets: the node's WebSockets, likewise.
        mounts: applications and folders that are served besides, if there are such.
    """

    def __init__(
        self,
        health: Health,
        apis: dict[str, BoundApi],
        make_pages: Callable[[App], AsgiApp] | None = None,
        sockets: SocketRoutes | None = None,
        mounts: Mounts | None = None,
    ) -> None:
        self.mounts = mounts
        # the paths of what another process would serve
        self.mounted: tuple[str, ...] = ()
        self.health = health
        self.pages = None if make_pages is None else make_pages(self)
        self.serve(apis, sockets)
        self._health = {"/livez": health.live, "/readyz": health.ready}

    def serve(self, apis: dict[str, BoundApi], sockets: SocketRoutes | None = None) -> None:
        """Know these APIs and WebSockets from now on."""
        self.tree = RouteTree(apis.values())
        self.sockets = sockets or SocketRoutes(())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI, for `http` scopes)."""
        path, method = scope["path"].removeprefix(scope.get("root_path", "")), scope["method"]
        if path in self._health and method in ("GET", "HEAD"):
            status, value = self._health[path]()
            await send_answer(
                send, status, [(CONTENT_TYPE, Format.JSON.value)], own_json.dumps(value).encode()
            )
        elif method == "OPTIONS" and (allow := self._allowed(path)):
            await self.tell(send, allow)
        elif self.sockets.find(path.encode()) is not None and not self._is_api(path, method):
            await self._refuse_socket(send, path, method)
        elif path in self._health or self._is_api(path, method):
            await self.refuse(send, path, method, 404)
        elif (
            self.mounts is not None
            and CALLS in scope  # it came by the port
            and (mounted := self.mounts.find(path)) is not None
        ):
            await self.mounts.answer(mounted, scope, receive, send)
        elif self.pages is not None:
            await self.pages(scope, receive, send)
        else:
            await self.refuse(send, path, method, 404)

    async def refuse(
        self, send: Send, path: str, method: str, status: int, allow: str = ""
    ) -> None:
        """Answer that there is no such thing here, or not with that method."""
        if self._is_api(path, "") or path in self._health:
            status, allow = 405, self._allowed(path)
        if status == 405 and method == "OPTIONS":
            await self.tell(send, allow)
            return
        if status == 405:
            detail, headers = f"{path} takes {allow}, not {method}", {ALLOW.decode(): allow}
        else:
            known = self.tree.paths
            guess = closest(path, known)
            hint = f"did you mean {guess}?" if guess else f"there are: {', '.join(known)}"
            detail, headers = f"there is no API at {path}; {hint}", {}
        await self.answer(send, HttpProblem(status, detail, headers=headers))

    async def _refuse_socket(self, send: Send, path: str, method: str) -> None:
        """Answer who asks for a WebSocket in another way (RFC 9110, 15.5.22)."""
        if method == "GET":
            text = f"{path} is a WebSocket: connect to it with a client of such"
            await self.answer(send, HttpProblem(426, text, headers={"upgrade": "websocket"}))
        else:
            text = f"{path} is a WebSocket, which takes GET, not {method}"
            await self.answer(send, HttpProblem(405, text, headers={ALLOW.decode(): "GET"}))

    async def tell(self, send: Send, allow: str) -> None:
        """Answer `OPTIONS`."""
        await send(
            {"type": "http.response.start", "status": 204, "headers": [(ALLOW, allow.encode())]}
        )
        await send({"type": "http.response.body", "body": b""})

    async def answer(self, send: Send, error: CallError) -> None:
        """Answer with an error."""
        await send_problem(send, error, self.health.node)

    def _is_api(self, path: str, method: str) -> bool:
        """Return whether a path is an API's. At `/` there is a page too, for who asks to read."""
        allowed = self.tree.allowed(path.encode())
        if path == "/" and method in ("GET", "HEAD"):
            return "GET" in allowed
        return bool(allowed)

    def _allowed(self, path: str) -> str:
        if path == "*":
            return ", ".join(sorted({"GET", "HEAD", *self.tree.methods}))
        allowed = set(self.tree.allowed(path.encode()))
        if path in self._health or (path == "/" and allowed and self.pages is not None):
            allowed |= {"GET", "HEAD"}
        return ", ".join(sorted(allowed))


def openapi_document(
    name: str,
    cls: type,
    apis: dict[str, BoundApi],
    version: str | None = None,
    *,
    keys: bool = False,
) -> bytes:
    """Return `/openapi.json`: the node's APIs as OpenAPI 3.1, from their signatures.

    Args:
        name: of the node.
        cls: its class.
        apis: its APIs, by name.
        version: of what it offers.
        keys: whether clients need an API key.
    """
    from graphserve.declare.declaration import apis as declared
    from graphserve.wire.openapi.document import document, with_keys

    specs = declared(cls)
    described = [(specs[api.plan.name], api.signature, api.method.__doc__) for api in apis.values()]
    said = document(name, cls.__doc__, version or "0", described)
    return own_json.dumps(with_keys(said) if keys else said).encode()
