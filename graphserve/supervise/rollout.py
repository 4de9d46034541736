"""The rollout of one node: its workers are replaced one by one, added, taken away, without loss;
those that have had their time (`max_requests`, `max_memory`) are recycled.

Runs in the supervisor; `supervise/states.py` has the states that it goes through.

A new worker is ready before the old one drains; where GPUs are full, or memory is short
(`restart`), the old one goes first, and calls wait meanwhile: in the node's accept queue, at its
callers, or at the public port.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace

from graphserve.errors import StartupError
from graphserve.graph.plan import NodePlan
from graphserve.supervise.backoff import Backoff
from graphserve.supervise.events import EventKind
from graphserve.supervise.node import Node
from graphserve.supervise.process.worker_process import WorkerProcess, gone
from graphserve.supervise.revision import Revision
from graphserve.supervise.states import (
    Claim,
    RecyclingState,
    RolloutLife,
    RolloutState,
    WorkerState,
)
from graphserve.supervise.waiting import first
from graphserve.system import os_errors

# told of each worker that is replaced
Progress = Callable[[str], None]


class Rollout(RolloutLife):
    """Changes the workers of one node, one change at a time.

    Args:
        node: the node.
    """

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.node = node
        self._one_at_a_time = asyncio.Lock()
        # of recycling
        self._expired: deque[tuple[WorkerProcess, str]] = deque()  # they wait for their turn
        self._recycler: asyncio.Future[None] | None = None
        # what replaces a worker that serves has no hurry
        self._backoff = Backoff(free=0, first=1.0)

    async def roll(self, plan: NodePlan, revision: Revision, progress: Progress) -> None:
        """Replace every worker by one of another revision; then have as many as that says.

        Raises:
            StartupError: a new worker did not become ready. The old ones serve on; those replaced
                before stay new.
        """
        async with self._change():
            if self._is_absent(plan, revision):
                await self._begin_anew(plan, revision, progress)
                return
            before = self.node.plan.workers
            leaving: set[WorkerProcess] = set()
            kept = replace(plan, workers=before)  # until all are replaced
            for done in itertools.count(1):
                if self._next(plan, revision) is None:
                    break
                await gone(leaving)  # so one worker more than usual, and no two
                # meanwhile one may have died: what replaces it is of this revision already
                if (old := self._next(plan, revision)) is None:
                    break
                await self._exchange(old, kept, revision, old_first=plan.options.gpus > 0)
                leaving = {old}
                self.node.adopt(kept, revision)
                progress(f"{plan.name} {done}/{min(before, plan.workers)} replaced")
            self.node.adopt(plan, revision)
            await self._fill(before)
            self._trim()

    async def restart(self, progress: Progress) -> None:
        """Replace every worker by another one of the same revision, the old one first.

        Raises:
            StartupError: a new worker did not become ready; it is tried again later, the rest is as
                it was.
        """
        async with self._change():
            if self._is_absent(self.node.plan, self.node.revision):
                await self._begin_anew(self.node.plan, self.node.revision, progress)
                return
            for done, slot in enumerate(range(self.node.plan.workers), 1):
                old = self._holder(slot)
                if old is not None:
                    await self._exchange(old, self.node.plan, self.node.revision, old_first=True)
                else:
                    await self._fill(self.node.plan.workers)
                progress(f"{self.node.plan.name} {done}/{self.node.plan.workers} restarted")

    async def resize(self, workers: int, progress: Progress) -> None:
        """Start or end workers until there are so many.

        Raises:
            StartupError: a new worker did not become ready; there are as many as before.
        """
        async with self._change():
            before = self.node.plan.workers
            self.node.resize(workers)
            self.node.on_change(self.node)
            await self._fill(before)
            await gone(self._trim())
            progress(
                f"{self.node.plan.name} has {workers} {'worker' if workers == 1 else 'workers'}"
            )

    def _is_absent(self, plan: NodePlan, revision: Revision) -> bool:
        """Return whether no worker is ready, and the graph lives without: nobody waits for it."""
        return not self.node.ready_workers() and plan.name not in revision.plan.required()

    async def _begin_anew(self, plan: NodePlan, revision: Revision, progress: Progress) -> None:
        """Start every worker of an absent node anew, and do not wait until they are ready."""
        node = self.node
        old = [worker for worker in node.workers if not worker.retired]
        for worker in old:
            node.leave(worker)
        await gone(old)  # which may hold a GPU
        node.adopt(plan, revision)
        for slot in range(plan.workers):
            node.restart_policy.filled(slot)  # it does not go on with the pause that it had
            node.restart_policy.later(slot)
        progress(f"{plan.name} begins anew; the graph does not wait for it")

    @contextlib.asynccontextmanager
    async def _change(self) -> AsyncIterator[None]:
        async with self._one_at_a_time:
            try:
                yield
            finally:
                self.enter(RolloutState.IDLE)

    def recycle(self, worker: WorkerProcess, words: str) -> None:
        """Replace a worker that has had its time; each of its reports asks for it.

        Args:
            worker: the worker.
            words: why, as its log line goes on.
        """
        if self.recycling is RecyclingState.PAUSED:
            return
        worker.decide(Claim.RECYCLING)
        self._expired.append((worker, words))
        if self.recycling is RecyclingState.IDLE:
            self.enter_recycling(RecyclingState.REPLACING)
            self._recycler = asyncio.ensure_future(self._recycle())

    async def _recycle(self) -> None:
        """Replace those that have had their time, one after the other."""
        try:
            while self._expired:
                worker, words = self._expired.popleft()
                self.enter_recycling(RecyclingState.REPLACING)
                async with self._change():
                    replaced = await self._replace_expired(worker, words)
                if replaced:
                    self.enter_recycling(RecyclingState.DRAINING)
                    await worker.gone.wait()
        finally:
            if self.recycling is not RecyclingState.PAUSED:
                self.enter_recycling(RecyclingState.IDLE)

    async def _replace_expired(self, worker: WorkerProcess, words: str) -> bool:
        """Replace one; returns whether another one has taken its place."""
        node = self.node
        if node.stopping or worker.state is not WorkerState.READY:
            worker.hold()
            return False
        said = f"a worker of {node.plan.name} {words}; replacing it"
        node.say(EventKind.WORKER_REPLACED, "info", said, worker)
        try:
            await self._exchange(
                worker, node.plan, node.revision, old_first=node.plan.options.gpus > 0
            )
        except StartupError as exc:
            if not node.stopping:
                self._pause_recycling(worker, exc)
            return False
        self._backoff.recovered()
        node.counts.restarted(node.plan.name, "recycled")
        return True

    def _pause_recycling(self, worker: WorkerProcess, exc: StartupError) -> None:
        """Recycle nobody for a while; the worker goes on, and those that wait for their turn."""
        pause = self._backoff.died(0.0)
        words = (
            f"the replacement of a worker of {self.node.plan.name} did not start; the worker serves"
            f" on, and the next try is in {pause:.1f} s: {exc}"
        )
        self.node.say(EventKind.REPLACEMENT_FAILED, "error", words, worker, exc.log)
        worker.hold()
        for other, _ in self._expired:
            other.hold()
        self._expired.clear()
        self.enter_recycling(RecyclingState.PAUSED)
        asyncio.get_running_loop().call_later(pause, self.enter_recycling, RecyclingState.IDLE)

    async def _exchange(
        self, old: WorkerProcess, plan: NodePlan, revision: Revision, *, old_first: bool
    ) -> None:
        try:
            if old_first:
                self.enter(RolloutState.MAKING_ROOM)
                self.node.leave(old)
                await old.gone.wait()
            await self._start([old.slot], plan, revision, old)
        except BaseException:
            if self._holder(old.slot) is None and not self.node.stopping:
                self.node.restart_policy.later(old.slot)
            raise
        if not old_first and old.state is not WorkerState.GONE:
            self.node.leave(old)

    async def _start(
        self,
        slots: Iterable[int],
        plan: NodePlan,
        revision: Revision,
        old: WorkerProcess | None = None,
    ) -> None:
        """Start workers, all or none; returns when they are ready.

        Args:
            slots: whose slots they fill.
            plan: how they run.
            revision: what they are started from.
            old: who has the slot; it serves until they are ready, or was told to drain.
        """
        self.enter(RolloutState.STARTING)
        new: list[WorkerProcess] = []
        try:
            for slot in slots:
                if self.node.stopping:  # it may have begun to, while an old worker drained
                    raise StartupError(f"{plan.name} is stopping", plan.name)
                new.append(worker := self.node.spawn(slot, plan, revision))
                worker.decide(Claim.STANDBY)
                if old is not None:
                    old.hand_over_to(worker)
            self.node.on_change(self.node)
            await self._ready(new)
        except BaseException as exc:
            for worker in new:
                self.node.leave(worker)
            await gone(worker for worker in new if worker.state is not WorkerState.DRAINING)
            if isinstance(exc, OSError):
                raise StartupError(f"{plan.name}: {os_errors.explain(exc)}", plan.name) from exc
            raise
        for worker in new:
            worker.hold()
        self.enter(RolloutState.LEAVING)

    async def _ready(self, new: list[WorkerProcess]) -> None:
        waiting = {
            asyncio.ensure_future(first(worker.was_ready.wait, worker.gone.wait)): worker
            for worker in new
        }
        try:
            for task in asyncio.as_completed(waiting):
                await task
                for worker in new:
                    if worker.state is WorkerState.GONE:
                        raise StartupError(worker.message, self.node.plan.name, worker.last_words())
        finally:
            for task in waiting:
                task.cancel()

    def _next(self, plan: NodePlan, revision: Revision) -> WorkerProcess | None:
        """Return the worker in the lowest slot that is not of this revision and stays until it is
        replaced.
        """
        old = [
            worker
            for worker in self.node.workers
            if worker.revision is not revision and not worker.retired
        ]
        return min(
            (w for w in old if w.slot < plan.workers), key=lambda worker: worker.slot, default=None
        )

    def _holder(self, slot: int) -> WorkerProcess | None:
        return next((w for w in self.node.workers if w.slot == slot and not w.retired), None)

    async def _fill(self, before: int) -> None:
        """Start a worker in every slot that has none; if one does not start, there are as many as
        before.
        """
        node = self.node
        free = [slot for slot in range(node.plan.workers) if self._holder(slot) is None]
        try:
            await self._start(free, node.plan, node.revision)
        except BaseException:
            node.resize(before)
            for slot in free:
                if slot < before and not node.stopping:
                    node.restart_policy.later(slot, 1.0)
            raise

    def _trim(self) -> list[WorkerProcess]:
        """Drain the workers whose slots are no more; returns all that leave."""
        for worker in self.node.workers:
            if worker.slot >= self.node.plan.workers and not worker.retired:
                self.node.leave(worker)
        return [worker for worker in self.node.workers if worker.retired]
