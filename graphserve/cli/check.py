"""`graphserve check`: reports everything that would keep a graph from starting, all at once."""

from __future__ import annotations

import click

from graphserve.cli.display import say
from graphserve.cli.flags import configure, serve_options
from graphserve.errors import ExitCode


@click.command("check", short_help="Check a graph and this machine, without starting anything.")
@serve_options
def check(**given: object) -> int:
    """Check the graph of TARGET, and this machine, without starting anything.

    Takes the options of `graphserve serve`. Prints everything that would keep it from starting, and
    exits with 4 if there is anything.
    """
    config = configure(given)

    from graphserve.cli import preflight
    from graphserve.graph.resolver import resolve_in_child

    resolution = resolve_in_child(config.settings, config.env)
    machine = [
        *preflight.command_line(given),
        *preflight.machine(config),
        *(preflight.graph(resolution.plan) if resolution.plan else ()),
    ]
    if say.troubles([*resolution.troubles, *machine]) or resolution.plan is None:
        return ExitCode.INVALID
    count = len(resolution.plan.nodes)
    click.echo(f"ok: {count} node{'' if count == 1 else 's'}")
    return ExitCode.OK
