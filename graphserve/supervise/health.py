"""Health: whether a worker is to be replaced, and how, by what it reports once a second.

Runs in the supervisor.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Literal

from graphserve.call import call_fingerprint
from graphserve.declare.options import ServiceOptions
from graphserve.system import worker_pages
from graphserve.system.messages import HealthReport

Verdict = tuple[Literal["kill", "recycle"], str]
# seconds without a report, of which there is one a second, after which a worker is told of
FREEZE = 3.0
PULSE = 2.0  # seconds between two reports that are no reason for concern


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
    """Return why a worker whose loop does nothing any more is to be killed; empty if it is not, or
    not yet.

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
    if seen_at + PULSE >= limit or deadline() >= limit:
        return ""
    return f"has not answered for {now - seen_at:.1f} s: its event loop is stuck (watchdog)"


class Frozen:
    """Tells when one worker falls silent, and when that is over: once each."""

    def __init__(self) -> None:
        self._since: float | None = None  # when it was heard last

    def look(self, now: float, seen_at: float) -> str:
        """Return what there is to say of it now; empty if nothing is new.

        Args:
            now: seconds of CLOCK_MONOTONIC.
            seen_at: when it last reported.
        """
        if now - seen_at > FREEZE:
            if self._since is not None:
                return ""
            self._since = seen_at
            return f"has not answered for {now - seen_at:.0f} s: its event loop does not run"
        since = self._since
        self._since = None
        return (
            ""
            if since is None
            else f"answers again: its event loop did not run for {seen_at - since:.0f} s"
        )


class WorkerMemory:
    """Reads what a worker wrote into the memory that it shares with us (`system/worker_pages.py`),
    also after its death.

    Args:
        descriptor: of that memory; -1 if there is none. Owned by this object.
    """

    def __init__(self, descriptor: int = -1) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Let go of the memory."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def deadline(self) -> float:
        """Return the latest deadline of what it executes, seconds of CLOCK_MONOTONIC; 0.0 if there
        is none.
        """
        return self._words()[worker_pages.DEADLINE] / 1e9

    def executing(self) -> int:
        """Return how many calls it executes, or a few more; 0 if none."""
        return self._words()[worker_pages.EXECUTING]

    def calls(self, routes: Sequence[str]) -> set[str]:
        """Return the calls that it executes for clients.

        Args:
            routes: of its APIs.
        """
        words, found = self._words(), set()
        for place in range(worker_pages.FIRST_NOTE, worker_pages.WORDS, worker_pages.NOTE):
            api, length = words[place] >> 40, words[place] & (1 << 40) - 1
            if 1 <= api <= len(routes):
                route = routes[api - 1]
                upload = length == worker_pages.UPLOAD
                found.add(
                    call_fingerprint.upload(route)
                    if upload
                    else call_fingerprint.name(route, length, words[place + 1])
                )
        return found

    def _words(self) -> Sequence[int]:
        size = worker_pages.WORDS * 8
        try:
            data = os.pread(self._descriptor, size, 0)
        except OSError:
            data = b""
        return memoryview(data.ljust(size, b"\0")).cast("q")
