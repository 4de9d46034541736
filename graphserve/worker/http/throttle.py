"""Shedding at the entry: calls of an API that most likely end at a full queue below are refused first. Runs in workers.

What every hop above the full queue did for such a call is wasted, and under overload most calls are such. So the entry
compares what it was asked with what was taken, as clients do in "Handling Overload" (Site Reliability Engineering,
ch. 21): it lets through up to `SURPLUS` times as many calls as were taken lately, so that it learns at once when there
is room again.
"""

from __future__ import annotations

import random
from typing import TypeVar

from graphserve.errors import Unavailable

E = TypeVar("E", bound=BaseException)
SURPLUS = 2.0  # calls that are let through for each that was taken
SPARE = 10.0  # calls that are let through besides: where few come, one refusal says little about the next
FORGET = 0.7  # what is left of the counts after a second
LEAST = 1.0  # calls counted, below which there is nothing to compare


class Throttle:
    """The counts of one API; nothing is counted before the first call is refused below.

    Args:
        node: the entry.
        api: the API's name.
    """

    __slots__ = ("_asked", "_taken", "active", "api", "node", "reason")

    def __init__(self, node: str, api: str) -> None:
        self.node, self.api = node, api
        self.active = False
        self.reason = ""
        self._asked = self._taken = 0.0

    def refusal(self) -> Unavailable | None:
        """Count a call; the error that it is refused with, if it is. Asked while it is `active`."""
        surplus = self._asked - SURPLUS * self._taken - SPARE
        self._asked += 1
        if surplus <= 0 or random.random() >= surplus / self._asked:
            return None
        return Unavailable(f"{self.node} sheds calls of {self.api}: {self.reason}", node=self.node, full=True)

    def taken(self) -> None:
        """A call was answered."""
        self._taken += 1

    def refused(self, error: Unavailable) -> None:
        """A call came to a full queue below."""
        self.reason = str(error)
        if not self.active:
            self.active = True
            self._asked = 1.0

    def forget(self) -> None:
        """A second has passed."""
        self._asked *= FORGET
        self._taken *= FORGET
        if self._asked < LEAST:
            self.active, self._asked, self._taken = False, 0.0, 0.0


def noted(exc: E, throttle: Throttle | None) -> E:
    """The error, after the throttle has learned of it."""
    if throttle is not None and isinstance(exc, Unavailable) and getattr(exc, "full", False):
        throttle.refused(exc)
    return exc
