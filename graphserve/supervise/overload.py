"""Tells when a node begins to refuse calls since there are too many, and when that is over.

Runs in the supervisor, by the reports of the node's workers.
"""

from __future__ import annotations

QUIET = 5.0  # seconds without a refused call after which it is over


class Overload:
    """What one node refuses."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}  # by worker's pid: what it has refused since it began
        self._since: float | None = None  # when it began
        self._latest = 0.0  # when a worker said that it had refused some
        self._refused = 0  # since it began

    def reported(self, pid: int, count: int, now: float) -> bool:
        """Take the report of a worker; return whether the node begins to refuse calls.

        Args:
            pid: the worker.
            count: the calls that it has refused since it began.
            now: seconds of CLOCK_MONOTONIC.
        """
        new = count - self._counts.get(pid, 0)
        self._counts[pid] = count
        if new <= 0:
            return False
        self._latest = now
        self._refused += new
        if self._since is not None:
            return False
        self._since = now
        return True

    def gone(self, pid: int) -> None:
        """Forget a worker that has ended."""
        self._counts.pop(pid, None)

    def over(self, now: float) -> tuple[int, float] | None:
        """Return how many calls were refused, and for how many seconds, once that is over."""
        if self._since is None or now - self._latest < QUIET:
            return None
        found = self._refused, self._latest - self._since
        self._since = None
        self._refused = 0
        return found
