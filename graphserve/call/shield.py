"""Whether `asyncio.shield` protects a task. Runs in workers.

When the caller of an API leaves, what the API called is cancelled wherever its own code stands, except what it
shielded. asyncio tells nobody what is shielded; but the callback that `shield` leaves on the task inside has a name,
and a task of a group knows its group. Both are private to asyncio: where they are not found, nothing is shielded, and
a test says so.
"""

from __future__ import annotations

import asyncio
from typing import Any

_CALLBACK = "shield.<locals>._inner_done_callback"


def shielded(task: asyncio.Task[Any] | None) -> bool:
    """Whether a task is inside of `asyncio.shield`, or of a group whose task is."""
    for callback, _ in getattr(task, "_callbacks", None) or ():
        if getattr(callback, "__qualname__", "") == _CALLBACK:
            return True
        group = getattr(callback, "__self__", None)
        if isinstance(group, asyncio.TaskGroup):
            return shielded(getattr(group, "_parent_task", None))
    return False
