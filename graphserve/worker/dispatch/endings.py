"""SystemExit and KeyboardInterrupt of user code, raised out of the loop: each is told once, and
ends nothing.

asyncio raises SystemExit and KeyboardInterrupt of a task out of its loop, before anybody who awaits
the task has them. If that is an API, its call fails with it, and the log has it under the request
id. Otherwise nobody else tells of it, and it is logged here. Runs in workers and in `local()`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE = 0.2  # seconds in which the API that awaits the task, if one does, has been told

_untold: list[tuple[BaseException, Callable[[], None]]] = []


def raised(loop: asyncio.AbstractEventLoop, exc: BaseException, tell: Callable[[], None]) -> None:
    """Tell of what was raised out of the loop, unless a call fails with it.

    Args:
        loop: the loop.
        exc: what it was.
        tell: tells of it; called unless a call fails with it.
    """
    entry = (exc, tell)
    _untold.append(entry)
    loop.call_later(PATIENCE, _tell, entry)


def claim(exc: BaseException) -> None:
    """Say that a call fails with this: it is told there."""
    _untold[:] = [entry for entry in _untold if entry[0] is not exc]


def flush() -> None:
    """Tell everything that was not told: the loop ends."""
    for entry in list(_untold):
        _tell(entry)


def _tell(entry: tuple[BaseException, Callable[[], None]]) -> None:
    if entry in _untold:
        _untold.remove(entry)
        entry[1]()
