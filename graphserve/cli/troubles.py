"""Troubles for the user's eyes: problems with what to do about them, warnings apart. Used by `graph` and `check`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from graphserve.resolution import Trouble


def report(troubles: Iterable[Trouble]) -> int:
    """Print every trouble on stderr, tracebacks first, and return how many of them are problems."""
    found = list(troubles)
    for trouble in found:
        if trouble.traceback:
            click.echo(trouble.traceback.rstrip() + "\n", err=True)
    problems = [trouble for trouble in found if not trouble.warning]
    for trouble in found:
        if trouble.warning:
            click.echo(f"Warning: {trouble.message}", err=True)
    for trouble in problems:
        click.echo(f"Error: {trouble.message}", err=True)
    return len(problems)
