"""The ASGI application of a worker: it answers health, leads to the entry's pages, and says what
does not exist.

APIs do not come here: the HTTP protocol executes them itself. Starlette is for the pages, so it is
imported when somebody first asks for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from graphserve.declare.options import OPENAPI_ROUTE
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
from graphserve.worker.pages.health import Health
from graphserve.worker.websockets.routes import RoutedSocket, SocketRoutes

if TYPE_CHECKING:
    from graphserve.worker.mounts.mounts import Mounts

_PAGES = frozenset({"/", OPENAPI_ROUTE, "/docs"})
_BELOW_DOCS = "/docs/"


def path_in(scope: Mapping[str, Any]) -> str:
    """Return the path that a request asks for, without the prefix that a proxy serves us under."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def is_page(path: str) -> bool:
    """Return whether there may be a page of the entry at a path."""
    return path in _PAGES or path.startswith(_BELOW_DOCS)


class PagesOnDemand:
    """The pages of the entry, made when somebody first asks for one.

    They bring Starlette, which costs a worker 2 MB and 25 ms of CPU.

    Args:
        app: what refuses what is no page.
        make: makes the application of the pages; called in a thread.
    """

    def __init__(self, app: WorkerApp, make: Callable[[WorkerApp], AsgiApp]) -> None:
        self._app = app
        self._make = make
        self._making = asyncio.Lock()
        self._pages: AsgiApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI, for `http` scopes)."""
        path = path_in(scope)
        if not is_page(path):
            await self._app.refuse(send, path, scope["method"], 404)
            return
        if self._pages is None:
            async with self._making:
                if self._pages is None:
                    self._pages = await asyncio.to_thread(self._make, self._app)
        await self._pages(scope, receive, send)


class WorkerApp:
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
        make_pages: Callable[[WorkerApp], AsgiApp] | None = None,
        sockets: SocketRoutes | None = None,
        mounts: Mounts | None = None,
    ) -> None:
        self.mounts = mounts
        self.health = health
        self.pages = None if make_pages is None else make_pages(self)
        self.serve(apis, sockets)
        self._health = {"/livez": health.live, "/readyz": health.ready}

    def serve(
        self,
        apis: dict[str, BoundApi],
        sockets: SocketRoutes | None = None,
        elsewhere: tuple[str, ...] = (),
    ) -> None:
        """Know these APIs and WebSockets from now on.

        Args:
            apis: by name.
            sockets: the node's, if it has any.
            elsewhere: the paths of what another process serves, and all that is below them.
        """
        self.elsewhere = elsewhere
        self.tree = RouteTree(apis.values())
        self.sockets = sockets or SocketRoutes(())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI, for `http` scopes)."""
        path, method = path_in(scope), scope["method"]
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

    def find_socket(self, path_of: Callable[[bytes], bytes], target: bytes) -> RoutedSocket | None:
        """Return the application that is mounted where a client asks for a WebSocket, if one is and
        nothing else is there.

        Args:
            path_of: returns the path of a target without the prefix of a proxy.
            target: of the handshake.
        """
        if self.mounts is None:
            return None
        path = unquote(path_of(target).replace(b"%2F", b"%252F").decode("latin-1"))
        if path in self._health or self._is_api(path, "GET"):
            return None
        mounted = self.mounts.find(path)
        if mounted is None or not mounted.takes_sockets:
            return None
        return RoutedSocket(mounted.socket, ())

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
