"""The fallback server: it answers at the public port while no worker of the entry takes calls.

It runs in a process of its own.

It knows of the entry what the Plan says, and imports no user code: so it is there in a moment, and
nothing of the user's holds it up. It answers health itself. A call waits here, and goes on to the
worker that can take it; nothing is executed.
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from graphserve.call.lanes.of_process import Lanes
from graphserve.call.membership import Membership
from graphserve.errors import Unavailable
from graphserve.graph.plan import ApiPlan, NodePlan, Plan
from graphserve.loop.periodic import Periodic
from graphserve.metrics.recorder import Recorder
from graphserve.wire.api_keys import ApiKeyCheck
from graphserve.wire.signature import Signature
from graphserve.worker.dispatch.executor import LEVEL_GUARD, BoundApi, Executor
from graphserve.worker.dispatch.slots import Slots
from graphserve.worker.drain import LAME_DUCK, finish_connections, in_flight
from graphserve.worker.http.asgi import Receive, Scope, Send
from graphserve.worker.http.limits import Limits
from graphserve.worker.http.listener import Listener, cors_of, publicly, route_tree, routes
from graphserve.worker.http.public.acceptor import Acceptor
from graphserve.worker.http.public.early import Beginning, EarlyConnection
from graphserve.worker.http.relay import Relay
from graphserve.worker.http.response import Responder
from graphserve.worker.http.routing import RouteTree
from graphserve.worker.pages.application import WorkerApp, is_page, path_in
from graphserve.worker.pages.health import Health
from graphserve.worker.websockets.door import ClosedDoor
from graphserve.worker.websockets.routes import SocketRoutes


class FallbackServer:
    """Answers health itself, and has calls wait until a worker can take them.

    Args:
        plan: the graph.
        node: its entry.
        run: the run folder.
        membership: what is known about the nodes.
        tls: of the public socket, if it is a TLS port.
        keys: find out who clients are, if they need an API key.
        resolving: whether the Plan is only what is known before modules are imported.
        recorder: counts what comes of requests; None: nothing does.
    """

    address = ""  # nobody calls it but clients

    def __init__(
        self,
        plan: Plan,
        node: NodePlan,
        run: Path,
        membership: Membership,
        tls: ssl.SSLContext | None = None,
        *,
        keys: ApiKeyCheck | None = None,
        resolving: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        self.plan = plan
        self.node = node
        self.run = run
        self.membership = membership
        self.tls = tls
        self.loop = asyncio.get_running_loop()
        self._beginning: Beginning | None = None
        if resolving:
            self._beginning = Beginning(node.name, node.options.timeout or math.inf)
        self.health = Health(node.name, self._missing, membership.outdated)
        self.health.begin()  # what is missing is the entry
        # of an executor whose clock is used: a thread is not started
        self._threads = ThreadPoolExecutor(1)
        self.app = WorkerApp(self.health, {}, _Absent)
        self.listener = Listener(
            self.app,
            *self._served(),
            {},
            access_log=plan.access_log,
            passes_on=True,
            tree=self._tree(),
            cors=cors_of(plan),
            keys=keys,
            recorder=recorder,
            **publicly(plan.listen),
        )
        self._door = ClosedDoor(node.name, self._sockets())
        self._pulse = Periodic(1.0, self.listener.refresh)
        self._port: Acceptor | None = None
        self._leaving = False

    def resolve(self, plan: Plan, node: NodePlan, recorder: Recorder | None = None) -> None:
        """Serve the Plan, which was not there before: what waits is answered with it.

        Args:
            plan: the graph.
            node: its entry.
            recorder: counts from now on.
        """
        self.plan = plan
        self.node = node
        self.health.rename(node.name)
        paths, executor, _, responder, relay = self._served()
        self.listener.serve(paths, executor, responder, relay, self._tree(), cors_of(plan))
        self.listener.count_in(recorder)
        self.listener.refresh()
        self._door.serve(node.name, self._sockets())
        if self._beginning is not None:
            self._beginning.end()
            self._release()

    def _served(self) -> tuple[dict[bytes, BoundApi], Executor, Slots, Responder, Relay]:
        plan, node = self.plan, self.node
        executor = Executor(node, self._threads, plan.depth(node.name))
        relay = Relay(node, Lanes(plan, self.run, self.membership), executor.guard + LEVEL_GUARD)
        # no call goes around the middleware of its workers
        elsewhere = ("",) if node.middleware else node.mounts
        apis = {api.name: api_of_plan(node, api, index) for index, api in enumerate(node.apis)}
        self.app.serve({} if node.middleware else apis, self._sockets(), elsewhere)
        cors = cors_of(plan)
        common = b"" if cors is None else cors.common
        responder = Responder(node.name, public=True, debug=plan.debug, lines=common)
        paths = {} if node.middleware else routes(apis.values(), plan.listen.root_path)
        return paths, executor, Slots(0), responder, relay

    def _tree(self) -> RouteTree | None:
        if self.node.middleware:
            return None
        apis = [api_of_plan(self.node, api, index) for index, api in enumerate(self.node.apis)]
        return route_tree(apis, self.plan.listen.root_path)

    def _sockets(self) -> SocketRoutes:
        return SocketRoutes(self.node.sockets, self.plan.listen.root_path)

    def _release(self) -> None:
        for connection in self.listener.open():
            if isinstance(connection, EarlyConnection):
                connection.release()

    @property
    def shared_descriptors(self) -> list[int]:
        """Return nothing: it executes nothing that the supervisor would look for after a death."""
        return []

    def unready(self) -> None:
        """Have `/readyz` say 503; everything else is answered as before."""
        self.health.drain()

    async def start(self) -> None:
        """Begin to look after its connections once a second."""
        self._pulse.begin()

    async def listen(self, sock: socket.socket) -> None:
        """Serve the public socket."""
        if self._port is not None:
            await self._port.succeed(sock, self.plan.listen.backlog)
            return
        limits = Limits.of(self.plan.listen)
        self._port = Acceptor(self.listener, limits, self.tls, self._beginning, self._door)
        await self._port.open(sock, self.plan.listen.backlog)

    async def drain(self, *, last: bool) -> None:
        """Accept no more, and return when everything that was accepted is answered.

        Args:
            last: the graph stops. Otherwise there is no hurry: idle connections end in their own
                time.
        """
        self._leaving = True
        if self._port is not None:
            self._port.close()
        if self._beginning is not None:
            self._beginning.leave()
            self._release()
        self.listener.close_after_answers()
        listen = self.plan.listen
        # `Timeouts` ends each in its time
        own_time = max(listen.timeout_keep_alive, listen.timeout_client) + 1.0
        await finish_connections(
            [self.listener], self._busy, self._port, LAME_DUCK if last else own_time
        )

    async def stop(self) -> None:
        """Do nothing: there is no instance to leave, and the process ends."""

    def _busy(self) -> bool:
        return bool((self._port is not None and self._port.pending) or in_flight([self.listener]))

    def _missing(self) -> list[str]:
        if self._beginning is not None and not self._beginning.over:
            return [f"{self.node.name} is being resolved: its modules are imported"]
        own = self.membership.missing((self.node.name,))
        # its workers are there, and we would not be if one of them reacted
        if not own and not self._leaving:
            own = [f"{self.node.name} does not react: its event loop is busy"]
        return [*own, *self.membership.missing(self.plan.below(self.node.name))]


class _Absent:
    """Answers in place of the entry's pages, which only its workers can make."""

    def __init__(self, app: WorkerApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = path_in(scope), scope["method"]
        node = self.app.health.node
        if any(path == mount or path.startswith(mount + "/") for mount in self.app.elsewhere):
            await self.app.answer(
                send, Unavailable(f"{path} is for {node}, which takes no calls now", node=node)
            )
        elif not is_page(path):
            await self.app.refuse(send, path, method, 404)
        elif method not in ("GET", "HEAD"):
            await self.app.refuse(send, path, method, 405, "GET, HEAD")
        else:
            await self.app.answer(
                send, Unavailable(f"{path} is for {node}, which takes no calls now", node=node)
            )


def api_of_plan(node: NodePlan, api: ApiPlan, index: int) -> BoundApi:
    """Return an API as the Plan knows it; what only its class knows is left to the worker that
    executes the call.
    """
    signature = Signature(
        f"{node.name}.{api.name}",
        (),
        Any,
        stream=api.stream,
        raw_body=api.raw_body,
        input_stream=api.input_stream,
    )
    given = [timeout for timeout in (api.timeout, node.options.timeout) if timeout is not None]
    unknown: Any = None
    timeout = min(given, default=None)
    return BoundApi(
        api, signature, unknown, unknown, unknown, True, timeout, None, unknown, index=index
    )
