"""What workers print and log: line by line, each with its node, whole or in pieces, and never in
anyone's way.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness import Served, eventually, rarely, served, shared, waiting

APP = r"""
import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from graphserve import api, depends, service

print("printed at import")
log = logging.getLogger("mine")

@service
class Leaf:
    @api
    async def fail(self) -> int:
        raise KeyError("below")

@service
class Noisy:
    leaf = depends(Leaf)

    @api
    async def prints(self) -> None:
        print("one\ntwo")
        print("no end", end="")
        os.write(2, b"plain error\n")
        os.write(1, b"; its end\n")
        os.write(1, b"\xff\xfe\x00 junk \x1e{\"level\": 3\n")
        os.write(1, b"\x1e\x1e\n")
        os.write(2, b"a long line " + b"x" * 200_000 + b" its end\n")
        os.write(2, b"\r 10%\r 20%\r 100%\n")

    @api
    async def logs(self) -> None:
        log.debug("quiet")
        log.info("said %d", 7)
        os.write(2, b"just before ")
        try:
            int("no number")
        except ValueError:
            log.exception("it went wrong", extra={"page": 3, "level": "mine", "odd": {(1, 2): 3}})
        log.warning("wrong %d", "format")

    @api
    def threaded(self) -> None:
        log.error("from a thread")

    @api
    def waits(self, file: str) -> None:
        while not os.path.exists(file):
            time.sleep(0.01)

    @api
    async def fail(self) -> int:
        return await self.leaf.fail()

    @api(method="GET", route="/echo/{text}")
    async def echo(self, text: str) -> str:
        return text

    @api
    async def counts(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @api
    async def hangs(self) -> None:
        await asyncio.sleep(600)

    @api
    async def dies(self) -> None:
        os.write(1, b"last line\nlast words without an end")
        os._exit(3)
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def graph(app: Path) -> Iterator[Served]:
    with served_json("app:Noisy", cwd=app) as graph:
        yield graph


class ServedJson(Served):
    """A graph that logs JSON."""

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.log)]

    def record(self, message: str) -> dict[str, Any]:
        """The record with this message, when it comes."""

        def found():
            return [record for record in self.records() if record["message"] == message]

        (one,) = eventually(found, 30)
        return dict(one)


def served_json(target: str, *arguments: str, **options: Any) -> Any:
    @contextlib.contextmanager
    def running() -> Iterator[ServedJson]:
        graph = ServedJson(target, "--log-format", "json", *arguments, **options)
        try:
            line = graph.wait_log(r"serving on ([^\s\"]+)", 60)
            graph.url = line.group(1)
            yield graph
        finally:
            graph.close()

    return running()


def test_each_printed_line_is_one_record(graph: ServedJson) -> None:
    with graph.client() as client:
        assert client.post("/prints", json={}).status_code == 200
    for stream, message in (
        ("stdout", "one"),
        ("stdout", "two"),
        ("stdout", "no end; its end"),
        ("stderr", "plain error"),
    ):
        record = graph.record(message)
        assert (record["stream"], record["node"], record["slot"]) == (stream, "Noisy", 0)
        assert record["pid"] in graph.workers()
    graph.record('\\xff\\xfe\0 junk \x1e{"level": 3')
    graph.record("\x1e\x1e")
    graph.record(" 100%")
    assert [r["message"] for r in graph.records() if "10%" in r["message"]] == []
    eventually(
        lambda: "".join(r["message"] for r in graph.records() if "xxxx" in r["message"]).endswith(
            "its end"
        )
    )
    pieces = [r["message"] for r in graph.records() if "xxxx" in r["message"]]
    assert "".join(pieces) == "a long line " + "x" * 200_000 + " its end"
    assert graph.stop() == 0
    assert all(json.loads(line)["time"] for line in graph.log)
    assert not graph.out


def test_what_modules_print_at_import_is_a_record_too(graph: ServedJson) -> None:
    nodes = eventually(
        lambda: [r["node"] for r in graph.records() if r["message"] == "printed at import"] or None
    )
    assert sorted(map(str, nodes)) == [
        "Leaf",
        "Noisy",
        "None",
    ], "the resolver imports it, and each worker"


def test_a_log_record_is_one_record_with_its_traceback(graph: ServedJson) -> None:
    with graph.client() as client:
        answer = client.post("/logs", json={}, headers={"x-request-id": "my-id"})
        assert answer.status_code == 200
        assert (
            client.post("/threaded", json={}, headers={"x-request-id": "other-id"}).status_code
            == 200
        )
    record = graph.record("it went wrong")
    assert (record["level"], record["stream"], record["node"]) == ("error", "log", "Noisy")
    assert record["traceback"].startswith("Traceback (most recent call last):\n")
    assert (
        record["traceback"]
        .rstrip()
        .endswith("ValueError: invalid literal for int() with base 10: 'no number'")
    )
    assert record["fields"] == {
        "page": "3",
        "level": "mine",
        "odd": "{(1, 2): 3}",
        "request_id": "my-id",
    }
    assert graph.record("said 7")["fields"] == {"request_id": "my-id"}
    assert graph.record("'wrong %d' ('format',)")["level"] == "warning"
    assert graph.record("from a thread")["fields"] == {"request_id": "other-id"}
    assert not [r for r in graph.records() if r["message"] == "quiet"]
    assert graph.stop() == 0
    assert graph.record("just before ")["stream"] == "stderr", (
        "printed without an end, and never mixed with a record"
    )


def test_errors_name_their_request_in_text(app: Path) -> None:
    with served("app:Noisy", cwd=app) as graph, graph.client() as client:
        answer = client.post("/fail", json={})
        assert answer.status_code == 502
        request = answer.json()["request_id"]
        line = graph.wait_log(rf"(.*) \[request {re.escape(request)}\]").group(1)
        assert re.match(r"\d\d:\d\d:\d\d Leaf\[0\] ERROR ", line)
        graph.wait_log("^    KeyError: 'below'")


@pytest.mark.parametrize("level", ["error", rarely("debug")])
def test_the_level_of_the_log(app: Path, level: str) -> None:
    with served_json("app:Noisy", "--log-level", level, cwd=app) as graph, graph.client() as client:
        assert client.post("/logs", json={}).status_code == 200
        graph.record("it went wrong")
        messages = {r["message"] for r in graph.records()}
        assert ("quiet" in messages, "said 7" in messages) == (
            (True, True) if level == "debug" else (False, False)
        )
        graph.stop()
        graph.record("just before ")  # what is printed has no level


def test_the_access_log(app: Path) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with served_json("app:Noisy", "--access-log", cwd=app) as graph, graph.client() as client:
        headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        answer = client.post("/threaded", json={}, headers=headers)
        assert client.post("/none", json={}).status_code == 404
        echo = client.get("/echo/a%20b", headers={"traceparent": "00-of nobody-x-01"})
        streamed = client.post("/counts", json={"n": 3})
        assert client.post("/fail", json={}).status_code == 502
        assert client.get("/docs").status_code == 200

        def known():
            lines = {(r["node"], r["fields"]["path"]): r for r in requests(graph)}
            return lines if len(lines) == 7 else None

        lines = eventually(known)
        record = lines["Noisy", "/threaded"]
        assert record["message"].startswith("POST /threaded 200 ")
        said = record["fields"]
        documented = (
            "request_id trace_id method path route status ms queue_ms bytes_in bytes_out client"
        )
        assert {record["slot"], *said} == {0, *documented.split()}
        assert said["request_id"] == answer.headers["x-request-id"]
        assert (said["trace_id"], said["method"], said["status"]) == (trace, "POST", 200)
        assert 0 < said["queue_ms"] < said["ms"]
        assert (said["bytes_in"], said["bytes_out"]) == (2, len(answer.content))
        said = lines["Noisy", "/echo/a%20b"]["fields"]
        assert (said["route"], said["trace_id"]) == ("/echo/{text}", None)
        assert (said["bytes_in"], said["bytes_out"]) == (0, len(echo.content))
        said = lines["Noisy", "/counts"]["fields"]
        assert said["bytes_out"] > len(streamed.content), "with the sizes of its chunks"
        said = lines["Leaf", "/fail"]["fields"]
        assert (said["status"], said["bytes_out"] > 0) == (500, True)
        assert said["request_id"] == lines["Noisy", "/fail"]["fields"]["request_id"]
        said = lines["Noisy", "/none"]["fields"]
        assert (said["route"], said["queue_ms"], said["bytes_out"] > 0) == (None, None, True)
        assert lines["Noisy", "/docs"]["fields"]["bytes_out"] > 100


def test_the_access_log_has_what_is_no_api_and_clients_that_left(app: Path) -> None:
    with served_json("app:Noisy", "--access-log", cwd=app) as graph, graph.client() as client:
        asked = (
            ("GET", "/readyz"),
            ("POST", "/none%0Ahere?q=1"),
            ("GET", "/openapi.json"),
            ("GET", "/threaded"),
        )
        for method, path in asked:
            client.request(method, path)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/hangs", json={}, timeout=0.5)

        def lines():
            return [r["message"].rpartition(" ms")[0].rpartition(" ")[0] for r in requests(graph)]

        eventually(lambda: len(lines()) >= 4)
        assert lines() == [
            "POST /none%0Ahere 404",
            "GET /openapi.json 200",
            "GET /threaded 405",
            "POST /hangs 499",
        ]
        assert all(r["fields"]["client"] and r["fields"]["ms"] >= 0 for r in requests(graph))
        assert requests(graph)[0]["fields"]["request_id"], "what went wrong can be found again"


def test_the_access_log_has_a_call_once_that_was_passed_on_to_a_sibling(
    app: Path, run_dir: Path
) -> None:
    go = app / "go"
    options = (
        "--access-log",
        "--workers",
        "2",
        "--set",
        "Noisy.concurrency=1",
        "--run-dir",
        str(run_dir),
    )
    with (
        served_json("app:Noisy", *options, cwd=app) as graph,
        ThreadPoolExecutor(6) as pool,
        graph.client() as client,
    ):
        ids = [f"call-{number}" for number in range(6)]

        def ask(id):
            return client.post("/waits", json={"file": str(go)}, headers={"x-request-id": id})

        answers = [pool.submit(ask, id) for id in ids]
        # Two are executed; each of the others came to a worker whose slot was taken, and waits in
        # the node's queue.
        eventually(lambda: waiting(shared(run_dir, "Noisy")) == 4)
        go.touch()
        assert [answer.result().status_code for answer in answers] == [200] * 6
        eventually(lambda: len(requests(graph)) >= 6)
        assert graph.stop() == 0
        assert sorted(record["fields"]["request_id"] for record in requests(graph)) == ids
        assert all(record["fields"]["client"] for record in requests(graph)), (
            "the client's address, not a sibling's"
        )


def test_the_access_log_names_the_client_behind_a_proxy(app: Path) -> None:
    seen = {"x-forwarded-for": "203.0.113.7, 127.0.0.1"}
    for options, shown in (
        ((), "203.0.113.7"),
        (("--forwarded-allow-ips", "192.0.2.1"), "127.0.0.1"),
    ):
        with served_json(
            "app:Noisy", "--access-log", "--proxy-headers", *options, cwd=app
        ) as graph:
            with graph.client() as client:
                client.post("/threaded", json={}, headers=seen)
                client.get("/threaded", headers=seen)
                with pytest.raises(httpx.ReadTimeout):
                    client.post("/hangs", json={}, headers=seen, timeout=0.5)
                client.post("/threaded", json={})
            eventually(lambda: len(requests(graph)) >= 4)
            named = [record["fields"]["client"][0] for record in requests(graph)]
            assert sorted(named) == sorted([shown] * 3 + ["127.0.0.1"])


@pytest.mark.slow
def test_the_access_log_names_the_client_behind_a_proxy_at_a_unix_socket(
    app: Path, run_dir: Path
) -> None:
    path = str(run_dir.parent / "public.sock")
    options = ("--access-log", "--proxy-headers", "--forwarded-allow-ips", "*", "--uds", path)
    transport = httpx.HTTPTransport(uds=path)
    with (
        served_json("app:Noisy", *options, cwd=app) as graph,
        httpx.Client(transport=transport, base_url="http://x", timeout=30) as client,
    ):
        for path in ("/threaded", "/none"):
            client.post(path, json={}, headers={"x-forwarded-for": "203.0.113.7"})
        eventually(lambda: len(requests(graph)) >= 2)
        assert [record["fields"]["client"][0] for record in requests(graph)] == ["203.0.113.7"] * 2


@pytest.mark.slow
def test_the_access_log_shows_the_path_that_came(app: Path) -> None:
    with (
        served_json("app:Noisy", "--access-log", "--root-path", "/pre", cwd=app) as graph,
        graph.client() as client,
    ):
        health = ("/pre/readyz", "/readyz", "/%72eadyz")
        for path in (*health, "/pre/docs", "/docs", "/pre%2Fdocs?q=1", "/d%6Fcs", "/none"):
            client.get(path)
        eventually(lambda: len(requests(graph)) >= 5)
        shown = [record["message"].split(" ")[1:3] for record in requests(graph)]
        assert shown == [
            ["/pre/docs", "200"], ["/docs", "200"], ["/pre%2Fdocs", "404"], ["/d%6Fcs", "200"], ["/none", "404"]
        ]  # fmt: skip


def requests(graph: ServedJson) -> list[dict[str, Any]]:
    """What the access log has."""
    return [r for r in graph.records() if "ms" in r["fields"]]


def test_the_last_words_of_a_worker_are_not_lost(graph: ServedJson) -> None:
    # the entry itself dies: nobody is left to answer
    with graph.client() as client, pytest.raises(httpx.HTTPError):
        client.post("/dies", json={})
    graph.record("last line")
    graph.record("last words without an end")
    eventually(
        lambda: [r for r in graph.records() if "ended with exit code 3; replaced" in r["message"]]
    )


def test_a_flood_of_lines_is_whole(app: Path) -> None:
    (app / "flood.py").write_text(
        "from graphserve import api, service\n\n\n"
        "@service(workers=2)\n"
        "class Flood:\n"
        "    def __init__(self) -> None:\n"
        "        for number in range(5000):\n"
        "            print('line', number)\n\n"
        "    @api\n"
        "    async def x(self) -> int:\n"
        "        return 1\n"
    )
    with served("flood:Flood", cwd=app) as graph:
        assert graph.stop() == 0
        for slot in (0, 1):
            lines = [line.split()[-1] for line in graph.out if f"Flood[{slot}] line" in line]
            assert lines == [str(number) for number in range(5000)]
