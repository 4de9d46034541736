"""Tasks whose first step runs at once, in this turn of the loop. Runs in workers.

An API that waits for nothing is over with its first step: the answer leaves in the turn in which the request came, and
one that calls on has sent its call. Otherwise the loop polls its sockets in between, once more for every hop.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

if sys.version_info >= (3, 12):

    def begin(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that has run until it first waited, or to its end."""
        return asyncio.Task(work, loop=loop, eager_start=True)

else:
    # Python 3.11 has no eager tasks, but a task asks its loop for one thing only when it is made: to call its first
    # step soon. That is caught, and called.

    def begin(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that has run until it first waited, or to its end."""
        if asyncio.current_task(loop) is not None:  # a step inside a step is not possible here
            return loop.create_task(work)
        caught: list[tuple[Callable[[], object], Context]] = []

        def catch(step: Callable[[], object], *, context: Context) -> None:
            caught.append((step, context))

        vars(loop)["call_soon"] = catch
        try:
            task = asyncio.Task(work, loop=loop)
        finally:
            del vars(loop)["call_soon"]
        step, context = caught[0]
        context.run(step)
        return task
