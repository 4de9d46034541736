"""The environment of each worker: CPUs, GPUs, output, and the way back to the supervisor. Runs in the supervisor."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

from graphserve import machine, rundir
from graphserve.plan import NodePlan, Plan
from graphserve.resolver import environment

# Each of these libraries would otherwise start one thread per CPU in every worker.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)  # fmt: skip
MARK = "GRAPHSERVE_INTERNAL_WORKER"  # by it the reaper knows what a worker started; no two workers have the same
_numbers = itertools.count(1)


class Environment:
    """Makes the environment of workers.

    Args:
        plan: the graph.
        run: the generation's folder in the run folder.
        extra: what `--env-file` says.
    """

    def __init__(self, plan: Plan, run: Path, extra: Mapping[str, str]) -> None:
        self.run, self.debug, self.extra = run, plan.debug, dict(extra)
        self.token = rundir.token(run.parent)
        self.devices = assign_gpus(plan, machine.gpus())
        asking = [(node.name, slot) for node in plan.nodes if node.options.gpus for slot in range(node.workers)]
        self.without = [f"{name}[{slot}]" for name, slot in asking if (name, slot) not in self.devices]

    def of(self, node: NodePlan, slot: int) -> dict[str, str]:
        """The environment of the worker of a node at a slot."""
        env = environment(self.debug, self.extra)
        share = str(max(1, machine.cpus() // node.workers))
        for name in THREAD_VARIABLES:
            env.setdefault(name, share)
        env.setdefault("PYTHONUNBUFFERED", "1")  # or printed lines would come late, in blocks
        if node.options.gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices.get((node.name, slot), ()))
        env.update(node.options.env)
        env["GRAPHSERVE_INTERNAL_RUN"] = str(self.run)
        env["GRAPHSERVE_INTERNAL_SUPERVISOR"] = str(os.getpid())
        env["GRAPHSERVE_INTERNAL_SLOT"] = str(slot)
        env[MARK] = f"{self.token}/{next(_numbers)}"
        return env


def assign_gpus(plan: Plan, devices: list[str]) -> dict[tuple[str, int], list[str]]:
    """Which devices each slot of each node gets: whole ones first, then fractions packed onto shared ones.

    Returns:
        Devices by node and slot. A slot that does not fit any more has no entry: `graphserve check` finds it.
    """
    free = list(devices)
    shared: list[tuple[str, float]] = []  # device, what is left of it
    given: dict[tuple[str, int], list[str]] = {}
    wanted = [(node, slot) for node in plan.nodes for slot in range(node.workers) if node.options.gpus > 0]
    for node, slot in wanted:
        count = int(node.options.gpus)
        if node.options.gpus >= 1 and len(free) >= count:
            given[node.name, slot] = [free.pop(0) for _ in range(count)]
    for node, slot in wanted:
        need = node.options.gpus
        if need >= 1:
            continue
        for index, (device, left) in enumerate(shared):
            if left >= need - 1e-9:
                shared[index] = (device, left - need)
                given[node.name, slot] = [device]
                break
        else:
            if free:
                device = free.pop(0)
                shared.append((device, 1 - need))
                given[node.name, slot] = [device]
    return given
