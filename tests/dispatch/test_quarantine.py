"""Calls that kill their worker: it is back at once, and a call that has killed two is refused; its
neighbours live.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from graphserve.call import call_fingerprint
from graphserve.call.membership import KnownNode as Known
from graphserve.call.suspicions import Suspicions
from graphserve.supervise import quarantine
from graphserve.supervise.backoff import Backoff
from graphserve.supervise.quarantine import Quarantine
from tests.harness import Served, eventually, rarely, served


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("poison:Top", "--log-level", "info") as graph:
        yield graph


def ask(graph: Served, path: str, **arguments: Any) -> httpx.Response | None:
    """The answer; None if the connection ended without one."""
    with graph.client() as client:
        try:
            return client.post(path, json=arguments)
        except httpx.TransportError:
            return None


@pytest.mark.parametrize(
    ("way", "node", "added"),
    [("queued", "Queued", 1), ("pooled", "Pooled", 2), ("batched", "Batched", 3)],
)
def test_a_call_that_kills_two_workers_is_refused_and_its_neighbours_live(
    graph: Served, way: str, node: str, added: int
) -> None:
    seen, poison = len(graph.log), -100 - added
    for _ in range(2):
        answer = ask(graph, "/run", x=poison, way=way)
        assert answer is not None
        assert (answer.status_code, answer.json()["service"]) == (502, node)
        answer = ask(graph, "/run", x=1, way=way)
        assert answer is not None
        assert (answer.status_code, answer.json()) == (200, 1 + added), answer.text
    graph.wait_log(
        rf"a call of {node} has killed two of its workers in a row .* it is refused for 60 s",
        after=seen,
    )
    eventually(lambda: len(graph.workers()) == 8)  # before, it may not be there to be killed
    before, deaths = graph.workers(), graph.text.count("was killed by SIGSEGV")
    for _ in range(3):
        answer = ask(graph, "/run", x=poison, way=way)
        assert answer is not None
        assert (answer.status_code, answer.json()["service"]) == (502, node)
        assert "died 2 times in a row while they executed this very call" in answer.json()["detail"]
        neighbour = ask(graph, "/run", x=2, way=way)
        assert neighbour is not None
        assert neighbour.json() == 2 + added
    assert graph.workers() == before
    assert graph.text.count("was killed by SIGSEGV") == deaths


def test_an_idempotent_call_kills_no_third_worker(graph: Served) -> None:
    deaths = graph.text.count("was killed by SIGSEGV")
    answer = ask(graph, "/run", x=-50, way="again")
    assert answer is not None
    assert (answer.status_code, answer.json()["service"]) == (502, "Queued")
    assert "it does not run again" in answer.json()["detail"]
    graph.wait_log("a call of Queued has killed two .*/again#")
    assert graph.text.count("was killed by SIGSEGV") == deaths + 2


@pytest.mark.parametrize(("path", "name", "added"), [("/here", "x", 4), ("/here_batched", "xs", 5)])
def test_a_client_whose_call_kills_the_entry_twice_is_refused(
    graph: Served, path: str, name: str, added: int
) -> None:
    def arguments(x: int) -> dict[str, Any]:
        return {name: [x] if name == "xs" else x}

    def result(x: int) -> Any:
        return [x + added] if name == "xs" else x + added

    seen = len(graph.log)
    for _ in range(2):
        assert ask(graph, path, **arguments(-7)) is None
        answer = ask(graph, path, **arguments(1))
        assert answer is not None
        assert answer.json() == result(1)
    graph.wait_log("a call of Top has killed two", after=seen)
    (entry,) = [pid for pid in graph.workers("n5")]
    answer = eventually(lambda: ask(graph, path, **arguments(-7)))
    assert (answer.status_code, answer.json()["service"]) == (502, "Top")
    assert "while they executed this very call" in answer.json()["detail"]
    answer = ask(graph, path, **arguments(2))
    assert answer is not None
    assert answer.json() == result(2)
    assert graph.workers("n5") == [entry]


@pytest.mark.parametrize("way", [rarely("here"), "shared", rarely("again")])
def test_nobody_can_have_the_call_of_another_refused(
    graph: Served, tmp_path: Path, way: str
) -> None:
    """It is under way at each death, and the only one that the deaths have in common."""
    path, seen = tmp_path / "go", len(graph.log)
    kills = "here" if way == "here" else "shared"

    def hold() -> httpx.Response | None:
        return ask(graph, "/hold", file=str(path), way=way)

    def kill_after(begun: int) -> None:
        eventually(lambda: lines(f"{path}.begun") == begun)
        ask(graph, "/die", x=-300 - begun, way=kills)

    # an idempotent one runs once more, and the next one kills that worker too
    per_call = 2 if way == "again" else 1
    with ThreadPoolExecutor(1) as threads:
        for call in range(3):
            neighbour = threads.submit(hold)
            for run in range(per_call):
                kill_after(call * per_call + run + 1)
            answer = neighbour.result()
            assert answer is None or answer.status_code == 502
    graph.wait_log(
        "calls of .* were under way when their worker died: none of them is quarantined", after=seen
    )
    path.touch()
    answer = hold()
    assert answer is not None
    assert (answer.status_code, answer.json()) == (200, "done")
    assert "has killed two" not in "".join(graph.log[seen:])


def lines(path: str) -> int:
    """How many there are by now."""
    return Path(path).read_text().count("\n") if Path(path).exists() else 0


@pytest.mark.parametrize("size", [100_000, rarely(1_000_000)])
def test_an_array_that_kills_two_workers_is_refused_and_others_live(
    graph: Served, size: int
) -> None:
    """It lies in shared memory, elsewhere each time."""
    seen = len(graph.log)
    for _ in range(2):
        answer = ask(graph, "/image", size=size, first=-1)
        assert answer is not None
        assert answer.status_code == 502
        answer = ask(graph, "/image", size=size, first=2)
        assert answer is not None
        assert (answer.status_code, answer.json()) == (200, size), answer.text
    graph.wait_log(
        "a call of Pictured has killed two of its workers in a row .*/image#", after=seen
    )
    (worker,) = graph.workers("n1")
    for first in range(3):
        answer = ask(graph, "/image", size=size, first=-1)
        assert answer is not None
        assert "while they executed this very call" in answer.json()["detail"]
        answer = ask(graph, "/image", size=size, first=first)
        assert answer is not None
        assert answer.json() == size
    assert graph.workers("n1") == [worker]


def test_a_worker_that_dies_of_calls_is_back_at_once_again_and_again(graph: Served) -> None:
    seen = len(graph.log)
    for x in range(7):  # more than starts that may fail
        answer = ask(graph, "/run", x=-1000 - x, way="queued")
        assert answer is not None
        assert answer.status_code == 502
        answer = ask(graph, "/run", x=x, way="queued")
        assert answer is not None
        assert answer.json() == x + 1
    text = "".join(graph.log[seen:])
    assert "replaced in" not in text
    assert "Queued failed" not in text
    assert "in a row" not in text


def test_an_operator_who_kills_workers_quarantines_nothing(graph: Served) -> None:
    """The very same call is executed at each death, and answered in between."""
    seen = len(graph.log)
    with graph.client() as client:
        for _ in range(3):
            for victim in graph.workers("n2"):
                os.kill(victim, signal.SIGKILL)
                answer = client.post("/run", json={"x": 5, "way": "pooled"})
                assert (answer.status_code, answer.json()) == (200, 7), answer.text
            graph.wait_log("Pooled ready  3/3", after=seen)
            seen = len(graph.log)
    assert "a call of Pooled has killed two .*#.*/run#0" not in graph.text


def test_an_answer_clears_the_call_that_was_sent_whatever_became_of_its_memory() -> None:
    told: list[str] = []
    head = b"POST /image HTTP/1.1\r\nhost: leaf\r\n\r\n"
    request: Any = SimpleNamespace(
        written=lambda: head + b"good", tickets=None, upload=None, fingerprint=None
    )
    good, bad = (
        call_fingerprint.of_request(head + b"good"),
        call_fingerprint.of_request(head + b"evil"),
    )
    suspicions = Suspicions("Leaf", {good, bad}, {}, told.append)
    assert suspicions.refusal_of(request) is None
    request.written = lambda: head + b"evil"
    suspicions.answered_of(request)
    assert (told, suspicions.suspects) == ([good], {bad})


# --- the judgement, with a clock of its own ---


class Bench:
    """A node that says what it is told, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.said: list[str] = []
        self.node: Any = SimpleNamespace(
            plan=SimpleNamespace(name="Leaf", apis=()),
            stopping=False,
            say=lambda kind, level, words, fields=None: self.said.append(words),
        )
        self.timers: list[tuple[Any, ...]] = []
        self.quarantine = Quarantine(self.node, lambda: None, lambda: self.now, self.later)

    def later(self, delay: float, call: Any, *arguments: Any) -> Any:
        self.timers.append((delay, call, arguments))
        return SimpleNamespace(cancel=lambda: None)

    def death(self, *calls: str, own: bool = False, executing: int | None = None) -> None:
        self.now += 1.0
        self.quarantine.died(
            set(calls) if own else set(), len(calls) if executing is None else executing
        )
        for call in () if own else calls:
            self.quarantine.held(call, 1)
        self.settle()

    def quick_death(self, call: str) -> None:
        """A worker says what it executes, and dies before that is looked at."""
        self.now += 0.6
        self.quarantine.held(call, 1)
        self.quarantine.died(set())
        self.settle()

    def settle(self) -> None:
        due, self.timers = [timer for timer in self.timers if timer[0] <= 1.0], []
        for _, call, arguments in due:
            call(*arguments)

    @property
    def refused(self) -> list[str]:
        message = self.quarantine.message()
        return list(message.refused) if message is not None else []


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    ("deaths", "refused"),
    [
        (["x"], ""),
        (["x", "x"], "x"),
        (["ax", "bx"], ""),  # x may have been under way for long, and others may have done it
        (["ax", "bx", "cx", "dx"], ""),
        (["ax", "ax"], ""),  # either may have done it
        (["x", "ax"], ""),
        (["x", "ax", "x"], "x"),
        (["a", "b", "c"], ""),
        (["x", "y", "x", "y"], "xy"),  # two of them, by turns
        (["x", "", "x"], "x"),
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_what_two_deaths_have_in_common_is_refused(
    bench: Bench, deaths: list[str], refused: str, own: bool
) -> None:
    for calls in deaths:
        bench.death(*calls, own=own)
    assert bench.refused == list(refused)
    assert sum("has killed two" in words for words in bench.said) == len(refused)


@pytest.mark.parametrize("own", [False, True])
def test_a_call_with_company_that_nobody_knows_of_is_not_refused(bench: Bench, own: bool) -> None:
    for _ in range(4):
        bench.death("x", own=own, executing=2)
        bench.death("x", call_fingerprint.upload("/a"), own=own)
        bench.death(call_fingerprint.upload("/a"), own=own)
    assert not bench.refused
    assert (
        "2 calls of Leaf were under way when their worker died: none of them is quarantined."
        " Known are x" in bench.said
    )


def test_a_call_that_ran_again_beside_others_is_not_refused(bench: Bench) -> None:
    for kills in (1, 2, 3):
        bench.now += 1.0
        bench.quarantine.died({f"d{kills}"}, 2)
        bench.quarantine.held("x", kills)
        bench.settle()
    assert not bench.refused


def test_who_is_left_when_others_were_answered_is_not_refused(bench: Bench) -> None:
    for _ in range(3):
        bench.death("a", "x")
        bench.quarantine.answered("a")
    assert not bench.refused


@pytest.mark.parametrize(
    ("deaths", "told"),
    [
        (["/a#1", "/a#2"], ""),
        (["/a#1", "/a#2", "/a#3"], "the last 3 workers of Leaf that died executed Leaf.a"),
        ([["/a#1", "/b#1"], ["/a#2", "/b#2"], ["/b#3", "/a#3"]],
         "the last 3 workers of Leaf that died executed Leaf./b and Leaf.a"),
        ([["/a#1", "/b#1"], ["/b#2", "/c#2"], ["/a#3", "/b#3"]],
         "the last 3 workers of Leaf that died executed Leaf./b"),
        (["/b#1", "/a#1", "/b#2"], ""),
        (["/a#1", [], "/a#2"], ""),  # it is not known what that one executed
        ([call_fingerprint.upload("/a")] * 3, "the last 3 workers of Leaf that died executed Leaf.a"),
        (["/a#1"] * 4, ""),  # that call is refused, and told of by itself
    ],
)  # fmt: skip
@pytest.mark.parametrize("own", [False, True])
def test_an_api_that_workers_die_of_is_told_whichever_calls_those_were(
    bench: Bench, deaths: list[str | list[str]], told: str, own: bool
) -> None:
    bench.node.plan.apis = [SimpleNamespace(route="/a", name="a")]
    for calls in deaths:
        bench.death(*([calls] if isinstance(calls, str) else calls), own=own)
    assert bench.quarantine.row() == told
    hint = ": see what its calls have in common"
    assert [words for words in bench.said if "the last" in words] == (
        [f"{told}{hint}"] if told else []
    )
    bench.now += quarantine.REMEMBERED + 1
    assert bench.quarantine.row() == ""


def test_what_was_answered_after_a_death_was_executed_at_it_all_the_same(bench: Bench) -> None:
    for _ in range(3):
        bench.death("/a#1", "/a#2")
        bench.quarantine.answered("/a#1")
    assert bench.quarantine.row() == "the last 3 workers of Leaf that died executed Leaf./a"


def test_a_call_that_was_answered_is_no_suspect(bench: Bench) -> None:
    bench.death("x")
    bench.quarantine.answered("x")
    bench.death("x")
    assert not bench.refused


def test_workers_that_end_together_count_once(bench: Bench) -> None:
    bench.death("x")
    bench.quarantine.answered("x")
    bench.now += 1.0
    for _ in range(5):
        bench.quarantine.died({"x"})
        bench.now += 0.001
    bench.settle()
    assert not bench.refused


def test_a_call_that_ran_again_is_convicted_however_quick_it_was(bench: Bench) -> None:
    bench.now += 1.0
    bench.quarantine.held("x", 1)
    bench.quarantine.died(set())
    bench.quarantine.held("x", 2)  # before its second death is seen
    bench.quarantine.died(set())
    bench.settle()
    assert bench.refused == ["x"]


def test_deaths_may_follow_each_other_quickly_and_be_seen_after_what_is_said_of_them(
    bench: Bench,
) -> None:
    for _ in range(2):
        bench.quick_death("x")
    assert bench.refused == ["x"]


def test_a_death_whose_call_was_answered_takes_no_word_of_the_next_one(bench: Bench) -> None:
    bench.death("a")
    bench.quarantine.answered("a")
    for _ in range(2):
        bench.quick_death("x")
    assert bench.refused == ["x"]


def test_what_is_said_late_counts_for_a_death_of_which_nothing_is_known(bench: Bench) -> None:
    for _ in range(2):
        bench.now += 5.0
        bench.quarantine.died(set())
        bench.settle()
        bench.now += 0.5
        bench.quarantine.held("x", 1)
        bench.settle()
    assert bench.refused == ["x"]


def test_what_is_said_of_no_death_is_forgotten(bench: Bench) -> None:
    bench.quarantine.held("x", 1)
    bench.now += 2.0
    bench.death("a")
    bench.now += 5.0
    bench.quarantine.held("x", 1)
    bench.death()
    assert not bench.refused


def test_suspicion_and_refusal_end(bench: Bench) -> None:
    bench.death("x")
    bench.now += quarantine.REMEMBERED + 1
    bench.death("x")
    assert not bench.refused
    bench.death("x")
    assert bench.refused == ["x"]
    bench.now += quarantine.REFUSED + 1
    message = bench.quarantine.message()
    assert message is not None
    assert not message.refused
    assert not message.suspects
    assert bench.quarantine.message() is None


def test_what_is_kept_is_bounded(bench: Bench) -> None:
    for number in range(quarantine.MOST_REFUSED + 5):
        bench.death(str(number))
        bench.death(str(number))
        bench.now -= 1.9
    assert len(bench.refused) <= quarantine.MOST_REFUSED
    for number in range(3 * quarantine.MOST_EXECUTING):
        bench.quarantine.held(str(number), 1)
    bench.death(*map(str, range(3 * quarantine.MOST_EXECUTING)))
    message = bench.quarantine.message()
    assert message is not None
    assert len(message.suspects) <= quarantine.MOST_DEATHS * quarantine.MOST_EXECUTING


@pytest.mark.parametrize(
    "size", [0, 1, 100, call_fingerprint.WHOLE, call_fingerprint.WHOLE + 1, 10**6]
)
def test_a_fingerprint_tells_calls_apart(size: int) -> None:
    body = bytes(size)
    names = {
        call_fingerprint.of("/a", body),
        call_fingerprint.of("/b", body),
        call_fingerprint.of("/a", body + b"\0"),
    }
    if size:
        names |= {
            call_fingerprint.of("/a", b"\1" + body[1:]),
            call_fingerprint.of("/a", body[:-1] + b"\1"),
        }
    assert len(names) == (5 if size > 1 else 4 if size else 3)
    request = b"POST /a HTTP/1.1\r\nhost: x\r\nx-graphserve-deadline: 5\r\n\r\n" + body
    assert call_fingerprint.of_request(request) == call_fingerprint.of("/a", body)
    assert call_fingerprint.of_request(b"an opening of ours\r\n" + request) == call_fingerprint.of(
        "/a", body
    )


def test_a_node_that_started_is_not_said_not_to_start() -> None:
    assert str(Known("Leaf", "failed")) == "Leaf is failed: it does not start; its log says why"
    assert (
        str(Known("Leaf", "failed", starts=True))
        == "Leaf is failed: its workers die soon after their start; its log says why"
    )


def test_no_pause_follows_deaths_by_calls() -> None:
    backoff = Backoff()
    assert all(backoff.died(backoff.healthy) == 0.0 for _ in range(50))
    assert not backoff.failed
