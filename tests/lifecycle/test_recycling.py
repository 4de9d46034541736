"""Workers that are replaced while they live: after so many calls, at so much memory, when they are
stuck.
"""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

import httpx
import pytest

from graphserve.supervise.backoff import JITTER
from tests.harness import APPS, Served, eventually, served

pytestmark = pytest.mark.slow

ROOT = APPS.parent.parent
BREAKING = """
import os
from graphserve import api, service

@service(max_requests=5, workers=2)
class Node:
    def __init__(self) -> None:
        if os.path.exists({flag!r}):
            raise OSError("the disk is gone")

    @api
    async def pid(self) -> int:
        return os.getpid()
"""
TARGET = "tests.apps.aging:Node"


def test_max_requests_replaces_workers_without_loss() -> None:
    with served(TARGET, "--set", "Node.max_requests=50", cwd=ROOT) as graph:
        first = set(graph.workers())
        seen: set[int] = set()
        stop = threading.Event()
        statuses: set[int] = set()

        def load() -> None:
            with graph.client() as client:
                while not stop.is_set():
                    answer = client.post("/pid", json={})
                    statuses.add(answer.status_code)
                    seen.add(answer.json())

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: not first & set(graph.workers()), 60)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert statuses == {200}
        assert len(seen) > 2
        assert "has executed" in graph.text


def test_a_replacement_that_does_not_start_is_tried_again_later_and_later(tmp_path: Path) -> None:
    flag = str(tmp_path / "broken")
    (tmp_path / "app.py").write_text(BREAKING.format(flag=flag))
    with served("app:Node", cwd=tmp_path) as graph, graph.client() as client:
        first = graph.workers()
        open(flag, "w").close()
        for _ in range(20):
            assert client.post("/pid", json={}).json() in first
        failed = (
            r"of Node did not start; the worker serves on, and the next try is in (\d+\.\d) s: Node"
        )
        graph.wait_log(failed)
        began = time.monotonic()
        eventually(lambda: len(re.findall(failed, graph.text)) >= 4, 120)
        assert time.monotonic() - began > (1 + 2 + 4) * (1 - JITTER) - 0.1
        pauses = [float(pause) for pause in re.findall(failed, graph.text)]
        for pause, expected in zip(pauses, (1, 2, 4, 8), strict=False):
            assert expected * (1 - JITTER) - 0.1 < pause < expected * (1 + JITTER) + 0.1
        assert client.post("/pid", json={}).json() in first, "the old ones go on"
        os.unlink(flag)
        eventually(lambda: not set(first) <= set(graph.workers()), 60)


def test_max_memory_replaces_a_worker() -> None:
    with (
        served(TARGET, "--set", "Node.max_memory=200000000", cwd=ROOT) as graph,
        graph.client() as client,
    ):
        fat = client.post("/eat", json={"megabytes": 300}).json()
        eventually(lambda: fat not in graph.workers(), 20)
        graph.wait_log("bytes of memory")
        assert client.post("/pid", json={}).status_code == 200


@pytest.mark.parametrize(
    ("timeout", "calls", "least"),
    [
        pytest.param("6", ["/block"], 6.0, id="a call that has just begun"),
        pytest.param("600", ["/block_after"], 5.0, id="a call that has run for a while"),
        pytest.param(
            "600",
            ["/block_after", "/short"],
            5.0,
            id="beside one with a later deadline that has ended",
        ),
        pytest.param("600", ["/block_later"], 0.1, id="no call"),
    ],
)
def test_a_stuck_loop_is_replaced_after_the_deadline_of_what_it_executes(
    timeout: str, calls: list[str], least: float
) -> None:
    options = ("--set", "Node.watchdog=0.5", "--workers", "1", "--timeout", timeout)
    with served(TARGET, *options, cwd=ROOT) as graph:
        (stuck,) = graph.workers()
        began = time.monotonic()
        threads = [threading.Thread(target=ask, args=(graph, path)) for path in calls]
        for thread in threads:
            thread.start()
        eventually(lambda: stuck not in graph.workers(), least + 60)
        assert least + 0.5 <= time.monotonic() - began
        graph.wait_log("its event loop is stuck")
        graph.wait_log(
            r'File ".*aging\.py", line \d+, in block' if calls != ["/block_later"] else "replaced"
        )
        for thread in threads:
            thread.join()
        with graph.client() as client:
            assert client.post("/pid", json={}).status_code == 200


def test_a_thread_that_overstays_its_deadline_is_ended_with_its_worker() -> None:
    with served(TARGET, "--set", "Node.watchdog=1", "--workers", "1", cwd=ROOT) as graph:
        (old,) = graph.workers()
        with graph.client() as client:
            assert client.post("/overstay", json={}).status_code == 504
            assert client.post("/patient", json={}).status_code == 504, (
                "an async API is simply cancelled"
            )
        eventually(lambda: graph.workers() and old not in graph.workers(), 60)
        graph.wait_log("after its deadline")


def ask(graph: Served, path: str) -> None:
    try:
        httpx.post(graph.url + path, json={}, timeout=60, trust_env=False)
    except httpx.HTTPError:
        pass  # its worker was killed
