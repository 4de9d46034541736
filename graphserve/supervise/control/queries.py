"""What the query of a request says: which workers it is about, and values by name.

Runs in the supervisor.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qsl

from graphserve.errors import closest
from graphserve.supervise.control.http import HttpError

MOST_DIGITS = 10  # that a count has fewer than
SHOWN = 40  # characters of what is wrong

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
    pairs = _pairs(query, how)
    named = [_worker(value, nodes) for name, value in pairs if name == "node"]
    given = {name: value for name, value in pairs if name != "node"}
    _refuse_unknown(given, names, how)
    if len(named) + len(given) < len(pairs):
        raise HttpError(422, f"only node may be given more than once; {how}")
    return frozenset(named), given


def read_values(query: str, names: Sequence[str]) -> dict[str, str]:
    """Return the values of a query that names no workers.

    Args:
        query: what stands behind the `?`.
        names: of the values that it may have.

    Raises:
        HttpError: it is not understood.
    """
    how = f"a query may have {', '.join(names)}"
    pairs = _pairs(query, how)
    given = dict(pairs)
    _refuse_unknown(given, names, how)
    if len(given) < len(pairs):
        raise HttpError(422, f"each may be given once; {how}")
    return given


def _pairs(query: str, how: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError:
        raise HttpError(422, f"the query is no list of name=value; {how}") from None


def _refuse_unknown(given: Mapping[str, str], names: Sequence[str], how: str) -> None:
    if unknown := sorted(given.keys() - set(names)):  # one may be empty
        raise HttpError(422, f"unknown: {', '.join(unknown)[:100]}; {how}")


def count(name: str, text: str, what: str) -> int:
    """Return a number that a query gives.

    Args:
        name: of the value.
        text: of it.
        what: is counted, for who gives no number.

    Raises:
        HttpError: it is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < MOST_DIGITS):
        raise HttpError(422, f"{name} is a number of {what} from 0, not {text[:SHOWN]!r}")
    return int(text)


def moment(name: str, text: str) -> float:
    """Return a time that a query gives, in seconds since the epoch.

    Raises:
        HttpError: it is none.
    """
    with contextlib.suppress(ValueError):
        if math.isfinite(seconds := float(text)):
            return seconds
    raise HttpError(422, f"{name} is a time in seconds since the epoch, not {text[:SHOWN]!r}")


def switch(name: str, text: str) -> bool:
    """Return whether a query asks for something.

    Raises:
        HttpError: it says neither.
    """
    if text not in ("0", "1"):
        raise HttpError(422, f"{name} is 0 or 1, not {text[:SHOWN]!r}")
    return text == "1"


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
