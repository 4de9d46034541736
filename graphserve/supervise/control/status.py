"""What `graphserve ps` and `graphserve status` say of a graph, as JSON values.

Runs in the supervisor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TypedDict

from graphserve.supervise.fleet import Fleet
from graphserve.supervise.node import Node
from graphserve.supervise.operations import Operations
from graphserve.supervise.process.worker_process import WorkerProcess
from graphserve.supervise.states import GraphPhase, WorkerState
from graphserve.system.messages import SILENT_AFTER, Report, plain

# seconds that workers have to report; what one that does not is executing is not known
REPORT_TIMEOUT = 0.2


class WorkerRow(TypedDict):
    """A worker, as `GET /ps` lists it."""

    node: str
    id: str
    slot: int
    pid: int | None
    state: str
    restarts: int
    uptime: float
    cpu: float
    memory: int
    in_flight: int | None  # None: it did not report in time
    age: float | None  # seconds since its last report
    version: int
    health: Mapping[str, object]


class NodeRow(TypedDict):
    """A node, as `GET /status` lists it."""

    silent: int  # ready workers that have not reported for long
    name: str
    id: str
    state: str
    reason: str
    deaths: str
    ready: int
    workers: int
    restarts: int
    version: int


class FailureRow(TypedDict):
    """An operation that failed last, as `GET /status` lists it."""

    operation: str
    at: float  # seconds since the epoch
    reason: str
    version: int
    changed: list[str]


class Status(TypedDict):
    """What `GET /status` answers."""

    state: str
    url: str
    admin: str | None  # the URL of the admin port
    target: str
    app_dir: str | None
    pid: int
    run_dir: str
    uptime: float
    operation: str | None
    nodes: list[NodeRow]
    fallback_server: int | None
    failures: list[FailureRow]


async def worker_rows(fleet: Fleet) -> list[WorkerRow]:
    """Return one object for each worker: nodes in the order in which they start, the entry last."""
    reporting = (WorkerState.READY, WorkerState.DRAINING)
    await _ask_for_reports(
        [worker for node in fleet.nodes for worker in node.workers if worker.state in reporting]
    )
    order = [node.name for node in fleet.current.plan.nodes] if fleet.current is not None else []
    places = {name: place for place, name in enumerate(order)}
    # what goes away comes first
    ordered = sorted(fleet.nodes, key=lambda node: places.get(node.plan.name, -1))
    return [row for node in ordered for row in _rows_of(node)]


def node_rows(fleet: Fleet) -> list[NodeRow]:
    """Return one object for each node of the graph as it is meant to be."""
    return [_node_row(node) for node in fleet.current_nodes().values()]


def failure_rows(operations: Operations) -> list[FailureRow]:
    """Return the operations that failed last and were not done since."""
    return [
        {
            "operation": failure.operation,
            "at": failure.at,
            "reason": failure.reason,
            "version": failure.revision,
            "changed": list(failure.changed),
        }
        for failure in operations.failures.values()
    ]


def overall_state(fleet: Fleet, phase: GraphPhase) -> str:
    """Return `ready` if every node has all its workers, `degraded` if not;
    or the phase, if it is not `SERVING`.
    """
    if phase is not GraphPhase.SERVING:
        return phase.shown
    complete = all(
        len(node.ready_workers()) >= node.plan.workers and not _silent(node)
        for node in fleet.current_nodes().values()
    )
    return "ready" if complete else "degraded"


def _silent(node: Node) -> int:
    """Return how many workers of a node are called ready and have not reported for long."""
    now = asyncio.get_running_loop().time()
    return sum(now - worker.seen_at > SILENT_AFTER for worker in node.ready_workers())


def _node_row(node: Node) -> NodeRow:
    return {
        "silent": _silent(node),
        "name": node.plan.name,
        "id": node.plan.id,
        "state": node.phase.shown,
        "reason": node.reason,
        "deaths": node.quarantine.row(),
        "ready": min(len(node.ready_workers()), node.plan.workers),
        "workers": node.plan.workers,
        "restarts": node.restart_policy.count.total(),
        "version": node.revision.number,
    }


def _rows_of(node: Node) -> Iterator[WorkerRow]:
    now = asyncio.get_running_loop().time()
    for worker in sorted(node.workers, key=lambda worker: (worker.slot, worker.spawned_at)):
        yield {
            "node": node.plan.name,
            "id": node.plan.id,
            "slot": worker.slot,
            "pid": worker.pid,
            "state": worker.state.shown,
            "restarts": node.restart_policy.count[worker.slot],
            "uptime": round(now - worker.spawned_at, 3),
            "cpu": worker.usage.cpu(),
            "memory": worker.usage.memory(),
            "in_flight": worker.health.in_flight
            if worker.health is not None and worker.reported.is_set()
            else None,
            "age": round(now - worker.seen_at, 3) if worker.seen_at else None,
            "version": worker.revision.number,
            "health": plain(worker.health) if worker.health is not None else {},
        }


async def _ask_for_reports(asked: list[WorkerProcess]) -> None:
    for worker in asked:
        worker.reported.clear()
        worker.send(Report())
    waiting = [asyncio.ensure_future(worker.reported.wait()) for worker in asked]
    if waiting:
        await asyncio.wait(waiting, timeout=REPORT_TIMEOUT)
    for task in waiting:
        task.cancel()
