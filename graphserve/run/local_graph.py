"""`local()`: a whole graph in this process and on this loop, without sockets, for tests, debuggers
and notebooks.

Everything else is the real thing: values pass through the wire's types, limits, deadlines, errors
and the threads of each node are those of real workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from graphserve.call.clients import Clients, codecs, slack_to
from graphserve.call.context import shortest
from graphserve.call.remote import DependencyApi, RemoteApi, TypedClient
from graphserve.declare.service import dependencies
from graphserve.graph.builder import resolve_here
from graphserve.graph.plan import EdgePlan, NodePlan, Plan
from graphserve.loop.loop_thread import LoopThread
from graphserve.run.contain import Contained
from graphserve.run.local_node import LocalNode

if TYPE_CHECKING:
    from graphserve.call.clients import HttpClient

T = TypeVar("T")


def local(
    service: type[T], *, replace: Mapping[type, Any] | None = None
) -> AbstractAsyncContextManager[type[T]]:
    """Run the whole graph of a service in this process, without sockets.

    When the block is left, what was accepted is answered first; when an exception leaves it, that
    is cancelled. Each service has one instance. `env` of a service is not set: the environment is
    one for the process.

    Args:
        service: the entry: a class decorated with `@service`. Unlike with `serve`, it may be
            defined anywhere.
        replace: what stands in for a service, by class: another class (made with the same `init` if
            it is a service, without arguments otherwise), or an object; it has all APIs of the
            service. A service that would run elsewhere (`depends(X, url=…)`) can be replaced too.

    Returns:
        An asynchronous context manager whose value is called like a dependency: `await
            gateway.ocr(...)`.

    Raises:
        GraphError: the services do not form a graph, or `replace` names a class that is not in it.
        StartupError: `__init__` or `__aenter__` of a service raised.

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
    return _Local(*resolve_here(service, replace or {}))


class _Local(AbstractAsyncContextManager[Any]):
    """What `local` returns; says what to write when it is used in another way."""

    def __init__(self, plan: Plan, cast: Mapping[str, tuple[type, Any]]) -> None:
        self._plan = plan
        self._cast = cast

    async def __aenter__(self) -> Any:
        self._contained = Contained(asyncio.get_running_loop())
        self._graph = graph = _Graph(self._plan, self._cast)
        try:
            for node in self._plan.nodes:
                await graph.start(node)
        except BaseException:
            try:
                await graph.stop(now=True)
            finally:
                self._contained.end()
            raise
        return graph.client()

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            await self._graph.stop(now=error is not None)
        finally:
            self._contained.end()

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
    """The nodes of a local graph."""

    def __init__(self, plan: Plan, cast: Mapping[str, tuple[type, Any]]) -> None:
        self.plan = plan
        self.cast = cast
        self.nodes: dict[str, LocalNode] = {}

    async def start(self, plan: NodePlan) -> None:
        declared, override = self.cast[plan.name]

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
        entry, loop_thread = self.plan.node(self.plan.entry), LoopThread.here()
        apis = {}
        for api in entry.apis:
            timeout, slack = (
                shortest(api.timeout, entry.options.timeout),
                slack_to(self.plan, entry.name),
            )
            way = codecs(self._class(entry), api)
            apis[api.name] = RemoteApi(
                loop_thread,
                DependencyApi(api, entry.name, self.nodes[entry.name], *way, timeout, slack),
            )
        return TypedClient(entry.name, apis)

    async def stop(self, *, now: bool) -> None:
        """Stop every node, the entry first; the first exception that one raises is raised when all
        have stopped.
        """
        first: BaseException | None = None
        for node in reversed(list(self.nodes.values())):
            try:
                await node.stop(now=now or first is not None)
            except BaseException as exc:
                first = first or exc
        if first is not None:
            raise first

    def _class(self, node: NodePlan) -> type:
        return self.cast[node.name][0]

    def _http(self, node: NodePlan, edge: EdgePlan) -> HttpClient:
        from graphserve.run.local_http import client  # brings httpx, which brings click and rich

        return client(self.nodes[node.name], edge)
