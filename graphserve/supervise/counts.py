"""What is counted of the graph: gives each process memory to count in, and keeps what those have
counted that are gone. Runs in the supervisor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

from graphserve.graph.plan import NodePlan, Plan
from graphserve.metrics.labels import Counted, Totals
from graphserve.metrics.layout import Layout
from graphserve.metrics.memory import SlotMemory
from graphserve.supervise.process.worker_process import WorkerProcess, slot_of
from graphserve.system import os_errors

# Why a worker was replaced that nobody asked to replace: it died while it served; before it was
# ready; we killed it, since it hung; it had its time (`max_requests`, `max_memory`, `watchdog`).
RestartReason = Literal["died", "failed-start", "stuck", "recycled"]


class GraphCounts:
    """What all processes of the graph have counted, those that are gone included.

    `totals` is what those have counted, `cpu_seconds` what they have used, by service and slot;
    `restarts` counts the workers that were replaced, by service and reason.

    Args:
        say: shows a line at the terminal.
    """

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self.totals = Totals()
        self.cpu_seconds: dict[tuple[str, str], float] = {}
        self.restarts = Counter[tuple[str, RestartReason]]()

    def hand_over(self, process: WorkerProcess, plan: Plan, node: NodePlan) -> None:
        """Give a process memory to count in; without, it counts nothing, and the log says so.

        Args:
            process: a worker that is about to initialise, or a fallback server.
            plan: what it runs.
            node: its node.
        """
        if not plan.metrics:
            return
        try:
            process.count_in(SlotMemory.make(Layout(plan, node)))
        except OSError as exc:
            why = os_errors.explain(exc)
            self._say("warning", f"a process of {node.name} counts nothing for its metrics: {why}")

    def restarted(self, service: str, reason: RestartReason) -> None:
        """Count a worker that is replaced."""
        self.restarts[service, reason] += 1

    def died(self, process: WorkerProcess) -> None:
        """Keep what a process has counted and used that is dead; again, this does nothing."""
        while process.counts:
            memory = process.counts.pop()
            self.totals.fold(Counted(memory.layout, memory.read()))
            memory.close()
        slot = slot_of(process)
        self.cpu_seconds[slot] = self.cpu_seconds.get(slot, 0.0) + process.usage.take_seconds()

    def counted(self, living: Iterable[WorkerProcess]) -> list[Counted]:
        """Return what processes have counted that live."""
        return [
            Counted(memory.layout, memory.read()) for process in living for memory in process.counts
        ]
