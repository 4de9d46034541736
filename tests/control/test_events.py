"""What happened to a graph: the ring that keeps it, and who reads it. No process is started."""

from __future__ import annotations

import ast
import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import graphserve
from graphserve.supervise.control.events import parse
from graphserve.supervise.control.http import HttpError
from graphserve.supervise.event_ring import CHUNK, LONGEST_TEXT, EventQuery, EventRing
from graphserve.supervise.events import EventKind, happened
from tests.documents import DOCS, fields

REFERENCE = "reference/events.md"


def filled(count: int, **given: int) -> EventRing:
    ring = EventRing(**given)
    add(ring, *range(1, count + 1))
    return ring


def add(ring: EventRing, *numbers: int, text: str = "") -> None:
    for number in numbers:
        ring.add(happened(EventKind.NOTICE, "info", f"{number}{text}"))


def read(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def asked(ring: EventRing, **query: Any) -> list[dict[str, Any]]:
    """What a query that does not follow gets."""

    async def all_of() -> bytes:
        return b"".join([chunk async for chunk in ring.read(EventQuery(**query))])

    return read(asyncio.run(all_of()))


def numbers(said: list[dict[str, Any]]) -> list[int]:
    return [event["seq"] for event in said]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"newest": 2}, [4, 5]),
        ({"newest": 0}, []),
        ({"newest": 99}, [1, 2, 3, 4, 5]),
        ({"after": 3}, [4, 5]),
        ({"after": 5}, []),
        ({"after": 1, "newest": 2}, [4, 5]),
        ({"after": 4, "newest": 2}, [5]),
        ({"after": 99}, []),
        ({"since": 1e12}, []),
    ],
)
def test_those_are_read_that_are_asked_for(query: dict[str, Any], expected: list[int]) -> None:
    assert numbers(asked(filled(5), **query)) == expected


def test_since_is_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100, 200))
    monkeypatch.setattr("graphserve.supervise.events.time.time", lambda: float(next(clock)))
    ring = filled(5)
    assert numbers(asked(ring, since=103.0)) == [4, 5]
    assert numbers(asked(ring, since=102.5)) == [4, 5]
    assert numbers(asked(ring, since=99.0)) == [1, 2, 3, 4, 5]


def test_what_is_too_much_is_let_go_and_counted() -> None:
    ring = filled(7, most=3)
    assert numbers(asked(ring)) == [5, 6, 7]
    assert asked(ring, after=2)[0] == {"left_out": 2}
    assert numbers(asked(ring, after=2)[1:]) == [5, 6, 7]
    small = EventRing(size=2000)
    add(small, *range(100), text="x" * 300)
    assert 0 < small.size <= 2000
    add(small, 1, text="x" * LONGEST_TEXT)
    assert (small.size, asked(small)) == (0, [])
    add(small, 2)
    assert numbers(asked(small)) == [102]


def test_a_long_text_keeps_its_end() -> None:
    ring = EventRing()
    ring.add(happened(EventKind.NOTICE, "error", "m", trace="x" * 10**6 + "ValueError: the end"))
    (said,) = asked(ring)
    assert len(said["traceback"]) < LONGEST_TEXT + 10
    assert said["traceback"].endswith("ValueError: the end")


def test_an_event_is_one_line_of_documented_fields_whatever_is_in_it() -> None:
    ring = EventRing()
    ring.add(
        happened(
            EventKind.WORKER_DIED, "error", 'a"\n\x1b[2J\ud800', node="N\n", slot=1, pid=2,
            trace="t\n", fields={"last_words": "w\n", "odd": object()},
        )
    )  # fmt: skip
    (said,) = asked(ring)
    assert set(said) == fields(REFERENCE, "An event")
    assert (said["event"], said["node"], said["slot"]) == ("worker-died", "N\n", 1)
    assert said["fields"]["last_words"] == "w\n"
    assert "event" not in said["fields"]


def test_who_follows_misses_nothing_and_gets_nothing_twice() -> None:
    async def play() -> None:
        ring = filled(3)
        said: list[dict[str, Any]] = []

        async def follow() -> None:
            async with aclosing(ring.read(EventQuery(newest=1, follow=True))) as chunks:
                async for chunk in chunks:
                    said.extend(read(chunk))

        task = asyncio.ensure_future(follow())
        await asyncio.sleep(0)
        for number in range(4, 400):
            add(ring, number)
            if number % 7 == 0:
                await asyncio.sleep(0)
        ring.end()
        await asyncio.wait_for(task, 60)
        assert numbers(said) == list(range(3, 400))

    asyncio.run(play())


def test_a_slow_reader_holds_no_more_than_a_chunk_and_is_told_what_it_missed() -> None:
    async def play() -> None:
        ring = EventRing(most=10)
        async with aclosing(ring.read(EventQuery(follow=True))) as chunks:
            add(ring, 1)
            assert numbers(read(await anext(chunks))) == [1]
            add(ring, *range(2, 50))
            said = read(await anext(chunks))
            assert said[0] == {"left_out": 38}
            assert numbers(said[1:]) == list(range(40, 50))
            add(ring, *range(50, 60), text="x" * (LONGEST_TEXT - 10))
            chunk = await anext(chunks)
            assert CHUNK <= len(chunk) < CHUNK + 2 * LONGEST_TEXT
        assert not ring._news

    asyncio.run(play())


def test_who_follows_comes_to_the_end() -> None:
    async def play() -> None:
        ring = filled(2)
        async with aclosing(ring.read(EventQuery(follow=True))) as chunks:
            await anext(chunks)
            ring.end()
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(anext(chunks), 60)
        async with aclosing(ring.read(EventQuery(follow=True))) as late:
            assert numbers(read(await anext(late))) == [1, 2]
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(anext(late), 60)

    asyncio.run(play())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", EventQuery()),
        ("n=3&since=1.5&follow=1", EventQuery(newest=3, since=1.5, follow=True)),
        ("after=7", EventQuery(after=7)),
        ("follow=0", EventQuery()),
    ],
)
def test_a_query_is_read(query: str, expected: EventQuery) -> None:
    assert parse(query) == expected


@pytest.mark.parametrize(
    "query",
    ["n", "n=", "n=-1", "n=1&n=2", "n=1e3", "n=%FF", "n=" + "9" * 99, "n=٣", "since=nan",
     "since=inf", "since=x", "follow=yes", "follow=", "after=x", "what=1", "=", "&", "%00=1",
     "x" * 4000 + "=1"],
)  # fmt: skip
def test_what_is_no_query_is_refused(query: str) -> None:
    with pytest.raises(HttpError) as refused:
        parse(query)
    assert refused.value.status == 422
    assert len(refused.value.detail) < 300


def test_every_kind_is_made_somewhere_and_documented() -> None:
    made = {
        node.attr
        for path in Path(graphserve.__file__).parent.joinpath("supervise").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "EventKind"
    }
    assert made == {kind.name for kind in EventKind}
    page = (DOCS / REFERENCE).read_text(encoding="utf-8")
    told = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    kinds = [kind.value for kind in EventKind]
    assert [name for name in told if "-" in name or name in kinds] == kinds
