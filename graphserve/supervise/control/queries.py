"""What the query of a request says: which workers it is about, and values by name.

Runs in the supervisor.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from urllib.parse import parse_qsl

from graphserve.errors import closest
from graphserve.supervise.control.http import HttpError

Selection = frozenset[tuple[str, int | None]]  # nodes, each with a slot or with None for all


def read_query(
    query: str, nodes: Collection[str], names: Sequence[str] = ()
) -> tuple[Selection, dict[str, str]]:
    """Return the workers that a query names, and its values.

    Args:
        query: what stands behind the `?`.
        nodes: those that there are.
        names: of the values that it may have besides `node`.

    Raises:
        HttpError: it is not understood, or names a node that there is not.
    """
    how = f"a query may have {', '.join(('node', *names))}"
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=bool(query), errors="strict"
        )
    except ValueError:
        raise HttpError(422, f"the query is no list of name=value; {how}") from None
    named = [_worker(value, nodes) for name, value in pairs if name == "node"]
    given = {name: value for name, value in pairs if name != "node"}
    if unknown := sorted(given.keys() - set(names)):  # one may be empty
        raise HttpError(422, f"unknown: {', '.join(unknown)[:100]}; {how}")
    if len(named) + len(given) < len(pairs):
        raise HttpError(422, f"only node may be given more than once; {how}")
    return frozenset(named), given


def _worker(name: str, nodes: Collection[str]) -> tuple[str, int | None]:
    """Return the node and the slot that `Model` or `Model.1` means."""
    if name in nodes:
        return name, None
    node, dot, slot = name.rpartition(".")
    if dot and slot.isdecimal() and slot.isascii() and len(slot) < 6 and node in nodes:
        return node, int(slot)
    guess = closest(node if dot else name, list(nodes))
    hint = f"did you mean {guess!r}?" if guess else f"there are {', '.join(sorted(nodes))}"
    raise HttpError(404, f"there is no node {name!r}; {hint}")
