"""`graphserve restart`: replace the workers of a running graph, without resolving its code."""

from __future__ import annotations

import click

from graphserve.cli.client import find, run_dir_option
from graphserve.errors import ExitCode


@click.command("restart", short_help="Replace workers one by one, the old one first.")
@run_dir_option
@click.argument("nodes", metavar="[NODE]…", nargs=-1)
def command(run_dir: str | None, nodes: tuple[str, ...]) -> int:
    """Replace the workers of a running graph one by one, of all nodes or of these.

    Each worker ends before the next one starts, so no further memory is needed; calls wait meanwhile. The graph stays
    as it is; `graphserve reload` takes in changes.
    """
    find(run_dir, to_change=True).operate("/restart", {"nodes": list(nodes)} if nodes else None)
    click.echo("restarted")
    return ExitCode.OK
