"""`graphserve scale`: change how many workers nodes of a running graph have."""

from __future__ import annotations

from pathlib import Path

import click

from graphserve.cli.client import find, run_dir_option
from graphserve.config.flags import BY_KEY
from graphserve.config.values import ValueSource
from graphserve.errors import ConfigurationError, ExitCode


@click.command("scale", short_help="Change how many workers a node has.")
@run_dir_option
@click.argument("sizes", metavar="NODE=N…", nargs=-1, required=True)
def command(run_dir: str | None, sizes: tuple[str, ...]) -> int:
    """Change how many workers nodes of a running graph have.

    Returns when new workers are ready; those that are too many answer what they took first. It lasts until the graph
    stops, or its configuration says another number for that node.
    """
    names = [part.partition("=")[0].strip() for size in sizes for part in size.split(",")]
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"{name} is given twice")
    try:
        parsed = BY_KEY["scale"].kind.parse(sizes, ValueSource("scale", Path()))
    except ConfigurationError as exc:
        raise click.UsageError(str(exc)) from None
    find(run_dir, to_change=True).operate("/scale", parsed)
    return ExitCode.OK
