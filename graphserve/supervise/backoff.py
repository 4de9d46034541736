"""How soon a slot whose worker died gets the next one: at once after a healthy life, ever later
after early deaths.

Runs in the supervisor.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

JITTER = 0.25  # of the pause, either way: workers that failed together come back apart


@dataclass
class Backoff:
    """The pauses of one slot.

    Args:
        healthy: seconds of readiness after which a death is no sign of a crash loop.
        free: early deaths in a row that are still answered at once.
        first: seconds before the next worker after those; doubles with each further death.
        longest: seconds, the most that it grows to.
        failed_after: early deaths in a row after which there is no hope in trying soon.
    """

    healthy: float = 1.0
    free: int = 2
    first: float = 0.2
    longest: float = 30.0
    failed_after: int = 5
    early_deaths: int = 0

    def died(self, lived: float) -> float:
        """Return the pause before the next worker, in seconds.

        Args:
            lived: seconds for which the one that died had been ready.
        """
        self.early_deaths = 0 if lived >= self.healthy else self.early_deaths + 1
        if self.early_deaths <= self.free:
            return 0.0
        doublings = min(self.early_deaths - self.free - 1, 64)
        return _about(min(self.first * 2.0**doublings, self.longest))

    def recovered(self) -> None:
        """Forget the early deaths: a worker has come to stay."""
        self.early_deaths = 0

    def hopeless(self) -> float:
        """Return the pause where callers do not wait for the next worker, in seconds."""
        return _about(self.longest)

    @property
    def failed(self) -> bool:
        """Return whether its workers have died early so often
        that callers need not wait for the next one.
        """
        return self.early_deaths >= self.failed_after


def _about(seconds: float) -> float:
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)
