"""`local()`: a whole graph in this process and on this loop, without sockets, for tests, debuggers and notebooks.

Everything else is the real thing: values pass through the wire's types, limits, deadlines, errors and the threads of
each node are those of real workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from graphserve.call.calls import Api, Home, RemoteApi, TypedClient
from graphserve.call.clients import HOP_SLACK, Clients, codecs
from graphserve.call.context import CallContext
from graphserve.call.exchange import Exchange
from graphserve.call.request import new_request_id
from graphserve.errors import CallError, InvalidArguments, Unavailable
from graphserve.graph import resolve_here
from graphserve.plan import ApiPlan, EdgePlan, NodePlan, Plan
from graphserve.worker.execute import BoundApi, Execution, Executor, bind
from graphserve.worker.life import Life
from graphserve.wire import problem
from graphserve.wire.formats import Format

T = TypeVar("T")
Request = tuple[str, CallContext, bytes]  # the API's name, what travels with the call, the encoded arguments


def local(service: type[T], *, replace: Mapping[type, Any] | None = None) -> AbstractAsyncContextManager[type[T]]:
    """Run the whole graph of a service in this process, without sockets.

    Args:
        service: the entry: a class decorated with `@service`. Unlike with `serve`, it may be defined anywhere.
        replace: what stands in for a service, by class: another class (made with the same `init` if it is a service,
            without arguments otherwise), or an object that has the methods.

    Returns:
        An asynchronous context manager whose value is called like a dependency: `await gateway.ocr(...)`.

    Raises:
        GraphError: the services do not form a graph.
        StartupError: `__init__` or `__aenter__` of a service raised.

    Example:
        async with graphserve.local(Gateway, replace={Recognizer: FakeRecognizer}) as gateway:
            assert await gateway.ocr(pages) == ["…"]
    """
    return _run(*resolve_here(service, replace or {}))


@contextlib.asynccontextmanager
async def _run(plan: Plan, cast: Mapping[str, tuple[type, Any]]) -> AsyncIterator[Any]:
    graph = _Graph(plan, cast)
    try:
        for node in plan.nodes:
            await graph.start(node)
        yield graph.client()
    finally:
        await graph.stop()


class _Graph:
    """The nodes of a local graph."""

    def __init__(self, plan: Plan, cast: Mapping[str, tuple[type, Any]]) -> None:
        self.plan, self.cast = plan, cast
        self.nodes: dict[str, _Node] = {}

    async def start(self, plan: NodePlan) -> None:
        clients = Clients(plan, self.plan, lambda node, _: self.nodes[node.name], self._class, self._http)
        declared, stand_in = self.cast[plan.name]
        node = _Node(plan, declared, stand_in, clients)
        self.nodes[plan.name] = node
        await node.start()

    def client(self) -> TypedClient:
        entry, home = self.plan.node(self.plan.entry), Home.here()
        apis = {}
        for api in entry.apis:
            timeouts, slack = (api.timeout, entry.options.timeout), HOP_SLACK * (entry.level + 1)
            way = codecs(self._class(entry), api)
            apis[api.name] = RemoteApi(home, Api(api, entry.name, self.nodes[entry.name], *way, timeouts, slack))
        return TypedClient(entry.name, apis)

    async def stop(self) -> None:
        for node in reversed(list(self.nodes.values())):
            await node.stop()

    def _class(self, node: NodePlan) -> type:
        return self.cast[node.name][0]

    def _http(self, node: NodePlan, edge: EdgePlan) -> Any:
        from graphserve.run.http import client

        running = self.nodes[node.name]
        return client(running.plan, running.apis, running, edge)


class _Node:
    """One node of a local graph; to its callers it is a lane."""

    def __init__(self, plan: NodePlan, declared: type, stand_in: Any, clients: Clients) -> None:
        self.plan, self.declared, self.stand_in, self.clients = plan, declared, stand_in, clients
        self.free = plan.limit * plan.workers
        self.threads = ThreadPoolExecutor(self.free, thread_name_prefix=f"local-{plan.name}")
        self.executor = Executor(plan, self.threads)
        self.waiting: deque[Exchange] = deque()
        self.executing: dict[Exchange, Execution | None] = {}
        self.life: Life | None = None
        self.apis: dict[str, BoundApi] = {}

    async def start(self) -> None:
        instance = self.stand_in
        if isinstance(instance, type):
            lone = instance is not self.declared
            plan = dataclasses.replace(self.plan, init={}) if lone else self.plan
            self.life = Life(plan, instance, self.threads, _nothing if lone else self.clients.inject)
            await self.life.start()
            instance = self.life.instance
        self.apis = bind(self.plan, instance, self.declared)

    async def stop(self) -> None:
        for execution in list(self.executing.values()):
            if execution is not None:
                execution.cancel()
        while self.executor.executing:
            await asyncio.sleep(0.001)
        if self.life is not None:
            await self.life.stop()
        await self.clients.close()
        self.threads.shutdown(wait=False)

    # --- the lane ---

    def composer(self, api: ApiPlan) -> Callable[[CallContext | None, int | None, bytes], Request]:
        def compose(context: CallContext | None, deadline_ns: int | None, body: bytes) -> Request:
            request_id = context.request_id if context is not None and context.request_id else new_request_id()
            trace = (context.traceparent, context.tracestate) if context is not None else (None, None)
            return api.name, CallContext(request_id, deadline_ns, *trace), body

        return compose

    def send(self, exchange: Exchange) -> None:
        limited = self.apis[exchange.request[0]].plan.lane == "queue"
        if not limited or self.free:
            self._execute(exchange, limited)
        elif len(self.waiting) >= self.plan.options.queue:
            exchange.fail(Unavailable(f"the queue of {self.plan.name} is full", node=self.plan.name))
        else:
            self.waiting.append(exchange)

    def forget(self, exchange: Exchange) -> None:
        execution = self.executing.pop(exchange, None)
        if execution is not None:
            execution.cancel()
        with contextlib.suppress(ValueError):
            self.waiting.remove(exchange)

    def _execute(self, exchange: Exchange, limited: bool) -> None:
        name, context, body = exchange.request
        api = self.apis[name]
        self.free -= limited
        try:
            arguments = api.arguments.decode(body, Format.MSGPACK)
        except Exception as exc:
            exchange.loop.call_soon(self._refused, exchange, exc)
            self._freed(limited)
            return
        self.executing[exchange] = None
        self.executing[exchange] = self.executor.start(
            api, arguments, context,
            lambda result, error: self._ended(exchange, api, result, error), lambda: self._freed(limited),
        )  # fmt: skip

    def _ended(self, exchange: Exchange, api: BoundApi, result: Any, error: BaseException | None) -> None:
        self.executing.pop(exchange, None)
        if error is None:
            try:
                exchange.answered(200, [], api.result.encode(result, Format.MSGPACK))
                return
            except Exception as exc:
                error = exc
        self._answer(exchange, problem.as_call_error(error, self.plan.name))

    def _refused(self, exchange: Exchange, exc: Exception) -> None:
        refusal = exc if isinstance(exc, InvalidArguments) else problem.as_call_error(exc, self.plan.name)
        self._answer(exchange, refusal)

    def _answer(self, exchange: Exchange, error: CallError) -> None:
        request_id = exchange.request[1].request_id.decode("latin-1")
        exchange.answered(*problem.encode(error, node=self.plan.name, request_id=request_id, open_book=True))

    def _freed(self, limited: bool) -> None:
        self.free += limited
        while self.free and self.waiting:
            exchange = self.waiting.popleft()
            if not exchange.over:
                self._execute(exchange, True)
                return


def _nothing(instance: object) -> None:
    pass
