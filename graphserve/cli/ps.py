"""`graphserve ps`: the workers of a running graph, a row each."""

from __future__ import annotations

import json
from typing import Any

import click

from graphserve.cli import table
from graphserve.cli.running import find, run_dir_option
from graphserve.errors import ExitCode

HEAD = ("NODE", "SLOT", "PID", "STATE", "RESTARTS", "UPTIME", "CPU %", "MEMORY", "IN FLIGHT")
NUMBERS, STATE = (1, 2, 4, 5, 6, 7, 8), 3


@click.command("ps", short_help="Show the workers of a running graph.")
@run_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object a worker, with all that is known.")
def command(run_dir: str | None, as_json: bool) -> int:
    """Show the workers of a running graph: a row each, leaves first."""
    workers = find(run_dir).get("/ps")
    if as_json:
        click.echo(json.dumps(workers, indent=2))
    else:
        table.show(HEAD, [_row(worker) for worker in workers], NUMBERS, STATE)
    return ExitCode.OK


def _row(worker: dict[str, Any]) -> list[str]:
    numbers = (worker["slot"], worker["pid"])
    use = (table.duration(worker["uptime"]), f"{worker['cpu']:.1f}", table.size(worker["memory"]))
    return [
        worker["node"], *map(str, numbers), worker["state"], str(worker["restarts"]), *use, str(worker["in_flight"]),
    ]  # fmt: skip
