"""Decides by the reports of a worker, one a second, whether it is to be replaced, and how: the
limits of `watchdog`, `max_memory` and `max_requests`.

Runs in the supervisor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from graphserve.declare.options import ServiceOptions
from graphserve.system.messages import HealthReport

Verdict = tuple[Literal["kill", "recycle"], str]
# seconds without a report (usually there is one a second) after which the log says that a worker is
# silent
FREEZE = 3.0
USUAL_GAP = 2.0  # seconds between two reports up to which a worker is not late


def judge(options: ServiceOptions, health: HealthReport, quota: float) -> Verdict | None:
    """Decide what to do about a worker.

    Args:
        options: of its node.
        health: what it reported. Calls that are overdue were answered, with 504: they are not
            `in_flight`.
        quota: by what the worker's `max_requests` is stretched.

    Returns:
        Why, and `kill` for one that is stuck, `recycle` for one that has had its time, or that is
            stuck in one call and answers others; None for a healthy one.
    """
    if options.watchdog is not None and health.overdue > options.watchdog:
        words = f"still executed a call {health.overdue:.1f} s after its deadline (watchdog)"
        return "recycle" if health.in_flight else "kill", words
    if options.max_memory is not None and health.rss > options.max_memory:
        return "recycle", f"uses {health.rss:,} bytes of memory (max_memory)"
    if options.max_requests is not None and health.executed >= options.max_requests * quota:
        return "recycle", f"has executed {health.executed} calls (max_requests)"
    return None


def stuck(
    options: ServiceOptions, now: float, seen_at: float, deadline: Callable[[], float]
) -> str:
    """Return why a worker whose loop does nothing any more is to be killed;
    empty if it is not, or not yet.

    Args:
        options: of its node.
        now: seconds of CLOCK_MONOTONIC, as all that follows.
        seen_at: when it last reported.
        deadline: gives the latest deadline of the calls that it executes, one of which must hold
            the loop; 0.0 if none has one.
    """
    if options.watchdog is None:
        return ""
    limit = now - options.watchdog
    if seen_at + USUAL_GAP >= limit or deadline() >= limit:
        return ""
    return f"has not answered for {now - seen_at:.1f} s: its event loop is stuck (watchdog)"


class Frozen:
    """Tells when one worker falls silent, and when that is over: once each."""

    def __init__(self) -> None:
        self.since: float | None = None  # when it was heard last, while it is silent

    def look(self, now: float, seen_at: float) -> str:
        """Return what there is to say of it now; empty if nothing is new.

        Args:
            now: seconds of CLOCK_MONOTONIC.
            seen_at: when it last reported.
        """
        if now - seen_at > FREEZE:
            if self.since is not None:
                return ""
            self.since = seen_at
            return f"has not answered for {now - seen_at:.0f} s: its event loop does not run"
        since = self.since
        self.since = None
        return (
            ""
            if since is None
            else f"answers again: its event loop did not run for {seen_at - since:.0f} s"
        )
