"""The commands for a graph that runs: `ps`, `status`, `metrics`, `scale`, `reload`, `restart` and
`stop`.

Each finds the graph, asks its control socket, and shows the answer.
"""

from __future__ import annotations

import json
import os
import select
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graphserve.cli.client import NoAnswer, find, run_dir_option
from graphserve.cli.display import say, table
from graphserve.cli.display.table import Column
from graphserve.cli.flags import checked
from graphserve.config.flags import BY_KEY
from graphserve.config.values import DELAY, ValueSource
from graphserve.errors import ConfigurationError, ExitCode, GraphServeError, NotRunningError
from graphserve.supervise.events import node_state
from graphserve.system.messages import SILENT_AFTER

if TYPE_CHECKING:
    from graphserve.supervise.control.status import FailureRow, NodeRow, Status, WorkerRow

# of `status`
WAIT = 300.0  # seconds, if --wait names no number: as long as a node has to start
POLL_INTERVAL = 0.1  # seconds between two looks
# seconds in which a start that failed is over, however its workers leave; a stop may take longer
ENDING = 5.0

# of `stop`
NOTICE_INTERVAL = 2.0  # seconds between two lines about what a stop waits for


@click.command("ps", short_help="Show the workers of a running graph.")
@run_dir_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a JSON array: one object a worker, with everything known about it.",
)
def ps(run_dir: str | None, as_json: bool) -> int:
    """Show the workers of a running graph: a row each, leaves first.

    Times are since the start of the worker, MEMORY is resident memory, CPU is percent of one CPU,
    RESTARTS counts the deaths in a slot, IN FLIGHT the requests that are not answered yet.
    """
    workers = find(run_dir).workers()
    if as_json:
        click.echo(json.dumps(workers, indent=2))
    else:
        table.show(WORKER_COLUMNS, workers)
    return ExitCode.OK


def _worker_state(worker: WorkerRow) -> str:
    state = worker["state"]
    age = worker["age"]
    if state in ("ready", "draining") and age is not None and age > SILENT_AFTER:
        return f"no news for {table.duration(age)}"
    return state


def _in_flight(worker: WorkerRow) -> str:
    return "?" if worker["in_flight"] is None else str(worker["in_flight"])


WORKER_COLUMNS: tuple[Column[WorkerRow], ...] = (
    Column("NODE", lambda worker: worker["node"]),
    Column("SLOT", lambda worker: str(worker["slot"]), is_number=True),
    Column("PID", lambda worker: str(worker["pid"]), is_number=True),
    Column("STATE", _worker_state, is_state=True),
    Column("RESTARTS", lambda worker: str(worker["restarts"]), is_number=True),
    Column("UPTIME", lambda worker: table.duration(worker["uptime"]), is_number=True),
    Column("CPU %", lambda worker: f"{worker['cpu']:.1f}", is_number=True),
    Column("MEMORY", lambda worker: table.size(worker["memory"]), is_number=True),
    Column("IN FLIGHT", _in_flight, is_number=True),
)


@click.command("status", short_help="Say whether a running graph is ready.")
@run_dir_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a JSON object, with everything known about it and its nodes.",
)
@click.option(
    "--wait",
    metavar="[SECONDS]",
    callback=checked("wait", DELAY),
    is_flag=False,
    flag_value=str(WAIT),
    help=(
        "Wait until it is ready, also if it does not run yet; "
        f"{WAIT:g} seconds, if no number is given."
    ),
)
@click.option(
    "--timing",
    is_flag=True,
    help="Show what its start took, and its last reload: which part waited for which.",
)
def status(run_dir: str | None, as_json: bool, wait: float | None, timing: bool) -> int:
    """Say whether a running graph is ready: all of it, and each node.

    Exits with 0 if every node has all its workers, with 1 if not, with 5 if nothing is running.
    """
    if timing:
        return _timing(run_dir, wait, as_json)
    found = _wait(run_dir, wait) if wait is not None else find(run_dir).status()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _show_status(found)
    return ExitCode.OK if found["state"] == "ready" else ExitCode.FAILED


def _timing(run_dir: str | None, wait: float | None, as_json: bool) -> int:
    """Show what took how long; the exit code is that of `status`."""
    from graphserve.cli.display import timing

    found = _wait(run_dir, wait) if wait is not None else find(run_dir).status()
    rows = find(run_dir).timing()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        timing.show(rows)
    return ExitCode.OK if found["state"] == "ready" else ExitCode.FAILED


def _wait(run_dir: str | None, seconds: float) -> Status:
    """Return the status once it is `ready`,
    or has been `stopping` for a while, or when the time is over.
    """
    end = time.monotonic() + seconds
    seen = False
    stopping = False
    while True:
        try:
            status = find(run_dir).status()
            seen = True
            if status["state"] == "ready" or time.monotonic() >= end:
                return status
            # a start that failed is told once it is over
            if status["state"] == "stopping" and not stopping:
                stopping = True
                end = min(end, time.monotonic() + ENDING)
        except NoAnswer:
            seen = True
            if time.monotonic() >= end:
                raise
        except NotRunningError as exc:
            if seen:
                raise NotRunningError(
                    "the graph ended before it was ready; its own output says why"
                ) from None
            if time.monotonic() >= end:
                raise NotRunningError(f"{exc}; waited {seconds:g} s") from None
        time.sleep(min(POLL_INTERVAL, max(0.0, end - time.monotonic())))


def _show_status(status: Status) -> None:
    under_way = f", a {status['operation']} is under way" if status["operation"] else ""
    say.out(f"{status['state']}  {status['url']}  up {table.duration(status['uptime'])}{under_way}")
    for failure in status["failures"]:
        say.out(_failed_operation(failure))
    if status["nodes"]:
        table.show(NODE_COLUMNS, status["nodes"])


def _node_state(node: NodeRow) -> str:
    return node_state(node["state"], node["ready"], node["workers"], node["silent"])


def _remarks(node: NodeRow) -> str:
    no_news = f"no news from {node['silent']} of its workers" if node["silent"] else ""
    return "; ".join(filter(None, (node["reason"], no_news, node["deaths"])))


NODE_COLUMNS: tuple[Column[NodeRow], ...] = (
    Column("NODE", lambda node: node["name"]),
    Column("STATE", _node_state, is_state=True),
    Column("READY", lambda node: f"{node['ready']}/{node['workers']}", is_number=True),
    Column("", _remarks),
)


def _failed_operation(failure: FailureRow) -> str:
    """Say what an operation that failed last means for the graph."""
    ago = table.duration(max(0.0, time.time() - failure["at"]))
    why = failure["reason"].splitlines()[0]
    changed = ", ".join(failure["changed"])
    verb = "runs" if len(failure["changed"]) == 1 else "run"
    but = f"; but {changed} had changed over before, and {verb} the new code" if changed else ""
    return (
        f"the last {failure['operation']} failed {ago} ago: {why}\n  what serves is version"
        f" {failure['version']}, from before{but}; a worker that dies is replaced from the files as"
        " they are now, and may not start: mend them and reload"
    )


@click.command("metrics", short_help="Print what a running graph has counted.")
@run_dir_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(("text", "openmetrics")),
    default="text",
    help="The format of Prometheus (text), or OpenMetrics.",
)
def metrics(run_dir: str | None, format_: str) -> int:
    """Print the metrics of a running graph: requests at the port, calls between services.

    They are what `GET /metrics` answers on the graph's control socket, in the format of Prometheus.
    """
    accept = {"text": "text/plain", "openmetrics": "application/openmetrics-text"}[format_]
    click.echo(find(run_dir).metrics(accept), nl=False)
    return ExitCode.OK


@click.command("scale", short_help="Change how many workers a node has.")
@run_dir_option
@click.argument("sizes", metavar="NODE=N…", nargs=-1, required=True)
def scale(run_dir: str | None, sizes: tuple[str, ...]) -> int:
    """Change how many workers nodes of a running graph have, such as `graphserve scale Model=4`.

    Returns when new workers are ready; workers that are no longer needed answer what they accepted,
    then end. The change lasts until the graph stops, or until its configuration gives that node
    another number.
    """
    names = [part.partition("=")[0].strip() for size in sizes for part in size.split(",")]
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"{name} is given twice")
    try:
        parsed = BY_KEY["scale"].kind.parse(sizes, ValueSource("scale", Path()))
    except ConfigurationError as exc:
        raise click.UsageError(str(exc)) from None
    find(run_dir, doing="scaling").operate("/scale", parsed)
    return ExitCode.OK


@click.command("reload", short_help="Load changed code without losing a call.")
@run_dir_option
@click.argument("nodes", metavar="[NODE]…", nargs=-1)
def reload(run_dir: str | None, nodes: tuple[str, ...]) -> int:
    """Load the code, configuration and certificates of a running graph again, as they are now.

    Workers are replaced one by one, each when the new one is ready. If a new worker does not start,
    its traceback is printed, the old ones go on serving, and the exit code is 1. With NODE, only
    these nodes are reloaded.
    """
    find(run_dir, doing="reloading").operate("/reload", _named(nodes))
    click.echo("reloaded")
    return ExitCode.OK


@click.command("restart", short_help="Replace workers one by one, the old one first.")
@run_dir_option
@click.argument("nodes", metavar="[NODE]…", nargs=-1)
def restart(run_dir: str | None, nodes: tuple[str, ...]) -> int:
    """Replace the workers of a running graph one by one, without loading changes.

    Each worker ends before the next one starts, so no further memory is needed; calls wait
    meanwhile. With NODE, only these nodes are restarted. `graphserve reload` loads changed code.
    """
    find(run_dir, doing="restarting").operate("/restart", _named(nodes))
    click.echo("restarted")
    return ExitCode.OK


def _named(nodes: tuple[str, ...]) -> dict[str, list[str]] | None:
    """Return the body that names these nodes; no body means all."""
    return {"nodes": list(nodes)} if nodes else None


@click.command("stop", short_help="Stop a running graph; accepted requests are answered.")
@run_dir_option
def stop(run_dir: str | None) -> int:
    """Stop a running graph in order, as SIGTERM does: accepted requests are answered.

    Returns when it is gone.
    """
    graph = find(run_dir, doing="stopping")
    pid = graph.status()["pid"]
    with open(os.pidfd_open(pid), "rb", buffering=0) as process:
        graph.stop()
        ends = select.poll()
        ends.register(process, select.POLLIN)
        while not ends.poll(NOTICE_INTERVAL * 1000):
            try:
                say.err(waiting_for(graph.workers()))
            except GraphServeError:
                pass  # it is about to be gone
    say.out("stopped")
    return ExitCode.OK


def waiting_for(workers: list[WorkerRow]) -> str:
    """Return what a stop waits for; the calls of workers
    that have not reported just now are not known.
    """
    calls = sum(worker["in_flight"] or 0 for worker in workers)
    unknown = sum(worker["in_flight"] is None for worker in workers)
    but = f", {unknown} of which did not say what they execute" if unknown else ""
    return f"waiting for {calls} {'call' if calls == 1 else 'calls'} in {len(workers)} workers{but}"
