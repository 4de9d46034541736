"""`graphserve graph`: print the graph as a tree, a picture or its Plan.

User code runs in a short-lived child only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from graphserve.cli.display import say
from graphserve.cli.flags import configure, target_options
from graphserve.errors import ExitCode, GraphServeError
from graphserve.graph.plan import Plan
from graphserve.system import inherited

FORMATS = ("tree", "dot", "mermaid", "json", "svg")
SUFFIXES = {".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".json": "json", ".svg": "svg"}
# of others
PICTURES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".pdf",
    ".ps",
    ".eps",
)


@click.command("graph", short_help="Print a graph: its nodes, and which calls which.")
@target_options
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="How to draw it. [default: by FILE's suffix, or tree]",
)
@click.option("--dot", is_flag=True, help="The same as --format dot.")
@click.option("-o", "--output", metavar="FILE", default=None, help="Write to this file.")
def graph(form: str | None, dot: bool, output: str | None, **given: object) -> int:
    """Print the graph of TARGET: its nodes, and which calls which. Starts nothing."""
    if dot and form not in (None, "dot"):
        raise click.UsageError(f"--dot is --format dot, but --format {form} is given too")
    form = "dot" if dot else form or _form_of(output)
    config = configure(given)

    from graphserve.graph.resolver import resolve_in_child

    resolution = resolve_in_child(config.settings, config.env)
    if say.troubles(resolution.troubles) or resolution.plan is None:
        return ExitCode.INVALID
    if output in (None, "-") and 1 in inherited.closed:
        raise GraphServeError("there is no output to draw on, it is closed: give -o FILE")
    text = _draw(resolution.plan, form, output in (None, "-"))
    _write(text if text.endswith("\n") else text + "\n", output)
    return ExitCode.OK


def _form_of(output: str | None) -> str:
    suffix = os.path.splitext(output or "")[1].lower()
    if suffix in PICTURES:
        have = ", ".join(SUFFIXES)
        raise click.UsageError(
            f"-o {output}: a {suffix} is not drawn here; take {have}, or say which --format it gets"
        )
    return SUFFIXES.get(suffix, "tree")


def _draw(plan: Plan, form: str, here: bool) -> str:
    if form == "json":
        return plan.to_json()
    from graphserve import export

    if form == "tree":
        return export.tree(
            plan, color=here and _takes_colour(), ascii=here and not _takes_branches()
        )
    return str(getattr(export, form)(plan))


def _write(text: str, output: str | None) -> None:
    if output is None or output == "-":
        sys.stdout.write(text)
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as exc:
        raise GraphServeError(f"cannot write {output}: {exc.strerror}") from None


def _takes_branches() -> bool:
    try:
        "├└─│".encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True


def _takes_colour() -> bool:
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
    )
