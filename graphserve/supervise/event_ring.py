"""What happened to the graph lately, kept for who asks later. Runs in the supervisor.

An event is kept as the line of JSON that it is answered with. Events have numbers without gaps, so
whoever follows knows that nothing is missing, and goes on where he was after a pause.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator
from typing import NamedTuple, Required, TypedDict

from graphserve.supervise.events import (
    SHOWN_OTHERWISE,
    EventKind,
    LogRecord,
    NodeState,
    Observer,
    happened,
)
from graphserve.system.frozen import dataclass

MOST_EVENTS = 2000
MOST_BYTES = 1024 * 1024  # of all events
LONGEST_TEXT = 8 * 1024  # characters of a message or a traceback: the end of it says most
CHUNK = 32 * 1024  # bytes that a reader gets at once, or one event more


class EventLine(TypedDict, total=False):
    """An event, as `GET /events` lists it; what is empty is not there."""

    seq: Required[int]  # counts the events of the graph, from 1
    time: Required[float]  # seconds since the epoch
    event: Required[str]
    level: Required[str]
    message: Required[str]
    node: str
    slot: int
    pid: int
    traceback: str
    fields: dict[str, object]


@dataclass(frozen=True)
class EventQuery:
    """Which events somebody asks for.

    Args:
        newest: so many, the newest; None: all that are kept.
        since: seconds since the epoch; 0.0: from the beginning.
        after: those behind the event of this number.
        follow: whether those that come from now on are wanted too.
    """

    newest: int | None = None
    since: float = 0.0
    after: int = 0
    follow: bool = False


class _Kept(NamedTuple):
    time: float
    line: bytes


class EventRing:
    """The newest events of a graph.

    Args:
        most: events that are kept.
        size: bytes that are kept of them.
    """

    def __init__(self, most: int = MOST_EVENTS, size: int = MOST_BYTES) -> None:
        self._most = most
        self._limit = size
        self._events: deque[_Kept] = deque()
        self._size = 0
        self._last = 0  # the number of the newest event
        self._news: set[asyncio.Event] = set()  # of who follows
        self._ended = False

    @property
    def size(self) -> int:
        """Return how many bytes are kept."""
        return self._size

    @property
    def _first(self) -> int:
        """Return the number of the oldest event that is kept."""
        return self._last - len(self._events) + 1

    def add(self, record: LogRecord) -> None:
        """Keep an event, and let go of the oldest ones that it takes the room of."""
        self._last += 1
        line = _line(self._last, record)
        self._events.append(_Kept(record.time, line))
        self._size += len(line)
        while len(self._events) > self._most or self._size > self._limit:
            self._size -= len(self._events.popleft().line)
        for news in self._news:
            news.set()

    def end(self) -> None:
        """Have those who follow come to the end: nothing more will happen."""
        self._ended = True
        for news in self._news:
            news.set()

    async def read(self, query: EventQuery) -> AsyncGenerator[bytes, None]:
        """Yield the events that a query asks for, the oldest first, each once; as many at a time as
        there are, up to `CHUNK`.

        Whoever reads slowly holds nothing up. Where events are not kept any more when it would be
        their turn, `{"left_out": N}` stands for them.
        """
        place = self._begin(query)  # the number of the next event
        news = asyncio.Event()
        if query.follow:
            self._news.add(news)
        try:
            while True:
                news.clear()
                chunk = bytearray()
                if place < self._first:
                    chunk += b'{"left_out":%d}\n' % (self._first - place)
                    place = self._first
                while place <= self._last and len(chunk) < CHUNK:
                    chunk += self._events[place - self._first].line
                    place += 1
                if chunk:
                    yield bytes(chunk)
                elif not query.follow or self._ended:
                    return
                else:
                    await news.wait()
        finally:
            self._news.discard(news)

    def _begin(self, query: EventQuery) -> int:
        """Return the number of the first event that is wanted."""
        begin = query.after + 1 if query.after else self._first
        if query.newest is not None:
            begin = max(begin, self._last + 1 - query.newest)
        begin = min(begin, self._last + 1)  # one that was never there is of another graph
        while begin <= self._last and begin >= self._first:
            if self._events[begin - self._first].time >= query.since:
                break
            begin += 1
        return begin


class EventRecorder:
    """An observer that keeps events in the ring, and tells the observer that it stands before.

    Args:
        observer: who watches besides.
        ring: keeps them.
    """

    def __init__(self, observer: Observer, ring: EventRing) -> None:
        self._observer = observer
        self.ring = ring

    def node(self, state: NodeState) -> None:
        self._observer.node(state)

    def log(self, record: LogRecord) -> None:
        if record.event is not None:
            self.ring.add(record)
            if record.level == SHOWN_OTHERWISE:
                return
        self._observer.log(record)

    def serving(self, url: str) -> None:
        words = f"serving on {url}"
        self.ring.add(happened(EventKind.GRAPH_READY, "info", words, fields={"url": url}))
        self._observer.serving(url)


def _line(seq: int, record: LogRecord) -> bytes:
    """Return an event as a line of JSON."""
    assert record.event is not None
    line: EventLine = {
        "seq": seq,
        "time": round(record.time, 3),
        "event": record.event.value,
        "level": record.level,
        "message": _shorter(record.message),
    }
    if record.node is not None:
        line["node"] = record.node
    if record.slot is not None:
        line["slot"] = record.slot
    if record.pid is not None:
        line["pid"] = record.pid
    if record.traceback:
        line["traceback"] = _shorter(record.traceback)
    if fields := {name: value for name, value in record.fields.items() if name != "event"}:
        line["fields"] = fields
    return json.dumps(line, default=str).encode() + b"\n"


def _shorter(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else "… " + text[-LONGEST_TEXT:]
