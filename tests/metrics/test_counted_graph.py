"""What a graph has counted when it has answered: every request and every call, once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.harness import InThread, Served, alive, eventually, served
from tests.metrics.reading import Metrics, answer, scrape

REQUESTS = "http_server_request_duration_seconds_count"
CALLS = "graphserve_call_duration_seconds_count"


class Counting:
    """The graph, and the folder that it runs in."""

    def __init__(self, graph: Served, run_dir: Path) -> None:
        self.graph = graph
        self.run_dir = run_dir
        self.client = graph.client()

    def scrape(self) -> Metrics:
        return scrape(self.run_dir)

    def rests(self) -> bool:
        """Whether nothing is under way."""
        now = self.scrape()
        return not (
            now.by("graphserve_in_flight", "service")
            or now.by("graphserve_queue_length", "service")
        )

    def post(self, api: str, **arguments: object) -> httpx.Response:
        return self.client.post(f"/{api}", json=arguments)


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counting]:
    run_dir = tmp_path_factory.mktemp("run") / "run"
    with served("counting:Front", "--run-dir", str(run_dir)) as graph:
        yield Counting(graph, run_dir)


def news(before: Metrics, after: Metrics, name: str, label: str, **labels: str) -> dict[str, float]:
    """What is more than before, by a label."""
    old = before.by(name, label, **labels)
    found = {value: number - old.get(value, 0) for value, number in after.by(name, label, **labels).items()}  # fmt: skip
    return {value: number for value, number in found.items() if number}


@pytest.mark.parametrize(
    ("api", "arguments", "status", "called", "outcome"),
    [
        ("add", {"numbers": [1, 2, 3]}, 200, "add", {"ok": 3}),
        ("plain", {}, 200, "add", {"ok": 1}),
        ("fail", {}, 502, "fail", {"error": 1}),
        ("late", {}, 504, "wait", {"deadline": 1}),
        ("misfit", {}, 500, "add", {"error": 1}),
        ("sum_items", {"number": 3, "taken": 9}, 200, "items", {"ok": 1}),
        ("sum_items", {"number": 1000, "taken": 1}, 200, "items", {"cancelled": 1}),
        ("sum_items", {"number": 3, "taken": 9, "fails": True}, 418, "items", {"error": 1}),
        ("items", {"number": 3}, 200, "items", {"ok": 1}),
        ("add", {"numbers": "none"}, 422, "add", {}),
        ("double", {"numbers": [1, 2, 3]}, 200, "double", {"ok": 1}),
        ("ask", {"path": "/fail"}, 200, "fail", {"error": 1}),
        ("ask", {"path": "/die?x"}, 200, "die", {"error": 1}),
        ("ask", {"path": "/nowhere"}, 200, "*", {"error": 1}),
    ],
)
def test_each_end_is_counted_once(
    counting: Counting,
    api: str,
    arguments: dict[str, object],
    status: int,
    called: str,
    outcome: dict[str, float],
) -> None:
    before = counting.scrape()
    assert counting.post(api, **arguments).status_code == status

    def ended() -> Metrics | None:
        now = counting.scrape()
        return now if sum(news(before, now, CALLS, "outcome").values()) == sum(outcome.values()) else None  # fmt: skip

    after = eventually(ended)
    assert news(before, after, REQUESTS, "http_response_status_code") == {str(status): 1}
    assert news(before, after, REQUESTS, "http_route") == {f"/{api}": 1}
    assert news(before, after, CALLS, "outcome", caller="Front", service="Back") == outcome
    assert set(news(before, after, CALLS, "api")) <= {called}


@pytest.mark.parametrize(
    ("sent", "route", "method", "status"),
    [
        (b"GET /things/one HTTP/1.1\r\nhost: localhost\r\n\r\n", "/things/{name}", "GET", "200"),
        (b"HEAD /things/two HTTP/1.1\r\nhost: localhost\r\n\r\n", "/things/{name}", "HEAD", "200"),
        (b"GET /nowhere/1 HTTP/1.1\r\nhost: localhost\r\n\r\n", "*", "GET", "404"),
        (b"GET /add HTTP/1.1\r\nhost: localhost\r\n\r\n", "*", "GET", "405"),
        (b"BREW /add HTTP/1.1\r\nhost: localhost\r\n\r\n", "*", "_OTHER", "400"),
        (b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n", "*", "GET", "200"),
        (b"POST /add HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}", "/add", "POST", "415"),
        (b"POST /add HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nZ\r\n", "/add", "POST", "400"),
        (b"POST /add HTTP/1.1\r\nhost: elsewhere.example\r\ncontent-length: 0\r\n\r\n", "*", "POST", "421"),
    ],
    ids=lambda value: value.split(b"\r\n")[0].decode() if isinstance(value, bytes) else None,
)  # fmt: skip
def test_each_answer_at_the_port_is_counted(
    counting: Counting, sent: bytes, route: str, method: str, status: str
) -> None:
    before = counting.scrape()
    where = urlsplit(counting.graph.url)
    with socket.create_connection((where.hostname, where.port), 60) as connection:
        connection.sendall(sent.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
        with connection.makefile("rb") as answered:
            assert answered.read().split()[1].decode() == status
    after = counting.scrape()
    more = {"http_route": route, "http_request_method": method}
    assert news(before, after, REQUESTS, "http_response_status_code", **more) == {status: 1}
    assert sum(news(before, after, REQUESTS, "http_route").values()) == 1


def test_health_is_not_counted(counting: Counting) -> None:
    before = counting.scrape()
    for path in ("/livez", "/readyz"):
        counting.client.get(path).raise_for_status()
    after = counting.scrape()
    assert not news(before, after, REQUESTS, "http_route")


def test_who_leaves_is_counted_and_so_is_the_call_below(counting: Counting) -> None:
    before = counting.scrape()
    with pytest.raises(httpx.ReadTimeout):
        counting.client.post("/wait", json={"seconds": 600}, timeout=0.3)
    after = eventually(
        lambda: now if news(before, now := counting.scrape(), CALLS, "outcome") else None
    )
    assert news(before, after, REQUESTS, "http_response_status_code") == {"499": 1}
    assert news(before, after, CALLS, "outcome", api="wait") == {"cancelled": 1}


def test_nothing_is_lost_or_counted_twice_when_workers_die(counting: Counting) -> None:
    before = counting.scrape()
    for _ in range(5):
        assert counting.post("add", numbers=[1, 2]).status_code == 200
    assert counting.post("kill_back").json() is True
    for _ in range(5):
        assert counting.post("add", numbers=[1, 2]).status_code == 200
    between = counting.scrape()
    assert news(before, between, CALLS, "outcome") == {"ok": 20, "error": 1}
    # the caller dies while its call and its request are under way
    (pid,) = counting.graph.workers("n1")
    endless = {"number": 10**9}
    with (
        pytest.raises(httpx.TransportError),
        counting.graph.client().stream("POST", "/items", json=endless) as response,
    ):
        for number, _ in enumerate(response.iter_raw()):
            if not number:
                os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid))
    counting.client.close()
    counting.client = counting.graph.client()
    assert eventually(lambda: counting.post("add", numbers=[1]).status_code == 200)
    after = counting.scrape()
    assert news(between, after, CALLS, "outcome") == {"ok": 1, "cancelled": 1}
    assert news(between, after, REQUESTS, "http_response_status_code") == {"200": 1, "599": 1}


def test_streams_and_batches_are_counted(counting: Counting) -> None:
    before = counting.scrape()
    assert counting.post("items", number=5).status_code == 200
    assert counting.post("double", numbers=[1, 2, 3]).json() == [2, 4, 6]
    after = counting.scrape()
    items = news(before, after, "graphserve_stream_items_total", "service")
    assert items == {"Back": 5, "Front": 5}
    for name, number in (("size_count", 1), ("size_sum", 3), ("wait_seconds_count", 1)):
        found = news(before, after, f"graphserve_batch_{name}", "service", api="double")
        assert found == {"Back": number}


def test_use_stands_beside_its_limits(counting: Counting, tmp_path: Path) -> None:
    eventually(lambda: counting.scrape().by("graphserve_slots", "service").get("Back") == 2)
    limits = counting.scrape().by("graphserve_queue_limit", "service")
    assert limits == {"Back": 1024, "Front": 1024}
    eventually(counting.rests)
    until = tmp_path / "until"
    held = [InThread(lambda: counting.graph.client().post("/hold", json={"until": str(until)})) for _ in range(5)]  # fmt: skip
    wanted = {"Back": 2, "Front": 5}, {"Back": 3}
    eventually(
        lambda: (
            (
                (now := counting.scrape()).by("graphserve_in_flight", "service"),
                now.by("graphserve_queue_length", "service"),
            )
            == wanted
        )
    )
    queued = counting.scrape()
    until.touch()
    assert all(each.answer().status_code == 200 for each in held)
    eventually(counting.rests)  # (an answer is sent before its slot is free)
    after = counting.scrape()
    waited = news(queued, after, "graphserve_queue_seconds_count", "service", api="hold")
    assert waited == {"Back": 3}
    assert after.total("graphserve_queue_seconds_count", service="Back", api="hold") == 5


def test_workers_are_counted_by_state_and_restarts_by_reason(counting: Counting) -> None:
    whole = {"ready": 2}
    eventually(lambda: counting.scrape().by("graphserve_workers", "state", service="Back") == whole)
    before = counting.scrape()
    (pid, _) = counting.graph.workers("n0")
    os.kill(pid, signal.SIGKILL)
    after = eventually(
        lambda: now
        if (now := counting.scrape()).by("graphserve_workers", "state", service="Back") == {"ready": 2}
        and news(before, now, "graphserve_worker_restarts_total", "service")
        else None
    )  # fmt: skip
    restarts = news(before, after, "graphserve_worker_restarts_total", "reason", service="Back")
    assert restarts == {"died": 1}
    phases = after.by("graphserve_worker_start_seconds", "phase", service="Front")
    assert {"import", "init", "port"} <= set(phases)
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"):
        slots = {
            (labels["service"], labels["slot"])
            for each, labels, value in after.samples if each == name and value > 0
        }  # fmt: skip
        assert slots - {("Front", "fallback")} == {
            ("Back", "0"),
            ("Back", "1"),
            ("Front", "0"),
            ("supervisor", ""),
        }
    spent = after.by("process_cpu_seconds_total", "service")
    assert spent["Back"] >= before.by("process_cpu_seconds_total", "service")["Back"]


def test_a_worker_that_is_stopped_is_told_of(counting: Counting) -> None:
    (pid,) = counting.graph.workers("n1")
    requests = counting.scrape().by(REQUESTS, "http_route")
    os.kill(pid, signal.SIGSTOP)
    try:
        now = eventually(
            lambda: now
            if (now := counting.scrape()).by("graphserve_loop_lag_seconds", "service").get("Front", 0) > 1
            else None
        )  # fmt: skip
        assert now.by(REQUESTS, "http_route") == requests
        assert now.by("graphserve_workers", "state", service="Front") == {"ready": 1}
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(
        lambda: counting.scrape().by("graphserve_loop_lag_seconds", "service").get("Front", 0) < 1
    )


@pytest.mark.slow
def test_under_load_every_answer_is_counted_while_workers_are_killed(counting: Counting) -> None:
    before = counting.scrape()
    answers, lost = Counter[str](), Counter[str]()
    over = threading.Event()

    def call() -> None:
        client = counting.graph.client()
        while not over.is_set():
            try:
                answers[str(client.post("/add", json={"numbers": [1]}).status_code)] += 1
            except httpx.TransportError as exc:
                lost[type(exc).__name__] += 1

    callers = [InThread(call) for _ in range(8)]
    for node in ("n0", "n0", "n1", "n0"):
        served = answers["200"]
        eventually(lambda served=served: answers["200"] > served + 50)
        os.kill(counting.graph.workers(node)[0], signal.SIGKILL)
    served = answers["200"]
    eventually(lambda: answers["200"] > served + 50)
    over.set()
    for each in callers:
        each.answer()
    after = counting.scrape()
    found = news(before, after, REQUESTS, "http_response_status_code", http_route="/add")
    unanswered = found.pop("599", 0) + found.pop("499", 0)
    assert found == dict(answers)
    assert unanswered <= lost.total() <= 8
    eventually(counting.rests)
    calls = news(before, after, CALLS, "outcome", api="add")
    # (of a request that was lost with its worker, the call may have ended)
    assert answers["200"] <= calls["ok"] <= answers["200"] + lost.total()
    assert calls.get("error", 0) == answers.get("502", 0)
    assert all(
        after.total(name, **labels) >= value
        for name, labels, value in before.samples
        if name.endswith(("_total", "_count", "_bucket", "_sum"))
    )


def test_both_formats_are_answered(counting: Counting) -> None:
    plain = answer(counting.run_dir)
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    other = answer(counting.run_dir, "application/openmetrics-text")
    kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert other.headers["content-type"] == kind
    assert other.text.endswith("# EOF\n")


def test_the_command_prints_the_same(counting: Counting) -> None:
    command = [sys.executable, "-m", "graphserve", "metrics", "--run-dir", str(counting.run_dir)]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert Metrics(printed.stdout).by(REQUESTS, "http_route") == counting.scrape().by(
        REQUESTS, "http_route"
    )


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")
def test_promtool_has_nothing_to_say(counting: Counting) -> None:
    command = ["promtool", "check", "metrics"]
    text = counting.scrape().text
    checked = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
