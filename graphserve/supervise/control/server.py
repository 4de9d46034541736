"""The control socket: what operators ask of a running graph, over HTTP on `control.sock`. Runs in the supervisor.

    GET /ps   GET /status   POST /reload {"nodes": […]}   POST /restart {"nodes": […]}   POST /scale {"Model": 3}
    POST /stop

An operation answers when it is done: once, or line by line for `Accept: application/x-ndjson`. It goes on although its
client goes away.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphserve.errors import GraphServeError
from graphserve.supervise.control import report
from graphserve.supervise.control.http import Answer, ControlRequest, HttpError, UnixServer
from graphserve.supervise.operations import OperationRefused
from graphserve.supervise.rollout import Progress
from graphserve.system import rundir

if TYPE_CHECKING:
    from graphserve.supervise.supervisor import Supervisor

MOST_WORKERS = 10_000  # of one node; more is a slip of the finger
HOW_TO_NAME = 'name nodes so: {"nodes": ["Model"]}; or send no body, for all of them'
Work = Callable[[Progress], Coroutine[Any, Any, Any]]


class ControlServer:
    """Answers operators.

    Args:
        supervisor: what they steer.
        run: the run folder.
    """

    def __init__(self, supervisor: Supervisor, run: Path) -> None:
        self._supervisor = supervisor
        self._run = run
        self._url = supervisor.public.url
        self._began = time.monotonic()
        self._server = UnixServer(rundir.control_socket(run), self._answer)
        self._routes: dict[str, tuple[str, Callable[[ControlRequest, Answer], Coroutine[Any, Any, None]]]] = {
            "/ps": ("GET", self._ps),
            "/status": ("GET", self._status),
            "/reload": ("POST", self._reload),
            "/restart": ("POST", self._restart),
            "/scale": ("POST", self._scale),
            "/stop": ("POST", self._stop),
        }

    async def open(self) -> None:
        """Begin to listen."""
        await self._server.open()

    async def close(self) -> None:
        """End."""
        await self._server.close()

    def restore(self) -> list[str]:
        """See `UnixServer`."""
        return self._server.restore()

    async def _answer(self, request: ControlRequest, answer: Answer) -> None:
        if request.path not in self._routes:
            raise HttpError(404, f"there is no {request.path}; there are {', '.join(self._routes)}")
        method, handle = self._routes[request.path]
        if request.method != method:
            raise HttpError(405, f"{request.path} takes {method}, not {request.method}")
        await handle(request, answer)

    async def _ps(self, request: ControlRequest, answer: Answer) -> None:
        answer.json(await report.workers(self._supervisor.fleet))

    async def _status(self, request: ControlRequest, answer: Answer) -> None:
        supervisor = self._supervisor
        settings = supervisor.config.settings
        answer.json({
            "state": self._state(), "url": self._url,
            "target": settings.target, "app_dir": settings.app_dir, "pid": os.getpid(), "run_dir": str(self._run),
            "uptime": round(time.monotonic() - self._began, 3),
            "operation": supervisor.operations.running or None, "nodes": report.nodes(supervisor.fleet),
            "stand_in": supervisor.fleet.standin.pid,
            "failures": [dataclasses.asdict(failure) for failure in supervisor.operations.failures.values()],
        })  # fmt: skip

    def _state(self) -> str:
        supervisor = self._supervisor
        state = report.overall(supervisor.fleet, supervisor.phase)
        # After a reload that failed, the files are not those of what serves: the next death may not be replaced.
        return "degraded" if state == "ready" and "reload" in supervisor.operations.failures else state

    async def _stop(self, request: ControlRequest, answer: Answer) -> None:
        if request.body not in (None, {}):
            raise HttpError(422, "/stop takes no body: it stops the whole graph")
        self._supervisor.signals.stop()
        answer.json({"pid": os.getpid()})

    async def _reload(self, request: ControlRequest, answer: Answer) -> None:
        names, operations = _names(request.body), self._supervisor.operations
        instead = operations.gives_way(names)
        await self._operate(request, answer, lambda progress: operations.reload(names, progress), instead=instead)

    async def _restart(self, request: ControlRequest, answer: Answer) -> None:
        names = _names(request.body)
        await self._operate(request, answer, lambda progress: self._supervisor.operations.restart(names, progress))

    async def _scale(self, request: ControlRequest, answer: Answer) -> None:
        sizes = request.body
        if not isinstance(sizes, dict) or not sizes:
            raise HttpError(422, 'give nodes and numbers of workers: {"Model": 3}')
        for name, workers in sizes.items():
            if not isinstance(workers, int) or isinstance(workers, bool) or not 1 <= workers <= MOST_WORKERS:
                raise HttpError(422, f"{name}: a node has from 1 to {MOST_WORKERS} workers, not {workers!r}")
        await self._operate(request, answer, lambda progress: self._supervisor.operations.scale(sizes, progress))

    async def _operate(self, request: ControlRequest, answer: Answer, work: Work, *, instead: bool = False) -> None:
        """Do one thing, unless another one is under way, or instead of that."""
        supervisor = self._supervisor
        if supervisor.phase != "serving":
            raise HttpError(409, f"the graph is {supervisor.phase}: try again when it is ready")
        if (running := supervisor.operations.running) and not instead:
            raise HttpError(409, f"a {running} is under way: try again when it is done", operation=running)
        steps: list[str] = []

        def progress(words: str) -> None:
            steps.append(words)
            if request.lines:
                answer.line({"progress": words})

        task = supervisor.job(work(progress))
        await asyncio.wait([task])
        if task.cancelled():
            raise HttpError(503, "given up: the graph stops")
        if (exc := task.exception()) is not None:
            log = getattr(exc, "log", "")
            status = exc.status if isinstance(exc, OperationRefused) else 500
            words = str(exc) if isinstance(exc, (GraphServeError, OSError)) else repr(exc)
            raise HttpError(status, words, **({"traceback": log} if log else {})) from None
        answer.line({"done": True}) if request.lines else answer.json({"done": True, "steps": steps})


def _names(body: Any) -> list[str]:
    """The nodes that a body names; none for all, which is never said by a slip."""
    if body is None or body == {}:
        return []
    names = body.get("nodes") if isinstance(body, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise HttpError(422, HOW_TO_NAME)
    if not names or len(body) > 1:
        what = ", ".join(repr(key) for key in body if key != "nodes")
        raise HttpError(422, f"{f'unknown: {what}' if what else 'no node is named'}; {HOW_TO_NAME}")
    return list(dict.fromkeys(names))
