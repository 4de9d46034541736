"""Whether a worker is replaced, when, and what others notice of it."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from graphserve.supervise.backoff import JITTER
from tests.harness import APPS, Served, alive, eventually, served

ROOT = APPS.parent.parent
APP = """
import os
from graphserve import api, depends, service

FLAG = {flag!r}

@service
class Broken:
    def __init__(self) -> None:
        if os.path.exists(FLAG):
            raise OSError("the disk is gone")

    @api
    async def x(self) -> int:
        return 1

@service
class Sound:
    @api
    async def pid(self) -> int:
        return os.getpid()

@service
class Top:
    broken = depends(Broken)
    sound = depends(Sound)

    @api
    async def x(self) -> int:
        return await self.broken.x()

    @api
    async def pid(self) -> int:
        return await self.sound.pid()
"""


@pytest.mark.slow
@pytest.mark.parametrize("by", ["itself", "restart"])
def test_a_failed_node_costs_the_others_nothing_and_comes_back(
    tmp_path: Path, run_dir: Path, by: str
) -> None:
    flag = tmp_path / "broken"
    (tmp_path / "app.py").write_text(APP.format(flag=str(flag)))
    with (
        served("app:Top", "--run-dir", str(run_dir), cwd=tmp_path) as graph,
        graph.client() as client,
    ):
        sound = client.post("/pid", json={}).json()
        flag.touch()
        os.kill(graph.workers("n0")[0], signal.SIGKILL)
        graph.wait_log("Broken failed", 60)
        answer = client.post("/x", json={})
        assert (answer.status_code, answer.json()["service"]) == (503, "Broken")
        assert int(answer.headers["retry-after"]) > 0
        assert client.post("/pid", json={}).json() == sound, "the others run on"
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["missing"] == ["Broken is failed: it does not start; its log says why"]
        graph.wait_log("the disk is gone")
        assert client.get("/livez").status_code == 200
        pauses = [
            float(found)
            for found in re.findall(r"the disk is gone; replaced in (\d+\.\d) s", graph.text)
        ]
        assert pauses == sorted(pauses), "later and later"
        assert pauses[:-1] and max(pauses[:-1]) < 1
        assert 30 * (1 - JITTER) - 0.1 < pauses[-1] < 30 * (1 + JITTER) + 0.1, (
            "it tries on, with the longest pause"
        )
        flag.unlink()
        if by == "restart":
            with httpx.Client(
                transport=httpx.HTTPTransport(uds=str(run_dir / "control.sock"))
            ) as control:
                control.post(
                    "http://graph/restart", json={"nodes": ["Broken"]}, timeout=20
                ).raise_for_status()
            assert client.post("/x", json={}).status_code == 200
        eventually(lambda: client.post("/x", json={}).status_code == 200, 60)
        assert client.get("/readyz").status_code == 200
        assert client.post("/pid", json={}).json() == sound


def test_a_thread_that_hangs_concerns_its_caller_only(tmp_path: Path) -> None:
    with served("lingering:Caller", "--set", "Pool.watchdog=1") as graph, graph.client() as client:
        first = set(graph.workers("n0"))

        def hang() -> None:
            answer = httpx.post(
                f"{graph.url}/hang", json={"file": str(tmp_path / "hangs")}, timeout=30
            )
            assert (answer.status_code, answer.json()["service"]) == (504, "Pool"), (
                "it does not wait for the watchdog"
            )

        thread = threading.Thread(target=hang)
        thread.start()
        eventually((tmp_path / "hangs").exists)
        answers = set()
        while len(graph.workers("n0")) > 2 or first <= set(graph.workers("n0")):
            answer = client.post("/pid", json={})
            assert answer.status_code == 200, "the other worker answers all the while"
            answers.add(answer.json())
        thread.join()
        assert len(answers & first) == 1
        graph.wait_log(r"still executed a call .* after its deadline \(watchdog\); replaced")
        eventually(lambda: {client.post("/pid", json={}).json() for _ in range(20)} - first)


@pytest.mark.slow
def test_workers_are_recycled_one_after_the_other() -> None:
    options = ("--set", "Node.max_requests=30", "--workers", "4", "--log-format", "json")
    graph = Served("tests.apps.aging:Node", *options, cwd=ROOT)
    try:
        graph.url = graph.wait_log(r"serving on ([^\s\"]+)", 60).group(1)
        first = set(graph.workers())
        with graph.client() as client:
            eventually(
                lambda: (
                    client.post("/pid", json={}).status_code == 200
                    and not first & set(graph.workers())
                ),
                90,
            )
        assert graph.stop() == 0
    finally:
        graph.close()
    states = [json.loads(line)["fields"] for line in graph.log]
    ready = [fields["ready"] for fields in states if fields.get("state") == "ready"]
    assert ready[0] == 4
    assert min(ready) >= 3, "never more than one is away"
    assert sum("has executed" in line for line in graph.log) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("target", ["lingering:Busy", "lingering:Staying", "lingering:Lingering"])
def test_a_worker_that_does_not_go_is_killed_in_time(target: str, tmp_path: Path) -> None:
    with served(target, "--timeout", "60") as graph:
        workers = graph.workers()
        path = {"lingering:Busy": "block", "lingering:Staying": "stay"}.get(target)
        thread = threading.Thread(
            target=ask, args=(f"{graph.url}/{path}", {"file": str(tmp_path / "busy")})
        )
        thread.start()
        if path:
            eventually((tmp_path / "busy").exists)
        began = time.monotonic()
        assert graph.stop() == 0
        assert time.monotonic() - began >= 1.0
        assert not any(alive(pid) for pid in workers)
        assert re.search(r"had not ended 1 s after it was told to stop", graph.text)
        thread.join(30)


@pytest.mark.slow
def test_a_worker_that_was_told_to_go_by_hand_and_stays_is_replaced() -> None:
    with served("lingering:Lingering") as graph, graph.client() as client:
        (old,) = graph.workers()
        os.kill(old, signal.SIGTERM)
        eventually(lambda: graph.workers() not in ([], [old]) and not alive(old), 60)
        graph.wait_log("had not ended 1 s after it was told to stop")
        assert eventually(lambda: answered(client)) != old


@pytest.mark.slow
def test_a_worker_that_nobody_can_steer_any_more_is_replaced() -> None:
    with served("lingering:Busy", "--workers", "1") as graph:
        (old,) = graph.workers()
        thread = threading.Thread(target=ask, args=(f"{graph.url}/cut", {}))
        thread.start()
        eventually(lambda: graph.workers() not in ([], [old]) and not alive(old), 60)
        thread.join(30)
        with graph.client() as client:
            eventually(lambda: answered(client))


def answered(client: httpx.Client) -> int:
    try:
        return int(client.post("/pid", json={}).json())
    except httpx.HTTPError:
        return 0  # kept alive by the worker that was killed


def ask(url: str, arguments: dict[str, object]) -> None:
    try:
        httpx.post(url, json=arguments, timeout=60, trust_env=False)
    except httpx.HTTPError:
        pass


def test_readiness_ends_before_the_port_closes() -> None:
    with served("diamond:Top", "--drain-delay", "600") as graph, graph.client() as client:
        assert client.get("/readyz").status_code == 200
        graph.signal()
        eventually(lambda: client.get("/readyz").status_code == 503)
        (entry,) = graph.workers("n3")
        os.kill(entry, signal.SIGKILL)
        eventually(lambda: graph.workers("n3") not in ([], [entry]))
        for _ in range(20):
            with graph.client() as new:  # a load balancer that has not asked yet
                assert new.get("/readyz").status_code == 503, "a replacement knows it too"
                assert new.post("/top", json={"x": 1}).json() == 10


@pytest.mark.slow
def test_the_port_closes_after_the_delay() -> None:
    with served("diamond:Top", "--drain-delay", "0.5") as graph:
        began = time.monotonic()
        assert graph.stop() == 0
        assert time.monotonic() - began >= 0.5


@pytest.mark.slow
def test_a_second_signal_cuts_the_delay_short() -> None:
    with served("diamond:Top", "--drain-delay", "600") as graph:
        graph.signal()
        graph.wait_log("stopping")
        graph.signal()
        assert graph.wait_exit(10) == 130
