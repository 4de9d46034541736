"""`graphserve reload`: have a running graph take in its code and configuration as they are now."""

from __future__ import annotations

import click

from graphserve.cli.client import find, run_dir_option
from graphserve.errors import ExitCode


@click.command("reload", short_help="Take in changed code without losing a call.")
@run_dir_option
@click.argument("nodes", metavar="[NODE]…", nargs=-1)
def command(run_dir: str | None, nodes: tuple[str, ...]) -> int:
    """Have a running graph take in its code, configuration and certificates as they are now.

    Workers are replaced one by one, each when the new one is ready. If one does not start, its traceback is printed,
    the old ones serve on, and the exit code is 1. With NODE, only these nodes are reloaded.
    """
    find(run_dir, to_change=True).operate("/reload", {"nodes": list(nodes)} if nodes else None)
    click.echo("reloaded")
    return ExitCode.OK
