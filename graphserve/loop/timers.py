"""Timers for deadlines: nearly all are called off long before they fire. Runs in workers.

A timer of the loop costs a heap's insertion and removal for each call. An alarm that is seconds
away only joins the others of its second; the loop has one timer for all of them, and gives a timer
of its own to those that are still set when their second comes.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from typing import Any

FAR = 2.0  # seconds from which an alarm waits among others


class Timer:
    """One alarm; it can be called off like a timer of the loop."""

    __slots__ = ("_among", "_call", "_handle", "_when")

    def __init__(self, when: float, call: Callable[[], Any], among: set[Timer]) -> None:
        self._when = when
        self._call = call
        self._among: set[Timer] | None = among
        self._handle: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Call it off, and let go of what it would have called: that holds us, and maybe a large
        result.
        """
        self._call = _nothing
        if self._among is not None:
            self._among.discard(self)
        elif self._handle is not None:
            self._handle.cancel()

    def arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Its second is here: it gets a timer of its own."""
        self._among = None
        self._handle = loop.call_later(max(0.0, self._when - time.monotonic()), self._call)


def _nothing() -> None:
    """What an alarm does that was called off."""


class Timers:
    """The alarms of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._seconds: dict[int, set[Timer]] = {}

    def set(self, delay: float, call: Callable[[], Any]) -> Timer:
        """Have `call` called in `delay` seconds."""
        now = time.monotonic()
        when = now + delay
        second = int(when)
        among = self._seconds.get(second)
        if among is None:
            among = self._seconds[second] = set()
            self.loop.call_later(second - now, self._arm, second)
        alarm = Timer(when, call, among)
        among.add(alarm)
        return alarm

    def _arm(self, second: int) -> None:
        for alarm in self._seconds.pop(second):
            alarm.arm(self.loop)


_of: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Timers] = weakref.WeakKeyDictionary()
# a process has one loop, as a rule: this is quicker than a weak dictionary
_latest: list[Timers] = []


def alarm(
    loop: asyncio.AbstractEventLoop, delay: float, call: Callable[[], Any]
) -> Timer | asyncio.TimerHandle:
    """Have `call` called on the loop in `delay` seconds; the value's `cancel` calls it off."""
    if delay < FAR:
        return loop.call_later(delay, call)
    if not _latest or _latest[0].loop is not loop:
        found = _of.get(loop)
        if found is None:
            found = _of[loop] = Timers(loop)
        _latest[:] = [found]
    return _latest[0].set(delay, call)
