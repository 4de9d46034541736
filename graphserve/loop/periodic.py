"""What is done again and again, however often it fails. Runs in workers and the supervisor.

A timer that sets itself anew at its end is gone for good when it fails once, and with it what it
did: a worker that had no descriptor for a moment would never be heard of again, and be replaced as
one whose loop is stuck.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Periodic:
    """Makes some calls every so many seconds until it is cancelled; one that fails keeps back
    neither the others nor the next time.

    The loop's exception handler is told of what one raised, unless it raised the same the time
    before.

    Args:
        seconds: the pause between.
        calls: what is called, in this order.
    """

    def __init__(self, seconds: float, *calls: Callable[[], object]) -> None:
        self._seconds = seconds
        self._calls = calls
        self._told: dict[Callable[[], object], str] = {}  # what each raised the last time
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Make them for the first time, and from now on, on the loop that runs."""
        # First, so that whatever is raised below, `SystemExit` too, does not end it.
        self.begin_later()
        loop = asyncio.get_running_loop()
        for call in self._calls:
            try:
                call()
            except Exception as exc:
                said = repr(exc)
                if self._told.get(call) != said:
                    self._told[call] = said
                    what = f"{call.__qualname__} failed"
                    loop.call_exception_handler({"message": what, "exception": exc})
            else:
                self._told.pop(call, None)

    def begin_later(self) -> None:
        """Make them from now on, for the first time after the pause."""
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self.begin)

    def cancel(self) -> None:
        """Make them no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
