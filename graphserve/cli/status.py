"""`graphserve status`: whether a graph is ready, by node; and waiting until it is."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from graphserve.cli.client import NoAnswer, RunningGraph, find, run_dir_option
from graphserve.cli.display import say, table
from graphserve.cli.flags import checked
from graphserve.config.values import DELAY
from graphserve.errors import ExitCode, NotRunningError

PATIENCE = 300.0  # seconds, where --wait says no number: as long as a node has to start
INTERVAL = 0.1  # seconds between two looks
ENDING = 5.0  # seconds in which a start that failed is over, however its workers leave; a stop may take longer
NUMBERS, STATE = (2,), 1


@click.command("status", short_help="Say whether a running graph is ready.")
@run_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option(
    "--wait", metavar="[SECONDS]", callback=checked("wait", DELAY), is_flag=False, flag_value=str(PATIENCE),
    help=f"Wait until it is ready, also if it does not run yet. [{PATIENCE:g} seconds, if no number is given]",
)  # fmt: skip
def command(run_dir: str | None, as_json: bool, wait: float | None) -> int:
    """Say whether a running graph is ready: all of it, and each node.

    Exits with 0 if every node has all its workers, with 1 if not, with 5 if nothing is running.
    """
    status = _wait(run_dir, wait) if wait is not None else _look(find(run_dir))
    if as_json:
        click.echo(json.dumps(status, indent=2))
    else:
        _show(status)
    return ExitCode.OK if status["state"] == "ready" else ExitCode.FAILED


def _look(graph: RunningGraph) -> dict[str, Any]:
    status: dict[str, Any] = graph.get("/status")
    return status


def _wait(run_dir: str | None, seconds: float) -> dict[str, Any]:
    """The status once it is `ready`, or `stopping` for a while; or what it is when the time is over."""
    stops = False
    end, seen = time.monotonic() + seconds, False
    while True:
        try:
            status = _look(find(run_dir))
            seen = True
            if status["state"] == "ready" or time.monotonic() >= end:
                return status
            if status["state"] == "stopping" and not stops:  # a failed start is told as what it is once it is over
                stops, end = True, min(end, time.monotonic() + ENDING)
        except NoAnswer:
            seen = True
            if time.monotonic() >= end:
                raise
        except NotRunningError as exc:
            if seen:
                raise NotRunningError("the graph ended before it was ready; its own output says why") from None
            if time.monotonic() >= end:
                raise NotRunningError(f"{exc}; waited {seconds:g} s") from None
        time.sleep(min(INTERVAL, max(0.0, end - time.monotonic())))


def _show(status: dict[str, Any]) -> None:
    under_way = f", a {status['operation']} is under way" if status["operation"] else ""
    say.out(f"{status['state']}  {status['url']}  up {table.duration(status['uptime'])}{under_way}")
    for failure in status["failures"]:
        say.out(_failed(failure))
    rows = [
        [node["name"], table.standing(node["state"], node["ready"], node["workers"], node["silent"]),
         f"{node['ready']}/{node['workers']}", _remark(node)]
        for node in status["nodes"]
    ]  # fmt: skip
    if rows:
        table.show(("NODE", "STATE", "READY", ""), rows, NUMBERS, STATE)


def _remark(node: dict[str, Any]) -> str:
    silent = node["silent"]
    words = f"no news from {silent} of its workers" if silent else ""
    return "; ".join(filter(None, (node["reason"], words, node.get("deaths", ""))))


def _failed(failure: dict[str, Any]) -> str:
    """What an operation that failed last means for the graph."""
    ago = table.duration(max(0.0, time.time() - failure["at"]))
    why = failure["reason"].splitlines()[0]
    changed = ", ".join(failure["changed"])
    verb = "runs" if len(failure["changed"]) == 1 else "run"
    but = f"; but {changed} had changed over before, and {verb} the new code" if changed else ""
    return (
        f"the last {failure['operation']} failed {ago} ago: {why}\n"
        f"  what serves is version {failure['version']}, from before{but}; a worker that dies is replaced from the "
        "files as they are now, and may not start: mend them and reload"
    )
