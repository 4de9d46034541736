"""Tables of the commands: coloured on a terminal, plain columns elsewhere, and how numbers are
written in them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

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

RowT = TypeVar("RowT")


@dataclass(frozen=True, slots=True)
class Column(Generic[RowT]):
    """One column of a table.

    Args:
        name: stands above it.
        cell: makes its text of what a row shows.
        is_number: whether its cells stand at the right.
        is_state: whether its cells are coloured, as states of nodes and workers.
    """

    name: str
    cell: Callable[[RowT], str]
    is_number: bool = False
    is_state: bool = False


def show(columns: Sequence[Column[RowT]], rows: Sequence[RowT]) -> None:
    """Print a table: a line of names, and one for each row."""
    cells_of = [[column.cell(row) for column in columns] for row in rows]
    if not sys.stdout.isatty():
        _plain(columns, cells_of)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column.name, justify="right" if column.is_number else "left", no_wrap=True)
    for cells in cells_of:
        texts = []
        for column, cell in zip(columns, cells, strict=True):
            # no markup: what a node says may have brackets in it
            text = Text(printable(cell))
            if column.is_state:
                text.stylize(COLOURS.get(cell, STARTING))
            texts.append(text)
        table.add_row(*texts)
    Console(highlight=False, no_color=bool(os.environ.get("NO_COLOR"))).print(table)


def _plain(columns: Sequence[Column[RowT]], cells_of: Sequence[Sequence[str]]) -> None:
    head = [column.name for column in columns]
    lines = [head, *([printable(cell) for cell in cells] for cells in cells_of)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        cells = [
            cell.rjust(width) if column.is_number else cell.ljust(width)
            for column, cell, width in zip(columns, line, widths, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


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
