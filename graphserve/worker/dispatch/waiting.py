"""An upload that waits for a slot: its body is coming to this worker, so no sibling can take it. Runs in workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from graphserve.call.context import CallContext
from graphserve.errors import CallError, DeadlineExceeded, Unavailable
from graphserve.worker.dispatch.executor import Executor
from graphserve.worker.dispatch.slots import Gate


class Waiting:
    """A place at the gate, until there is a slot, the deadline passes, or the client leaves.

    Args:
        executor: of the worker.
        gate: where it waits; as many do as the node's `queue` allows.
        context: what travels with the call.
        on_slot: called with a slot taken for it.
        on_end: called if it ends without one.
    """

    def __init__(
        self, executor: Executor, gate: Gate, context: CallContext, on_slot: Callable[[], None],
        on_end: Callable[[CallError], None],
    ) -> None:  # fmt: skip
        self._gate, self._on_slot, self._on_end, self._name = gate, on_slot, on_end, executor.node.name
        self._timer: asyncio.TimerHandle | None = None
        if gate.waiting >= executor.node.options.queue:
            on_end(Unavailable(f"the queue of {self._name} is full", node=self._name, full=True))
            return
        left = context.seconds_left()
        if left is not None:
            self._timer = executor.loop.call_later(max(0.0, left + executor.guard), self._late)
        gate.when_free(self._begin)

    def cancel(self) -> None:
        """The client went away, or the deadline passed."""
        self._gate.leave(self._begin)
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._on_slot()

    def _late(self) -> None:
        self.cancel()
        self._on_end(DeadlineExceeded(f"{self._name} did not answer before the deadline", node=self._name))
