"""One caller's call in a batch: its part of the arguments, and who is told how it ended.

`Gathered` puts the result of a call together whose items were cut over several executions. Runs in
workers and in `local()`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from graphserve.call.context import CallContext
from graphserve.loop.timers import Timer, set_timer
from graphserve.worker.batch import joining
from graphserve.worker.dispatch.executor import OnEnd


class BatchedCall:
    """One caller's call in a batch."""

    __slots__ = ("_on_end", "_timer", "arguments", "context", "key", "on_leave", "size")

    def __init__(
        self,
        arguments: dict[str, object],
        context: CallContext,
        on_end: OnEnd,
        lists: Sequence[str],
    ) -> None:
        self.arguments = arguments
        self.context = context
        self._on_end: OnEnd | None = on_end
        size, key = joining.measure(arguments, lists)
        self.size = size
        self.key = key
        self._timer: Timer | asyncio.TimerHandle | None = None
        self.on_leave: Callable[[BatchedCall], None] | None = None  # told when its caller leaves

    @property
    def gone(self) -> bool:
        """Return whether nobody waits for it any more."""
        return self._on_end is None

    @property
    def expired(self) -> bool:
        """Return whether its deadline has passed."""
        left = self.context.seconds_left()
        return left is not None and left <= 0

    def watch(
        self, loop: asyncio.AbstractEventLoop, guard: float, late: Callable[[BatchedCall], None]
    ) -> None:
        """Call `late` when its deadline passes."""
        left = self.context.seconds_left()
        if left is not None:
            self._timer = set_timer(loop, max(0.0, left + guard), partial(late, self))

    def end(self, result: object, error: BaseException | None) -> None:
        """Answer it, once."""
        on_end = self._on_end
        self._on_end = None
        if self._timer is not None:
            self._timer.cancel()
        if on_end is not None:
            on_end(result, error)

    def cancel(self) -> None:
        """Forget whom to answer: the caller went away."""
        self._on_end = None
        if self._timer is not None:
            self._timer.cancel()
        self.leave()

    def leave(self) -> None:
        """Tell the batch and the calls below that nobody waits for it any more."""
        on_leave = self.on_leave
        self.on_leave = None
        if on_leave is not None:
            on_leave(self)
        self.context.leave()


class Gathered:
    """The pieces of the results of calls that were cut over several executions.

    Args:
        calls: whose they are.
    """

    def __init__(self, calls: list[BatchedCall]) -> None:
        self._missing = {call: call.size for call in calls}
        self._pieces: dict[BatchedCall, list[tuple[int, Any]]] = {call: [] for call in calls}

    def add(self, call: BatchedCall, start: int, piece: Any) -> None:
        """Take in one piece; the call is answered when it has all."""
        self._pieces[call].append((start, piece))
        self._missing[call] -= len(piece)
        if self._missing[call] > 0:
            return
        pieces = [value for _, value in sorted(self._pieces[call], key=lambda pair: pair[0])]
        failure = next((item for value in pieces for item in joining.failures(value)), None)
        result = None
        try:
            result = joining.rejoin(pieces) if failure is None else None
        except Exception as exc:  # arrays of executions that do not go together
            failure = exc
        call.end(result, failure)
