"""Troubles for the user's eyes: problems with what to do about them, warnings apart. Used by `graph` and `check`."""

from __future__ import annotations

from collections.abc import Iterable

from graphserve.cli.display import say
from graphserve.graph.plan import Trouble


def report(troubles: Iterable[Trouble]) -> int:
    """Print every trouble on stderr, tracebacks first, and return how many of them are problems."""
    found = list(troubles)
    for trouble in found:
        if trouble.traceback:
            say.err(trouble.traceback.rstrip() + "\n", "error")
    problems = [trouble for trouble in found if not trouble.warning]
    for trouble in found:
        if trouble.warning:
            say.err(f"Warning: {trouble.message}", "warning")
    for trouble in problems:
        say.err(f"Error: {trouble.message}", "error")
    return len(problems)
