"""Workers that are replaced while they live: after so many calls, at so much memory, when they are stuck."""

from __future__ import annotations

import threading
import time

import httpx

from tests.harness import APPS, SLACK, Served, eventually, served

ROOT = APPS.parent.parent
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


def test_max_memory_replaces_a_worker() -> None:
    with served(TARGET, "--set", "Node.max_memory=200000000", cwd=ROOT) as graph, graph.client() as client:
        fat = client.post("/eat", json={"megabytes": 300}).json()
        eventually(lambda: fat not in graph.workers(), 20)
        graph.wait_log("bytes of memory")
        assert client.post("/pid", json={}).status_code == 200


def test_a_stuck_loop_is_killed_and_replaced() -> None:
    with served(TARGET, "--set", "Node.watchdog=0.5", "--workers", "1", cwd=ROOT) as graph:
        (stuck,) = graph.workers()
        thread = threading.Thread(target=ask, args=(graph, "/block"))
        thread.start()
        eventually(lambda: graph.workers() != [stuck] and graph.workers(), 10 * SLACK)
        graph.wait_log("its event loop is stuck")
        thread.join()
        with graph.client() as client:
            assert client.post("/pid", json={}).status_code == 200


def test_a_thread_that_overstays_its_deadline_is_ended_with_its_worker() -> None:
    with served(TARGET, "--set", "Node.watchdog=1", "--workers", "1", cwd=ROOT) as graph:
        (old,) = graph.workers()
        with graph.client() as client:
            began = time.monotonic()
            assert client.post("/overstay", json={}).status_code == 504
            assert time.monotonic() - began < 0.2 + 0.1 * SLACK
            assert client.post("/patient", json={}).status_code == 504, "an async API is simply cancelled"
        eventually(lambda: graph.workers() and old not in graph.workers(), 10 * SLACK)
        graph.wait_log("after its deadline")


def ask(graph: Served, path: str) -> None:
    try:
        httpx.post(graph.url + path, json={}, timeout=60, trust_env=False)
    except httpx.HTTPError:
        pass  # its worker was killed
