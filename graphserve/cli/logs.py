"""The command `logs`: what the workers of a running graph have said, and go on to say."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from graphserve.cli.client import find, run_dir_option
from graphserve.cli.display import lines
from graphserve.cli.display.display import takes_colour
from graphserve.cli.display.say import STDOUT
from graphserve.cli.since import since_option
from graphserve.errors import ExitCode
from graphserve.supervise.events import LEVELS, LogRecord

if TYPE_CHECKING:
    from graphserve.supervise.control.logs import LogLine

NEWEST_FOLLOWED = 10  # lines that are shown first with -f
_CLOCK, _DATE = "%H:%M:%S", "%Y-%m-%d %H:%M:%S"
_TODAY = 12 * 3600.0  # seconds; of what is older, the day is shown


@click.command("logs", short_help="Show what the workers of a running graph have said.")
@run_dir_option
@click.argument("nodes", metavar="[NODE[.SLOT]]…", nargs=-1)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is said from now on.")
@click.option(
    "-n",
    "newest",
    metavar="N",
    type=click.IntRange(0, 999_999_999),
    help=f"Show the newest N lines (default: all; with -f, {NEWEST_FOLLOWED}).",
)
@since_option
@click.option(
    "--level",
    type=click.Choice(list(LEVELS)),
    metavar="LEVEL",
    help="Show this level and above; what is printed to stdout is info, to stderr warning.",
)
@click.option("--request", metavar="ID", help="Show what was said of this request.")
@click.option("--grep", metavar="TEXT", help="Show what has this text in it, in whatever case.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object a line, as --log-format json does."
)
def logs(
    run_dir: str | None,
    nodes: tuple[str, ...],
    follow: bool,
    newest: int | None,
    since: float | None,
    level: str | None,
    request: str | None,
    grep: str | None,
    as_json: bool,
) -> int:
    """Show what the workers of a running graph have said, and graphserve of them.

    The graph keeps the newest lines of each node in memory (`graphserve serve --log-buffer`), also
    of workers that have died. With NODE, only what workers of these nodes have said; the node
    `graphserve` has the lines of graphserve itself.
    """
    if newest is None and follow and since is None:
        newest = NEWEST_FOLLOWED
    asked = [("node", node) for node in nodes]
    given = {"n": newest, "since": since, "level": level, "request": request, "grep": grep}
    asked += [(name, str(value)) for name, value in given.items() if value is not None]
    shown = lines.json_line if as_json else _text_line
    try:
        for said in find(run_dir).logs(asked, follow=follow):
            sys.stdout.write(shown(_record(said)))
            if follow:
                sys.stdout.flush()
    except KeyboardInterrupt:
        if not follow:  # which nothing else ends
            raise
    return ExitCode.OK


def _text_line(record: LogRecord) -> str:
    paint = lines.coloured if takes_colour(STDOUT) else lines.plain
    clock = _CLOCK if time.time() - record.time < _TODAY else _DATE
    return lines.text_line(record, paint, clock)


def _record(said: LogLine | int) -> LogRecord:
    if isinstance(said, int):
        words = "1 line is" if said == 1 else f"{said} lines are"
        text = f"{words} left out: the log went on faster than it was read"
        return LogRecord(time.time(), "warning", text, fields={"left_out": said})
    return LogRecord(
        said["time"],
        said["level"],
        said["message"],
        said.get("node"),
        said.get("slot"),
        said.get("pid"),
        said["stream"],
        said.get("traceback", ""),
        said.get("fields", {}),
    )
