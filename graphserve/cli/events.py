"""The command `events`: what happened to a running graph, and what goes on to happen."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from graphserve.cli.client import find, run_dir_option
from graphserve.cli.display import lines
from graphserve.cli.since import since_option
from graphserve.errors import ExitCode
from graphserve.supervise.events import LogRecord

if TYPE_CHECKING:
    from graphserve.supervise.event_ring import EventLine

NEWEST_FOLLOWED = 10  # events that are shown first with -f
MOST = 999_999_999
KIND_WIDTH = 18  # characters; longer kinds are rare
_DATE = "%Y-%m-%d %H:%M:%S"


@click.command("events", short_help="Show what happened to a running graph.")
@run_dir_option
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens from now on.")
@click.option(
    "-n",
    "newest",
    metavar="N",
    type=click.IntRange(0, MOST),
    help=f"Show the newest N events (default: all; with -f, {NEWEST_FOLLOWED}).",
)
@since_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, one an event.")
def events(
    run_dir: str | None, follow: bool, newest: int | None, since: float | None, as_json: bool
) -> int:
    """Show what happened to a running graph: starts, deaths, reloads, refused calls, ….

    The graph keeps the newest events in memory, also those of workers that have died. With -f, ends
    when the graph has stopped.
    """
    if newest is None and follow and since is None:
        newest = NEWEST_FOLLOWED
    given = {"n": newest, "since": since}
    asked = [(name, str(value)) for name, value in given.items() if value is not None]
    shown = _json_line if as_json else _text_line
    try:
        for said in find(run_dir).events(asked, follow=follow):
            sys.stdout.write(shown(said))
            if follow:
                sys.stdout.flush()
    except KeyboardInterrupt:
        if not follow:  # which nothing else ends
            raise
    return ExitCode.OK


def _json_line(said: EventLine | int) -> str:
    return json.dumps({"left_out": said} if isinstance(said, int) else said) + "\n"


def _text_line(said: EventLine | int) -> str:
    if isinstance(said, int):
        words = "1 event is" if said == 1 else f"{said} events are"
        return f"({words} left out: the graph keeps no more)\n"
    fields = said.get("fields", {})
    trace = said.get("traceback") or str(fields.get("last_words", ""))
    record = LogRecord(
        said["time"], "info", said["message"], said.get("node"), said.get("slot"), traceback=trace
    )
    # a kind has letters and hyphens alone, nothing that a format of times means
    return lines.text_line(record, time_format=f"{_DATE}  {said['event']:<{KIND_WIDTH}}")
