"""What a start or a reload took: when each worker came how far, which waited for which, and the
chain of what came one after the other.

Runs in the supervisor, which keeps the last start and the last reload.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import dataclasses
import itertools
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from graphserve.supervise.states import WorkerState

Operation = Literal["start", "reload"]
# Workers of one operation that are kept, so that a reload in which each new worker dies and is
# started again holds no more than this.
MOST_WORKERS = 2000


@dataclass(repr=False, eq=False)
class WorkerTiming:
    """When one worker came how far, in seconds of CLOCK_MONOTONIC; None: it has not.

    Args:
        node: its node.
        slot: its slot.
        pid: its process.
        spawned: when its process was started.
        imported: it had imported its modules.
        begun: it was told to initialise: what it needs was ready.
        warming: its instance was entered, and warms up.
        opening: it was told to serve the public port.
        ready: it took calls.
        gone: it had ended.
        waited_for: the node that it waited for last, if it waited for one.
    """

    node: str
    slot: int
    pid: int
    spawned: float
    imported: float | None = None
    begun: float | None = None
    warming: float | None = None
    opening: float | None = None
    ready: float | None = None
    gone: float | None = None
    waited_for: str | None = None

    def entered(self, state: WorkerState, now: float) -> None:
        """Note that it is in this state now."""
        match state:
            case WorkerState.IMPORTED:
                self.imported = now
            case WorkerState.STARTING:
                self.begun = now
            case WorkerState.OPENING:
                self.opening = now
            case WorkerState.READY:
                self.ready = now
            case WorkerState.GONE:
                self.gone = now
            case WorkerState.SPAWNED | WorkerState.DRAINING:
                pass

    def phases(self) -> list[tuple[str, float, float]]:
        """Return what it has done until it was ready, one after the other: what, from when, and
        until when.
        """
        marks = (
            ("import", self.spawned),
            ("wait", self.imported),
            ("init", self.begun),
            ("warm-up", self.warming),
            ("port", self.opening),
            ("", self.ready),
        )
        known = [(what, at) for what, at in marks if at is not None]
        return [(what, at, until) for (what, at), (_, until) in itertools.pairwise(known)]

    def phases_by(self, now: float) -> tuple[dict[str, float], str | None]:
        """Return the seconds of each phase, and which it is in: None once it is ready, or gone."""
        end = self.ready if self.ready is not None else self.gone
        so_far = dataclasses.replace(self, ready=now if end is None else end).phases()
        seconds = {what: round(until - at, 3) for what, at, until in so_far}
        return seconds, so_far[-1][0] if end is None else None


class WorkerTimingRow(TypedDict):
    """A worker, as `GET /timing` lists it; times are seconds since the operation began."""

    node: str
    slot: int
    pid: int
    spawned: float
    ready: float | None  # null: it is not
    ended: float | None
    phases: dict[str, float]  # seconds of each, one after the other
    doing: str | None  # the phase that it is in, while it is not ready
    waited_for: str | None


class Step(TypedDict):
    """A part of the critical chain."""

    what: str
    node: str | None
    slot: int | None
    begins: float  # seconds since the operation began
    seconds: float


class TimingRow(TypedDict):
    """One operation, as `GET /timing` answers it."""

    operation: Operation
    at: float  # seconds since the epoch
    state: Literal["under way", "done", "failed"]
    reason: str
    seconds: float  # that it took, or takes already
    workers: list[WorkerTimingRow]
    chain: list[Step]


@dataclass(repr=False, eq=False)
class Timeline:
    """One operation.

    Args:
        operation: which.
        at: when it began, in seconds since the epoch.
        began: the same by CLOCK_MONOTONIC.
        running: when the supervisor began with it.
        resolved: when there was a Plan.
        ended: when it was over.
        reason: why it failed; empty if it did not.
        workers: those that were started meanwhile.
    """

    operation: Operation
    at: float
    began: float
    running: float
    resolved: float | None = None
    ended: float | None = None
    reason: str = ""
    workers: list[WorkerTiming] = field(default_factory=list)

    def row(self, now: float) -> TimingRow:
        """Return it as JSON values."""
        state: Literal["under way", "done", "failed"] = "done"
        if self.ended is None:
            state = "under way"
        elif self.reason:
            state = "failed"
        until = now if self.ended is None else self.ended
        return {
            "operation": self.operation,
            "at": self.at,
            "state": state,
            "reason": self.reason,
            "seconds": round(until - self.began, 3),
            "workers": [self._worker(worker, now) for worker in self.workers],
            "chain": self.chain() if state == "done" else [],
        }

    def chain(self) -> list[Step]:
        """Return what came one after the other until all was ready, without a gap: had a part of it
        been quicker, all would have been.
        """
        steps: list[Step] = []
        ready = _Ready(self.workers)
        at = self.ended if self.ended is not None else self.began
        worker = ready.last(None, at)
        while worker is not None:
            self._add(steps, "hand over", None, worker.ready, at)
            phases = worker.phases()
            earlier = None
            if worker.waited_for is not None and worker.begun is not None:
                earlier = ready.last(worker.waited_for, worker.begun)
            if earlier is not None:  # while it imported and waited, that one was not ready yet
                phases = [phase for phase in phases if phase[0] not in ("import", "wait")]
            for what, begins, ends in reversed(phases):
                self._add(steps, what, worker, begins, ends)
            at = phases[0][1] if phases else worker.spawned
            worker = earlier or ready.last(None, worker.spawned)
        resolved = self.running if self.resolved is None else self.resolved
        self._add(steps, "hand over", None, resolved, at)
        self._add(steps, "resolve", None, self.running, resolved)
        self._add(steps, "launch", None, self.began, self.running)
        steps.reverse()
        return steps

    def _add(
        self,
        steps: list[Step],
        what: str,
        worker: WorkerTiming | None,
        begins: float | None,
        ends: float,
    ) -> None:
        if begins is None or round(ends - begins, 3) <= 0:
            return
        steps.append(
            {
                "what": what,
                "node": None if worker is None else worker.node,
                "slot": None if worker is None else worker.slot,
                "begins": round(begins - self.began, 3),
                "seconds": round(ends - begins, 3),
            }
        )

    def _worker(self, worker: WorkerTiming, now: float) -> WorkerTimingRow:
        phases, doing = worker.phases_by(now)
        return {
            "node": worker.node,
            "slot": worker.slot,
            "pid": worker.pid,
            "spawned": round(worker.spawned - self.began, 3),
            "ready": self._offset(worker.ready),
            "ended": self._offset(worker.gone),
            "phases": phases,
            "doing": doing,
            "waited_for": worker.waited_for,
        }

    def _offset(self, at: float | None) -> float | None:
        return None if at is None else round(at - self.began, 3)


class _Ready:
    """Workers in the order in which they were ready; each is found once, so a chain has an end.

    Args:
        workers: these, in any order.
    """

    def __init__(self, workers: Iterable[WorkerTiming]) -> None:
        self._workers = sorted((each for each in workers if each.ready is not None), key=_ready_at)
        self._by_node: dict[str, list[WorkerTiming]] = defaultdict(list)
        for worker in self._workers:
            self._by_node[worker.node].append(worker)
        self._found: set[int] = set()  # by identity

    def last(self, node: str | None, until: float) -> WorkerTiming | None:
        """Return the worker that was ready last, at this time or before.

        Args:
            node: of this node; None: of any.
            until: the time.
        """
        workers = self._workers if node is None else self._by_node.get(node, [])
        place = bisect.bisect_right(workers, until, key=_ready_at)
        while place:
            place -= 1
            if id(workers[place]) not in self._found:
                self._found.add(id(workers[place]))
                return workers[place]
        return None


def _ready_at(worker: WorkerTiming) -> float:
    assert worker.ready is not None
    return worker.ready


class Timings:
    """The last start, and the last reload."""

    def __init__(self) -> None:
        self.last: dict[Operation, Timeline] = {}
        self._current: Timeline | None = None

    def begin(self, operation: Operation, seconds_before: float = 0.0) -> None:
        """Begin to time an operation.

        Args:
            operation: which.
            seconds_before: how long ago it began.
        """
        now = asyncio.get_running_loop().time()
        at = time.time() - seconds_before
        self._current = Timeline(operation, at, now - seconds_before, now)
        self.last[operation] = self._current

    def resolved(self) -> None:
        """Note that there is a Plan."""
        if self._current is not None:
            self._current.resolved = asyncio.get_running_loop().time()

    def started(self, worker: WorkerTiming) -> None:
        """Note that a worker is started, if an operation is under way."""
        if self._current is not None and len(self._current.workers) < MOST_WORKERS:
            self._current.workers.append(worker)

    def end(self, reason: str = "") -> None:
        """Note that the operation is over.

        Args:
            reason: why it failed, if it did.
        """
        if self._current is not None:
            self._current.ended = asyncio.get_running_loop().time()
            self._current.reason = reason
            self._current = None

    def rows(self) -> list[TimingRow]:
        """Return the operations as JSON values, the start first."""
        now = asyncio.get_running_loop().time()
        return [timeline.row(now) for timeline in self.last.values()]


@contextlib.contextmanager
def timed(timings: Timings) -> Iterator[None]:
    """Time a reload."""
    timings.begin("reload")
    try:
        yield
    except BaseException as exc:
        timings.end(str(exc) or "given up")
        raise
    timings.end()


def process_age() -> float:
    """Return how many seconds ago this process was started."""
    try:
        with open("/proc/self/stat", "rb") as file:
            # behind the name of the program, which may have spaces and brackets in it
            fields = file.read().rpartition(b")")[2].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # since the machine was booted
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)
    except (OSError, ValueError, IndexError):
        return 0.0
