"""Where the boxes and edges of a picture go:
columns by longest path, few crossings, straight edges.

Pure geometry.

Edges that cross a column run through it in a gap between its boxes (a bend), so no edge runs
through a box.
"""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

MARGIN = 24.0  # px around the drawing
BOX_GAP = 26.0  # px between two boxes of a column
BEND_GAP = 14.0  # px between an edge that passes and its neighbour
COLUMN_GAP = (72.0, 190.0)  # px between two columns, from and to: wider where edges climb
PORT_GAP = 9.0  # px between the ends of two edges at one box
SWEEPS = 24  # passes over the columns, for the order and again for the positions

Cell = str | tuple[int, int]  # a box by its key; a bend by its edge's index and its column
Link = tuple[Cell, Cell]


@dataclass(frozen=True)
class Box:
    """A box: its key, its upper left corner and its size, in px."""

    key: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Route:
    """An edge: from its caller to its callee through pairs of points; a curve leads from each pair
    to the next.

    Args:
        caller: the key of the box where it starts.
        callee: the key of the box where it ends.
        points: an even number: the start of a curve and its end, by turns.
    """

    caller: str
    callee: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Drawing:
    """Boxes and edges in their places, and the size of it all, in px."""

    boxes: tuple[Box, ...]
    routes: tuple[Route, ...]
    width: float
    height: float


def arrange(sizes: Mapping[str, tuple[float, float]], edges: Sequence[tuple[str, str]]) -> Drawing:
    """Place boxes of these sizes (width, height in px) so that every edge runs from left to right.

    Args:
        sizes: the boxes by key; the order in a column is theirs where it costs no crossing.
        edges: pairs of caller and callee, without a circle.
    """
    column_of = columns_by_longest_path(list(sizes), edges)
    columns, links = _with_bends(sizes, edges, column_of)
    columns = _ordered(columns, links)
    middle = _straightened(columns, links, sizes)
    lefts, widths = _horizontal(columns, links, sizes, middle)
    boxes = {
        key: Box(
            key, lefts[column_of[key]], middle[key] - height / 2, widths[column_of[key]], height
        )
        for key, (_, height) in sizes.items()
    }
    routes = _routes(edges, column_of, boxes, middle, lefts, widths)
    bottom = max(
        [box.y + box.height for box in boxes.values()] + [y for r in routes for _, y in r.points],
        default=0.0,
    )
    return Drawing(tuple(boxes.values()), routes, lefts[-1] + widths[-1] + MARGIN, bottom + MARGIN)


def columns_by_longest_path(
    keys: Sequence[str], edges: Sequence[tuple[str, str]]
) -> dict[str, int]:
    """Return the column of each box: 0 where nothing calls it,
    else one more than the highest of its callers.
    """
    waiting = {key: 0 for key in keys}
    below: dict[str, list[str]] = {key: [] for key in keys}
    for caller, callee in edges:
        waiting[callee] += 1
        below[caller].append(callee)
    column = {key: 0 for key in keys}
    free = [key for key in keys if not waiting[key]]
    for key in free:
        for callee in below[key]:
            column[callee] = max(column[callee], column[key] + 1)
            waiting[callee] -= 1
            if not waiting[callee]:
                free.append(callee)
    return column


def _with_bends(
    sizes: Mapping[str, tuple[float, float]],
    edges: Sequence[tuple[str, str]],
    column_of: Mapping[str, int],
) -> tuple[list[list[Cell]], list[Link]]:
    columns: list[list[Cell]] = [[] for _ in range(max(column_of.values()) + 1)]
    for key in sizes:
        columns[column_of[key]].append(key)
    links: list[Link] = []
    for index, (caller, callee) in enumerate(edges):
        previous: Cell = caller
        for column in range(column_of[caller] + 1, column_of[callee]):
            columns[column].append((index, column))
            links.append((previous, (index, column)))
            previous = (index, column)
        links.append((previous, callee))
    return columns, links


def _ordered(columns: list[list[Cell]], links: Sequence[Link]) -> list[list[Cell]]:
    """Return the order in each column
    with the fewest crossings among `SWEEPS` barycentre sweeps.
    """
    left, right = _neighbours(columns, links)
    best, fewest = columns, _crossings(columns, right)
    current = [list(column) for column in columns]
    for sweep in range(SWEEPS):
        if not fewest:
            break
        forward = sweep % 2 == 0
        for column in current[1:] if forward else current[-2::-1]:
            place = {cell: index for cells in current for index, cell in enumerate(cells)}
            near = left if forward else right
            column.sort(key=lambda cell: _mean([place[other] for other in near[cell]], place[cell]))
        if (count := _crossings(current, right)) < fewest:
            best, fewest = [list(column) for column in current], count
    return best


def _neighbours(
    columns: list[list[Cell]], links: Sequence[Link]
) -> tuple[dict[Cell, list[Cell]], dict[Cell, list[Cell]]]:
    left: dict[Cell, list[Cell]] = {cell: [] for column in columns for cell in column}
    right: dict[Cell, list[Cell]] = {cell: [] for column in columns for cell in column}
    for a, b in links:
        left[b].append(a)
        right[a].append(b)
    return left, right


def _crossings(columns: list[list[Cell]], right: Mapping[Cell, list[Cell]]) -> int:
    count = 0
    for column, following in pairwise(columns):
        place = {cell: index for index, cell in enumerate(following)}
        ends: list[int] = []
        for cell in column:
            targets = sorted(place[other] for other in right[cell])
            count += sum(len(ends) - bisect(ends, target) for target in targets)
            for target in targets:
                insort(ends, target)
    return count


def _straightened(
    columns: list[list[Cell]], links: Sequence[Link], sizes: Mapping[str, tuple[float, float]]
) -> dict[Cell, float]:
    """Return the middle of each cell, in px from above:
    near its neighbours, never over another of its column.
    """
    pulls: dict[Cell, list[tuple[Cell, float]]] = {
        cell: [] for column in columns for cell in column
    }
    for a, b in links:
        # long edges run straight
        weight = 1.0 + 3.0 * (not isinstance(a, str)) + 3.0 * (not isinstance(b, str))
        pulls[a].append((b, weight))
        pulls[b].append((a, weight))
    middle: dict[Cell, float] = {}
    for column in columns:
        middle.update(
            zip(
                column,
                spread([0.0] * len(column), [1.0] * len(column), _gaps(column, sizes)),
                strict=True,
            )
        )
    for sweep in range(SWEEPS):
        for column in columns if sweep % 2 == 0 else columns[::-1]:
            weights = [sum(weight for _, weight in pulls[cell]) or 1.0 for cell in column]
            wishes = [
                sum(middle[other] * weight for other, weight in pulls[cell]) / total
                if pulls[cell]
                else middle[cell]
                for cell, total in zip(column, weights, strict=True)
            ]
            middle.update(zip(column, spread(wishes, weights, _gaps(column, sizes)), strict=True))
    top = min(middle[cell] - _height(cell, sizes) / 2 for cell in middle)
    return {cell: y - top + MARGIN for cell, y in middle.items()}


def spread(wishes: Sequence[float], weights: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """Return the positions nearest to the wishes (least squares) in which each is its gap or more
    after the one before.

    Args:
        wishes: where each would stand alone.
        weights: how much each wish counts.
        gaps: the least distance from each but the last to the next.
    """
    offsets = [sum(gaps[:index]) for index in range(len(wishes))]
    # weighted mean, weight, how many: pool adjacent violators
    groups: list[tuple[float, float, int]] = []
    for wish, weight, offset in zip(wishes, weights, offsets, strict=True):
        mean, total, count = wish - offset, weight, 1
        while groups and groups[-1][0] > mean:
            earlier, heavy, many = groups.pop()
            mean, total, count = (
                (mean * total + earlier * heavy) / (total + heavy),
                total + heavy,
                count + many,
            )
        groups.append((mean, total, count))
    flat = [mean for mean, _, count in groups for _ in range(count)]
    return [mean + offset for mean, offset in zip(flat, offsets, strict=True)]


def _horizontal(
    columns: list[list[Cell]],
    links: Sequence[Link],
    sizes: Mapping[str, tuple[float, float]],
    middle: Mapping[Cell, float],
) -> tuple[list[float], list[float]]:
    widths = [max(sizes[cell][0] for cell in column if isinstance(cell, str)) for column in columns]
    column_of = {cell: index for index, column in enumerate(columns) for cell in column}
    climb = [0.0] * len(columns)
    for a, b in links:
        climb[column_of[a]] = max(climb[column_of[a]], abs(middle[a] - middle[b]))
    lefts = [MARGIN]
    for width, steep in zip(widths, climb, strict=True):
        lefts.append(lefts[-1] + width + min(max(COLUMN_GAP[0], 0.35 * steep), COLUMN_GAP[1]))
    return lefts[:-1], widths


def _routes(
    edges: Sequence[tuple[str, str]],
    column_of: Mapping[str, int],
    boxes: Mapping[str, Box],
    middle: Mapping[Cell, float],
    lefts: Sequence[float],
    widths: Sequence[float],
) -> tuple[Route, ...]:
    bends: list[list[Cell]] = [
        [(index, column) for column in range(column_of[a] + 1, column_of[b])]
        for index, (a, b) in enumerate(edges)
    ]
    starts = _ports(
        boxes, [(a, middle[(*cells, b)[0]]) for (a, b), cells in zip(edges, bends, strict=True)]
    )
    ends = _ports(
        boxes, [(b, middle[(a, *cells)[-1]]) for (a, b), cells in zip(edges, bends, strict=True)]
    )
    routes = []
    for (a, b), cells, start, end in zip(edges, bends, starts, ends, strict=True):
        points = [(boxes[a].x + boxes[a].width, start)]
        for column, cell in enumerate(cells, column_of[a] + 1):
            points += [
                (lefts[column], middle[cell]),
                (lefts[column] + widths[column], middle[cell]),
            ]
        routes.append(Route(a, b, (*points, (boxes[b].x, end))))
    return tuple(routes)


def _ports(boxes: Mapping[str, Box], ends: Sequence[tuple[str, float]]) -> list[float]:
    """Return where on its box's side each edge ends.

    The order is that of where they lead, so that edges do not cross there.
    """
    found = [0.0] * len(ends)
    for key, box in boxes.items():
        mine = sorted(
            (index for index, end in enumerate(ends) if end[0] == key),
            key=lambda index: ends[index][1],
        )
        gap = min(PORT_GAP, (box.height - 16) / max(1, len(mine) - 1))
        for rank, index in enumerate(mine):
            found[index] = box.y + box.height / 2 + (rank - (len(mine) - 1) / 2) * gap
    return found


def _gaps(column: Sequence[Cell], sizes: Mapping[str, tuple[float, float]]) -> list[float]:
    return [
        (_height(a, sizes) + _height(b, sizes)) / 2
        + (BOX_GAP if isinstance(a, str) and isinstance(b, str) else BEND_GAP)
        for a, b in pairwise(column)
    ]


def _height(cell: Cell, sizes: Mapping[str, tuple[float, float]]) -> float:
    return sizes[cell][1] if isinstance(cell, str) else 0.0


def _mean(values: Sequence[int], default: float) -> float:
    return sum(values) / len(values) if values else default
