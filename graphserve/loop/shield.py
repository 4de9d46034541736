"""Whether `asyncio.shield` protects a task. Runs in workers.

When the caller of an API leaves, what the API called is cancelled wherever its own code stands,
except what it shielded. asyncio tells nobody what is shielded; but what waits for a task has left a
callback on it, and from there it leads on to the shield. That is private to asyncio: where it is
not found, nothing is shielded, and a test says so.
"""

from __future__ import annotations

import asyncio
from types import BuiltinMethodType, FunctionType, MethodType
from typing import TypeVar

T = TypeVar("T")

_SHIELD = "shield.<locals>._inner_done_callback"
_GATHER = "gather.<locals>._done_callback"


def shielded(future: asyncio.Future[T] | None) -> bool:
    """Return whether a task is inside of `asyncio.shield`, or whoever waits for it is: a task, a
    `gather`, a `TaskGroup`.
    """
    for callback, _ in getattr(future, "_callbacks", None) or ():
        kind = type(callback)
        if kind is FunctionType:
            name = callback.__qualname__
            if name == _SHIELD or (name == _GATHER and shielded(_gathering(callback))):
                return True
        # the second one wakes a task of asyncio's in C
        elif kind is MethodType or kind is BuiltinMethodType:
            waits = callback.__self__
            if isinstance(waits, asyncio.TaskGroup):
                waits = getattr(waits, "_parent_task", None)
            if isinstance(waits, asyncio.Task) and shielded(waits):
                return True
    return False


def _gathering(callback: FunctionType) -> asyncio.Future[object] | None:
    """Return the future that `gather` returned, of which this is the callback."""
    cells = dict(zip(callback.__code__.co_freevars, callback.__closure__ or (), strict=False))
    if "outer" not in cells:
        return None
    outer: asyncio.Future[object] = cells["outer"].cell_contents
    return outer
