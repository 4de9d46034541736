"""The memory that workers count in, and what becomes of it: one process plays all of them."""

from __future__ import annotations

import os
import random

import pytest

from graphserve.graph.plan import ApiPlan, EdgePlan, NodePlan, Plan
from graphserve.metrics import layout as l
from graphserve.metrics.families import CALL_DURATION, REQUEST_DURATION
from graphserve.metrics.labels import Counted, Sums, Totals
from graphserve.metrics.layout import Layout
from graphserve.metrics.memory import SlotMemory
from graphserve.metrics.recorder import Recorder


def plan_of(apis: int = 2, name: str = "Back", edges: int = 1) -> Plan:
    back = tuple(ApiPlan(f"api{number}", f"/api{number}", (), "queue") for number in range(apis))
    front = (ApiPlan("ask", "/ask", (), "pooled"),)
    edge = tuple(EdgePlan(f"back{number}", name) for number in range(edges))
    return Plan(
        "Front",
        (
            NodePlan(name, "n0", "app:Back", 0, 1, 1, apis=back),
            NodePlan("Front", "n1", "app:Front", 1, 1, 1, apis=front, edges=edge),
        ),
    )


class Process:
    """A worker, as far as it counts, and its supervisor's end of that."""

    def __init__(self, plan: Plan, node: str = "Front") -> None:
        found = plan.node(node)
        self.memory = SlotMemory.make(Layout(plan, found))
        recorder = Recorder.open(plan, found, os.dup(self.memory.descriptor))
        assert recorder is not None
        self.recorder = recorder

    def counted(self) -> Counted:
        return Counted(self.memory.layout, self.memory.read())


@pytest.fixture
def process() -> Process:
    return Process(plan_of())


def counts(sums: Sums) -> dict[tuple[str, ...], int]:
    """How many observations each series has."""
    return {labels: sum(values[:-1]) for (_, labels), values in sums.items() if any(values)}


def test_a_call_is_in_its_bucket_and_its_time_in_the_sum(process: Process) -> None:
    series = process.recorder.calls(0, 1)
    for nanoseconds in (0, 100_000, 100_001, 30_000_000_000, 30_000_000_001):
        series.begin()
        series.end(l.OK, nanoseconds)
    values = process.counted().sums[CALL_DURATION, ("Front", "Back", "api1", "ok")]
    assert values[:2] == [2, 1], "what is as long as a bound is below it"
    assert values[-3:] == [1, 1, 60_000_200_002]
    assert sum(values[:-1]) == 5


def test_each_time_is_in_its_bucket_whatever_was_counted_before(process: Process) -> None:
    """What ends as the one before did is counted in a shorter way."""
    dice = random.Random(2)
    times = [0, 1, *(bound + more for bound in l.SECONDS for more in (-1, 0, 1)), 10**12]
    expected: dict[tuple[int, int], list[int]] = {}
    for _ in range(3000):
        api, outcome, nanoseconds = dice.randrange(2), dice.randrange(3), dice.choice(times)
        series = process.recorder.calls(0, api)
        for _ in range(dice.randrange(4)):  # (one after the other, and none)
            series.begin()
            series.end(outcome, nanoseconds)
            values = expected.setdefault((api, outcome), [0] * l.CALL.size)
            values[sum(bound < nanoseconds for bound in l.SECONDS)] += 1
            values[-1] += nanoseconds
    found = process.counted().sums
    for (api, outcome), values in expected.items():
        labels = ("Front", "Back", f"api{api}", l.OUTCOMES[outcome])
        assert found[CALL_DURATION, labels] == values
    assert len(expected) == 6


def test_what_asks_twice_for_a_series_counts_in_one(process: Process) -> None:
    recorder = process.recorder
    for take in (lambda: recorder.calls(0, 0), lambda: recorder.requests(0, b"POST")):
        for _ in range(3):
            for series in (take(), take()):
                series.begin()
                series.end(0, 5)
    assert sorted(counts(process.counted().sums).values()) == [6, 6]


def test_a_forked_child_counts_nothing_of_its_parent(process: Process) -> None:
    series, items = process.recorder.calls(0, 0), process.recorder.counter(l.STREAM_ITEMS, 0)
    sizes = process.recorder.histogram(l.BATCH_SIZE, 0)
    for _ in range(2):
        series.begin()
        series.end(l.OK, 5)
    before = process.memory.read()
    child = os.fork()
    if not child:
        try:
            series.begin()
            series.end(l.OK, 5)
            series.end(l.ERROR, 5)
            series.retry()
            items.add()
            sizes.observe(3)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert process.memory.read() == before


@pytest.mark.parametrize("outcome", range(len(l.OUTCOMES)))
def test_each_outcome_has_its_series(process: Process, outcome: int) -> None:
    series = process.recorder.calls(0, 0)
    series.begin()
    series.end(outcome, 1)
    labels = ("Front", "Back", "api0", l.OUTCOMES[outcome])
    assert counts(process.counted().sums) == {labels: 1}


@pytest.mark.parametrize(
    ("route", "method", "status", "labels"),
    [
        (0, b"POST", 200, ("/ask", "POST", "200")),
        (0, b"GET", 499, ("/ask", "GET", "499")),
        (l.OTHER, b"DELETE", 404, ("*", "DELETE", "404")),
        (l.OTHER, b"BREW", 405, ("*", "_OTHER", "405")),
        (l.OTHER, b"", 400, ("*", "_OTHER", "400")),
    ],
)
def test_each_request_has_its_labels(
    process: Process, route: int, method: bytes, status: int, labels: tuple[str, ...]
) -> None:
    series = process.recorder.requests(route, method)
    series.begin()
    series.end(status, 500_000_000)
    assert counts(process.counted().sums) == {("Front", *labels): 1}


def test_methods_that_clients_invent_take_no_memory(process: Process) -> None:
    for number in range(1000):
        process.recorder.requests(l.OTHER, b"BREW%d" % number).begin()
    assert process.memory.read()[l.END_AT] < 50
    assert len(process.recorder._requests) == 1


def test_what_is_in_flight_has_not_ended_until_its_worker_is_dead(process: Process) -> None:
    calls, requests = process.recorder.calls(0, 0), process.recorder.requests(0, b"POST")
    for series in (calls, requests):
        for _ in range(3):
            series.begin()
    calls.end(l.OK, 1)
    requests.end(200, 100_000_000)
    counted = process.counted()
    assert counted.in_flight[CALL_DURATION, ("Front", "Back", "api0")] == 2
    assert counted.in_flight[REQUEST_DURATION, ("Front", "/ask", "POST")] == 2
    ended = {("Front", "Back", "api0", "ok"): 1, ("Front", "/ask", "POST", "200"): 1}
    assert counts(counted.sums) == ended
    assert counts(counted.ended()) == ended | {
        ("Front", "Back", "api0", "cancelled"): 2,
        ("Front", "/ask", "POST", "599"): 2,
    }


def test_no_step_of_a_worker_that_is_killed_there_counts_a_call_twice_or_never() -> None:
    """It is killed behind each of the writes that three calls make."""

    class Killed(Exception):
        pass

    class Words:
        """Memory that ends its writer behind so many writes."""

        def __init__(self, words: memoryview[int], writes: int) -> None:
            self.words, self.writes = words, writes

        def __len__(self) -> int:
            return len(self.words)

        def __getitem__(self, at: int) -> int:
            return self.words[at]

        def __setitem__(self, at: int, value: int) -> None:
            if not self.writes:
                raise Killed
            self.writes -= 1
            self.words[at] = value

    began = 0
    for writes in range(3, 40):
        process = Process(plan_of())
        recorder = Recorder(process.memory.layout, Words(process.recorder.words, writes))  # type: ignore[arg-type]
        sent = 0
        try:
            series = recorder.calls(0, 0)
            for outcome in (l.OK, l.ERROR, l.OK):
                sent += 1
                series.begin()
                series.end(outcome, 5)
        except Killed:
            pass
        found = sum(counts(process.counted().ended()).values())
        assert found in (sent, sent - 1), writes
        began = max(began, sent)
    assert began == 3


def test_totals_never_fall_whoever_dies() -> None:
    dice = random.Random(1)
    totals, sent = Totals(), 0
    alive = [Process(plan_of())]
    before: dict[tuple[str, ...], int] = {}
    for step in range(300):
        process = dice.choice(alive)
        series = process.recorder.calls(0, dice.randrange(2))
        series.begin()
        sent += 1
        if dice.random() < 0.9:
            series.end(dice.randrange(5), dice.randrange(10**9))
        if dice.random() < 0.05:
            alive.remove(process)
            totals.fold(process.counted())
            process.memory.close()
        if len(alive) < 2:
            # of a Plan that has an API more, or a node of another name
            alive.append(Process(plan_of(apis=2 + step % 3, name=dice.choice(["Back", "Rear"]))))
        now = counts(totals.plus(each.counted() for each in alive))
        assert all(now[labels] >= number for labels, number in before.items())
        before = now
    for process in alive:
        totals.fold(process.counted())
    assert sum(counts(totals.plus([])).values()) == sent


def test_what_finds_no_room_is_counted_among_the_others() -> None:
    process = Process(plan_of(apis=200, edges=8))
    assert process.memory.layout.words * l.WORD == l.LARGEST
    sent = 0
    for edge in range(8):
        for api in range(200):
            series = process.recorder.calls(edge, api)
            for outcome in (l.OK, l.ERROR, l.OK):
                series.begin()
                series.end(outcome, 1)
                sent += 1
    assert process.memory.unplaced() > 0
    counted = process.counted()
    assert sum(counts(counted.sums).values()) == sent
    assert counts(counted.sums)["Front", "*", "*", "*"] > 0
    assert not any(counted.in_flight.values()), "what has ended elsewhere has begun there, too"
    requests = process.recorder.requests(0, b"POST")
    requests.begin()
    requests.end(200, 100_000_000)
    assert counts(process.counted().sums)["Front", "*", "_OTHER", "*"] == 1


@pytest.mark.parametrize(
    ("at", "value"), [(l.FORMAT_AT, 1), (l.SIZE_AT, 1), (l.MEANING_AT, 1)], ids=["format", "size", "meaning"]
)  # fmt: skip
def test_memory_of_another_version_is_not_written(at: int, value: int) -> None:
    process = Process(plan_of())
    process.recorder.words[at] = value
    node = plan_of().node("Front")
    assert Recorder.open(plan_of(), node, os.dup(process.memory.descriptor)) is None


def test_another_plan_has_another_meaning() -> None:
    plans = [plan_of(), plan_of(apis=3), plan_of(name="Rear"), plan_of(edges=2)]
    assert len({Layout(plan, plan.node("Front")).meaning for plan in plans}) == len(plans)
    same = plan_of()
    assert Layout(same, same.node("Front")).meaning == Layout(plan_of(), plan_of().node("Front")).meaning  # fmt: skip


@pytest.mark.parametrize("words", [
    [0] * 8, [], [1 << 62] * 30, [-1] * 30, [0] * 8 + [3 << 48], [0] * 8 + [3 << 48] + [1] * 18,
])  # fmt: skip
def test_what_makes_no_sense_is_not_read(words: list[int]) -> None:
    assert not counts(Counted(Layout(plan_of(), plan_of().node("Front")), words).ended())


def test_an_end_that_is_nowhere_is_the_end_of_the_memory(process: Process) -> None:
    for end in (-5, 1 << 60, 0):
        process.recorder.words[l.END_AT] = end
        assert len(process.memory.read()) <= process.memory.layout.words
        assert not counts(process.counted().sums)


def test_nobody_can_cut_the_memory_under_who_reads_it(process: Process) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(process.memory.descriptor, 0)


@pytest.mark.parametrize(("apis", "edges"), [(1, 0), (1, 1), (3, 4), (300, 30)])
def test_the_memory_is_small(apis: int, edges: int) -> None:
    plan = plan_of(apis=apis, edges=edges)
    for node in plan.nodes:
        words = Layout(plan, node).words
        assert words * l.WORD <= l.LARGEST
        assert words * l.WORD % l.PAGE == 0
    if apis == 1:
        assert Layout(plan, plan.node("Back")).words * l.WORD == l.PAGE
