"""The environment of each worker: CPUs, GPUs, output, and the way back to the supervisor. Runs in
the supervisor.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

from graphserve.graph.plan import NodePlan, Plan
from graphserve.graph.resolver import environment
from graphserve.system import machine
from graphserve.system.inherited import (
    MARK_VARIABLE,
    REVISION_VARIABLE,
    RUN_VARIABLE,
    SLOT_VARIABLE,
    SUPERVISOR_VARIABLE,
)
from graphserve.system.rundir.lock import token_of

# Each of these libraries would otherwise start one thread per CPU in every worker.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)
_numbers = itertools.count(1)

Devices = Mapping[tuple[str, int], list[str]]  # GPUs by node and slot


class Environment:
    """Makes the environment of workers.

    Args:
        plan: the graph.
        run: the run folder.
        revision: which Plan in there it is.
        extra: what `--env-file` says.
        held: the devices that workers have already, by node and slot; who still needs them keeps
            them.
    """

    def __init__(
        self, plan: Plan, run: Path, revision: int, extra: Mapping[str, str], held: Devices
    ) -> None:
        self.run = run
        self.revision = revision
        self.debug = plan.debug
        self.extra = dict(extra)
        self.token = token_of(run)
        self.devices = assign_gpus(plan, machine.gpus(), held)
        asking = [
            (node.name, slot)
            for node in plan.nodes
            if node.options.gpus
            for slot in range(node.workers)
        ]
        self.without = [
            f"{name}[{slot}]" for name, slot in asking if (name, slot) not in self.devices
        ]

    def fit(self, plan: Plan) -> None:
        """Find devices for workers that came in addition; the others keep theirs."""
        self.devices = assign_gpus(plan, machine.gpus(), self.devices)

    def of(self, node: NodePlan, slot: int) -> dict[str, str]:
        """Return the environment of the worker of a node at a slot."""
        env = environment(self.debug, self.extra)
        share = str(max(1, machine.cpus() // node.workers))
        for name in THREAD_VARIABLES:
            env.setdefault(name, share)
        env.setdefault("PYTHONUNBUFFERED", "1")  # or printed lines would come late, in blocks
        if node.options.gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices.get((node.name, slot), ()))
        env.update(node.options.env)
        env[RUN_VARIABLE] = str(self.run)
        env[REVISION_VARIABLE] = str(self.revision)
        env[SUPERVISOR_VARIABLE] = str(os.getpid())
        env[SLOT_VARIABLE] = str(slot)
        env[MARK_VARIABLE] = f"{self.token}/{next(_numbers)}"
        return env


def assign_gpus(
    plan: Plan, devices: list[str], held: Devices | None = None
) -> dict[tuple[str, int], list[str]]:
    """Return which devices each slot of each node gets: what it has, then whole ones, then
    fractions packed onto shared ones.

    Returns:
        Devices by node and slot. A slot that does not fit any more has no entry: `graphserve check`
            finds it.
    """
    free = list(devices)
    shared: dict[str, float] = {}  # by device, what is left of it
    given: dict[tuple[str, int], list[str]] = {}
    wanted = [
        (node, slot) for node in plan.nodes for slot in range(node.workers) if node.options.gpus > 0
    ]

    def take(key: tuple[str, int], need: float, choice: list[str]) -> None:
        if need >= 1:
            whole = [device for device in choice if device in free][: int(need)]
            if len(whole) < int(need):
                return
            given[key] = whole
        else:
            roomy = [
                device for device in shared if device in choice and shared[device] >= need - 1e-9
            ]
            found = next(iter([*roomy, *(device for device in choice if device in free)]), None)
            if found is None:
                return
            shared[found] = shared.get(found, 1.0) - need
            given[key] = [found]
        free[:] = [device for device in free if device not in given[key]]

    for node, slot in wanted:
        take((node.name, slot), node.options.gpus, (held or {}).get((node.name, slot), []))
    for node, slot in sorted(wanted, key=lambda each: each[0].options.gpus < 1):
        if (node.name, slot) not in given:
            take((node.name, slot), node.options.gpus, devices)
    return given
