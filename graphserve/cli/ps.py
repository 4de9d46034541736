"""`graphserve ps`: the workers of a running graph, a row each."""

from __future__ import annotations

import json
from typing import Any

import click

from graphserve.cli.client import find, run_dir_option
from graphserve.cli.display import table
from graphserve.errors import ExitCode

HEAD = ("NODE", "SLOT", "PID", "STATE", "RESTARTS", "UPTIME", "CPU %", "MEMORY", "IN FLIGHT")
NUMBERS, STATE = (1, 2, 4, 5, 6, 7, 8), 3
SILENT = 5.0  # seconds after which what a worker said last is not shown as what is


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
    state, age = worker["state"], worker["age"]
    if state in ("ready", "draining") and age is not None and age > SILENT:
        state = f"no news for {table.duration(age)}"
    in_flight = "?" if worker["in_flight"] is None else str(worker["in_flight"])
    return [worker["node"], *map(str, numbers), state, str(worker["restarts"]), *use, in_flight]
