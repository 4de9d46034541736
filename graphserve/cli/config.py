"""`graphserve config`: what each option is, and where it was given. User code runs in a short-lived
child only.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping

import click

from graphserve.cli.display import say, table
from graphserve.cli.display.table import Column
from graphserve.cli.flags import configure, current_folder, serve_options
from graphserve.config import Choice, explain
from graphserve.declare.options import ENTRY_TIMEOUT, HIDDEN, ServiceOptions
from graphserve.errors import ExitCode
from graphserve.graph.plan import NodePlan, Plan, Settings
from graphserve.system import own_json

DEFAULT, DECORATOR = "default", "decorator"
# options of nodes that a flag without a node's name gives: of all nodes, or of the entry
OF_ALL = {"startup_timeout": "startup-timeout", "graceful_timeout": "timeout-graceful-shutdown"}
OF_ENTRY = {"workers": "workers", "timeout": "timeout"}


@click.command("config", short_help="Show each option, and where it was given.")
@serve_options
@click.option("--sources", is_flag=True, help="Show where each value is from.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON array: an object an option, with both."
)
def config(sources: bool, as_json: bool, **given: object) -> int:
    """Show what `graphserve serve` would serve TARGET with: each option of it and of its nodes.

    Takes the options of `graphserve serve`, and starts nothing. Secrets are not shown.
    """
    environ = dict(os.environ)  # `configure` takes the password out of it
    settled = configure(given)
    known = {name: value for name, value in given.items() if value is not None}
    choices, places = explain(known, environ, current_folder())

    from graphserve.graph.resolver import resolve_in_child

    resolution = resolve_in_child(settled.settings, settled.env)
    failed = say.troubles(resolution.troubles) or resolution.plan is None
    if resolution.plan is not None:
        by_name = {each.option: each for each in choices}
        choices += _of_nodes(resolution.plan, by_name, places, settled.settings)
    if as_json:
        rows = [dataclasses.asdict(choice) for choice in choices]
        click.echo(own_json.dumps(rows, indent=2, default=str))
    else:
        table.show(COLUMNS if sources else COLUMNS[:2], choices)
    return ExitCode.INVALID if failed else ExitCode.OK


def _of_nodes(
    plan: Plan, given: Mapping[str, Choice], places: Mapping[str, str], settings: Settings
) -> Iterator[Choice]:
    for node in reversed(plan.nodes):  # the entry first
        for field in dataclasses.fields(ServiceOptions):
            yield _of_node(node, field.name, given, places, is_entry=node.name == plan.entry)
        configured = settings.options.get(node.name, {}).get("init")
        for name, value in node.init.items():
            is_configured = isinstance(configured, Mapping) and name in configured
            source = places.get(f"{node.name}.init", DEFAULT) if is_configured else "depends"
            yield Choice(f"{node.name}.init.{name}", value, source)


def _of_node(
    node: NodePlan,
    name: str,
    given: Mapping[str, Choice],
    places: Mapping[str, str],
    *,
    is_entry: bool,
) -> Choice:
    """Return an option of a node, and where it is from."""
    option = f"{node.name}.{name}"
    value: object = node.workers if name == "workers" else getattr(node.options, name)
    default: object = getattr(ServiceOptions(), name)
    if name == "timeout" and is_entry:
        default = ENTRY_TIMEOUT
    if isinstance(value, Mapping):
        value = {variable: HIDDEN for variable in value}
    flag = given.get(OF_ALL.get(name) or (OF_ENTRY.get(name, "") if is_entry else ""))
    by_flag = flag.source if flag is not None and flag.source != DEFAULT else None
    # (--workers wins over what is said of the node by its name, the others do not)
    sources = (by_flag, places.get(option)) if name == "workers" else (places.get(option), by_flag)
    if source := sources[0] or sources[1]:
        return Choice(option, value, source)
    return Choice(option, value, DEFAULT if value == default else DECORATOR)


def _shown(value: object) -> str:
    if value is None or value in ("", ()):
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


COLUMNS: tuple[Column[Choice], ...] = (
    Column("OPTION", lambda choice: choice.option),
    Column("VALUE", lambda choice: _shown(choice.value)),
    Column("FROM", lambda choice: choice.source),
)
