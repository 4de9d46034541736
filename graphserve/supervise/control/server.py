"""What operators ask of a running graph, over HTTP on `control.sock` and at the admin port. Runs in
the supervisor.

    GET /ps   GET /status   GET /timing   GET /logs   GET /events   GET /stack   GET /metrics
    POST /reload {"nodes": […]}   POST /restart {"nodes": […]}
    POST /scale {"Model": 3}   POST /stop

An operation answers when it is done: once, or line by line for `Accept: application/x-ndjson`. It
goes on although its client goes away.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from graphserve.config import Config
from graphserve.errors import GraphServeError
from graphserve.supervise.control.admin import AdminPort
from graphserve.supervise.control.events import EventReaders
from graphserve.supervise.control.http import (
    ControlRequest,
    ControlResponse,
    Handler,
    HttpError,
    UnixHttpServer,
)
from graphserve.supervise.control.logs import LogReaders
from graphserve.supervise.control.metrics import exposed
from graphserve.supervise.control.queries import read_query
from graphserve.supervise.control.stacks import stack_rows
from graphserve.supervise.control.status import (
    Status,
    failure_rows,
    node_rows,
    overall_state,
    worker_rows,
)
from graphserve.supervise.event_ring import EventRing
from graphserve.supervise.events import log_of
from graphserve.supervise.fleet import Fleet
from graphserve.supervise.log_ring import LogRing
from graphserve.supervise.operations import OperationRefused, Operations
from graphserve.supervise.process.sockets import PublicSocket
from graphserve.supervise.process.worker_process import Usage
from graphserve.supervise.rollout import Progress
from graphserve.supervise.signals import Signals
from graphserve.supervise.states import GraphPhase
from graphserve.system.rundir.paths import control_socket

T = TypeVar("T")

SHOWN = 100  # characters of what a client sent, in the answer to it
MAX_WORKERS = 10_000  # of one node; more is a slip of the finger
HOW_TO_NAME = 'name nodes so: {"nodes": ["Model"]}; or send no body, for all of them'
Work = Callable[[Progress], Awaitable[object]]


class Control(Protocol):
    """What the control socket needs of the supervisor: what runs, and the ways to change it."""

    @property
    def config(self) -> Config: ...

    @property
    def phase(self) -> GraphPhase:
        """Return how far the graph has come."""

    @property
    def public(self) -> PublicSocket: ...

    @property
    def admin_url(self) -> str | None:
        """Return where the admin port answers, if there is one."""

    @property
    def log_ring(self) -> LogRing:
        """Return the newest records of all nodes."""

    @property
    def fleet(self) -> Fleet: ...

    @property
    def event_ring(self) -> EventRing:
        """Return what happened lately."""

    @property
    def operations(self) -> Operations: ...

    @property
    def signals(self) -> Signals: ...

    def job(self, work: Awaitable[T]) -> asyncio.Task[T]:
        """Do something that a stop gives up."""


class ControlRoute(NamedTuple):
    """What is answered at one path.

    Args:
        method: that it takes; HEAD besides GET.
        handle: answers.
        acts: whether it changes the graph, or interrupts its workers.
    """

    method: str
    handle: Handler
    acts: bool = False


class ControlApi:
    """Answers operators: finds what a request asks for, and does it.

    Args:
        supervisor: what they see and change.
        run: the run folder.
    """

    def __init__(self, supervisor: Control, run: Path) -> None:
        self._supervisor = supervisor
        self._run = run
        self._url = supervisor.public.url
        self._began = time.monotonic()
        self._asking = asyncio.Lock()
        self._usage = Usage(os.getpid())
        self._log_readers = LogReaders(
            supervisor.log_ring, lambda: [node.plan.name for node in supervisor.fleet.nodes]
        )
        self._event_readers = EventReaders(supervisor.event_ring)
        self._routes = {
            "/ps": ControlRoute("GET", self._ps),
            "/status": ControlRoute("GET", self._status),
            "/timing": ControlRoute("GET", self._timing),
            "/logs": ControlRoute("GET", self._logs),
            "/events": ControlRoute("GET", self._events),
            "/metrics": ControlRoute("GET", self._metrics),
            "/stack": ControlRoute("GET", self._stack, acts=True),
            "/reload": ControlRoute("POST", self._reload, acts=True),
            "/restart": ControlRoute("POST", self._restart, acts=True),
            "/scale": ControlRoute("POST", self._scale, acts=True),
            "/stop": ControlRoute("POST", self._stop, acts=True),
        }

    async def answer(self, request: ControlRequest, response: ControlResponse) -> None:
        """Answer one request.

        Raises:
            HttpError: the request is refused, or what it asked for has failed.
        """
        await self._route(request).handle(request, response)

    async def answer_at_port(self, request: ControlRequest, response: ControlResponse) -> None:
        """Answer one request that came by the admin port.

        Raises:
            HttpError: the request is refused, or what it asked for has failed.
        """
        route = self._route(request)
        if route.acts and not self._supervisor.config.admin_actions:
            raise HttpError(
                403,
                f"the admin port only shows: {request.path} needs --admin-actions, or is asked on"
                " the machine itself by the command of that name",
            )
        await route.handle(request, response)

    def _route(self, request: ControlRequest) -> ControlRoute:
        if request.path not in self._routes:
            there = ", ".join(self._routes)
            raise HttpError(404, f"there is no {request.path[:SHOWN]}; there are {there}")
        route = self._routes[request.path]
        if request.method != route.method and (request.method, route.method) != ("HEAD", "GET"):
            raise HttpError(
                405,
                f"{request.path} takes {route.method}, not {request.method[:SHOWN]}",
                headers={"allow": "GET, HEAD" if route.method == "GET" else route.method},
            )
        return route

    async def _ps(self, request: ControlRequest, response: ControlResponse) -> None:
        response.json(await worker_rows(self._supervisor.fleet))

    async def _status(self, request: ControlRequest, response: ControlResponse) -> None:
        supervisor = self._supervisor
        settings = supervisor.config.settings
        status: Status = {
            "state": self._state(),
            "url": self._url,
            "admin": supervisor.admin_url,
            "target": settings.target,
            "app_dir": settings.app_dir,
            "pid": os.getpid(),
            "run_dir": str(self._run),
            "uptime": round(time.monotonic() - self._began, 3),
            "operation": supervisor.operations.running or None,
            "nodes": node_rows(supervisor.fleet),
            "fallback_server": supervisor.fleet.fallback.pid,
            "failures": failure_rows(supervisor.operations),
        }
        response.json(status)

    async def _metrics(self, request: ControlRequest, response: ControlResponse) -> None:
        response.whole(*exposed(self._supervisor.fleet, self._usage, request.accept))

    async def _events(self, request: ControlRequest, response: ControlResponse) -> None:
        await self._event_readers.answer(request.query, response)

    async def _timing(self, request: ControlRequest, response: ControlResponse) -> None:
        response.json(self._supervisor.fleet.timings.rows())

    def _state(self) -> str:
        supervisor = self._supervisor
        state = overall_state(supervisor.fleet, supervisor.phase)
        # After a reload that failed, the files are not those of what serves: the next death may not
        # be replaced.
        return (
            "degraded" if state == "ready" and "reload" in supervisor.operations.failures else state
        )

    async def _logs(self, request: ControlRequest, response: ControlResponse) -> None:
        await self._log_readers.answer(request.query, response)

    async def _stack(self, request: ControlRequest, response: ControlResponse) -> None:
        nodes = self._supervisor.fleet.nodes
        named, _ = read_query(request.query, {node.plan.name for node in nodes})
        async with self._asking:  # a worker answers one at a time
            rows = await stack_rows(
                [
                    worker
                    for node in nodes
                    for worker in sorted(node.workers, key=lambda worker: worker.slot)
                    if not named or {(node.plan.name, None), (node.plan.name, worker.slot)} & named
                ]
            )
        response.json(rows)

    async def _stop(self, request: ControlRequest, response: ControlResponse) -> None:
        if request.body not in (None, {}):
            raise HttpError(422, "/stop takes no body: it stops the whole graph")
        self._supervisor.signals.stop()
        response.json({"pid": os.getpid()})

    async def _reload(self, request: ControlRequest, response: ControlResponse) -> None:
        names = _names(request.body)
        operations = self._supervisor.operations
        instead = operations.gives_way(names)
        await self._operate(
            request, response, lambda progress: operations.reload(names, progress), instead=instead
        )

    async def _restart(self, request: ControlRequest, response: ControlResponse) -> None:
        names = _names(request.body)
        await self._operate(
            request, response, lambda progress: self._supervisor.operations.restart(names, progress)
        )

    async def _scale(self, request: ControlRequest, response: ControlResponse) -> None:
        sizes = request.body
        if not isinstance(sizes, dict) or not sizes:
            raise HttpError(422, 'give nodes and numbers of workers: {"Model": 3}')
        for name, workers in sizes.items():
            if (
                not isinstance(workers, int)
                or isinstance(workers, bool)
                or not 1 <= workers <= MAX_WORKERS
            ):
                raise HttpError(
                    422, f"{name}: a node has from 1 to {MAX_WORKERS} workers, not {workers!r}"
                )
        await self._operate(
            request, response, lambda progress: self._supervisor.operations.scale(sizes, progress)
        )

    async def _operate(
        self,
        request: ControlRequest,
        response: ControlResponse,
        work: Work,
        *,
        instead: bool = False,
    ) -> None:
        """Run one operation and answer with what came of it.

        Args:
            work: begins the operation.
            instead: whether it may take the place of one that is under way; else it is refused
                then.
        """
        supervisor = self._supervisor
        if supervisor.phase is not GraphPhase.SERVING:
            words = f"the graph is {supervisor.phase.shown}: try again when it is ready"
            raise HttpError(409, words)
        if (running := supervisor.operations.running) and not instead:
            raise HttpError(
                409, f"a {running} is under way: try again when it is done", operation=running
            )
        steps: list[str] = []

        def progress(words: str) -> None:
            steps.append(words)
            if request.wants_lines:
                response.line({"progress": words})

        task = supervisor.job(work(progress))
        await asyncio.wait([task])
        if task.cancelled():
            raise HttpError(503, "given up: the graph stops")
        if (exc := task.exception()) is not None:
            log = log_of(exc)
            status = exc.status if isinstance(exc, OperationRefused) else 500
            words = str(exc) if isinstance(exc, (GraphServeError, OSError)) else repr(exc)
            more: dict[str, str] = {"traceback": log} if log else {}
            raise HttpError(status, words, headers=None, **more) from None
        if request.wants_lines:
            response.line({"done": True})
        else:
            response.json({"done": True, "steps": steps})


async def open_control(api: ControlApi, run: Path) -> UnixHttpServer:
    """Begin to answer operators on the control socket of a run folder."""
    return await UnixHttpServer.open(control_socket(run), api.answer)


def open_admin(api: ControlApi, supervisor: Control) -> AdminPort | None:
    """Begin to answer at the admin port, if there is to be one.

    Raises:
        StartupError: its address cannot be bound.
    """
    address = supervisor.config.admin
    if address is None:
        return None
    # a reload may bring other keys
    port = AdminPort(address, api.answer_at_port, lambda: supervisor.operations.config.admin_keys)
    port.begin()
    return port


def _names(body: object) -> list[str]:
    """Return the nodes that a body names; none means all, and only an empty body says so.

    Raises:
        HttpError: the body is not understood.
    """
    if body is None or body == {}:
        return []
    if not isinstance(body, dict):
        raise HttpError(422, HOW_TO_NAME)
    names = body.get("nodes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise HttpError(422, HOW_TO_NAME)
    if unknown := ", ".join(repr(key) for key in body if key != "nodes"):
        raise HttpError(422, f"unknown: {unknown}; {HOW_TO_NAME}")
    if not names:
        raise HttpError(422, f"no node is named; {HOW_TO_NAME}")
    return list(dict.fromkeys(names))
