"""What is counted of the graph: gives each process the memory that it counts in, adds up what those
have counted that are gone, and says all of it. Runs in the supervisor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from graphserve.graph.plan import NodePlan, Plan
from graphserve.metrics.exposition import OPENMETRICS, PLAIN, Sample, wants_openmetrics, written
from graphserve.metrics.families import FAMILIES, Family
from graphserve.metrics.labels import Counted, Sums, Totals
from graphserve.metrics.layout import Layout
from graphserve.metrics.memory import SlotMemory
from graphserve.supervise.process.worker_process import WorkerProcess
from graphserve.system import os_errors


class GraphCounts:
    """What all processes of the graph have counted, those that are gone included.

    Args:
        say: shows a line at the terminal.
    """

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self._totals = Totals()

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

    def died(self, process: WorkerProcess) -> None:
        """Keep what a process has counted that is dead; again, this does nothing."""
        while process.counts:
            memory = process.counts.pop()
            self._totals.fold(Counted(memory.layout, memory.read()))
            memory.close()

    def sums(self, living: Iterable[WorkerProcess]) -> Sums:
        """Return what was counted from the start of the graph until now.

        Args:
            living: all processes that live.
        """
        return self._totals.plus(
            Counted(memory.layout, memory.read()) for process in living for memory in process.counts
        )


def exposed(sums: Sums, accept: bytes) -> tuple[bytes, bytes]:
    """Return the metrics as text, and the Content-Type of that.

    Args:
        sums: what was counted.
        accept: the Accept header of who asks.
    """
    found: dict[Family, list[Sample]] = {family: [] for family in FAMILIES}
    for (family, labels), values in sums.items():
        found[family].append(Sample(labels, counts=values))
    openmetrics = wants_openmetrics(accept)
    text = written(found, openmetrics=openmetrics).encode()
    return text, OPENMETRICS if openmetrics else PLAIN
