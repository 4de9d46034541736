"""How workers take each other's places: one at a time, answering what they took, and in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.harness import Served, alive, eventually
from tests.load import Load
from tests.steering import Steered

pytestmark = pytest.mark.slow

APP = """
import os, time
from graphserve import api, service

@service(concurrency=2, watchdog=1, graceful_timeout={graceful})
class Top:
    def __init__(self) -> None:
        while os.path.exists("hold"):
            time.sleep(0.01)

    @api
    def pid(self) -> int:
        return os.getpid()

    @api
    def stay(self) -> None:
        open(f"stays.{{os.getpid()}}.{{time.monotonic_ns()}}", "w").close()
        time.sleep(600)

    @api(timeout=0.3)
    def hang(self) -> None:
        time.sleep(600)

    @api
    def hold(self) -> int:
        open(f"held.{{os.getpid()}}", "w").close()
        while not os.path.exists("gate"):
            time.sleep(0.01)
        return os.getpid()
"""


@contextmanager
def serving(steered: Steered, *arguments: str, graceful: float = 60.0) -> Iterator[Served]:
    steered.write(app=APP.format(graceful=graceful))
    graph = steered.serve(*arguments)
    try:
        yield graph.wait_ready()
    finally:
        graph.close()


@contextmanager
def calls(graph: Served, path: str, count: int = 1) -> Iterator[list[httpx.Response]]:
    """Calls beside the test; a worker that is killed does not answer."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        try:
            answers.append(httpx.post(graph.url + path, json={}, timeout=90, trust_env=False))
        except httpx.HTTPError:
            pass

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield answers
    for thread in threads:
        thread.join()


def files(steered: Steered, pattern: str) -> list[Path]:
    return list(steered.folder.glob(pattern))


def command(*arguments: str) -> Callable[[Steered, Served], None]:
    def run(steered: Steered, graph: Served) -> None:
        done = steered.run(*arguments)
        assert done.returncode == 0, done.stderr

    return run


def age(steered: Steered, graph: Served) -> None:
    with graph.client() as client:
        for _ in range(20):
            client.post("/pid", json={})


@pytest.mark.parametrize(
    ("workers", "change"),
    [
        pytest.param(1, command("reload"), id="reload"),
        pytest.param(1, command("restart"), id="restart"),
        pytest.param(2, command("scale", "Top=1"), id="scale"),
        pytest.param(1, age, id="recycle"),
    ],
)
def test_a_worker_that_does_not_drain_is_killed_in_time(
    steered: Steered, workers: int, change: Callable[[Steered, Served], None]
) -> None:
    options = (
        "--workers",
        str(workers),
        *(("--set", "Top.max_requests=10") if change is age else ()),
    )
    with serving(steered, *options, graceful=1.0) as graph:
        before = graph.workers()
        # where one of several goes, all of them have one
        stays = 1 if workers == 1 else 2 * workers
        with calls(graph, "/stay", stays):
            eventually(lambda: len(files(steered, "stays.*")) == stays)
            began = time.monotonic()
            change(steered, graph)
            graph.wait_log("had not ended 1 s after it was told to stop")
            eventually(lambda: not all(map(alive, before)))
            assert time.monotonic() - began >= 1.0
            eventually(lambda: len(graph.workers()) == 1)
            for pid in graph.workers():
                assert workers == 2 or pid not in before
            graph.close()


def test_a_roll_waits_for_the_one_that_leaves(steered: Steered) -> None:
    with serving(steered, "--workers", "3") as graph, calls(graph, "/hold", 6) as answers:
        eventually(lambda: len(files(steered, "held.*")) == 3)
        with steered.begin("reload") as reloading:
            assert reloading.stdout is not None
            assert reloading.stdout.readline() == "Top 1/3 replaced\n"
            # It says so before it turns to the next one.
            assert sorted(row["state"] for row in steered.ps()) == [
                "draining",
                "ready",
                "ready",
                "ready",
            ]
            (steered.folder / "gate").touch()
            assert reloading.wait(60) == 0
        eventually(lambda: len(answers) == 6)
        assert {answer.status_code for answer in answers} == {200}


def test_recycling_takes_one_worker_at_a_time(steered: Steered) -> None:
    with serving(steered, "--workers", "4", "--set", "Top.max_requests=20") as graph:
        first, most = graph.workers(), 0

        def look() -> bool:
            nonlocal most
            now = graph.workers()
            most = max(most, len(now))
            return not set(first) & set(now)

        with Load(graph.url, "/pid", {}, clients=8) as load:
            eventually(look, 90)
        assert not load.failures
    assert most == 5, "one more than there are usually"


def test_a_restart_waits_for_a_worker_that_is_being_recycled(steered: Steered) -> None:
    with serving(steered, "--set", "Top.max_requests=10") as graph:
        first = graph.workers()
        (steered.folder / "hold").touch()
        age(steered, graph)
        graph.wait_log("replacing it")
        eventually(lambda: len(graph.workers()) == 2)
        with steered.begin("restart") as restarting:
            graph.wait_log("restarting")
            assert [row["state"] == "ready" for row in steered.ps()] == [True, False], (
                "or nobody would answer"
            )
            (steered.folder / "hold").unlink()
            assert restarting.wait(60) == 0
        eventually(lambda: len(graph.workers()) == 1)
        assert graph.workers() != first


def test_a_worker_may_execute_a_few_more_than_max_requests(steered: Steered) -> None:
    with serving(steered, "--set", "Top.max_requests=100") as graph, graph.client() as client:
        (old,) = graph.workers()

        for _ in range(100):
            assert client.post("/pid", json={}).json() == old
        (row,) = steered.ps()  # which has it report
        assert row["health"]["executed"] == 100
        assert "replacing it" not in graph.text, (
            "each has a quota of its own, so that they go apart"
        )
        for _ in range(12):  # it may report, and be replaced, before the last of them
            client.post("/pid", json={})
        graph.wait_log(r"has executed 1[01]\d calls \(max_requests\); replacing it")


def test_a_stuck_call_costs_those_beside_it_nothing(steered: Steered) -> None:
    with serving(steered) as graph, calls(graph, "/hold") as answers:
        (old,) = graph.workers()
        eventually((steered.folder / f"held.{old}").exists)
        with graph.client() as client:
            assert client.post("/hang", json={}).status_code == 504
            graph.wait_log(
                r"still executed a call .* after its deadline \(watchdog\); replacing it"
            )
            eventually(lambda: client.post("/pid", json={}).json() != old)
        assert alive(old), "it answers what it took"
        (steered.folder / "gate").touch()
        eventually(lambda: answers)
        assert answers[0].json() == old
        eventually(lambda: not alive(old))
