"""`local()`: a whole graph in this process and on this loop, without sockets, for tests, debuggers
and notebooks.

Everything else is the real thing: values pass through the wire's types, limits, deadlines, errors
and the threads of each node are those of real workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from graphserve.call.clients import Clients, codecs
from graphserve.call.context import shortest
from graphserve.call.lanes.of_process import SeriesOf, slack_to
from graphserve.call.remote import DependencyApi, RemoteApi, TypedClient
from graphserve.declare.dependency import dependencies
from graphserve.errors import StartupError
from graphserve.graph.builder import resolve_here
from graphserve.graph.plan import EdgePlan, NodePlan, Plan
from graphserve.loop.loop_thread import LoopThread
from graphserve.run.contain import Contained
from graphserve.run.local_node import LocalNode

if TYPE_CHECKING:
    from graphserve.call.lanes.of_process import HttpClient
    from graphserve.run.local_sockets import LocalSockets
    from graphserve.worker.http.asgi import Receive, Send

T = TypeVar("T")

# by node: the class that has its signatures, and what stands for it, a class or an object
Implementations = Mapping[str, tuple[type, object]]


def local(service: type[T], *, replace: Mapping[type, object] | None = None) -> LocalGraph[T]:
    """Run the whole graph of a service in this process, without sockets.

    A service that is only depended on as `optional` may fail to start; calls to it then raise
    `Unavailable`, and a warning says why.

    When the block is left, what was accepted is answered first; when an exception leaves it, that
    is cancelled. Each service has one instance. `env` of a service is not set: the environment is
    one for the process.

    Args:
        service: the entry: a class decorated with `@service`. Unlike with `serve`, it may be
            defined anywhere.
        replace: what overrides a service, by class: another class (made with the same `init` if
            it is a service, without arguments otherwise), or an object; it has all APIs of the
            service. A service that would run elsewhere (`depends(X, url=…)`) can be replaced too.

    Returns:
        An asynchronous context manager whose value is called like a dependency: `await
            gateway.ocr(...)`. It is an ASGI application too, for the WebSockets of the entry:
            Starlette's `TestClient(local(Gateway))` connects to them.

    Raises:
        GraphError: the services do not form a graph, or `replace` names a class that is not in it.
        StartupError: `__init__`, `__aenter__` or the warm-up of a service raised.

    Example:
        >>> class Fake:
        ...     def echo(self, text: str) -> str:
        ...         return "fake"
        >>> async def main() -> None:
        ...     async with graphserve.local(Gateway) as gateway:
        ...         print(await gateway.twice("ab"))
        ...     async with graphserve.local(Gateway, replace={Echo: Fake}) as gateway:
        ...         print(await gateway.twice("ab"))
        >>> asyncio.run(main())
        abab
        fake
    """
    return LocalGraph(*resolve_here(service, replace or {}))


class LocalGraph(AbstractAsyncContextManager[type[T]], Generic[T]):
    """What `local` returns; says what to write when it is used in another way.

    Args:
        plan: the graph.
        implementations: what its nodes are made of.
    """

    def __init__(self, plan: Plan, implementations: Implementations) -> None:
        self._plan = plan
        self._implementations = implementations
        self._graph: _Graph | None = None  # while it is entered

    async def __aenter__(self) -> type[T]:
        graph = _Graph(self._plan, self._implementations)
        try:
            required = self._plan.required()
            for node in self._plan.nodes:
                try:
                    await graph.start(node)
                except StartupError as exc:
                    if node.name in required:
                        raise
                    graph.nodes[node.name].fail_start(exc)
        except BaseException:
            await graph.stop(now=True)
            raise
        self._graph = graph
        # a `TypedClient` has the APIs of its service
        return cast("type[T]", graph.client())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._graph is not None
        await self._graph.stop(now=error is not None)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve the WebSockets of the entry (ASGI); the graph lives as long as the application."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        entry = self._plan.entry
        if scope["type"] != "websocket":
            raise RuntimeError(
                f"local({entry}) is an application of WebSockets only: call the APIs as methods,"
                f" `async with local({entry}) as entry: await entry.method(...)`"
            )
        if self._graph is None:
            raise RuntimeError(
                f"local({entry}) has not started: write `with TestClient(local({entry})) as"
                " client:`, or enter it first"
            )
        await self._graph.sockets().serve(dict(scope), receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.__aenter__()
        except BaseException as exc:
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})

    def __enter__(self) -> NoReturn:
        raise TypeError(f"write `async with local({self._plan.entry}) as …:`, in a coroutine")

    def __exit__(self, *exc: object) -> None:
        """`with` looks for it before it enters."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # what Python itself asks for, maybe before there is a Plan
            raise AttributeError(name)
        entry = self._plan.entry
        raise AttributeError(
            f"local({entry}) has no {name!r}: write `async with local({entry}) as entry:`, and call"
            " `entry`"
        )


class _Graph:
    """The nodes of a local graph, on the running loop."""

    def __init__(self, plan: Plan, implementations: Implementations) -> None:
        self.plan = plan
        self.implementations = implementations
        self.nodes: dict[str, LocalNode] = {}
        self._contained = Contained(asyncio.get_running_loop())
        self._sockets: LocalSockets | None = None  # once somebody connects

    async def start(self, plan: NodePlan) -> None:
        """Start one node; those that it calls run."""
        declared, override = self.implementations[plan.name]

        def class_of(named: NodePlan | EdgePlan) -> type:
            if isinstance(named, EdgePlan):  # runs elsewhere
                target = dependencies(declared)[named.attribute].target
                assert isinstance(target, type)
                return target
            return self._class(named)

        clients = Clients(
            plan, self.plan, lambda node, _: self.nodes[node.name], self._http, class_of
        )
        node = self.nodes[plan.name] = LocalNode(plan, declared, override, clients)
        await node.start()

    def client(self) -> TypedClient:
        """Make the client of the entry."""
        entry = self.plan.node(self.plan.entry)
        loop_thread = LoopThread.here()
        apis = {
            api.name: RemoteApi(
                loop_thread,
                DependencyApi(
                    api,
                    entry.name,
                    self.nodes[entry.name],
                    *codecs(self._class(entry), api),
                    shortest(api.timeout, entry.options.timeout),
                    slack_to(self.plan, entry.name),
                ),
            )
            for api in entry.apis
        }
        return TypedClient(entry.name, apis)

    def sockets(self) -> LocalSockets:
        """Return what serves the WebSockets of the entry."""
        if self._sockets is None:
            from graphserve.run.local_sockets import LocalSockets  # brings Starlette

            entry = self.plan.node(self.plan.entry)
            self._sockets = LocalSockets(self.nodes[entry.name], self._class(entry))
        return self._sockets

    async def stop(self, *, now: bool) -> None:
        """Stop every node, the entry first; the first exception that one raises is raised when all
        have stopped.
        """
        first: BaseException | None = None
        if self._sockets is not None:
            self._sockets.stop(now=now)
        for node in reversed(list(self.nodes.values())):
            try:
                await node.stop(now=now or first is not None)
            except BaseException as exc:
                first = first or exc
        self._contained.end()
        if first is not None:
            raise first

    def _class(self, node: NodePlan) -> type:
        return self.implementations[node.name][0]

    def _http(self, node: NodePlan, edge: EdgePlan, caller: str, series: SeriesOf) -> HttpClient:
        from graphserve.run.local_http import client  # brings httpx, which brings click and rich

        return client(self.nodes[node.name], edge, caller)
