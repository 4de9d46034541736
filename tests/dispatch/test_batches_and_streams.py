"""Batches and streams, over real processes and in `local()` alike."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import graphserve
from tests.apps.flows import Gateway
from tests.harness import APPS, Served, eventually, served

ROOT = APPS.parent.parent


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("tests.apps.flows:Gateway", cwd=ROOT) as graph:
        yield graph


@pytest.fixture(params=["processes", "local"])
def call(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Calls an API of the entry, either way; errors come as (status, service)."""
    if request.param == "local":
        yield _locally
        return
    graph: Served = request.getfixturevalue("graph")
    with graph.client() as client:

        def over_http(name: str, **arguments: Any) -> Any:
            answer = client.post(f"/{name}", json=arguments)
            return (
                answer.json()
                if answer.status_code == 200
                else (answer.status_code, answer.json()["service"])
            )

        yield over_http


def _locally(name: str, **arguments: Any) -> Any:
    async def run() -> Any:
        async with graphserve.local(Gateway) as gateway:
            try:
                return await getattr(gateway, name)(**arguments)
            except graphserve.errors.CallError as exc:
                return exc.status, exc.node

    return asyncio.run(run())


# --- batches ---


def test_callers_share_batches_and_get_their_own_results(call: Any) -> None:
    assert call("doubles", xs=list(range(12))) == [2 * x for x in range(12)]


def test_a_long_list_is_cut_and_rejoined(call: Any) -> None:
    assert call("long", n=11) == [2 * x for x in range(11)]
    assert call("long", n=0) == []


def test_a_raising_method_fails_its_whole_batch(call: Any) -> None:
    answers = call("doubles", xs=[13, 13, 13, 13])
    assert answers == [-1] * 4


def test_only_the_guilty_fail_if_the_api_is_idempotent(call: Any) -> None:
    """And a result item that is an exception fails its caller alone."""
    assert call("carefully", xs=[1, 2, 7, 13, 5]) == [1, 2, 409, 502, 5]


def test_arrays_are_joined_on_axis_0(call: Any) -> None:
    assert call("rows", n=7) == [12.0 * i for i in range(7)]


def test_a_result_of_the_wrong_length_is_a_clear_error(call: Any) -> None:
    assert call("short") == (502, "Batcher")


def test_the_log_says_what_length_was_wrong(graph: Served) -> None:
    with graph.client() as client:
        client.post("/short", json={})
    graph.wait_log(r"got a batch of 2 items and returned 1")


def test_batches_fill(call: Any) -> None:
    sizes = call("together", n=64)
    assert max(sizes) > 8, sizes


# --- streams ---


def test_a_stream_leaves_as_ndjson(graph: Served) -> None:
    with graph.client() as client, client.stream("POST", "/stream", json={"n": 50}) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        items = [json.loads(line) for line in answer.iter_lines()]
    assert items == [{"index": index, "text": "x" * 10} for index in range(50)]


def test_a_stream_leaves_as_server_sent_events(graph: Served) -> None:
    with graph.client() as client:
        answer = client.post("/stream", json={"n": 2}, headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"] == "text/event-stream"
    assert [line for line in answer.text.splitlines() if line.startswith("data: {")] == [
        f'data: {{"index":{index},"text":"xxxxxxxxxx"}}' for index in range(2)
    ]
    assert "event: end" in answer.text


def test_items_come_one_by_one(graph: Served) -> None:
    arrived = []
    with (
        graph.client() as client,
        client.stream("POST", "/stream", json={"n": 5, "pause": 0.1}) as answer,
    ):
        for _ in answer.iter_lines():
            arrived.append(time.monotonic())
    assert arrived[-1] - arrived[0] > 0.2, "the first item did not wait for the last"


def test_generators_in_threads_and_consumers_in_threads(call: Any) -> None:
    assert call("total", n=1000) == sum(range(1000))
    assert call("total_in_thread", n=1000) == sum(range(1000))


def test_an_error_before_the_first_item_has_its_status(graph: Served) -> None:
    with graph.client() as client:
        answer = client.post("/early", json={})
    assert (answer.status_code, answer.json()["title"]) == (418, "Teapot")


@pytest.mark.parametrize(
    ("kind", "title"), [("problem", "Teapot"), ("crash", "Bad Gateway"), ("death", "Bad Gateway")]
)
def test_an_error_in_mid_stream_is_seen(graph: Served, kind: str, title: str) -> None:
    with graph.client() as client:
        answer = client.post(
            "/broken", json={"kind": kind}, headers={"accept": "text/event-stream"}
        )
    event, data = answer.text.split("\n\n")[-2].split("\n")
    assert event == "event: error"
    problem = json.loads(data.removeprefix("data: "))
    assert (problem["title"], problem["service"]) == (title, "Source")
    assert "hidden" not in answer.text
    with graph.client() as client, pytest.raises(httpx.RemoteProtocolError):
        client.post("/broken", json={"kind": kind})  # NDJSON: the stream is cut


def test_leaving_a_stream_ends_its_generator(call: Any) -> None:
    assert call("leave") == 0


def test_a_client_that_leaves_ends_the_generator_two_hops_away(graph: Served) -> None:
    host, port = graph.url.removeprefix("http://").split(":")
    body = json.dumps({"n": 1_000_000, "pause": 0.005}).encode()
    with graph.client() as client:
        eventually(lambda: client.post("/state", json={}).json()[0] == 0)
        with socket.create_connection((host, int(port)), 10) as sock:
            sock.sendall(
                b"POST /stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%s" % (len(body), body)
            )
            assert sock.recv(100)
            assert client.post("/state", json={}).json()[0] == 1
        eventually(lambda: client.post("/state", json={}).json()[0] == 0)


def test_a_slow_consumer_holds_the_producer(call: Any) -> None:
    assert call("slow_reader") < 20_000, "of a million"


def test_a_call_that_waits_behind_its_own_stream_is_told_so(call: Any) -> None:
    said = call("waits_for_itself")
    assert said.startswith(
        "Single did not answer before the deadline; this call holds an open stream of Single"
    )


def test_streams_into_an_api(call: Any) -> None:
    name, size, pieces = call("sends", pieces=500)
    assert (name, size) == (4, 500_000)
    assert pieces > 1, "the API saw it piece by piece"


def test_an_upload_by_http(graph: Served) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    with graph.client(headers={"content-type": "audio/wav"}) as client:
        assert client.post("/upload?name=scan", content=chunks()).json().startswith("scan 100000")
        assert client.post("/upload", content=b"abc").json().startswith("none 3")
        answer = client.post("/upload?name=a&name=b", content=b"abc")
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", "name"])
        answer = client.post("/upload?nam=scan", content=b"abc")
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", "nam"])


def test_streams_in_local() -> None:
    async def run() -> list[Any]:
        async with graphserve.local(Gateway) as gateway:
            tokens = [token async for token in gateway.stream(3)]
            seen: list[Any] = []
            with pytest.raises(graphserve.Problem, match="Teapot"):
                async for item in gateway.broken("problem"):
                    seen.append(item)
            return [len(tokens), tokens[0].text, *seen]

    assert asyncio.run(run()) == [3, "xxxxxxxxxx", 0, 1]


def test_batches_survive_the_death_of_a_worker(graph: Served) -> None:
    """Calls that wait are answered; those of the killed batch fail, or run again if their API is
    idempotent.
    """
    answers: list[list[int]] = []

    def ask() -> None:
        with graph.client() as client:
            for _ in range(10):
                answers.append(client.post("/carefully", json={"xs": [1, 2, 3, 4, 5, 6]}).json())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        eventually(lambda: len(graph.workers("n0")) == 2)
        os.kill(graph.workers("n0")[0], signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert answers == [[1, 2, 3, 4, 5, 6]] * 40
