"""Counts what happens in this process, in memory that its supervisor reads. Runs in workers and
fallback servers.

An observation is made on the loop's thread, costs about half a microsecond, and asks nobody.
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
        return cls(layout, words)

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
        return CallSeries(self, edge, api)

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
        return found

    def route(self, path: str) -> int:
        """Return the number of the route with this path, as it was declared."""
        routes = self.layout.routes
        return routes.index(path) if path in routes else OTHER


class CounterSeries:
    """Counts one thing."""

    __slots__ = ("_at", "_words")

    def __init__(self, recorder: Recorder, kind: SeriesKind, *key: int) -> None:
        self._words = recorder.words
        self._at = recorder.place(kind, *key)

    def add(self, number: int = 1) -> None:
        """Count so many more."""
        self._words[self._at] += number


class HistogramSeries:
    """Counts how large things are."""

    __slots__ = ("_at", "_bounds", "_words")

    def __init__(self, recorder: Recorder, kind: SeriesKind, *key: int) -> None:
        self._words = recorder.words
        self._at = recorder.place(kind, *key)
        self._bounds = kind.bounds

    def observe(self, value: int) -> None:
        """Count one that is so large."""
        words = self._words
        words[self._at + bisect_left(self._bounds, value)] += 1
        words[self._at + len(self._bounds) + 1] += value


class CallSeries:
    """Counts the calls by one edge to one API, at their caller.

    Args:
        recorder: has the memory.
        edge: the number of the edge.
        api: the number of the API.
    """

    __slots__ = ("_api", "_begun", "_edge", "_places", "_recorder", "_retries", "_words")

    def __init__(self, recorder: Recorder, edge: int, api: int) -> None:
        self._recorder = recorder
        self._edge = edge
        self._api = api
        self._words = recorder.words
        self._begun = recorder.place(CALLS_BEGUN, edge, api)
        self._retries = 0  # where they are counted, once there was one
        self._places: dict[int, int] = {}  # by outcome

    def begin(self) -> None:
        """Count a call that is sent; `end` follows, once."""
        self._words[self._begun] += 1

    def retry(self) -> None:
        """Count that a call is sent again."""
        if not self._retries:
            self._retries = self._recorder.place(RETRIES, self._edge, self._api)
        self._words[self._retries] += 1

    def end(self, outcome: int, nanoseconds: int) -> None:
        """Count how a call has ended, and how long it took."""
        at = self._places.get(outcome)
        if at is None:
            at = self._place(outcome)
        words = self._words
        words[at + bisect_left(SECONDS, nanoseconds)] += 1
        words[at + _SUM] += nanoseconds

    def _place(self, outcome: int) -> int:
        recorder = self._recorder
        key = self._edge, self._api, outcome
        at = recorder.place_end(self._begun, CALLS_BEGUN, CALL, *key)
        if at is None:
            return recorder.other(CALL)
        self._places[outcome] = at
        return at


class RequestSeries:
    """Counts the requests to one route with one method, at the port.

    Args:
        recorder: has the memory.
        route: the number of the route.
        method: the number of the method.
    """

    __slots__ = ("_begun", "_method", "_places", "_recorder", "_route", "_words")

    def __init__(self, recorder: Recorder, route: int, method: int) -> None:
        self._recorder = recorder
        self._route = route
        self._method = method
        self._words = recorder.words
        self._begun = recorder.place(REQUESTS_BEGUN, route, method)
        self._places: dict[int, int] = {}  # by status

    def begin(self) -> None:
        """Count a request that is read; `end` follows, once."""
        self._words[self._begun] += 1

    def end(self, status: int, seconds: float) -> None:
        """Count how a request has ended, and how long it took."""
        at = self._places.get(status)
        if at is None:
            at = self._place(status)
        words = self._words
        nanoseconds = int(seconds * 1e9)
        words[at + bisect_left(SECONDS, nanoseconds)] += 1
        words[at + _SUM] += nanoseconds

    def _place(self, status: int) -> int:
        recorder = self._recorder
        key = self._route, self._method, status
        at = recorder.place_end(self._begun, REQUESTS_BEGUN, REQUEST, *key)
        if at is None:
            return recorder.other(REQUEST)
        self._places[status] = at
        return at
