"""The mounts of an entry worker: which one a path belongs to, and what it is told of a request.

Runs in entry workers.

A request of a mounted application is executed in a context as a call of an API is:
`graphserve.request()` works in it, its ids travel with what it calls, and that is cancelled when
its client leaves. It has no deadline but what its client asks for.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

from graphserve.call.context import current
from graphserve.call.fetched import remove_soon
from graphserve.declare.mounts import Mount
from graphserve.declare.options import OPENAPI_ROUTE
from graphserve.errors import StartupError
from graphserve.graph.mounts import MountFailed
from graphserve.graph.plan import SocketPlan
from graphserve.logs.exception_text import described
from graphserve.logs.tracebacks import formatted
from graphserve.wire.headers import REQUEST_ID
from graphserve.worker.http.asgi import (
    CALLS,
    REQUEST_HEAD,
    SCOPE_PRINCIPAL,
    AsgiApp,
    Message,
    Receive,
    Scope,
    Send,
    send_answer,
    send_problem,
)
from graphserve.worker.http.contexts import ClientContext
from graphserve.worker.mounts import apps
from graphserve.worker.mounts.lifespan import Lifespan


class MountedApp:
    """One mount of a worker that runs.

    Args:
        path: of it; empty for the one of all that nothing else answers.
        app: what answers.
        state: what each request begins with.
        takes_sockets: whether it may be asked for a WebSocket.
    """

    def __init__(
        self, path: str, app: AsgiApp, state: dict[str, object], *, takes_sockets: bool
    ) -> None:
        self.path = path
        self.app = app
        self.state = state
        self.takes_sockets = takes_sockets
        # its WebSockets, as one that is found by its path; no method has such a name
        self.socket = SocketPlan(path or "/", path or "/")


class Mounts:
    """The mounts of one worker, started.

    Args:
        node: the node's name.
        apps: the longest path first.
        lifespans: of those that have one.
        forward_headers: names of headers of clients that travel down with each call.
    """

    def __init__(
        self,
        node: str,
        apps: list[MountedApp],
        lifespans: list[Lifespan],
        forward_headers: Iterable[str],
    ) -> None:
        self.node = node
        self._apps = apps
        self._lifespans = lifespans
        self._forward = frozenset(name.lower().encode() for name in forward_headers)

    @classmethod
    async def start(
        cls, node: str, mounts: Iterable[Mount], service: object, forward_headers: Iterable[str]
    ) -> Mounts:
        """Make the applications, and start them, one after the other.

        Args:
            node: the node's name.
            mounts: what was mounted, the longest path first.
            service: the instance, which requests find as `request.state.service`.
            forward_headers: names of headers of clients that travel down with each call.

        Raises:
            StartupError: one cannot be made, or says that it did not start; the others are stopped.
        """
        made = cls(node, [], [], forward_headers)
        try:
            for mount in mounts:
                state: dict[str, object] = {"service": service}
                app = _made(mount, node)
                lifespan = Lifespan(app, mount.written, node, state)
                if not mount.folder:
                    await lifespan.start()
                    made._lifespans.append(lifespan)
                takes_sockets = apps.takes_sockets(mount)
                made._apps.append(MountedApp(mount.path, app, state, takes_sockets=takes_sockets))
        except StartupError:
            await made.stop()
            raise
        return made

    async def stop(self) -> None:
        """Stop the applications, the last one first."""
        for lifespan in reversed(self._lifespans):
            await lifespan.stop()

    @property
    def with_sockets(self) -> list[MountedApp]:
        """Return the applications that may be asked for a WebSocket."""
        return [mounted for mounted in self._apps if mounted.takes_sockets]

    def find(self, path: str) -> MountedApp | None:
        """Return what a path belongs to that is no API's, or None.

        Args:
            path: without the prefix of a proxy.
        """
        for mounted in self._apps:
            if path == mounted.path or path.startswith(mounted.path + "/"):
                is_ours = path == OPENAPI_ROUTE or path == "/docs" or path.startswith("/docs/")
                return None if is_ours and not mounted.path else mounted
        return None

    async def answer(self, mounted: MountedApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a mounted application answer a request (ASGI, for `http` scopes)."""
        root = scope.get("root_path", "")
        if scope["path"] == root + mounted.path:  # what it answers with is relative to this
            query = scope["query_string"]
            where = (root + mounted.path).encode() + b"/" + (b"?" + query if query else b"")
            await send_answer(send, 307, [(b"location", where)], b"")
            return
        context = ClientContext(
            scope.get(REQUEST_HEAD), scope["headers"], scope.get(SCOPE_PRINCIPAL), self._forward
        )
        if context.refusal is not None:
            await send_problem(send, context.refusal, self.node)
            return
        if (watched := scope.get(CALLS)) is not None:
            watched.append(context)
        await self._run(mounted, context, scope, receive, _identified(send, context.request_id))

    async def talk(self, mounted: MountedApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a mounted application talk over a WebSocket (ASGI, for `websocket` scopes)."""
        from graphserve.worker.websockets.endpoint import SocketChannel, refuse_socket

        context = ClientContext.of_socket(scope, self._forward)
        channel = SocketChannel(context, receive, send)
        if context.refusal is not None:
            await refuse_socket(channel, scope, context.request_id, context.refusal, self.node)
            return
        try:
            await self._run(mounted, context, scope, channel.receive, channel.send)
        except BaseException:
            context.leave()
            raise
        finally:
            channel.end()

    async def _run(
        self,
        mounted: MountedApp,
        context: ClientContext,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        told = {
            **scope,
            **_paths(scope),
            "root_path": scope.get("root_path", "") + mounted.path,
            "state": {**mounted.state, **scope["state"], "principal": context.principal},
        }
        token = current.set(context)
        try:
            await mounted.app(told, receive, send)
        finally:
            current.reset(token)
            context.end()
            if context.files is not None:
                remove_soon(context)


def _made(mount: Mount, node: str) -> AsgiApp:
    try:
        return apps.application(mount, node)
    except MountFailed as exc:
        raise StartupError(f"{node}: {exc}", node) from None
    except BaseException as exc:  # user code may raise anything
        said = f"{node}: mount: {mount.target or mount.written!r} raised {described(exc)}"
        raise StartupError(said, node, formatted(exc)) from exc


def _paths(scope: Scope) -> dict[str, str]:
    """Return the path as an application knows it: an escaped slash is a slash there, unless some
    middleware has already said what the path is.
    """
    raw: bytes = scope["raw_path"]
    ours = unquote(raw.replace(b"%2F", b"%252F").decode("ascii"))
    return {"path": unquote(raw.decode("ascii"))} if scope["path"] == ours else {}


def _identified(send: Send, request_id: bytes) -> Send:
    """Return what sends the answer with the request's id in it."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if not any(name.lower() == REQUEST_ID for name, _ in headers):
                headers.append((REQUEST_ID, request_id))
            message = {**message, "headers": headers}
        await send(message)

    return sending
