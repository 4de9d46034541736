"""Prints what commands say: text, whatever is in it;
with its priority where the journal of systemd reads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from graphserve.logs.text import printable

if TYPE_CHECKING:
    from graphserve.graph.plan import Trouble

# As sd-daemon(3) writes them. Nothing of ours is worse than `critical`.
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
STDOUT, STDERR = 1, 2


def out(text: str) -> None:
    """Print lines on stdout."""
    click.echo(printable(text, lines=True))


def err(text: str, level: str = "info") -> None:
    """Print lines on stderr.

    Args:
        text: the lines.
        level: `info`, `warning`, `error`, `critical`; for the journal.
    """
    shown = printable(text, lines=True)
    click.echo(with_priority(shown, level) if is_journal(STDERR) else shown, err=True)


def troubles(given: Iterable[Trouble]) -> int:
    """Print every trouble on stderr, tracebacks first, and return how many of them are problems."""
    found = list(given)
    for trouble in found:
        if trouble.traceback:
            err(trouble.traceback.rstrip() + "\n", "error")
    problems = [trouble for trouble in found if not trouble.warning]
    for trouble in found:
        if trouble.warning:
            err(f"Warning: {trouble.message}", "warning")
    for trouble in problems:
        err(f"Error: {trouble.message}", "error")
    return len(problems)


def with_priority(text: str, level: str) -> str:
    """Return lines with their priority before each: the journal makes an entry of each."""
    prefix = f"<{_PRIORITIES.get(level, 6)}>"
    return "".join(prefix + line for line in text.splitlines(keepends=True))


def is_journal(descriptor: int) -> bool:
    """Return whether the journal of systemd reads what is written
    there (systemd.exec(5), `JOURNAL_STREAM`).
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
