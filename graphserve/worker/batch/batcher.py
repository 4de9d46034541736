"""Batching: the calls of several callers joined into one execution, and its result split again.

Runs in workers.

One batch is collected at a time; a slot of the worker is one batch. What closes it: `max_size`
items, or `max_wait` seconds after its first item.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from graphserve.call.context import CallContext
from graphserve.call.request import new_request_id
from graphserve.errors import DeadlineExceeded
from graphserve.metrics.layout import BATCH_SIZE, BATCH_WAIT
from graphserve.system.rundir.paths import batch_lease_file
from graphserve.worker.batch import joining
from graphserve.worker.batch.batched_call import BatchedCall, Gathered
from graphserve.worker.dispatch.executor import BoundApi, Execution, Executor, OnEnd


class SlotSource(Protocol):
    """Gives a slot to each batch: `Slots` in a worker, the node in `local()`."""

    def take(self) -> bool:
        """Take a slot if one is free, and return whether one was."""
        ...

    def release(self) -> None:
        """Give it back."""


# What one caller has in an execution: its call, and from where to where of its items; and what one
# execution gets in all. (The piece of a result is what a share comes back as.)
Share = tuple[BatchedCall, int, int]
BatchPart = list[Share]
LEASE_PAUSE = 0.001  # seconds after which a worker asks again, while a sibling collects


@dataclass(eq=False)
class OpenBatch:
    """The batch that is being collected: one slot executes it."""

    calls: list[BatchedCall] = field(default_factory=list)
    size: int = 0
    expected: int = 0  # connections that were accepted for it and have not sent their call yet
    timer: asyncio.TimerHandle | None = None
    since_ns: int = 0  # when its first call joined, by CLOCK_MONOTONIC


class _Callers:
    """The callers that wait for one execution.

    Args:
        count: how many there are.
    """

    __slots__ = ("_count", "_execution")

    def __init__(self, count: int) -> None:
        self._count = count
        self._execution: Execution | None = None  # none before its arguments are joined

    def wait_for(self, execution: Execution) -> None:
        """Have it cancelled when all of them have gone away."""
        self._execution = execution

    def remove(self, call: BatchedCall) -> None:
        """Count one caller less; when all have gone away, the execution is cancelled."""
        self._count -= 1
        if not self._count and self._execution is not None:
            self._execution.cancel()


class Batcher:
    """Collects and executes the batches of one API.

    Args:
        api: the API.
        executor: runs them.
        slots: where each batch takes a slot.
        on_change: called when `room` may have changed.
        lease: which worker of the node collects, if there are several.
    """

    def __init__(
        self,
        api: BoundApi,
        executor: Executor,
        slots: SlotSource,
        on_change: Callable[[], None],
        lease: BatchLease | None = None,
    ) -> None:
        assert api.plan.batch is not None
        self.api = api
        self.executor = executor
        self.slots = slots
        self.on_change = on_change
        self.limits = api.plan.batch
        self.lists = joining.list_parameters(api.signature)
        self._wanted = joining.wanted(api.signature)
        self.loop = asyncio.get_running_loop()
        self.collecting: OpenBatch | None = None
        self.waiting: list[BatchedCall] = []
        self._lease = lease
        recorder, number = executor.recorder, api.index
        self._sizes = None if recorder is None else recorder.histogram(BATCH_SIZE, number)
        self._waits = None if recorder is None else recorder.histogram(BATCH_WAIT, number)

    @property
    def room(self) -> int:
        """Return the number of calls that the batch being collected can still take; 0 if none
        is.
        """
        batch = self.collecting
        return 0 if batch is None else max(0, self.limits.max_size - batch.size - batch.expected)

    @property
    def waiting_calls(self) -> int:
        """Return the number of calls that wait for their execution here."""
        return len(self.waiting) + (
            len(self.collecting.calls) if self.collecting is not None else 0
        )

    def reserve_place(self) -> bool:
        """Reserve a place in the batch for a connection, and a slot for the batch; return False if
        there is none.
        """
        if not self.room and not self._open():
            return False
        assert self.collecting is not None
        self.collecting.expected += 1
        return True

    def release_place(self) -> None:
        """Free a place that was reserved: the connection has no call for us."""
        if self.collecting is not None and self.collecting.expected:
            self.collecting.expected -= 1
            self.drop_if_empty()

    def take_lease(self) -> bool:
        """Return whether it collects, or may begin to: no sibling does.

        `leave_lease_if_idle` follows.
        """
        return self.collecting is not None or self._lease is None or self._lease.take()

    def leave_lease_if_idle(self) -> None:
        """Leave the lease to a sibling, if nothing came of it."""
        if self.collecting is None and self._lease is not None:
            self._lease.leave()

    def can_take(self) -> bool:
        """Return whether a call could join now; `join` or `drop_if_empty` follows."""
        return self.room > 0 or self._open()

    def join(
        self, arguments: dict[str, object], context: CallContext, on_end: OnEnd, *, expected: bool
    ) -> BatchedCall:
        """Add a call.

        Args:
            arguments: decoded and checked.
            context: what travels with it.
            on_end: called once with its part of the result, or an error.
            expected: whether `reserve_place` kept a place for it.

        Raises:
            InvalidArguments: its lists have different lengths.
        """
        try:
            call = BatchedCall(arguments, context, on_end, self.lists)
        except Exception:
            if expected:
                self.release_place()
            else:  # it was opened for this call, maybe
                self.drop_if_empty()
            raise
        if expected and self.collecting is not None and self.collecting.expected:
            self.collecting.expected -= 1
        if call.expired:
            self._time_out(call)
            self.drop_if_empty()
            return call
        call.watch(self.loop, self.executor.guard, self._time_out)
        if self.executor.executing:
            self.executor.add_calls()
        if self.collecting is None and not self._open():
            self.waiting.append(call)
        else:
            self._add(call)
        return call

    def _open(self) -> bool:
        if self.collecting is None and self.take_lease() and self.slots.take():
            self.collecting = OpenBatch()
            waiting = self.waiting
            self.waiting = []
            for call in waiting:
                if not call.gone:
                    if self.collecting is not None:
                        self._add(call)
                    else:
                        self.waiting.append(call)
            self.on_change()
        self.leave_lease_if_idle()
        return self.collecting is not None

    def _open_for_waiting(self) -> None:
        if self.waiting and not self._open():
            self.loop.call_later(LEASE_PAUSE, self._open_for_waiting)

    def _add(self, call: BatchedCall) -> None:
        batch = self.collecting
        assert batch is not None
        call.on_leave = self._left
        if not batch.calls:
            batch.since_ns = time.monotonic_ns()
        batch.calls.append(call)
        batch.size += call.size
        if batch.size >= self.limits.max_size:
            self._execute_collected()
        elif batch.timer is None:
            batch.timer = self.loop.call_later(self.limits.max_wait, self._execute_collected)

    def _left(self, call: BatchedCall) -> None:
        """A caller went away while the batch is collected: its place is free for another."""
        batch = self.collecting
        assert batch is not None
        batch.calls.remove(call)
        batch.size -= call.size
        if batch.timer is not None and not batch.calls:
            batch.timer.cancel()
            batch.timer = None
        self.drop_if_empty()
        self.on_change()

    def drop_if_empty(self) -> None:
        """Drop the batch if it is empty and nothing is expected: the call that it was opened for
        does not join.
        """
        batch = self.collecting
        if batch is not None and not batch.expected and not batch.calls:
            self.collecting = None
            self.leave_lease_if_idle()
            self.slots.release()
            self.on_change()

    def _time_out(self, call: BatchedCall) -> None:
        name = self.executor.node.name
        call.end(None, DeadlineExceeded(f"{name} did not answer before the deadline", node=name))
        call.leave()

    # --- executing ---

    def _execute_collected(self) -> None:
        batch = self.collecting
        self.collecting = None
        assert batch is not None
        self.leave_lease_if_idle()
        if batch.timer is not None:
            batch.timer.cancel()
        if self._waits is not None:
            self._waits.observe(time.monotonic_ns() - batch.since_ns)
        self.on_change()
        groups: dict[object, list[BatchedCall]] = {}
        for call in batch.calls:
            call.on_leave = None
            if call.expired:
                self._time_out(call)
            elif not call.gone:
                groups.setdefault(call.key, []).append(call)
        parts = [
            part for calls in groups.values() for part in joining.cut(calls, self.limits.max_size)
        ]
        self._execute_next(parts, Gathered([call for calls in groups.values() for call in calls]))

    def _execute_next(self, parts: list[BatchPart], gathered: Gathered) -> None:
        """Execute the parts one after the other; the slot is free when the last has ended."""
        while parts:
            part = [share for share in parts.pop(0) if not share[0].gone]
            if part:
                self._execute(part, gathered, lambda: self._execute_next(parts, gathered))
                return
        self.slots.release()
        self._open_for_waiting()
        self.on_change()

    def _execute(self, part: BatchPart, gathered: Gathered, then: Callable[[], None]) -> None:
        sizes = [stop - start for _, start, stop in part]
        if self._sizes is not None:
            self._sizes.observe(sum(sizes))
        name = f"{self.executor.node.name}.{self.api.plan.name}"

        def ended(result: object, error: BaseException | None) -> None:
            if error is None:
                try:
                    pieces = joining.split(result, sizes, name, self._wanted)
                except Exception as exc:
                    error = exc
                else:
                    for (call, start, _), piece in zip(part, pieces, strict=True):
                        gathered.add(call, start, piece)
                    return
            if self.api.plan.idempotent and len(part) > 1 and isinstance(error, Exception):
                alone.extend(part)
                return
            for call, _, _ in part:
                call.end(None, error)

        def free() -> None:
            if context.files is not None:
                from graphserve.call.fetched import remove_later

                remove_later(context.files)
            if alone:
                self._execute_alone(alone, gathered, then)
            else:
                then()

        alone: BatchPart = []
        context = _shared_context(part)
        callers = _Callers(len(part))
        for call, _, _ in part:
            call.on_leave = callers.remove
        try:
            arguments = joining.join(
                [(call.arguments, start, stop) for call, start, stop in part], self.lists
            )
        except Exception as exc:  # no memory for the joined arrays
            ended(None, exc)
            free()
        else:
            if len(part) > 1:
                self.executor.add_calls(len(part) - 1)
            callers.wait_for(self.executor.start(self.api, arguments, context, ended, free))

    def _execute_alone(self, part: BatchPart, gathered: Gathered, then: Callable[[], None]) -> None:
        """Run each caller's share again by itself, since the method raised for all: only the guilty
        one fails.
        """
        while part:
            share = part.pop(0)
            if not share[0].gone:
                self._execute([share], gathered, lambda: self._execute_alone(part, gathered, then))
                return
        then()


def _shared_context(part: BatchPart) -> CallContext:
    """Return a context that lasts as long as the most patient caller waits; ids and traces stay
    each caller's own.
    """
    if len(part) == 1:  # a copy: one call may take several executions, and each ends its own
        own = part[0][0].context
        shared = CallContext(
            own.request_id, own.deadline_ns, own.traceparent, own.tracestate, own.baggage
        )
        shared.forwarded = own.forwarded
        shared.principal = own.principal
        shared.callers = [(own, part[0][2] - part[0][1])]
        return shared
    deadlines = [call.context.deadline_ns for call, _, _ in part]
    latest = (
        None
        if None in deadlines
        else max(deadline for deadline in deadlines if deadline is not None)
    )
    shared = CallContext(new_request_id(), latest)
    shared.callers = [(call.context, stop - start) for call, start, stop in part]
    return shared


class BatchLease:
    """The right to collect a batch of one API, which one worker of the node has at a time.

    Two free workers that collect at once share what comes, and each executes half a batch. So a
    worker collects only while it holds a lock that its siblings share; the kernel lets go of it
    when its holder dies.

    Args:
        sock: the path of its shared socket; the file that is locked lies beside it.
    """

    def __init__(self, sock: str) -> None:
        self._path = batch_lease_file(sock)
        self._file = self._opened()
        self._mine = False
        os.register_at_fork(after_in_child=self._forget)  # a child would hold the lock on

    def take(self) -> bool:
        """Take the lease unless a sibling has it (flock(2)), and return whether it is ours."""
        if not self._mine:
            with contextlib.suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._mine = True
        return self._mine

    def leave(self) -> None:
        """Let a sibling collect."""
        if self._mine:
            self._mine = False
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def renew(self) -> None:
        """Open the file again if somebody removed it: siblings that come later lock the one that
        bears its name.
        """
        if self._mine:
            return  # it is renewed the next time
        # (the folder is made anew by the supervisor, and looked at again)
        with contextlib.suppress(OSError):
            if not os.path.exists(self._path) or not os.path.samestat(
                os.stat(self._path), os.fstat(self._file)
            ):
                before = self._file
                self._file = self._opened()
                os.close(before)

    def _opened(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _forget(self) -> None:
        os.close(self._file)
