"""From what a worker has counted, by numbers, to series with labels. Runs in the supervisor.

Series that have the same labels are one, whichever worker, slot or revision they are of. What has
begun and not ended is in flight while the worker lives. When it is dead nobody will end it: then it
has ended, as cancelled (a call: its caller is gone), or with `LOST` (a request: no answer came).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from graphserve.graph.plan import ApiPlan
from graphserve.metrics.families import (
    ABANDONED_TOTAL,
    BATCH_SIZES,
    BATCH_WAIT_SECONDS,
    CALL_DURATION,
    QUEUE_SECONDS,
    REQUEST_DURATION,
    RETRIES_TOTAL,
    SHED_TOTAL,
    STREAM_ITEMS_TOTAL,
    Family,
)
from graphserve.metrics.layout import (
    ABANDONED,
    BATCH_SIZE,
    BATCH_WAIT,
    CALL,
    CALLS_BEGUN,
    CANCELLED,
    LOST,
    METHODS,
    OTHER,
    OUTCOMES,
    QUEUE,
    REQUEST,
    REQUESTS_BEGUN,
    RETRIES,
    SHED,
    SHED_REASONS,
    STREAM_ITEMS,
    Layout,
    SeriesKind,
    series_in,
)

ELSE = "*"  # a label: all that has no label of its own

# of each API of the worker's own node
_OF_APIS = {
    STREAM_ITEMS.number: STREAM_ITEMS_TOTAL,
    BATCH_SIZE.number: BATCH_SIZES,
    BATCH_WAIT.number: BATCH_WAIT_SECONDS,
    QUEUE.number: QUEUE_SECONDS,
}

Series = tuple[Family, tuple[str, ...]]
Sums = dict[Series, list[int]]
Numbers = tuple[int, int, int]


class Counted:
    """What one worker has counted.

    Args:
        layout: what its numbers mean.
        words: its memory, as it was read.
    """

    def __init__(self, layout: Layout, words: list[int]) -> None:
        self._layout = layout
        self.sums: Sums = {}
        # begun and not ended, by what it is: a family, and its labels but for the last one
        self.in_flight: Counter[Series] = Counter()
        for kind, numbers, values in series_in(words):
            self._add(kind, numbers, values)

    def ended(self) -> Sums:
        """Return what it has counted, now that it is dead: nothing of it is in flight any more."""
        sums = {series: list(values) for series, values in self.sums.items()}
        for (family, labels), number in self.in_flight.items():
            if number > 0:
                last = str(LOST) if family is REQUEST_DURATION else OUTCOMES[CANCELLED]
                assert family.kind is not None
                values = [0] * family.kind.size
                values[0] = number  # nobody knows how long: no time is added to the sum
                add(sums, {(family, (*labels, last)): values})
        return sums

    def _add(self, kind: SeriesKind, numbers: Numbers, values: list[int]) -> None:
        if kind is REQUEST:
            *labels, status = self._request(numbers)
            self._add_ended(REQUEST_DURATION, (*labels, status), values)
        elif kind is REQUESTS_BEGUN:
            self.in_flight[REQUEST_DURATION, self._request(numbers)[:-1]] += values[0]
        elif kind is CALL:
            self._add_ended(CALL_DURATION, self._call(numbers), values)
        elif kind is CALLS_BEGUN:
            self.in_flight[CALL_DURATION, self._call(numbers)[:-1]] += values[0]
        elif kind is RETRIES:
            add(self.sums, {(RETRIES_TOTAL, self._call(numbers)[:-1]): values})
        elif kind is SHED:
            add(self.sums, {(SHED_TOTAL, self._own(numbers[0], SHED_REASONS)): values})
        elif kind is ABANDONED:
            add(self.sums, {(ABANDONED_TOTAL, (self._layout.node.name,)): values})
        elif kind.number in _OF_APIS:
            apis = [api.name for api in self._layout.node.apis]
            add(self.sums, {(_OF_APIS[kind.number], self._own(numbers[0], apis)): values})

    def _add_ended(self, family: Family, labels: tuple[str, ...], values: list[int]) -> None:
        add(self.sums, {(family, labels): values})
        self.in_flight[family, labels[:-1]] -= sum(values[:-1])

    def _own(self, number: int, names: Sequence[str]) -> tuple[str, ...]:
        return self._layout.node.name, names[number] if number < len(names) else ELSE

    def _request(self, numbers: Numbers) -> tuple[str, ...]:
        route, method, status = numbers
        layout = self._layout
        return (
            layout.node.name,
            layout.routes[route] if route < len(layout.routes) else ELSE,
            METHODS[method] if method < len(METHODS) else "_OTHER",
            str(status) if status != OTHER else ELSE,
        )

    def _call(self, numbers: Numbers) -> tuple[str, ...]:
        number, api, outcome = numbers
        layout = self._layout
        service = ELSE
        apis: tuple[ApiPlan, ...] = ()
        if number < len(layout.edges):
            edge, apis = layout.edges[number]
            service = edge.node
        return (
            layout.node.name,
            service,
            apis[api].name if api < len(apis) else ELSE,
            OUTCOMES[outcome] if outcome < len(OUTCOMES) else ELSE,
        )


def add(sums: Sums, more: Sums) -> None:
    """Add more to the sums."""
    for series, values in more.items():
        before = sums.get(series)
        if before is None:
            sums[series] = list(values)
        else:
            sums[series] = [one + other for one, other in zip(before, values, strict=True)]


class Totals:
    """What workers have counted that are gone: so no counter falls when one of them dies."""

    def __init__(self) -> None:
        self._sums: Sums = {}

    def fold(self, counted: Counted) -> None:
        """Add what a worker has counted that is dead."""
        add(self._sums, counted.ended())

    def plus(self, living: Iterable[Counted]) -> Sums:
        """Return these and what workers have counted that live."""
        sums = {series: list(values) for series, values in self._sums.items()}
        for counted in living:
            add(sums, counted.sums)
        return sums
