"""The ring of records: what it keeps, what it gives, to whom; no process is started."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from graphserve.logs.text import printable
from graphserve.supervise.control.http import HttpError
from graphserve.supervise.control.logs import parse
from graphserve.supervise.events import LogRecord
from graphserve.supervise.log_ring import CHUNK, LogQuery, LogRing

MIB = 1024 * 1024


def record(message: str, node: str | None = "A", **more: Any) -> LogRecord:
    return LogRecord(**{"time": 1000.0, "level": "info", "message": message, "node": node} | more)


def ring_of(*records: LogRecord, limit: int = MIB) -> LogRing:
    ring = LogRing(limit)
    for each in records:
        ring.add(each)
    return ring


async def said(ring: LogRing, **query: Any) -> list[dict[str, Any]]:
    found = []
    async for chunk in ring.read(LogQuery(**query)):
        assert chunk.endswith(b"\n")
        found += [json.loads(line) for line in chunk.splitlines()]
    return found


def messages(ring: LogRing, **query: Any) -> list[str]:
    return [line["message"] for line in asyncio.run(said(ring, **query))]


MIXED = ring_of(
    record("starts", None),
    record("one", "A", slot=0, pid=1, stream="stdout"),
    record("two", "B", slot=1, level="warning", time=1001.0, fields={"request_id": "r-2"}),
    record("three", "A.0", level="error", traceback="ValueError: Straße", time=1002.0),
    record("fo\u2028ur", "A", slot=1, level="critical", fields={"request_id": 'r"\u2028'}, time=1003.0),
    record("five \udc80 r-2", "A", slot=0, level="debug", fields={"other": "r-2"}, time=1004.0),
)  # fmt: skip


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"newest": 2}, [5, 6]),
        ({"newest": 0}, []),
        ({"newest": 99}, [1, 2, 3, 4, 5, 6]),
        ({"nodes": frozenset({("A", None)})}, [2, 5, 6]),
        ({"nodes": frozenset({("A", 0)})}, [2, 6]),
        ({"nodes": frozenset({("A", 0), ("A", None)})}, [2, 5, 6]),
        ({"nodes": frozenset({("A", 1), ("B", None)})}, [3, 5]),
        ({"nodes": frozenset({("graphserve", None)})}, [1]),
        ({"nodes": frozenset({("graphserve", 0)})}, []),
        ({"nodes": frozenset({("A.0", None)}), "newest": 1}, [4]),
        ({"since": 1001.5}, [4, 5, 6]),
        ({"since": 1001.5, "newest": 5}, [4, 5, 6]),
        ({"since": 9e9}, []),
        ({"level": "warning"}, [3, 4, 5]),
        ({"level": "error", "newest": 1}, [5]),
        ({"request_id": "r-2"}, [3]),
        ({"request_id": 'r"\u2028'}, [5]),
        ({"request_id": "r"}, []),
        ({"text": "STRASSE"}, [4]),
        ({"text": "r-2"}, [6]),
        ({"text": "\u2028u"}, [5]),
        ({"text": "o", "newest": 2}, [4, 5]),
    ],
)
def test_what_is_asked_for_is_found(query: dict[str, Any], found: list[int]) -> None:
    assert [line["seq"] for line in asyncio.run(said(MIXED, **query))] == found


def test_a_record_comes_back_as_it_was() -> None:
    given = record(
        'quote " and \\ and \n and \x1b \x7f \x9b \u202e \udcff é 文', 'no"de\n', slot=3, pid=7,
        level="error", stream="stderr", traceback="Trace\nback", fields={"a": [1, None], "é": "\0"},
    )  # fmt: skip
    (line,) = asyncio.run(said(ring_of(given)))
    assert line.pop("seq") == 1
    assert LogRecord(**line) == given

    async def raw() -> bytes:
        return b"".join([chunk async for chunk in ring_of(given).read(LogQuery())])

    text = asyncio.run(raw()).decode()
    assert text.count("\n") == 1 and printable(text.rstrip("\n")) == text.rstrip("\n")


@pytest.mark.parametrize("text", ['","level":"error', '{"seq":1,"time":1,"level":"error"', '"\n{'])
def test_nothing_that_is_said_passes_for_more(text: str) -> None:
    ring = ring_of(record(text, text, fields={text: text}))
    assert messages(ring) == [text]
    assert messages(ring, level="error") == []
    assert messages(ring, request_id="error") == []


def test_a_node_that_says_much_pushes_out_only_its_own() -> None:
    ring = LogRing(MIB)
    for number in range(50):
        ring.add(record(f"quiet {number}", "Quiet"))
    for number in range(30_000):
        ring.add(record(f"loud {number}", "Loud"))
    for number in range(50):
        ring.add(record(f"late {number}", "Late"))
    assert messages(ring, nodes=frozenset({("Quiet", None)})) == [f"quiet {n}" for n in range(50)]
    loud = messages(ring, nodes=frozenset({("Loud", None)}))
    assert loud == [f"loud {n}" for n in range(30_000 - len(loud), 30_000)]
    assert MIB * 0.95 < ring.size <= MIB


@pytest.mark.parametrize(
    ("length", "nodes", "count"),
    [(0, 1, 20_000), (60, 3, 20_000), (20_000, 3, 200), (3 * MIB, 2, 20), (100, 1500, 3000)],
)
def test_memory_is_that_of_the_ring(length: int, nodes: int, count: int) -> None:
    text = "x" * length
    tracemalloc.start()
    try:
        ring = LogRing(MIB)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(count):
            ring.add(record(text, f"N{number % nodes}"))
            assert ring.size <= MIB
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < MIB * 1.3
    assert messages(ring, newest=1), "the newest is there"


def test_what_is_too_long_is_cut_and_the_rest_stays() -> None:
    ring = ring_of(
        record("before"),
        record("\x01" * MIB, traceback="文" * MIB, fields={"request_id": "r", "x": "y" * MIB}),
        record("after"),
    )
    before, cut, after = asyncio.run(said(ring))
    assert (before["message"], after["message"]) == ("before", "after")
    assert len(json.dumps(cut, ensure_ascii=False).encode()) < MIB / 16
    assert cut["message"].endswith("the rest is left out")
    assert cut["fields"] == {"request_id": "r"}


def test_nothing_is_kept_where_nothing_is_wanted() -> None:
    assert messages(ring_of(record("a"), limit=0)) == []


async def _following(ring: LogRing, act: Callable[[asyncio.Event], Awaitable[None]], **query: Any) -> list[dict[str, Any]]:  # fmt: skip
    """What a follower gets until the ring ends, which it does after `act`."""
    got: list[dict[str, Any]] = []
    began = asyncio.Event()  # it has the first lines

    async def follow() -> None:
        async for chunk in ring.read(LogQuery(follow=True, **query)):
            got.extend(json.loads(line) for line in chunk.splitlines())
            began.set()

    task = asyncio.ensure_future(follow())
    await act(began)
    ring.end()
    await asyncio.wait_for(task, 60)
    return got


def test_a_follower_gets_each_line_once() -> None:
    ring = ring_of(*(record(f"old {n}") for n in range(20)))

    async def act(began: asyncio.Event) -> None:
        await began.wait()
        for number in range(3000):
            ring.add(record(f"new {number}", f"N{number % 7}"))
            if not number % 100:
                await asyncio.sleep(0)

    got = asyncio.run(_following(ring, act, newest=3))
    assert [line["message"] for line in got] == [
        *(f"old {n}" for n in range(17, 20)),
        *(f"new {n}" for n in range(3000)),
    ]


def test_a_slow_follower_is_told_what_it_missed() -> None:
    async def check() -> None:
        ring = ring_of(record("first"))
        lines = ring.read(LogQuery(follow=True))
        assert json.loads(await anext(lines))["message"] == "first"
        for number in range(30_000):
            ring.add(record(f"line {number} " + "x" * 100))
        ring.end()
        rest = [json.loads(line) async for chunk in lines for line in chunk.splitlines()]
        missed = rest[0]["left_out"]
        assert missed > 10_000
        assert [line["seq"] for line in rest[1:]] == list(range(missed + 2, 30_002))

    asyncio.run(check())


def test_a_reader_that_stops_in_the_middle_leaves_nothing() -> None:
    async def check() -> None:
        ring = ring_of(*(record("x" * 1000) for _ in range(200)))
        lines = ring.read(LogQuery(follow=True))
        assert len(await anext(lines)) >= CHUNK
        await lines.aclose()
        assert not ring._news

    asyncio.run(check())


NODES = ["Model", "Model.1", "Gate"]


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", LogQuery()),
        ("node=Model.1", LogQuery(nodes=frozenset({("Model.1", None)}))),
        ("node=Model.2&node=Gate", LogQuery(nodes=frozenset({("Model", 2), ("Gate", None)}))),
        ("n=0&since=1.5&level=error", LogQuery(newest=0, since=1.5, level="error")),
        (
            "request=a%26b&grep=%C3%A9+x&follow=1",
            LogQuery(request_id="a&b", text="é x", follow=True),
        ),
        ("grep=", LogQuery()),
    ],
)
def test_a_query(query: str, asked: LogQuery) -> None:
    assert parse(query, NODES) == asked


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("node=Modle", 404, "did you mean 'Model'?"),
        ("node=Model.x", 404, "no node 'Model.x'"),
        ("node=Model.-1", 404, "no node"),
        ("node=Model.\u0661", 404, "no node"),
        ("node=", 404, "no node ''"),
        ("n=-1", 422, "n is a number"),
        ("n=1e3", 422, "n is a number"),
        ("n=9999999999", 422, "n is a number"),
        ("since=nan", 422, "since is a time"),
        ("since=5m", 422, "since is a time"),
        ("level=loud", 422, "level is one of"),
        ("follow=yes", 422, "follow is 0 or 1"),
        ("n=1&n=2", 422, "more than once"),
        ("nodes=Model", 422, "unknown: nodes"),
        ("n", 422, "no list of name=value"),
        ("grep=%FF", 422, "no list of name=value"),
        ("&" * 2000, 422, "no list of name=value"),
    ],
)  # fmt: skip
def test_a_query_that_is_not_understood(query: str, status: int, words: str) -> None:
    with pytest.raises(HttpError) as refused:
        parse(query, NODES)
    assert refused.value.status == status
    assert words in refused.value.detail
