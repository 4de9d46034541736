"""A future whose waiter goes on in the very turn of the loop in which the answer came; `call/` has
one for each call.

Decision record 0007. A further turn costs a system call and a cold cache, several times in a deep
graph. Runs where callers do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol


class Abandonable(Protocol):
    """What stands behind a future, and ends with it."""

    def abandon(self) -> None:
        """End, since nobody waits any more."""


class Reply(asyncio.Future[Any]):
    """The future behind a call; cancelling it ends the call, with no callback a call.

    Args:
        loop: the loop that the call runs on.
        call: what is abandoned when this is cancelled.
    """

    _waiter: tuple[Callable[[Any], object], Context | None] | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Abandonable | None = None) -> None:
        # quicker than by super(): one is made for each call
        asyncio.Future.__init__(self, loop=loop)
        self._call = call

    def add_done_callback(
        self, fn: Callable[[Any], object], /, *, context: Context | None = None
    ) -> None:
        """Add a callback, as to every future; the first one that is added is also called first."""
        if self._waiter is None and not self.done():
            self._waiter = fn, context
        else:
            super().add_done_callback(fn, context=context)

    def remove_done_callback(self, fn: Callable[[Any], object], /) -> int:
        """Remove a callback, and return how often it was there, as of every future."""
        removed = super().remove_done_callback(fn)
        if self._waiter is not None and self._waiter[0] == fn:
            self._waiter = None
            removed = removed + 1
        return removed

    def cancel(self, msg: object = None) -> bool:
        """Cancel the call and everything below it."""
        call = self._call
        cancelled = super().cancel(msg)
        if cancelled:
            self.wake(at_once=False)
            if call is not None:
                call.abandon()
        return cancelled

    def wake(self, *, at_once: bool) -> None:
        """Let who waits go on, now that the result or the error is set.

        Args:
            at_once: in this turn of the loop, not the next one; only from a callback of the loop,
                not out of a task, which would be entered twice.
        """
        # no reference cycle: a result that is a large array goes with its last holder
        self._call = None
        waiter = self._waiter
        self._waiter = None
        if waiter is None:
            return
        fn, context = waiter
        if not at_once:
            self.get_loop().call_soon(fn, self, context=context)
            return
        try:
            if context is None:
                fn(self)
            else:
                context.run(fn, self)
        # as the loop does; what is being read here has nothing to do with it
        except Exception as exc:
            said = {"message": f"Exception in callback {fn!r}", "exception": exc, "future": self}
            self.get_loop().call_exception_handler(said)
