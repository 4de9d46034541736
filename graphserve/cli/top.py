"""The command `top`: what a running graph does, once a second.

It asks for `/metrics` and `/status`, which cost workers nothing, and makes all figures itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, replace

import click

from graphserve.cli.client import NoAnswer, RunningGraph, find, run_dir_option
from graphserve.cli.display import lines, live, say
from graphserve.cli.display.display import draws, takes_colour
from graphserve.cli.display.live import SORTS, View, picture
from graphserve.cli.display.say import STDOUT
from graphserve.cli.display.screen import Ended, Screen
from graphserve.cli.figures import GraphFigures, Snapshot, Traffic, between
from graphserve.cli.flags import checked
from graphserve.config.values import SECONDS
from graphserve.errors import ExitCode, GraphServeError, NotRunningError

SHORTEST = 1.0  # seconds between two looks, of which each costs the supervisor a little
LONGEST = 86_400.0  # a day
STDIN = 0


@click.command("top", short_help="Watch what a running graph does.")
@run_dir_option
@click.option("--once", is_flag=True, help="Print one picture, after one interval, and end.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object a line, one an interval."
)
@click.option(
    "--interval",
    metavar="SECONDS",
    default=str(SHORTEST),
    show_default=True,
    callback=checked("interval", SECONDS),
    help="Seconds between two pictures, from 1.",
)
def top(run_dir: str | None, once: bool, as_json: bool, interval: float) -> int:
    """Watch what a running graph does: requests, calls of each node and edge, queues, workers.

    Figures are those of the last interval: how many ended a second, the median and the 99th
    percentile of the time that they took, and which part failed. Keys: q ends, s sorts by the next
    column, arrows and Enter open a node, Esc goes back. Without a terminal, or with --once, it
    prints one picture and ends. Ends with 0 when the graph has stopped.
    """
    if not SHORTEST <= interval <= LONGEST:
        raise click.UsageError(f"--interval: {interval:g} is not between 1 and {LONGEST:g} seconds")
    graph = find(run_dir)
    if as_json:
        return _print_json(graph, interval, once=once)
    if once or not draws(STDOUT):
        return _print_picture(graph, interval)
    return _Watch(graph, interval).run()


def _look(graph: RunningGraph) -> Snapshot:
    metrics = graph.metrics("text/plain")
    at = time.monotonic()
    return Snapshot(at, metrics, graph.status())


def _print_picture(graph: RunningGraph, interval: float) -> int:
    columns = 80
    if os.isatty(STDOUT):
        columns = os.get_terminal_size(STDOUT).columns or columns
    paint = lines.coloured if takes_colour(STDOUT) else lines.plain
    view = View(width=columns, paint=paint, unicode=_shows_unicode())
    for line in picture(_figures(graph, interval), view):
        click.echo(line)
    return ExitCode.OK


def _figures(graph: RunningGraph, interval: float) -> GraphFigures:
    """Return the figures of one interval, in which the graph was not started anew."""
    before = _look(graph)
    while True:
        time.sleep(interval)
        after = _look(graph)
        figures = between(before, after)
        if figures.seconds is not None:
            return figures
        before = after


def _print_json(graph: RunningGraph, interval: float, *, once: bool) -> int:
    if once:
        click.echo(_json_line(_figures(graph, interval)))
        return ExitCode.OK
    before: Snapshot | None = None
    try:
        while True:
            try:
                after = _look(graph)
                if before is not None:
                    click.echo(_json_line(between(before, after)))  # (which flushes)
                before = after
            except NoAnswer as exc:  # it may answer again
                say.err(f"Warning: {exc}", "warning")
            time.sleep(interval)
    except NotRunningError as exc:
        say.err(str(exc))
    except KeyboardInterrupt:
        pass
    return ExitCode.OK


def _json_line(figures: GraphFigures) -> str:
    status = figures.status
    whole: dict[str, object] = {
        "time": round(time.time(), 3),
        "seconds": figures.seconds,
        "state": status["state"],
        "url": status["url"],
        "target": status["target"],
        "pid": status["pid"],
        "port": _traffic(figures.port) | {"in_flight": figures.in_flight},
        "nodes": [
            {"name": node.name, "state": node.state}
            | _traffic(node.traffic)
            | {
                "in_flight": node.in_flight,
                "slots": node.slots,
                "queue": node.queue,
                "queue_limit": node.queue_limit,
                "ready": node.ready,
                "workers": node.workers,
                "cpu": node.cpu,
                "memory": node.memory,
                "of_slots": [asdict(slot) for slot in node.of_slots],
            }
            for node in figures.nodes
        ],
        "edges": [
            {"caller": edge.caller, "service": edge.service, "api": edge.api}
            | _traffic(edge.traffic)
            for edge in figures.edges
        ],
    }
    return json.dumps(whole)


def _traffic(traffic: Traffic) -> dict[str, object]:
    return asdict(traffic)


def _shows_unicode() -> bool:
    try:
        "→…".encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True


class _Looks:
    """Looks at a graph once an interval, in a thread: keys work also while it does not answer.

    Args:
        graph: the graph.
        interval: seconds between two looks.
        screen: is woken after each.
    """

    def __init__(self, graph: RunningGraph, interval: float, screen: Screen) -> None:
        self._graph = graph
        self._interval = interval
        self._screen = screen
        self.figures: GraphFigures | None = None
        self.trouble: GraphServeError | None = None
        self.failure: Exception | None = None  # nothing comes any more
        self._over = threading.Event()
        threading.Thread(target=self._run, name="looks", daemon=True).start()

    def end(self) -> None:
        """Look no more."""
        self._over.set()

    def _run(self) -> None:
        before: Snapshot | None = None
        while not self._over.is_set() and self.failure is None:
            try:
                after = _look(self._graph)
                self.figures = between(before, after)
                self.trouble = None
                before = after
            except NoAnswer as exc:
                self.trouble = exc
            except Exception as exc:  # raised again by who waits
                self.failure = exc
            self._screen.wake()
            self._over.wait(self._interval)


class _Watch:
    """The live picture, and what its keys have chosen.

    Args:
        graph: the graph.
        interval: seconds between two pictures.
    """

    def __init__(self, graph: RunningGraph, interval: float) -> None:
        keys = STDIN if os.isatty(STDIN) else None
        self._screen = Screen(STDOUT, keys)
        self._graph = graph
        self._interval = interval
        paint = lines.coloured if takes_colour(STDOUT) else lines.plain
        self._view = View(keys=keys is not None, paint=paint, unicode=_shows_unicode())

    def run(self) -> int:
        """Show pictures until somebody quits or the graph has stopped; return the exit code."""
        looks = None
        try:
            with self._screen.borrowed():
                looks = _Looks(self._graph, self._interval, self._screen)
                while self._step(looks):
                    pass
        except NotRunningError as exc:
            say.err(str(exc))
        except Ended as ended:
            if ended.number != signal.SIGINT:
                # so that who waits for this command sees what ended it
                signal.signal(ended.number, signal.SIG_DFL)
                signal.raise_signal(ended.number)
        finally:
            if looks is not None:
                looks.end()
        return ExitCode.OK

    def _step(self, looks: _Looks) -> bool:
        """Show a picture of what is known, wait, and take keys in; return whether to go on."""
        if looks.failure is not None:
            raise looks.failure
        self._show(looks)
        for key in self._screen.wait():
            if key == "quit":
                return False
            if looks.figures is not None:
                self._view = pressed(key, self._view, looks.figures)
        return True

    def _show(self, looks: _Looks) -> None:
        columns, height = self._screen.size()
        notice = f"{looks.trouble}; what is shown is older" if looks.trouble is not None else ""
        if looks.figures is None:
            self._screen.show([(notice or "asking the graph ...")[:columns]])
            return
        names = {node.name for node in looks.figures.nodes}
        opened = self._view.opened if self._view.opened in names else None
        self._view = replace(self._view, width=columns, height=height, notice=notice, opened=opened)
        self._screen.show(picture(looks.figures, self._view))


def pressed(key: str, view: View, figures: GraphFigures) -> View:
    """Return what is shown after a key.

    Args:
        key: `sort`, `up`, `down`, `open` or `back`.
        view: what is shown before.
        figures: what it is of.
    """
    names = [node.name for node in live.ordered(figures, view.sort)]
    at = names.index(view.selected) if view.selected in names else None
    if key == "sort":
        return replace(view, sort=(view.sort + 1) % len(SORTS))
    if key == "back":
        return replace(view, opened=None)
    if view.opened is not None or not names:
        return view
    if key == "open":
        name = names[at or 0]
        return replace(view, selected=name, opened=name)
    if at is None:
        return replace(view, selected=names[0])
    at += 1 if key == "down" else -1
    return replace(view, selected=names[min(max(at, 0), len(names) - 1)])
