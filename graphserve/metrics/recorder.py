"""Counts what happens in this process, in memory that its supervisor reads. Runs in workers and
fallback servers.

An observation is made on the loop's thread, costs about half a microsecond, and asks nobody. Most
end as the one before did, and take about as long: that is looked at first.
"""

from __future__ import annotations

import mmap
import os
import time
from bisect import bisect_left

from graphserve.graph.plan import NodePlan, Plan
from graphserve.metrics.layout import (
    BEAT_AT,
    CALL,
    CALLS_BEGUN,
    END_AT,
    FORMAT,
    FORMAT_AT,
    LAG_AT,
    MEANING_AT,
    METHODS,
    OTHER,
    REQUEST,
    REQUESTS_BEGUN,
    RETRIES,
    SECOND,
    SECONDS,
    SHARED_MEMORY_AT,
    SIZE_AT,
    SPARE,
    UNPLACED_AT,
    Layout,
    SeriesKind,
)

_SUM = len(SECONDS) + 1  # where the sum stands behind the first bucket
_EVER = 1 << 62  # nanoseconds; the bound of the last bucket
_METHOD_NUMBERS = {name.encode(): number for number, name in enumerate(METHODS)}


class Recorder:
    """Gives series their places in the memory.

    Args:
        layout: what keys mean.
        words: the memory, as its supervisor made it.
    """

    def __init__(self, layout: Layout, words: memoryview[int]) -> None:
        self.layout = layout
        self.words = words
        self._room = len(words) - SPARE
        self._places: dict[int, int] = {}  # of the first word of a series, by its key
        self._requests: dict[tuple[int, bytes], RequestSeries] = {}  # by route and method
        self._calls: dict[tuple[int, int], CallSeries] = {}  # by edge and API
        self._timed: list[_TimedSeries] = []  # these and those

    @classmethod
    def open(cls, plan: Plan, node: NodePlan, descriptor: int) -> Recorder | None:
        """Return what counts in a memory that the supervisor sent; None if it cannot be mapped, or
        was made by another version of graphserve: then nothing is counted here.

        Args:
            plan: what this process was started from.
            node: its node.
            descriptor: of the memory; owned from now on.
        """
        layout = Layout(plan, node)
        try:
            memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        except (OSError, ValueError):
            return None
        finally:
            os.close(descriptor)
        words = memoryview(memory).cast("q")
        expected = FORMAT, len(words), layout.meaning
        if (words[FORMAT_AT], words[SIZE_AT], words[MEANING_AT]) != expected:
            return None
        recorder = cls(layout, words)
        os.register_at_fork(after_in_child=recorder.leave)
        return recorder

    def leave(self) -> None:
        """Count in memory of its own from now on, since this process is a child that user code has
        forked: what it runs before it ends is of its parent, which counts it.
        """
        self.words = memoryview(bytearray(self.words)).cast("q")
        for series in self._timed:
            series.leave(self.words)

    def place(self, kind: SeriesKind, first: int = 0, second: int = 0, third: int = 0) -> int:
        """Return where the first word of a series stands, which is begun with this; where there is
        no room for it, that of the series of its kind for all such.
        """
        key = kind.key(first, second, third)
        found = self._places.get(key)
        if found is None:
            found = self._begin(kind, key)
            self._places[key] = found
        return found

    def other(self, kind: SeriesKind) -> int:
        """Return where the first word of the series stands for all that found no room."""
        return self.place(kind, OTHER, OTHER, OTHER)

    def _begin(self, kind: SeriesKind, key: int) -> int:
        words = self.words
        at = words[END_AT]
        end = at + 1 + kind.size
        if end > self._room and key != kind.key(OTHER, OTHER, OTHER):
            words[UNPLACED_AT] += 1
            return self.other(kind)
        words[at] = key
        words[END_AT] = end  # from here on it is read
        return at + 1

    def place_end(self, begun: int, begins: SeriesKind, ends: SeriesKind, *key: int) -> int | None:
        """Return where that what has begun elsewhere has ended; None if there is no room for that:
        then both are counted among the others, since what has begun and not ended is in flight.

        Args:
            begun: where its begin was counted.
            begins: the kind of that series.
            ends: the kind of the series of its end.
            key: of that.
        """
        at = self.place(ends, *key)
        if at != self._places.get(ends.key(OTHER, OTHER, OTHER)):
            return at
        words = self.words
        words[begun] -= 1
        words[self.other(begins)] += 1
        return None

    def counter(self, kind: SeriesKind, *key: int) -> CounterSeries:
        """Return what counts one thing."""
        return CounterSeries(self, kind, *key)

    def histogram(self, kind: SeriesKind, *key: int) -> HistogramSeries:
        """Return what counts how large things are."""
        return HistogramSeries(self, kind, *key)

    def beat(self, shared_memory: int) -> None:
        """Note that the loop turns, which it says once a second.

        Args:
            shared_memory: bytes that this process holds for large arrays.
        """
        words = self.words
        now = time.monotonic_ns()
        before = words[BEAT_AT]
        words[LAG_AT] = max(0, now - before - SECOND) if before else 0
        words[BEAT_AT] = now
        words[SHARED_MEMORY_AT] = shared_memory

    def calls(self, edge: int, api: int) -> CallSeries:
        """Return what counts the calls by an edge to an API, each by its number in the Plan."""
        found = self._calls.get((edge, api))
        if found is None:
            found = self._calls[edge, api] = CallSeries(self, edge, api)
            self._timed.append(found)
        return found

    def requests(self, route: int, method: bytes) -> RequestSeries:
        """Return what counts the requests to a route of the port with a method.

        Args:
            route: its number (`Layout.routes`), or `OTHER` for all that have none.
            method: as it came.
        """
        found = self._requests.get((route, method))
        if found is None:
            number = _METHOD_NUMBERS.get(method, OTHER)
            # (clients choose methods: all that are not known are one)
            key = route, method if number != OTHER else b""
            found = self._requests.get(key)
            if found is None:
                found = RequestSeries(self, route, number)
                self._requests[key] = found
                self._timed.append(found)
        return found

    def route(self, path: str) -> int:
        """Return the number of the route with this path, as it was declared."""
        routes = self.layout.routes
        return routes.index(path) if path in routes else OTHER


class CounterSeries:
    """Counts one thing."""

    __slots__ = ("_at", "_recorder")

    def __init__(self, recorder: Recorder, kind: SeriesKind, *key: int) -> None:
        self._recorder = recorder
        self._at = recorder.place(kind, *key)

    def add(self, number: int = 1) -> None:
        """Count so many more."""
        self._recorder.words[self._at] += number


class HistogramSeries:
    """Counts how large things are."""

    __slots__ = ("_at", "_bounds", "_recorder")

    def __init__(self, recorder: Recorder, kind: SeriesKind, *key: int) -> None:
        self._recorder = recorder
        self._at = recorder.place(kind, *key)
        self._bounds = kind.bounds

    def observe(self, value: int) -> None:
        """Count one that is so large."""
        words = self._recorder.words
        words[self._at + bisect_left(self._bounds, value)] += 1
        words[self._at + len(self._bounds) + 1] += value


class _TimedSeries:
    """Counts how one thing ends, and how long that takes. There is one object for each thing, so
    that nobody else writes where it counts.

    Args:
        recorder: has the memory.
        begins: the kind of the series of its beginnings.
        ends: the kind of the series of its ends.
        first: the first number in their keys.
        second: the second one; of an end, the third one says how it was.
    """

    __slots__ = (
        "_above",
        "_begins",
        "_begun",
        "_bucket",
        "_ends",
        "_first",
        "_how",
        "_most",
        "_number",
        "_places",
        "_recorder",
        "_second",
        "_sum",
        "_total",
        "_words",
    )

    def __init__(
        self, recorder: Recorder, begins: SeriesKind, ends: SeriesKind, first: int, second: int
    ) -> None:
        self._recorder = recorder
        self._begins = begins
        self._ends = ends
        self._first = first
        self._second = second
        self._words = recorder.words
        self._begun = recorder.place(begins, first, second)
        self._places: dict[int, int] = {}  # by how it ended
        # The last end: how it was, the bounds of its bucket, where that and the sum stand, and what
        # is written there: a word is slow to read.
        self._how = -1
        self._above = 0
        self._most = 0
        self._bucket = 0
        self._number = 0
        self._sum = 0
        self._total = 0

    def begin(self) -> None:
        """Count one that begins; `end` follows, once."""
        self._words[self._begun] += 1

    def end(self, how: int, nanoseconds: int) -> None:
        """Count how one has ended, and how long it took.

        Args:
            how: the outcome of a call; the status of a request.
            nanoseconds: how long.
        """
        if how == self._how and self._above < nanoseconds <= self._most:
            # (nothing is called in here: a call that misfits is counted in the thread that made it)
            words = self._words
            number = self._number = self._number + 1
            words[self._bucket] = number
            total = self._total = self._total + nanoseconds
            words[self._sum] = total
        else:
            self._end_otherwise(how, nanoseconds)

    def leave(self, words: memoryview[int]) -> None:
        """Count there from now on, where everything stands as it did (`Recorder.leave`)."""
        self._words = words

    def _end_otherwise(self, how: int, nanoseconds: int) -> None:
        at = self._places.get(how)
        if at is None:
            at = self._recorder.place_end(
                self._begun, self._begins, self._ends, self._first, self._second, how
            )
            if at is not None:
                self._places[how] = at
        number = bisect_left(SECONDS, nanoseconds)
        words = self._words
        if at is None:  # others count there too
            at = self._recorder.other(self._ends)
            words[at + number] += 1
            words[at + _SUM] += nanoseconds
            return
        above = SECONDS[number - 1] if number else -1
        most = SECONDS[number] if number < len(SECONDS) else _EVER
        # (nothing is called from here on: see `end`)
        bucket = at + number
        at += _SUM
        words[bucket] += 1
        words[at] += nanoseconds
        self._how = how
        self._above = above
        self._most = most
        self._bucket = bucket
        self._number = words[bucket]
        self._sum = at
        self._total = words[at]


class CallSeries(_TimedSeries):
    """Counts the calls by one edge to one API, at their caller.

    Args:
        recorder: has the memory.
        edge: the number of the edge.
        api: the number of the API.
    """

    __slots__ = ("_retries",)

    def __init__(self, recorder: Recorder, edge: int, api: int) -> None:
        super().__init__(recorder, CALLS_BEGUN, CALL, edge, api)
        self._retries = 0  # where they are counted, once there was one

    def retry(self) -> None:
        """Count that a call is sent again."""
        if not self._retries:
            self._retries = self._recorder.place(RETRIES, self._first, self._second)
        self._words[self._retries] += 1


class RequestSeries(_TimedSeries):
    """Counts the requests to one route with one method, at the port.

    Args:
        recorder: has the memory.
        route: the number of the route.
        method: the number of the method.
    """

    __slots__ = ()

    def __init__(self, recorder: Recorder, route: int, method: int) -> None:
        super().__init__(recorder, REQUESTS_BEGUN, REQUEST, route, method)
