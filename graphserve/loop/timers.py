"""Timers for deadlines: nearly all are cancelled long before they fire. Runs in workers.

A timer of the loop costs a heap's insertion and removal for each call. One that is seconds away
only joins the others of its second; the loop has one timer for all of them, and gives a timer of
its own to those that are still set when their second comes.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable

FAR = 2.0  # seconds from which a timer waits among others


class Timer:
    """A timer that waits among those of its second; it is cancelled as a timer of the loop is."""

    __slots__ = ("_among", "_call", "_handle", "_when")

    def __init__(self, when: float, call: Callable[[], object], among: set[Timer]) -> None:
        self._when = when
        self._call = call
        self._among: set[Timer] | None = among
        self._handle: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Cancel it, and let go of what it would have called:
        that holds us, and maybe a large result.
        """
        self._call = _nothing
        if self._among is not None:
            self._among.discard(self)
        elif self._handle is not None:
            self._handle.cancel()

    def arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Get a timer of the loop, since its second is here."""
        self._among = None
        self._handle = loop.call_later(max(0.0, self._when - time.monotonic()), self._call)


def _nothing() -> None:
    """Do nothing: the timer was cancelled."""


class Timers:
    """The timers of one loop; those that are far, by the second in which they fire.

    Args:
        loop: the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._seconds: dict[int, set[Timer]] = {}

    def set(self, delay: float, call: Callable[[], object]) -> Timer | asyncio.TimerHandle:
        """Call `call` on the loop in `delay` seconds, unless the returned timer is cancelled."""
        if delay < FAR:
            return self.loop.call_later(delay, call)
        now = time.monotonic()
        when = now + delay
        second = int(when)
        among = self._seconds.get(second)
        if among is None:
            among = self._seconds[second] = set()
            self.loop.call_later(second - now, self._arm, second)
        timer = Timer(when, call, among)
        among.add(timer)
        return timer

    def _arm(self, second: int) -> None:
        for timer in self._seconds.pop(second):
            timer.arm(self.loop)


_timers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Timers] = weakref.WeakKeyDictionary()
# a process has one loop, as a rule: this is quicker than a weak dictionary
_latest: list[Timers] = []


def set_timer(
    loop: asyncio.AbstractEventLoop, delay: float, call: Callable[[], object]
) -> Timer | asyncio.TimerHandle:
    """Call `call` on the loop in `delay` seconds, unless the returned timer is cancelled."""
    return timers_of(loop).set(delay, call)


def timers_of(loop: asyncio.AbstractEventLoop) -> Timers:
    """Return the timers of a loop."""
    if not _latest or _latest[0].loop is not loop:
        found = _timers.get(loop)
        if found is None:
            found = _timers[loop] = Timers(loop)
        _latest[:] = [found]
    return _latest[0]
