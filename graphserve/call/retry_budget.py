"""The retry budget of one caller process for one node: how many calls may run a second time.

Runs in workers.

When many workers fail at once, running everything again doubles the load on what is left. So what
may have been executed runs again only as long as that stays a small share of all calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphserve.call.suspicions import Suspicions

SHARE = 0.2  # of the calls
PER_SECOND = 10.0  # calls that may run again whatever the load is
ALLOWANCE = 100.0  # calls that may run again at once
WINDOW = 10.0  # seconds for which calls count


class RetryBudget:
    """Counts how many calls may still run again; each call adds one to `calls` when it is sent the
    first time.

    Args:
        tell: tells the supervisor of a call that lost so many workers.
        clock: seconds, for tests.
    """

    __slots__ = ("_at", "_clock", "_left", "calls", "suspicions", "tell")

    def __init__(
        self, tell: Callable[[str, int], None] = lambda call, kills: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.tell = tell
        self.calls = 0  # since `spend` was asked last
        self.suspicions: Suspicions | None = None  # of calls that kill workers of the node
        self._clock = clock
        self._at = clock()
        self._left = ALLOWANCE

    def on_suspicions(self, suspicions: Suspicions | None) -> None:
        """Follow which calls of the node are suspected or refused from here on."""
        self.suspicions = suspicions

    def spend(self) -> bool:
        """Take one call that runs a second time off the budget; False if nothing is left."""
        now = self._clock()
        passed = now - self._at
        calls = self.calls * min(1.0, WINDOW / passed) if passed > 0 else float(self.calls)
        self._at = now
        self.calls = 0
        most = ALLOWANCE + SHARE * calls
        earned = self._left + SHARE * calls + PER_SECOND * passed
        # What was saved up before is kept while it is being spent, and forgotten after a quiet
        # time.
        self._left = min(earned, most) if passed > WINDOW else max(self._left, min(earned, most))
        if self._left < 1:
            return False
        self._left -= 1
        return True
