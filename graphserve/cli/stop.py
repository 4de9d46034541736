"""`graphserve stop`: stop a running graph in order, and wait until it is gone."""

from __future__ import annotations

import os
import select

import click

from graphserve.cli.client import RunningGraph, find, run_dir_option
from graphserve.cli.display import say
from graphserve.errors import ExitCode, GraphServeError

NOTICE = 2.0  # seconds of waiting between two words about it


@click.command("stop", short_help="Stop a running graph; what was accepted is answered.")
@run_dir_option
def command(run_dir: str | None) -> int:
    """Stop a running graph in order, as SIGTERM does: what was accepted is answered. Returns when it is gone."""
    graph = find(run_dir, to_change=True)
    pid = graph.get("/status")["pid"]
    with open(os.pidfd_open(pid), "rb", buffering=0) as process:
        graph.post("/stop")
        ends = select.poll()
        ends.register(process, select.POLLIN)
        while not ends.poll(NOTICE * 1000):
            _say_what_for(graph)
    say.out("stopped")
    return ExitCode.OK


def _say_what_for(graph: RunningGraph) -> None:
    try:
        workers = graph.get("/ps")
    except GraphServeError:
        return  # it is about to be gone
    calls = sum(worker["in_flight"] for worker in workers)
    click.echo(f"waiting for {calls} {'call' if calls == 1 else 'calls'} in {len(workers)} workers", err=True)
