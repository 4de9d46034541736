"""Tables of the commands: coloured on a terminal, plain columns elsewhere, and how numbers are
written in them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from graphserve.logs.text import printable

COLOURS = {
    "ready": "green",
    "degraded": "bold red",
    "failed": "bold red",
    "draining": "cyan",
    "stopping": "cyan",
}
STARTING = "yellow"  # and whatever else is not ready yet


def show(
    head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int], state: int
) -> None:
    """Print a table.

    Args:
        head: the columns' names.
        rows: the rows.
        numbers: the columns whose cells stand at the right.
        state: the column that is coloured.
    """
    if not sys.stdout.isatty():
        _plain(head, rows, numbers)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, name in enumerate(head):
        table.add_column(name, justify="right" if index in numbers else "left", no_wrap=True)
    for row in rows:
        # no markup: what a node says may have brackets in it
        cells = [Text(printable(cell)) for cell in row]
        cells[state].stylize(COLOURS.get(row[state], STARTING))
        table.add_row(*cells)
    Console(highlight=False, no_color=bool(os.environ.get("NO_COLOR"))).print(table)


def _plain(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> None:
    lines = [head, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(head))]
    for line in lines:
        cells = [
            cell.rjust(width) if index in numbers else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def node_state(state: str, ready: int, workers: int, silent: int = 0) -> str:
    """Return the state of a node: `degraded` if it is ready and lacks workers,
    or some of them do not report.
    """
    return "degraded" if state == "ready" and (ready < workers or silent) else state


def size(count: float) -> str:
    """Return a number of bytes as `31 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def duration(seconds: float) -> str:
    """Return seconds as `12 s`, `3 min 20 s`, `5 h 3 min`, `2 d 4 h`."""
    whole = int(seconds)
    for unit, parts, small in (
        ("d", 86400, (3600, "h")),
        ("h", 3600, (60, "min")),
        ("min", 60, (1, "s")),
    ):
        if whole >= parts:
            return f"{whole // parts} {unit} {whole % parts // small[0]} {small[1]}"
    return f"{whole} s"
