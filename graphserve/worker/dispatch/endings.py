"""SystemExit and KeyboardInterrupt of user code, raised out of the loop:
each is told once, and ends nothing.

asyncio raises SystemExit and KeyboardInterrupt of a task out of its loop, before anybody who awaits
the task has them. If that is an API, its call fails with it, and the log has it under the request
id. Otherwise nobody else tells of it, and it is logged here. Runs in workers and in `local()`.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator

UNTOLD_AFTER = 0.2  # seconds in which the API that awaits the task, if one does, has been told

_CLAIMED = "_graphserve_claimed"  # an attribute of an exception: when a call failed with it

_untold: list[_Ending] = []


class _Ending:
    """An exception that was raised out of a loop, and is not told yet.

    Args:
        loop: the loop.
        exc: the exception.
        tell: tells of it.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, exc: BaseException, tell: Callable[[], None]
    ) -> None:
        self.exc = exc
        self._loop = loop
        self._tell = tell

    def look_later(self) -> None:
        """Tell of it in a while, if no call has failed with it by then, nor is about to."""
        self._loop.call_later(UNTOLD_AFTER, self._look)

    def tell(self) -> None:
        """Tell of it now."""
        _untold.remove(self)
        self._tell()

    def _look(self) -> None:
        if self not in _untold:
            return
        if _is_held(self.exc, self._loop):
            self.look_later()
        else:
            self.tell()


def raised(loop: asyncio.AbstractEventLoop, exc: BaseException, tell: Callable[[], None]) -> None:
    """Tell of what was raised out of the loop, unless a call fails with it.

    Args:
        loop: the loop.
        exc: what it was.
        tell: tells of it; called unless a call fails with it.
    """
    if any(ending.exc is exc for ending in _untold):
        return  # a TaskGroup has raised it once more
    if time.monotonic() - getattr(exc, _CLAIMED, -UNTOLD_AFTER) < UNTOLD_AFTER:
        return  # uvloop raises it behind its turn, in which the call has failed already
    ending = _Ending(loop, exc, tell)
    _untold.append(ending)
    ending.look_later()


def claim(exc: BaseException) -> None:
    """Say that a call fails with this: it is told there."""
    _untold[:] = [ending for ending in _untold if ending.exc is not exc]
    if isinstance(exc, (SystemExit, KeyboardInterrupt)):
        setattr(exc, _CLAIMED, time.monotonic())


def flush() -> None:
    """Tell everything that was not told: the loop ends."""
    for ending in list(_untold):
        ending.tell()


def _is_held(exc: BaseException, loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a TaskGroup will raise it, once its other tasks are cancelled:
    they may take their time.

    That is in no public attribute. Where a Python has no such attribute, nothing is held.
    """
    return any(
        getattr(group, "_base_error", None) is exc
        for task in asyncio.all_tasks(loop)
        for group in _groups(task.get_coro())
    )


def _groups(awaited: object) -> Iterator[asyncio.TaskGroup]:
    """Find the TaskGroups in the variables of a coroutine, and of what it awaits."""
    while inspect.iscoroutine(awaited) or inspect.isasyncgen(awaited):
        if inspect.iscoroutine(awaited):
            frame = awaited.cr_frame
            inner = awaited.cr_await
        else:
            frame = awaited.ag_frame
            inner = awaited.ag_await
        for value in list(frame.f_locals.values()) if frame is not None else ():
            if isinstance(value, asyncio.TaskGroup):
                yield value
            elif inspect.isasyncgen(value):  # what iterates over it awaits no object of its own
                yield from _groups(value)
        awaited = inner
