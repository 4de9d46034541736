"""The picture that `top` shows: lines of text that fit a terminal, made of a graph's figures.

Pure. What does not fit is left out: columns from the least important one on, then rows, and a line
says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from graphserve.cli.display import lines, table
from graphserve.cli.figures import (
    EdgeFigures,
    GraphFigures,
    NodeFigures,
    SlotFigures,
    Traffic,
)
from graphserve.logs.text import printable

RowT = TypeVar("RowT")
RED, YELLOW, DIM, BOLD, REVERSED = "31", "33", "2", "1", "7"  # SGR codes
NONE = "-"  # what is not known, or was not
FULL = 0.8  # of a queue: the alert rules of docs/how-to/metrics.md say so too
LATE = 1.0  # seconds of loop lag that are marked
NARROWEST = 12  # columns of a name, before figures are left out


@dataclass(frozen=True, slots=True)
class View:
    """What is shown, and how.

    Args:
        width: columns.
        height: lines; None: as many as there are.
        sort: an index of `SORTS`.
        selected: the name of a node, which is marked.
        opened: the name of the node that is shown alone; None: all.
        keys: whether the last line says what keys do.
        notice: what else is to be said, such as that the graph does not answer.
        paint: colours text.
        unicode: whether the terminal shows more than ASCII.
    """

    width: int = 80
    height: int | None = None
    sort: int = 0
    selected: str | None = None
    opened: str | None = None
    keys: bool = False
    notice: str = ""
    paint: lines.Paint = lines.plain
    unicode: bool = True

    @property
    def arrow(self) -> str:
        """Return the arrow from a caller to what it calls."""
        return "→" if self.unicode else "->"


@dataclass(frozen=True, slots=True)
class _Figure(Generic[RowT]):
    """One column.

    Args:
        name: stands above it.
        cell: its text of a row.
        rank: the column with the highest one is left out first; 0 stays.
        colour: an SGR code for a row, or nothing.
    """

    name: str
    cell: Callable[[RowT], str]
    rank: int
    colour: Callable[[RowT], str] = lambda row: ""


@dataclass(frozen=True, slots=True)
class _Sort:
    """An order of nodes and edges: by a figure, the largest first; None: as the graph has them."""

    name: str
    node: Callable[[NodeFigures], float] | None
    edge: Callable[[Traffic], float] | None


SORTS = (
    _Sort("graph", None, None),
    _Sort("calls/s", lambda node: node.traffic.rate or 0.0, lambda edge: edge.rate or 0.0),
    _Sort("p50", lambda node: node.traffic.p50 or 0.0, lambda edge: edge.p50 or 0.0),
    _Sort("p99", lambda node: node.traffic.p99 or 0.0, lambda edge: edge.p99 or 0.0),
    _Sort(
        "errors",
        lambda node: node.traffic.error_share or 0.0,
        lambda edge: edge.error_share or 0.0,
    ),
    _Sort("in flight", lambda node: node.in_flight, None),
    _Sort("queue", lambda node: node.queue, None),
    _Sort("CPU", lambda node: node.cpu or 0.0, None),
    _Sort("memory", lambda node: node.memory, None),
)


def picture(figures: GraphFigures, view: View) -> list[str]:
    """Return the lines of the picture, none wider than the terminal, nor more than it has."""
    keys = [view.paint(_cut(_keys(view), view), DIM)] if view.keys else []
    head = _head(figures, view)
    room = None if view.height is None else max(0, view.height - len(head) - len(keys))
    nodes = ordered(figures, view.sort)
    edges = list(figures.edges)
    by = SORTS[view.sort].edge
    if by is not None:
        edges.sort(key=lambda edge: by(edge.traffic), reverse=True)
    slots: list[SlotFigures] = []
    if view.opened is not None:
        nodes = [node for node in nodes if node.name == view.opened]
        edges = [edge for edge in edges if view.opened in (edge.caller, edge.service)]
        slots = [slot for node in nodes for slot in node.of_slots]
    parts = [_part("NODE", nodes, _NODES, lambda node: node.name, view)]
    if slots:
        parts.append(_part("SLOT", slots, _SLOTS, lambda slot: slot.slot, view))
    if edges:
        parts.append(_part("EDGE", edges, _EDGES, lambda edge: _edge(edge, view), view))
    names = [node.name for node in nodes]
    chosen = names.index(view.selected) if view.selected in names else 0
    body = _fitted(parts, room, chosen, view)
    whole = [*head, *body]
    if view.height is not None:
        whole = whole[: max(0, view.height - len(keys))]
        # the keys stand at the bottom
        whole += [""] * (view.height - len(keys) - len(whole)) if keys else []
    return [*whole, *keys][: view.height]


def ordered(figures: GraphFigures, sort: int) -> list[NodeFigures]:
    """Return the nodes in an order of `SORTS`."""
    by = SORTS[sort].node
    if by is None:
        return list(figures.nodes)
    return sorted(figures.nodes, key=by, reverse=True)


def _head(figures: GraphFigures, view: View) -> list[str]:
    status = figures.status
    state = status["state"]
    under_way = f", a {status['operation']} is under way" if status["operation"] else ""
    supervisor = figures.supervisor
    first = (
        f"{state}{under_way}  {status['url']}  up {table.duration(status['uptime'])}"
        f"  supervisor {_percent(supervisor.cpu)} CPU, {table.size(supervisor.memory)}"
    )
    port = figures.port
    second = (
        f"port  {_rate(port.rate)} requests/s  p50 {_seconds(port.p50)}  p99 {_seconds(port.p99)}"
        f"  errors {_share(port)}  in flight {figures.in_flight}"
    )
    if not figures.counted:
        second = "port  nothing is counted here: the graph was started with --no-metrics"
    elif figures.seconds is None:
        second = f"port  measuring ...  in flight {figures.in_flight}"
    code = "" if state == "ready" else RED
    third = [_painted(_cut(view.notice, view), RED, view)] if view.notice else []
    return [
        _painted(_cut(first, view), code, view),
        *third,
        _painted(_cut(second, view), RED if port.errors else BOLD, view),
    ]


def _keys(view: View) -> str:
    ways = "Esc back" if view.opened is not None else "arrows, Enter open"
    return f"q quit  s sort: {SORTS[view.sort].name}  {ways}"


@dataclass(frozen=True, slots=True)
class _Part:
    """A table: a line of names, a line for each row."""

    head: str
    rows: list[str]


def _part(
    title: str,
    rows: Sequence[RowT],
    figures: Sequence[_Figure[RowT]],
    name: Callable[[RowT], str],
    view: View,
) -> _Part:
    """Return a table as wide as the terminal at most."""
    names = [printable(name(row)) for row in rows]
    cells = [[figure.cell(row) for figure in figures] for row in rows]
    widths = [
        max(len(figure.name), *(len(line[index]) for line in cells), 0)
        for index, figure in enumerate(figures)
    ]
    kept, gap, first = _layout(
        [figure.rank for figure in figures], widths, max(map(len, [title, *names])), view.width
    )
    texts = [figures[index].name.rjust(widths[index]) for index in kept]
    head = _cut((" " * gap).join([title.ljust(first), *texts]), view)
    shown = []
    for row, its_name, its_cells in zip(rows, names, cells, strict=True):
        marked = title == "NODE" and view.opened is None and its_name == view.selected
        label = _cut(its_name, replace(view, width=first)).ljust(first)
        texts = [its_cells[index].rjust(widths[index]) for index in kept]
        line = (" " * gap).join([label, *texts])
        if len(line) > view.width:
            shown.append(_cut(line, view))
        elif marked:
            shown.append(_painted(line, REVERSED, view))
        else:
            texts = [
                _painted(text, figures[index].colour(row), view)
                for index, text in zip(kept, texts, strict=True)
            ]
            shown.append((" " * gap).join([label, *texts]))
    return _Part(_painted(head, DIM, view), shown)


def _layout(
    ranks: Sequence[int], widths: Sequence[int], name: int, width: int
) -> tuple[list[int], int, int]:
    """Return which columns are shown, the blanks between them, and the width of the name."""
    kept = list(range(len(ranks)))
    while True:
        for gap in (2, 1):
            room = width - sum(widths[index] + gap for index in kept)
            if room >= name:
                return kept, gap, name
        last = max(kept, key=lambda index: ranks[index], default=None)
        if room >= NARROWEST or last is None or not ranks[last]:
            return kept, 1, max(1, room)
        kept.remove(last)


def _fitted(parts: Sequence[_Part], room: int | None, chosen: int, view: View) -> list[str]:
    """Return the tables below each other; those of nodes and edges share the lines there are."""
    if room is None:
        return [line for part in parts for line in ("", part.head, *part.rows)]
    left = max(0, room - 2 * len(parts))  # for rows
    shown = []
    for place, part in enumerate(parts):
        behind = sum(len(other.rows) for other in parts[place + 1 :])
        # what the tables behind it can do without, and an equal part at least
        share = max(left - behind, -(-left // (len(parts) - place)))
        rows = _window(part.rows, share, chosen if place == 0 else 0, view)
        left -= len(rows)
        shown += ["", part.head, *rows]
    return shown[:room]


def _window(rows: list[str], room: int, chosen: int, view: View) -> list[str]:
    """Return as many rows as there is room for, that of the chosen one among them."""
    if len(rows) <= room:
        return rows
    if room < 2:
        return rows[chosen : chosen + room]
    first = min(max(0, chosen - room + 2), len(rows) - room + 1)
    hidden = len(rows) - room + 1
    return [*rows[first : first + room - 1], view.paint(_cut(f"and {hidden} more", view), DIM)]


def _painted(text: str, code: str, view: View) -> str:
    return view.paint(text, code) if code else text


def _cut(text: str, view: View) -> str:
    """Return a text of the terminal's width at most."""
    text = printable(text)
    if len(text) <= view.width:
        return text
    return text[: max(0, view.width - 1)] + ("…" if view.unicode else "~")


def _edge(edge: EdgeFigures, view: View) -> str:
    return f"{edge.caller} {view.arrow} {edge.service}.{edge.api}"


def _rate(rate: float | None) -> str:
    if rate is None:
        return NONE
    return f"{rate:.0f}" if rate >= 100 or not rate else f"{rate:.1f}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    number, unit = (seconds, "s") if seconds >= 0.9995 else (seconds * 1000, "ms")
    digits = 0 if number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f} {unit}"


def _share(traffic: Traffic) -> str:
    """Return the part of requests or calls that failed, in percent."""
    share = traffic.error_share
    if share is None:
        return NONE
    if not share:
        return "0 %"
    if share < 0.001:
        return "<0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def _percent(percent: float | None) -> str:
    return NONE if percent is None else f"{percent:.0f} %"


def _error_colour(traffic: Traffic) -> str:
    return RED if traffic.errors else ""


_NODES: tuple[_Figure[NodeFigures], ...] = (
    _Figure("CALLS/S", lambda node: _rate(node.traffic.rate), 1),
    _Figure("P50", lambda node: _seconds(node.traffic.p50), 7),
    _Figure("P99", lambda node: _seconds(node.traffic.p99), 2),
    _Figure(
        "ERRORS", lambda node: _share(node.traffic), 0, lambda node: _error_colour(node.traffic)
    ),
    _Figure("IN FLIGHT", lambda node: f"{node.in_flight}/{node.slots}", 4),
    _Figure(
        "QUEUE",
        lambda node: f"{node.queue}/{node.queue_limit}",
        5,
        lambda node: YELLOW if node.queue > FULL * node.queue_limit else "",
    ),
    _Figure(
        "READY",
        lambda node: f"{node.ready}/{node.workers}",
        3,
        lambda node: RED if node.ready < node.workers else "",
    ),
    _Figure("CPU", lambda node: _percent(node.cpu), 6),
    _Figure("MEMORY", lambda node: table.size(node.memory), 8),
)
_EDGES: tuple[_Figure[EdgeFigures], ...] = (
    _Figure("CALLS/S", lambda edge: _rate(edge.traffic.rate), 1),
    _Figure("P50", lambda edge: _seconds(edge.traffic.p50), 3),
    _Figure("P99", lambda edge: _seconds(edge.traffic.p99), 2),
    _Figure(
        "ERRORS", lambda edge: _share(edge.traffic), 0, lambda edge: _error_colour(edge.traffic)
    ),
)
_SLOTS: tuple[_Figure[SlotFigures], ...] = (
    _Figure("UP", lambda slot: table.duration(slot.age), 3),
    _Figure("CPU", lambda slot: _percent(slot.cpu), 0),
    _Figure("MEMORY", lambda slot: table.size(slot.memory), 1),
    _Figure("FILES", lambda slot: str(slot.descriptors), 4),
    _Figure(
        "LOOP LAG",
        lambda slot: _seconds(slot.lag),
        2,
        lambda slot: RED if slot.lag is not None and slot.lag > LATE else "",
    ),
)
