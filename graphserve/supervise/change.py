"""A change: the graph becomes another version of itself, worker by worker, without loss. Runs in the supervisor.

New nodes start first. Then the others are rolled, leaves first, the nodes of one level side by side; the entry comes
last. Nodes that nobody needs any more drain when those that call them are gone. So no call meets an API that is not
there (decision record 0010).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

from graphserve.graph.plan import NodePlan, Plan
from graphserve.supervise.fleet import Fleet
from graphserve.supervise.node import Node
from graphserve.supervise.revision import Version, same
from graphserve.supervise.rollout import Progress, together


class Change:
    """One change.

    Args:
        fleet: what runs.
        progress: told of each worker that is replaced.
    """

    def __init__(self, fleet: Fleet, progress: Progress) -> None:
        self.fleet, self._say = fleet, progress
        self.rolled: list[str] = []  # nodes of which at least one worker runs the new code

    async def run(
        self, plan: Plan, extra: Mapping[str, str], secrets: Mapping[str, Any], only: Collection[str] = ()
    ) -> None:
        """Bring the graph to a Plan; returns when all of it is the new version, while old workers may still drain.

        Args:
            plan: what shall run.
            extra: what `--env-file` says.
            secrets: see `Version`.
            only: the nodes to roll; empty: all.

        Raises:
            StartupError: a new worker did not become ready. Nodes that were new are gone again, and what was not
                rolled yet is as it was.
        """
        fleet = self.fleet
        before = set(fleet.nodes)
        try:
            fleet.incoming = version = fleet.take_in(plan, extra, secrets)
            entry = version.nodes[plan.entry]
            new = [node for node in version.nodes.values() if node not in before]
            await fleet.bring_up([node for node in new if node is not entry])
            for each in new:  # also those that only have another `init`
                if each is not entry:
                    self._started(each)
            old = [node for node in version.plan.nodes if version.nodes[node.name] in before]
            for _, level in groupby(old, key=lambda node: node.level):
                rolling = [node for node in level if not only or node.name in only]
                await together(self._roll(version.nodes[node.name], node, version) for node in rolling)
            if entry in new:
                await fleet.bring_up([entry])
                self._started(entry)
        except BaseException:
            fleet.incoming = None
            fleet.sweep()
            await fleet.ended(node for node in fleet.nodes if node not in before)
            raise
        fleet.current, fleet.incoming = version, None
        fleet.sweep()

    def _started(self, node: Node) -> None:
        self._say(f"{node.plan.name} {len(node.ready_workers())}/{node.plan.workers} started")

    async def _roll(self, node: Node, plan: NodePlan, version: Version) -> None:
        def progress(words: str) -> None:
            if plan.name not in self.rolled:
                self.rolled.append(plan.name)
            self._say(words)

        await node.turnover.roll(plan, version, progress)


def beyond(running: Mapping[str, NodePlan], plan: Plan, names: Collection[str]) -> list[str]:
    """The nodes that are not as they run, although they are not of `names`, or for those that call them."""
    new = {node.name: node for node in plan.nodes}
    return sorted(
        {*(running.keys() ^ new.keys())}
        | {name for name in running.keys() & new.keys()
           if not (same if name in names else _equal)(running[name], new[name])}
    )  # fmt: skip


def _equal(old: NodePlan, new: NodePlan) -> bool:
    """Whether nothing was changed but by `graphserve scale`."""
    return replace(old, id="", level=0, workers=0) == replace(new, id="", level=0, workers=0)
