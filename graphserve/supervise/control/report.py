"""Reports: what `graphserve ps` and `graphserve status` say, as JSON values. Runs in the supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from graphserve.supervise.fleet import Fleet
from graphserve.supervise.node import Node
from graphserve.supervise.process.worker_process import WorkerProcess
from graphserve.system.messages import Report, plain

PATIENCE = 0.2  # seconds that workers have to say how they are; what one that does not executes is not known
SILENT = 5.0  # seconds without a word from a worker, of which there is one a second, after which it is not called ready


async def workers(fleet: Fleet) -> list[dict[str, Any]]:
    """One object a worker: nodes in the order in which they start, the entry last."""
    await _fresh([worker for node in fleet.nodes for worker in node.workers if worker.state in ("ready", "draining")])
    order = [node.name for node in fleet.current.plan.nodes] if fleet.current is not None else []
    places = {name: place for place, name in enumerate(order)}
    ordered = sorted(fleet.nodes, key=lambda node: places.get(node.plan.name, -1))  # what goes away comes first
    return [row for node in ordered for row in _rows(node)]


def nodes(fleet: Fleet) -> list[dict[str, Any]]:
    """One object a node of the graph as it shall be."""
    current = fleet.current
    return [_node(node) for node in current.nodes.values()] if current is not None else []


def overall(fleet: Fleet, phase: str) -> str:
    """`ready` if every node has all its workers; `degraded` if not; or the phase, if it is another than `serving`."""
    if phase != "serving":
        return phase
    whole = all(node["ready"] >= node["workers"] and not node["silent"] for node in nodes(fleet))
    return "ready" if whole else "degraded"


def _node(node: Node) -> dict[str, Any]:
    now = asyncio.get_running_loop().time()
    return {
        "silent": sum(now - worker.seen_at > SILENT for worker in node.ready_workers()),
        "name": node.plan.name, "id": node.plan.id, "state": node.state, "reason": node.reason,
        "deaths": node.quarantine.row(),
        "ready": min(len(node.ready_workers()), node.plan.workers), "workers": node.plan.workers,
        "restarts": node.respawns.count.total(), "version": node.version.number,
    }  # fmt: skip


def _rows(node: Node) -> Iterator[dict[str, Any]]:
    now = asyncio.get_running_loop().time()
    for worker in sorted(node.workers, key=lambda worker: (worker.slot, worker.spawned_at)):
        yield {
            "node": node.plan.name, "id": node.plan.id, "slot": worker.slot, "pid": worker.pid, "state": worker.state,
            "restarts": node.respawns.count[worker.slot], "uptime": round(now - worker.spawned_at, 3),
            "cpu": worker.usage.cpu(), "memory": worker.usage.memory(),
            "in_flight": worker.health.in_flight if worker.health is not None and worker.reported.is_set() else None,
            "age": round(now - worker.seen_at, 3) if worker.seen_at else None, "version": worker.version.number,
            "vitals": plain(worker.health) if worker.health is not None else {},
        }  # fmt: skip


async def _fresh(asked: list[WorkerProcess]) -> None:
    for worker in asked:
        worker.reported.clear()
        worker.send(Report())
    waiting = [asyncio.ensure_future(worker.reported.wait()) for worker in asked]
    if waiting:
        await asyncio.wait(waiting, timeout=PATIENCE)
    for task in waiting:
        task.cancel()
