"""Judging a worker by what it reports once a second: whether it is to be replaced, and how. Runs in the supervisor."""

from __future__ import annotations

from typing import Any, Literal

from graphserve.options import ServiceOptions

Verdict = tuple[Literal["kill", "recycle"], str]
PULSE = 2.0  # seconds between two reports that are no reason for concern


def judge(options: ServiceOptions, vitals: dict[str, Any], quota: float) -> Verdict | None:
    """What to do about a worker, and why.

    Args:
        options: of its node.
        vitals: what it reported: `executed` calls, `overdue` seconds of its latest call, `rss` bytes, `in_flight`
            requests that are not answered (those that are overdue were, with 504).
        quota: by what the worker's `max_requests` is stretched.

    Returns:
        `kill` for one that is stuck, `recycle` for one that has had its time, or that is stuck in one call and answers
        others, None for a healthy one.
    """
    overdue, executed, rss = vitals["overdue"], vitals["executed"], vitals["rss"]
    if options.watchdog is not None and overdue > options.watchdog:
        words = f"still executed a call {overdue:.1f} s after its deadline (watchdog)"
        return "recycle" if vitals["in_flight"] else "kill", words
    if options.max_memory is not None and rss > options.max_memory:
        return "recycle", f"uses {rss:,} bytes of memory (max_memory)"
    if options.max_requests is not None and executed >= options.max_requests * quota:
        return "recycle", f"has executed {executed} calls (max_requests)"
    return None


def stuck(options: ServiceOptions, silence: float) -> str:
    """Why a worker that has not reported for so many seconds is to be killed; empty if it is not."""
    if options.watchdog is None or silence <= options.watchdog + PULSE:
        return ""
    return f"has not answered for {silence:.1f} s: its event loop is stuck (watchdog)"
