"""The command `stack`: where the workers of a running graph are at this moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from graphserve.cli.client import find, run_dir_option
from graphserve.cli.display import say, table
from graphserve.errors import ExitCode
from graphserve.system.messages import SILENT_AFTER
from graphserve.system.stack import Frame, line_of, of_user

if TYPE_CHECKING:
    from graphserve.supervise.control.stacks import PlaceRow, StackRow


@click.command("stack", short_help="Show where the workers of a running graph are.")
@run_dir_option
@click.argument("nodes", metavar="[NODE[.SLOT]]…", nargs=-1)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a JSON array: one object a worker, with all frames.",
)
def stack(run_dir: str | None, nodes: tuple[str, ...], as_json: bool) -> int:
    """Show where the threads and asyncio tasks of workers are, from the first line of your code on.

    Each has the requests that it serves. Workers whose event loop is stuck are shown too, and go on
    as they did.
    """
    rows = find(run_dir).stacks(nodes)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return ExitCode.OK
    for row in rows:
        say.out("\n".join(_lines(row)))
    return ExitCode.OK


def _lines(row: StackRow) -> Iterator[str]:
    silent = row["silent"]
    late = (
        f", its event loop has not run for {table.duration(silent)}"
        if silent is not None and silent > SILENT_AFTER
        else ""
    )
    yield f"{row['node']}[{row['slot']}]  pid {row['pid']}  {row['state']}, {row['process']}{late}"
    if row["trouble"]:
        yield f"  {row['trouble']}"
    shown = 0
    for kind, places in (("thread", row["threads"]), ("task", row["tasks"])):
        for place in places:
            if frames := of_user(place["frames"]):
                shown += 1
                yield f"  {_head(kind, place)}"
                yield from _stack(frames)
    rest = len(row["threads"]) + len(row["tasks"]) + row["left_out"] - shown
    if rest:
        yield (
            f"  {'and ' if shown else ''}{_count(rest, 'thread or task', 'threads and tasks')}"
            + (" in no code of yours" if not row["left_out"] else " more")
        )


def _head(kind: str, place: PlaceRow) -> str:
    name = (
        place["name"]
        if place["name"].startswith(("thread", "the main"))
        else f"{kind} {place['name']}"
    )
    said = [name]
    if requests := place["requests"]:
        more = f" and {len(requests) - 3} more" if len(requests) > 3 else ""
        said.append(f"request {', '.join(requests[:3])}{more}")
    if place["left"] is not None:
        left = place["left"]
        said.append(f"{left:.1f} s left" if left >= 0 else f"{-left:.1f} s too late")
    if place["waits_for"]:
        said.append(f"waits for {place['waits_for']}")
    return ", ".join(said)


def _stack(frames: Sequence[Frame]) -> Iterator[str]:
    for file, line, name in frames:
        # (a worker names the files: it must not have us read a pipe or a device)
        text = (
            line_of((file, line, name))
            if os.path.isfile(file)
            else f'  File "{file}", line {line}, in {name}'
        )
        yield from (f"  {each}" for each in text.splitlines())


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
