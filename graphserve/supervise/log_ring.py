"""The newest records of each node, kept in the supervisor for who asks later. Runs in the
supervisor.

A record is kept as the line of JSON that it is answered with. The lines of a node are in blocks, so
that memory is the bytes of the lines and little more. When all are too many, the node that has most
gives up its oldest block: a node that says much does not push out what another one has said.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import re
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import replace
from json.encoder import encode_basestring as quoted
from typing import NamedTuple

from graphserve.logs.text import printable_json
from graphserve.supervise.events import LEVELS, LogRecord, NodeState, Observer, record_of
from graphserve.system.frozen import dataclass
from graphserve.system.own_json import dumps

SUPERVISOR = "graphserve"  # what the supervisor's own records are asked for as
LARGEST_BLOCK = 16 * 1024  # bytes; a reader has a copy of one of each node
BLOCKS = 256  # that a ring has at least, if it is small
LONGEST = 1 / 16  # of the ring: a longer record is cut
SHORTEST_CUT = 1024  # bytes of a record that are kept in any case
BLOCK_OVERHEAD = 200  # bytes of a block beside its lines
NODE_OVERHEAD = 1200  # bytes of a node beside its blocks
SLICE = 200  # lines that are looked at before others have their turn
CHUNK = 32 * 1024  # bytes that a reader gets at once, or one line more
GATHERING = 0.05  # seconds in which lines are gathered for who follows: one write has them all
_BEGIN = re.compile(
    rb'\{"seq":(?P<seq>\d+),"time":(?P<time>[\d.]+),"level":"(?P<level>\w+)"'
    rb'(?:,"node":(?P<node>"(?:[^"\\]|\\.)*"))?(?:,"slot":(?P<slot>\d+))?'
)
_CUT = " … the rest is left out"


@dataclass(frozen=True)
class LogQuery:
    """Which records somebody asks for.

    Args:
        nodes: of these nodes, each with a slot or with None for all of its workers; empty: all.
        newest: so many of them, the newest; None: all that are kept.
        since: seconds since the epoch; 0.0: from the beginning.
        level: of this level or above.
        request_id: of this request; empty: of any, and of none.
        text: with this in their message or traceback, in whatever case.
        follow: whether those that come from now on are wanted too.
    """

    nodes: frozenset[tuple[str, int | None]] = frozenset()
    newest: int | None = None
    since: float = 0.0
    level: str = "debug"
    request_id: str = ""
    text: str = ""
    follow: bool = False


class _Block:
    """Some lines of one node, one after the other.

    Args:
        first: how many lines the node had before.
    """

    __slots__ = ("count", "data", "first", "last", "latest")

    def __init__(self, first: int) -> None:
        self.first = first
        self.count = 0
        self.data: bytes | bytearray = bytearray()
        self.last = 0  # number of its last line
        self.latest = 0.0  # the latest time of a line

    @property
    def end(self) -> int:
        return self.first + self.count


class _NodeLog:
    """The lines of one node.

    Args:
        name: of the node.
    """

    __slots__ = ("blocks", "count", "name", "size")

    def __init__(self, name: str) -> None:
        self.name = name
        self.blocks: deque[_Block] = deque()
        self.size = NODE_OVERHEAD
        self.count = 0  # lines that there ever were

    @property
    def first(self) -> int:
        """Return how many lines are not kept any more."""
        return self.blocks[0].first if self.blocks else self.count

    def add(self, line: bytes, seq: int, when: float, block_size: int) -> int:
        """Keep a line, and return how many bytes that takes."""
        before = self.size
        last = self.blocks[-1] if self.blocks else None
        if last is None or len(last.data) + len(line) > block_size:
            if last is not None:
                last.data = bytes(last.data)  # a bytearray has room for more
            last = _Block(self.count)
            self.blocks.append(last)
            self.size += BLOCK_OVERHEAD
        assert isinstance(last.data, bytearray)
        last.data += line
        last.count += 1
        last.last = seq
        last.latest = max(last.latest, when)
        self.count += 1
        self.size += len(line)
        return self.size - before

    def drop(self) -> int:
        """Let go of the oldest block, and return how many bytes are free."""
        oldest = self.blocks.popleft()
        freed = len(oldest.data) + BLOCK_OVERHEAD
        self.size -= freed
        return freed

    def at(self, place: int) -> _Block | None:
        """Return the block that has this line, or the oldest one if it is not kept any more; None
        if it did not come yet.
        """
        if place >= self.count or not self.blocks:
            return None
        return self.blocks[max(0, bisect_right(self.blocks, place, key=_first) - 1)]

    def before(self, place: int) -> _Block | None:
        """Return the block that has the line before this one, if that is kept."""
        found = bisect_left(self.blocks, place, key=_first) - 1
        if found < 0 or place > self.blocks[found].end:
            return None
        return self.blocks[found]


class _Line(NamedTuple):
    """A line on its way to a reader."""

    seq: int
    log: _NodeLog
    place: int  # among the lines of its node
    text: bytes
    missed: int  # lines of its node before it that were not kept


class LogRing:
    """The newest records of a graph.

    Args:
        limit: bytes that are kept of all nodes together; 0: nothing is.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._block_size = min(LARGEST_BLOCK, limit // BLOCKS)
        self._longest = max(SHORTEST_CUT, int(limit * LONGEST))
        self._logs: dict[str, _NodeLog] = {}
        self._size = 0
        self._seq = 0
        self._news: set[asyncio.Event] = set()  # of who follows
        self._ended = False

    @property
    def size(self) -> int:
        """Return how many bytes are kept."""
        return self._size

    @property
    def nodes(self) -> list[str]:
        """Return the nodes that have said something."""
        return list(self._logs)

    def add(self, record: LogRecord) -> None:
        """Keep a record, and let go of the oldest ones that it takes the room of."""
        if not self.limit:
            return
        self._seq += 1
        line = _line(self._seq, record)
        if len(line) > self._longest:
            line = _line(self._seq, _cut(record, self._longest))
        name = record.node or SUPERVISOR
        log = self._logs.get(name)
        if log is None:
            log = self._logs[name] = _NodeLog(name)
            self._size += log.size
        self._size += log.add(line, self._seq, record.time, self._block_size)
        while self._size > self.limit:
            self._drop()
        for news in self._news:
            news.set()

    def end(self) -> None:
        """Have those who follow come to the end: nothing more will be said."""
        self._ended = True
        for news in self._news:
            news.set()

    async def read(self, query: LogQuery) -> AsyncGenerator[bytes, None]:
        """Yield the lines that a query asks for, the oldest first, each once; as many at a time as
        there are, up to `CHUNK`.

        Whoever reads slowly holds nothing up. Where lines are not kept any more when it would be
        their turn, `{"left_out": N}` stands for them.
        """
        wanted = _matcher(query)
        begin = await self._begin(query, wanted)
        places = {log: log.first for log in self._asked(query)}
        chunk = bytearray()
        news = asyncio.Event()
        if query.follow:
            self._news.add(news)
        try:
            while True:
                news.clear()
                for count, line in enumerate(self._lines(places, query, begin), 1):
                    places[line.log] = line.place + 1
                    if line.missed:
                        chunk += b'{"left_out":%d}\n' % line.missed
                    if line.seq >= begin and wanted(line.text):
                        chunk += line.text + b"\n"
                    if len(chunk) >= CHUNK:
                        yield bytes(chunk)
                        chunk.clear()
                    elif not count % SLICE:
                        await asyncio.sleep(0)
                if chunk:
                    yield bytes(chunk)
                    chunk.clear()
                if not query.follow or (self._ended and not news.is_set()):
                    return
                await news.wait()
                if not self._ended:
                    await asyncio.sleep(GATHERING)
        finally:
            self._news.discard(news)

    def _drop(self) -> None:
        largest = max(self._logs.values(), key=lambda log: log.size)
        self._size -= largest.drop()
        if not largest.blocks:
            self._size -= largest.size
            del self._logs[largest.name]

    async def _begin(self, query: LogQuery, wanted: Callable[[bytes], bool]) -> int:
        """Return the number of the first line that is wanted, of all nodes."""
        if query.newest is None:
            return 0
        begin = self._seq + 1
        left = query.newest
        found = (_backwards(log, query.since) for log in self._asked(query))
        for count, line in enumerate(heapq.merge(*found, key=_number, reverse=True), 1):
            if not left:
                break
            if wanted(line.text):
                begin = line.seq
                left -= 1
            if not count % SLICE:
                await asyncio.sleep(0)
        return begin

    def _lines(self, places: dict[_NodeLog, int], query: LogQuery, begin: int) -> Iterator[_Line]:
        """Return the lines that are there now, from these places on, of all nodes in their order.

        (What comes meanwhile would come before what another node has said earlier.)
        """
        numbers = range(begin, self._seq + 1)
        found = (_forwards(log, places, query.since, numbers) for log in self._asked(query))
        return heapq.merge(*found, key=_number)

    def _asked(self, query: LogQuery) -> list[_NodeLog]:
        names = {name for name, _ in query.nodes}
        return [log for log in self._logs.values() if not names or log.name in names]


class RecordingObserver:
    """An observer that keeps everything in the ring, and tells the observer that it stands before.

    Args:
        observer: who watches besides.
        ring: keeps it.
    """

    def __init__(self, observer: Observer, ring: LogRing) -> None:
        self._observer = observer
        self.ring = ring

    def node(self, state: NodeState) -> None:
        self.ring.add(record_of(state))
        self._observer.node(state)

    def log(self, record: LogRecord) -> None:
        self.ring.add(record)
        self._observer.log(record)

    def serving(self, url: str) -> None:
        self.ring.add(LogRecord(time.time(), "info", f"serving on {url}", fields={"url": url}))
        self._observer.serving(url)


def _first(block: _Block) -> int:
    return block.first


def _number(line: _Line) -> int:
    return line.seq


def _forwards(
    log: _NodeLog, places: dict[_NodeLog, int], since: float, numbers: range
) -> Iterator[_Line]:
    """Yield the lines of a node from its place on; blocks may be dropped and added meanwhile.

    Args:
        log: of the node.
        places: where its reader is; what is skipped is behind him.
        since: blocks whose lines are all older are skipped.
        numbers: of the lines that are wanted; blocks whose lines are all below are skipped too.
    """
    place = places.get(log, 0)
    while (block := log.at(place)) is not None:
        missed = max(0, block.first - place)
        place = max(place, block.first)
        if block.latest < since or block.last < numbers.start:
            place = places[log] = block.end
            continue
        for line in bytes(block.data).split(b"\n")[place - block.first : -1]:
            seq = _seq(line)
            if seq >= numbers.stop:
                return
            yield _Line(seq, log, place, line, missed)
            place += 1
            missed = 0


def _backwards(log: _NodeLog, since: float) -> Iterator[_Line]:
    """Yield the lines of a node, the newest first, as far as there may be any that is so new."""
    place = log.count
    while (block := log.before(place)) is not None and block.latest >= since:
        for line in reversed(bytes(block.data).split(b"\n")[: place - block.first]):
            place -= 1
            yield _Line(_seq(line), log, place, line, 0)


def _seq(line: bytes) -> int:
    return int(line[7 : line.index(b",", 7)])  # behind `{"seq":`


def _line(seq: int, record: LogRecord) -> bytes:
    """Return a record as a line of JSON.

    `_BEGIN` reads its beginning again, and nothing that anybody says can pass for it: quotes and
    line ends in a text are escaped. What is empty is not there.
    """
    parts = [f'{{"seq":{seq},"time":{max(0.0, record.time):.3f},"level":"{record.level}"']
    if record.node is not None:
        parts.append(f',"node":{quoted(record.node)}')
    if record.slot is not None:
        parts.append(f',"slot":{record.slot}')
    if record.pid is not None:
        parts.append(f',"pid":{record.pid}')
    parts.append(f',"stream":"{record.stream}","message":{quoted(record.message)}')
    if record.traceback:
        parts.append(f',"traceback":{quoted(record.traceback)}')
    if record.fields:
        fields = dumps(record.fields, default=str, ensure_ascii=False, separators=(",", ":"))
        parts.append(f',"fields":{fields}')
    parts.append("}")
    # UTF-8 has no lone surrogates: as \udc80 they are what JSON writes them as
    return printable_json("".join(parts)).encode("utf-8", "backslashreplace") + b"\n"


def _cut(record: LogRecord, longest: int) -> LogRecord:
    """Return a record with less text, and of its fields only the request.

    Args:
        record: one that is too long.
        longest: bytes; a character may take six of them.
    """
    room = longest // 16
    kept = record.fields.get("request_id")
    return replace(
        record,
        message=_shorter(record.message, room),
        traceback=_shorter(record.traceback, room),
        fields={"request_id": kept[:200]} if isinstance(kept, str) else {},
    )


def _shorter(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + _CUT


def _matcher(query: LogQuery) -> Callable[[bytes], bool]:
    """Return what says whether a query asks for a line of its nodes."""
    least = LEVELS[query.level]
    levels = {name.encode() for name, number in LEVELS.items() if number >= least}
    text = query.text.casefold()
    # as they are in a line: hardly any line is of this request, and no other one is read for that
    request = _in_line(query.request_id)
    slots = {(_in_line(name), b"%d" % slot) for name, slot in query.nodes if slot is not None}
    whole = {_in_line(name) for name, slot in query.nodes if slot is None}

    def wanted(line: bytes) -> bool:
        begin = _BEGIN.match(line)
        assert begin is not None
        node, slot = begin["node"] or _OWN, begin["slot"]
        if slots and node not in whole and (node, slot) not in slots:
            return False
        if begin["level"] not in levels or float(begin["time"]) < query.since:
            return False
        if query.request_id and request not in line:
            return False
        if not (query.request_id or text):
            return True
        said = json.loads(line)
        if query.request_id and said.get("fields", {}).get("request_id") != query.request_id:
            return False
        return text in f"{said['message']}\n{said.get('traceback', '')}".casefold()

    return wanted


def _in_line(text: str) -> bytes:
    return printable_json(quoted(text)).encode("utf-8", "backslashreplace")


_OWN = _in_line(SUPERVISOR)
