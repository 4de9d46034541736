"""How long the calls of an API take, from the latest ones: whether a call can still be in time. Runs in workers."""

from __future__ import annotations

WAY_BACK = 0.005  # seconds for the answer to reach whoever waits for it


class Pace:
    """The mean of the latest calls and how far they lie from it, as TCP estimates round trips (RFC 6298)."""

    __slots__ = ("_deviation", "_mean")

    def __init__(self) -> None:
        self._mean = self._deviation = 0.0

    def add(self, seconds: float) -> None:
        """A call took so long."""
        if not self._mean:
            self._mean, self._deviation = seconds, seconds / 2
            return
        error = seconds - self._mean
        self._mean += error / 8
        self._deviation += (abs(error) - self._deviation) / 4

    @property
    def needed(self) -> float:
        """Seconds that a call needs to be in time, most likely; 0.0 while nothing is known."""
        return self._mean + 4 * self._deviation + WAY_BACK if self._mean else 0.0

    @property
    def usual(self) -> float:
        """Seconds that most calls take at most: for where a guess that is too low costs little; 0.0 as above."""
        return self._mean + self._deviation + WAY_BACK if self._mean else 0.0
