"""The respawns of one node: when each slot is filled again whose worker has died. Runs in the supervisor."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from graphserve.supervise.backoff import Backoff
from graphserve.supervise.process.pool import NO_PROCESS_PAUSE, WorkerProcess
from graphserve.system import os_errors

if TYPE_CHECKING:
    from graphserve.supervise.node import Node


class Respawns:
    """Those to come, and how many there were.

    Args:
        node: whose slots these are.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.count = Counter[int]()  # by slot
        self._backoffs = defaultdict[int, Backoff](Backoff)  # by slot
        self.starts = False  # whether the worker that died last had been ready
        self._timers: dict[int, asyncio.TimerHandle] = {}  # by slot

    @property
    def next_at(self) -> float | None:
        """When the next one is due, by CLOCK_MONOTONIC, which all processes share; None if there is none."""
        return min((timer.when() for timer in self._timers.values()), default=None)

    def replace(self, worker: WorkerProcess) -> None:
        """Fill the slot of a worker that died: at once if it died of a call or after a healthy life, else with a pause.

        A pause is for what dies of itself: a start that fails, or a worker that is ready only to end at once.
        """
        loop, node = asyncio.get_running_loop(), self.node
        lived = loop.time() - worker.ready_at if worker.ready_at is not None else 0.0
        backoff = self._backoffs[worker.slot]
        self.starts = worker.ready_at is not None
        if self.starts and worker.memory.executing():
            lived = max(lived, backoff.healthy)
        pause = backoff.died(lived)
        if backoff.failed and not node.ready_workers():
            node.state, node.reason = "failed", worker.message
        if node.state == "failed":
            pause = backoff.hopeless()
        self.count[worker.slot] += 1
        when = f" in {pause:.1f} s" if pause else ""
        node.say("error", f"{worker.message}; replaced{when}", worker, worker.traceback)
        if worker.successor is None or worker.successor.state == "gone":
            self.later(worker.slot, pause)

    def later(self, slot: int, pause: float = 0.0) -> None:
        """Fill a slot after a pause, unless somebody else does before."""
        self._timers[slot] = asyncio.get_running_loop().call_later(pause, self._respawn, slot)

    def filled(self, slot: int) -> None:
        """A slot has its worker."""
        if (timer := self._timers.pop(slot, None)) is not None:
            timer.cancel()

    def end(self) -> None:
        """Fill no slot any more."""
        for timer in self._timers.values():
            timer.cancel()

    def _respawn(self, slot: int) -> None:
        self._timers.pop(slot, None)
        node = self.node
        if node.stopping or slot >= node.plan.workers:
            return
        try:
            node.spawn(slot)
        except OSError as exc:
            node.say("error", f"{node.plan.name}: no worker could be started, tried again: {os_errors.words(exc)}")
            self.later(slot, NO_PROCESS_PAUSE)
