"""Tasks whose first step runs at once, in this turn of the loop. Runs in workers.

An API that waits for nothing is over with its first step: the answer leaves in the turn in which
the request came, and one that calls on has sent its call. Otherwise the loop polls its sockets in
between, once more for every hop.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TypeVar

T = TypeVar("T")


class Eager:
    """Makes tasks of one loop that have run until they first waited, or to their end.

    Args:
        loop: the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._own = vars(loop)
        # the first step of the task that is being made
        self._caught: list[tuple[Callable[[], object], Context]] = []

    if sys.version_info >= (3, 12):

        def begin(self, work: Coroutine[object, None, T]) -> asyncio.Task[T]:
            """Return a task that does this work, and has begun."""
            return asyncio.Task(work, loop=self._loop, eager_start=True)

    else:
        # Python 3.11 has no eager tasks, but a task asks its loop for one thing only when it is
        # made: to call its first step soon. That is caught, and called.

        def begin(self, work: Coroutine[object, None, T]) -> asyncio.Task[T]:
            """Return a task that does this work, and has begun."""
            loop, own = self._loop, self._own
            if asyncio.current_task(loop) is not None:  # a step inside a step is not possible here
                return loop.create_task(work)
            own["call_soon"] = self._catch
            try:
                task = asyncio.Task(work, loop=loop)
            finally:
                del own["call_soon"]
            step, context = self._caught.pop()
            context.run(step)
            return task

        def _catch(self, step: Callable[[], object], *, context: Context) -> None:
            self._caught.append((step, context))
