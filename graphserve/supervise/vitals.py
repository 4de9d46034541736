"""Judging a worker by what it reports once a second: whether it is to be replaced, and how. Runs in the supervisor."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
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


def stuck(options: ServiceOptions, now: float, seen_at: float, deadline: Callable[[], float]) -> str:
    """Why a worker whose loop does nothing any more is to be killed; empty if it is not, or not yet.

    Args:
        options: of its node.
        now: seconds of CLOCK_MONOTONIC, as all that follows.
        seen_at: when it last reported.
        deadline: gives the latest deadline of the calls that it executes, one of which must hold the loop; 0.0 if none
            has one.
    """
    if options.watchdog is None:
        return ""
    limit = now - options.watchdog
    if seen_at + PULSE >= limit or deadline() >= limit:
        return ""
    return f"has not answered for {now - seen_at:.1f} s: its event loop is stuck (watchdog)"


def latest_deadline(pid: int, descriptor: int) -> float:
    """What a worker says in its memory (`worker/latest.py`), in seconds; 0.0 if it cannot be read."""
    path = f"/proc/{pid}/fd/{descriptor}"
    try:
        if not os.readlink(path).startswith(
            "/memfd:latest"
        ):  # user code has closed it; another file may have the number
            return 0.0
        with open(path, "rb") as memory:
            return int.from_bytes(memory.read(8), sys.byteorder) / 1e9
    except OSError:
        return 0.0
