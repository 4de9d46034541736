"""Calls whose caller has left, and those among them that run on all the same. Runs in workers.

A thousand clients may leave at once: one timer looks at all of their calls.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Any

RUN_ON = 0.1  # seconds after its caller was gone from which a call that still runs counts as one that ran on
TURNS = 4  # of the loop, which was late, in which the end of a call may be among what comes next


class Orphans:
    """Those of one worker.

    Args:
        loop: the loop that they run on.
        executing: what is executed; a call that has ended is not in there any more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, executing: Collection[Any]) -> None:
        self._loop, self._executing = loop, executing
        self._left: deque[tuple[float, Any]] = deque()  # when it is looked at, and the call
        self.ran_on_async = self.ran_on_sync = 0

    def add(self, execution: Any) -> None:
        """Nobody waits for this call any more: it is counted if it does not end soon."""
        if not self._left:  # (else the timer runs)
            self._loop.call_later(RUN_ON, self._look)
        self._left.append((self._loop.time() + RUN_ON, execution))

    @property
    def waiting(self) -> int:
        """Calls that were not looked at yet."""
        return len(self._left)

    def _look(self) -> None:
        now, left = self._loop.time(), self._left
        while left and left[0][0] <= now:
            self._judge(left.popleft()[1], TURNS)
        if left:
            self._loop.call_later(left[0][0] - now, self._look)

    def _judge(self, execution: Any, turns: int) -> None:
        if execution not in self._executing:
            return
        if turns:
            self._loop.call_soon(self._judge, execution, turns - 1)
        elif execution.in_thread:
            self.ran_on_sync += 1
        else:
            self.ran_on_async += 1
