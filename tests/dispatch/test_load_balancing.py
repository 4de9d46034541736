"""A worker is capacity: waiting calls go to whichever worker is free, whoever calls and whatever
the others do.
"""

from __future__ import annotations

import collections
import os
import signal
import threading
from pathlib import Path

import httpx
import pytest

from tests.harness import APPS, Served, eventually, served

ROOT = APPS.parent.parent
SERVICE = 0.05  # seconds


def load(
    graph: Served, callers: int, calls: int, path: str = "/work"
) -> tuple[int, collections.Counter[int]]:
    """So many callers, each with so many calls in turn: how many calls, and who answered."""
    pids: collections.Counter[int] = collections.Counter()

    def call() -> None:
        with graph.client() as client:
            for _ in range(calls):
                answer = client.post(path, json={"seconds": SERVICE})
                assert answer.status_code == 200, answer.text
                pids[answer.json()] += 1

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return callers * calls, pids


@pytest.mark.slow
@pytest.mark.parametrize("gateways", [1, 4])
def test_work_spreads_evenly(gateways: int) -> None:
    with served("tests.apps.balance:Gateway", "--workers", str(gateways), cwd=ROOT) as graph:
        load(graph, 4, 2)  # warm
        calls, pids = load(graph, 8, 12)
    assert len(pids) == 4
    assert min(pids.values()) > 0.15 * calls, pids


def test_work_spreads_evenly_at_the_public_port_itself() -> None:
    """Kept-alive public connections stay where they are, so a busy worker passes calls on."""
    with served("tests.apps.balance:Model", cwd=ROOT) as graph:
        load(graph, 4, 2)
        calls, pids = load(graph, 8, 12)
    assert len(pids) == 4
    assert min(pids.values()) > 0.15 * calls, pids


def test_a_stuck_worker_delays_nobody_else(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with served("tests.apps.balance:Gateway", cwd=ROOT) as graph:
        stuck = threading.Thread(
            target=lambda: graph.client().post("/hold", json={"file": str(gate)})
        )
        stuck.start()
        eventually(Path(f"{gate}.held").exists)
        _, pids = load(graph, 3, 34)
        assert stuck.is_alive(), "no call waited for the stuck worker"
        assert (len(pids), pids.total()) == (3, 102)
        gate.touch()
        stuck.join()


def test_a_full_queue_is_refused_at_once(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    arguments = ("--scale", "Model=1", "--set", "Model.queue=2")
    statuses: list[int] = []

    def call(graph: Served) -> None:
        answer = httpx.post(
            f"{graph.url}/hold", json={"file": str(gate)}, timeout=60, trust_env=False
        )
        statuses.append(answer.status_code)
        if answer.status_code == 503:
            assert "retry-after" in answer.headers
            assert answer.json()["service"] == "Model"

    with served("tests.apps.balance:Gateway", *arguments, cwd=ROOT) as graph:
        threads = [threading.Thread(target=call, args=(graph,)) for _ in range(10)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(statuses) >= 6)
        assert set(statuses) == {503}, "they did not wait for the call that goes on"
        gate.touch()
        for thread in threads:
            thread.join()
    assert statuses.count(200) == 10 - statuses.count(503) >= 3


def test_waiting_calls_survive_the_death_of_workers() -> None:
    with served("tests.apps.balance:Gateway", cwd=ROOT) as graph:
        results: list[collections.Counter[int]] = []
        loader = threading.Thread(target=lambda: results.append(load(graph, 12, 10)[1]))
        loader.start()
        for _ in range(3):
            eventually(lambda: len(graph.workers("n1")) == 4)
            os.kill(graph.workers("n1")[0], signal.SIGKILL)
        loader.join()
    assert results and results[0].total() == 120, "every call was answered with 200"


@pytest.mark.slow
def test_a_hundred_thousand_chain_calls_leave_nothing() -> None:
    with served("tests.apps.balance:Gateway", cwd=ROOT) as graph:

        def chain(times: int) -> None:
            with graph.client() as client:
                for _ in range(times // 500):
                    assert client.post("/chain", json={"x": 0, "times": 500}).json() == 500

        def together(times: int) -> None:
            threads = [threading.Thread(target=chain, args=(times // 8,)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        with graph.client() as client:
            together(8_000)
            before = client.post("/facts", json={}).json()
            together(100_000)
            after = client.post("/facts", json={}).json()
    assert after["fds"] <= before["fds"] + 8
    assert after["pss_kb"] < before["pss_kb"] * 1.15 + 2_000
