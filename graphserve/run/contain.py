"""Tasks and callbacks of user code in a local graph: what ends a program, raised there, does not
end this one.

asyncio lets SystemExit and KeyboardInterrupt of any task or callback out of the running loop. A
worker, whose loop is its own, goes on (`worker/main.py`); here the loop is the caller's: as long as
a local graph runs, each callback that an API schedules is wrapped. Who awaits such a task gets the
exception all the same, so the call fails.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from contextvars import Context
from typing import Any

from graphserve.call.context import current
from graphserve.worker.dispatch import endings

# How callbacks get onto a loop, the steps of tasks too.
_ENTRIES = ("call_soon", "call_soon_threadsafe", "call_later", "call_at")
_held: dict[asyncio.AbstractEventLoop, int] = {}  # local graphs by loop


class Contained:
    """Wraps the callbacks of one loop, from now on until `end`.

    Args:
        loop: the loop that runs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        _held[loop] = _held.get(loop, 0) + 1
        if _held[loop] == 1:
            for name in _ENTRIES:
                vars(loop)[name] = _wrapping(loop, name)

    def end(self) -> None:
        """Leave the loop as it was, unless another local graph runs on it."""
        loop = self._loop
        _held[loop] -= 1
        if not _held[loop]:
            del _held[loop]
            endings.flush()
            for name in _ENTRIES:
                vars(loop).pop(name, None)


def _wrapping(loop: asyncio.AbstractEventLoop, name: str) -> Callable[..., object]:
    """Return a method of a loop that schedules a callback, and wraps those of APIs."""
    original = getattr(loop, name)
    # of the callback; the others have a time before it
    position = 0 if name.startswith("call_soon") else 1

    @functools.wraps(original)
    def schedule(*arguments: Any, context: Context | None = None) -> object:
        call = current.get() if context is None else context.get(current)
        if call is not None:
            callback = functools.partial(_run, loop, arguments[position])
            arguments = (*arguments[:position], callback, *arguments[position + 1 :])
        return original(*arguments, context=context)

    return schedule


def _run(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: object
) -> None:
    try:
        callback(*arguments)
    except (SystemExit, KeyboardInterrupt) as exc:
        words = f"a task or a callback of an API raised {type(exc).__name__}({exc})"
        tell = functools.partial(loop.call_exception_handler, {"message": words, "exception": exc})
        endings.raised(loop, exc, tell)
