"""What a start took: the phases of workers, and the chain of what came one after the other. No
process is started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphserve.supervise.states import WorkerState
from graphserve.supervise.timing import Timeline, Timings, WorkerTiming, process_age, timed
from tests.documents import fields
from tests.lifecycle.scripted import Bench, JumpingLoop

REFERENCE = "reference/cli.md"


def worker(
    node: str, slot: int, *marks: float | None, waited_for: str | None = None
) -> WorkerTiming:
    """A worker that was spawned, had imported, began, warmed up, opened the port, was ready."""
    spawned, *rest = marks
    assert spawned is not None
    return WorkerTiming(node, slot, 100 + slot, spawned, *rest, waited_for=waited_for)


def timeline(*workers: WorkerTiming, ended: float | None) -> Timeline:
    return Timeline("start", 1000.0, 10.0, 11.0, 12.0, ended, workers=list(workers))


def shown(line: Timeline) -> list[str]:
    return [
        f"{step['begins']:g}+{step['seconds']:g} {step['what']}"
        + (f" {step['node']}[{step['slot']}]" if step["node"] else "")
        for step in line.chain()
    ]


def test_the_chain_goes_down_to_what_was_waited_for() -> None:
    line = timeline(
        worker("Leaf", 0, 12.5, 14.0, 14.0, None, None, 15.0),
        worker("Leaf", 1, 12.5, 13.0, 13.0, 17.0, None, 20.0),
        worker("Other", 0, 12.5, 13.0, 13.0, None, None, 19.0),
        worker("Top", 0, 12.5, 13.0, 20.0, None, 21.0, 21.5, waited_for="Leaf"),
        ended=22.0,
    )
    assert shown(line) == [
        "0+1 launch",
        "1+1 resolve",
        "2+0.5 hand over",
        "2.5+0.5 import Leaf[1]",
        "3+4 init Leaf[1]",
        "7+3 warm-up Leaf[1]",
        "10+1 init Top[0]",
        "11+0.5 port Top[0]",
        "11.5+0.5 hand over",
    ]


def test_the_chain_goes_from_worker_to_worker_where_one_was_started_after_the_other() -> None:
    line = timeline(
        worker("Leaf", 0, 13.0, 14.0, 14.0, None, None, 15.0),
        worker("Leaf", 1, 16.0, 17.0, 17.0, None, None, 18.0),
        ended=18.0,
    )
    assert shown(line)[-4:] == [
        "4+1 init Leaf[0]",
        "5+1 hand over",
        "6+1 import Leaf[1]",
        "7+1 init Leaf[1]",
    ]


@pytest.mark.parametrize("seed", range(30))
def test_a_chain_has_no_gap(seed: int) -> None:
    import random

    chance = random.Random(seed)
    workers: list[WorkerTiming] = []
    for place in range(12):
        marks = [chance.uniform(12.0, 20.0)]
        for _ in range(5):
            marks.append(marks[-1] + chance.choice([0.0, 0.001, chance.uniform(0, 3)]))
        waited = chance.choice([None, *(each.node for each in workers)])
        workers.append(worker(f"N{place % 5}", place, *marks, waited_for=waited))
    line = timeline(*workers, ended=40.0)
    at = 0.0
    for step in line.chain():
        assert step["begins"] == pytest.approx(at, abs=0.003)
        assert step["seconds"] > 0
        at = step["begins"] + step["seconds"]
    assert at == pytest.approx(30.0, abs=0.003)


def test_what_is_under_way_or_has_failed_has_no_chain_and_says_what_workers_do() -> None:
    line = timeline(
        worker("Leaf", 0, 12.5, 14.0, 14.0),
        worker("Top", 0, 12.5, 13.0, waited_for="Leaf"),
        worker("Slow", 0, 12.5),
        ended=None,
    )
    row = line.row(17.0)
    assert (row["state"], row["seconds"], row["chain"]) == ("under way", 7.0, [])
    assert [(each["doing"], each["phases"], each["waited_for"]) for each in row["workers"]] == [
        ("init", {"import": 1.5, "wait": 0.0, "init": 3.0}, None),
        ("wait", {"import": 0.5, "wait": 4.0}, "Leaf"),
        ("import", {"import": 4.5}, None),
    ]
    line.ended, line.reason = 18.0, "Leaf did not start"
    row = line.row(30.0)
    assert (row["state"], row["reason"], row["seconds"]) == ("failed", "Leaf did not start", 8.0)
    assert set(row) == fields(REFERENCE, "What an operation took")
    assert set(row["workers"][0]) == fields(REFERENCE, "What a worker took")


def test_a_chain_of_workers_that_took_no_time_has_an_end() -> None:
    workers = [
        worker(f"N{place % 3}", place, *[12.0] * 6, waited_for=f"N{place % 2}")
        for place in range(2000)
    ]
    line = timeline(*workers, ended=13.0)
    assert shown(line) == ["0+1 launch", "1+1 resolve", "2+1 hand over"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[tuple[JumpingLoop, Bench]]:
    loop = JumpingLoop()

    async def make() -> Bench:
        return Bench(tmp_path, [None, WorkerState.STARTING, None])

    bench = loop.run_until_complete(make())
    yield loop, bench
    loop.run_until_complete(bench.close())
    loop.close()


def test_the_fleet_notes_who_waited_for_whom(bench: tuple[JumpingLoop, Bench]) -> None:
    loop, graph = bench

    async def play() -> None:
        timings = graph.fleet.timings
        timings.begin("start", 2.0)
        timings.resolved()
        starting = asyncio.ensure_future(graph.start())
        await graph.until(lambda: graph.spawned[2:] and graph.spawned[1].timing.begun is not None)
        (row,) = timings.rows()
        entry = row["workers"][2]
        assert (entry["node"], entry["doing"], entry["waited_for"]) == ("Entry", "wait", "Leaf")
        await asyncio.sleep(5.0)
        graph.spawned[1].go_on()
        await starting
        timings.end()
        (row,) = timings.rows()
        assert row["seconds"] >= 7.0
        chain = [(step["what"], step["node"], step["slot"]) for step in row["chain"]]
        assert ("launch", None, None) in chain
        assert ("init", "Leaf", 1) in chain
        assert not any(slot == 0 and node == "Leaf" for _, node, slot in chain)
        graph.spawned[0].die()
        await graph.until(graph.settled)
        assert len(timings.rows()[0]["workers"]) == 3, "a replacement is of no start"

    loop.run_until_complete(play())


def test_a_reload_that_fails_says_why() -> None:
    async def play() -> None:
        timings = Timings()
        with pytest.raises(ValueError, match="no"), timed(timings):
            timings.started(worker("Leaf", 0, 1.0))
            raise ValueError("no")
        (row,) = timings.rows()
        assert (row["operation"], row["state"], row["reason"]) == ("reload", "failed", "no")
        with pytest.raises(asyncio.CancelledError), timed(timings):
            raise asyncio.CancelledError
        assert timings.rows()[0]["reason"] == "given up"

    asyncio.run(play())


def test_a_process_knows_its_age() -> None:
    assert 0.0 < process_age() < 10_000_000
