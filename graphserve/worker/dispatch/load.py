"""Whether a call can still be in time: how long the calls of an API take, and how far the event
loop is behind.

`LatencyEstimate` learns from the latest calls of one API. `LoopLagLimit` watches the loop: async
APIs have no limit of their own, so what they have too much of is the loop's time. While it is late,
each further call makes all of them later; then the calls in flight are held to about as many as it
serves within `TARGET`. Runs in workers.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

WAY_BACK = 0.005  # seconds for the answer to reach whoever waits for it

BEAT = 0.05  # seconds between two looks, while calls are executed
LATE = 0.02  # seconds that the loop may be late before it matters which calls can still be in time
TARGET = 0.1  # seconds that the loop may be late
# seconds that it has to be late before calls are refused: a hiccup is none of their business
PERSISTENCE = 0.3
FEWEST = 32  # calls in flight that are always allowed
GROWTH = 1.1  # of the limit, at each look at which the loop is in time
CALM = 2.0  # seconds in time and within the limit after which there is none


class LatencyEstimate:
    """The mean of the latest calls and how far they lie from it,
    as TCP estimates round trips (RFC 6298).
    """

    __slots__ = ("_deviation", "_mean")

    def __init__(self) -> None:
        self._mean = 0.0
        self._deviation = 0.0

    def add(self, seconds: float) -> None:
        """Learn that a call took so long."""
        if not self._mean:
            self._mean = seconds
            self._deviation = seconds / 2
            return
        error = seconds - self._mean
        self._mean += error / 8
        self._deviation += (abs(error) - self._deviation) / 4

    @property
    def needed(self) -> float:
        """Return the seconds that a call needs to be in time, most likely;
        0.0 while nothing is known.
        """
        return self._mean + 4 * self._deviation + WAY_BACK if self._mean else 0.0

    @property
    def usual(self) -> float:
        """Return the seconds that most calls take at most, for where a low guess costs little;
        0.0 likewise.
        """
        return self._mean + self._deviation + WAY_BACK if self._mean else 0.0


class LoopLagLimit:
    """The limit of calls in flight that the loop's lateness sets.

    Args:
        loop: the loop.
        in_flight: returns the number of calls that are executed now.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, in_flight: Callable[[], int]) -> None:
        self.loop = loop
        self.in_flight = in_flight
        self.limit = math.inf  # calls in flight
        self.late = False
        self.beating = False
        self._due = 0.0
        self._late_since = 0.0
        self._calm_since = 0.0

    def begin(self) -> None:
        """Look at the loop from now on, until there are no calls."""
        self.beating = True
        self._due = time.monotonic() + BEAT
        self.loop.call_later(BEAT, self._beat)

    def _beat(self) -> None:
        now = time.monotonic()
        self._judge(now, now - self._due, self.in_flight())
        if self.limit == math.inf and not self.in_flight():
            self.beating = False
        else:
            self.begin()

    def _judge(self, now: float, late: float, in_flight: int) -> None:
        self.late = late > LATE
        if late > TARGET:
            self._late_since = self._late_since or now - late
            self._calm_since = 0.0
            if self.limit < math.inf or now - self._late_since >= PERSISTENCE:
                self.limit = max(FEWEST, min(self.limit, in_flight * TARGET / late))
            return
        self._late_since = 0.0
        if self.limit == math.inf:
            return
        if in_flight >= self.limit:
            self._calm_since = 0.0
        else:
            self._calm_since = self._calm_since or now
        self.limit = (
            math.inf if self._calm_since and now - self._calm_since > CALM else self.limit * GROWTH
        )
