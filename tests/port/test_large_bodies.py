"""Large public bodies are read in a thread: the loop goes on, and all else is as it is with small
ones.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from graphserve.wire.costs.bounds import LARGE_BODY
from tests.harness import APPS, Served, eventually, served
from tests.hostile.wire import address

ITEM = "x" * (LARGE_BODY // 4)
ITEMS = [ITEM] * 5


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("tests.apps.large:Large", cwd=APPS.parent.parent) as graph:
        yield graph


@pytest.fixture
def client(graph: Served) -> Iterator[httpx.Client]:
    with graph.client() as client:
        yield client


def held(gate: Path | str) -> dict[str, Any]:
    return {"held": {"filling": "x" * LARGE_BODY, "gate": str(gate)}}


@pytest.mark.parametrize("name", ["sizes", "lengths"])
def test_large_bodies_are_answered(client: httpx.Client, name: str) -> None:
    assert client.post(f"/{name}", json={"items": ITEMS}).json() == [len(ITEM)] * 5
    assert client.post("/count", json={"items": ITEMS}).text.split() == [str(len(ITEM))] * 5


@pytest.mark.parametrize("name", ["sizes", "lengths", "count", "hold", "hold_in_thread"])
def test_large_bodies_that_do_not_fit_hold_nothing(client: httpx.Client, name: str) -> None:
    parameter = "held" if name.startswith("hold") else "items"
    for _ in range(3):
        answer = client.post(f"/{name}", json={parameter: [*ITEMS, 1]})
        assert answer.status_code == 422 and answer.json()["errors"][0]["loc"][0] == parameter
    answer = client.post(
        f"/{name}", content=b"{" + b" " * LARGE_BODY, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert client.post("/pid", json={}).status_code == 200  # the only slot is free


def test_a_small_body_that_does_not_fit_a_batch_holds_nothing(client: httpx.Client) -> None:
    assert client.post("/lengths", json={"items": 1}).status_code == 422
    assert client.post("/pid", json={}, headers={"x-request-timeout": "30"}).status_code == 200


@pytest.mark.parametrize("name", ["hold", "hold_in_thread"])
def test_the_loop_goes_on_while_a_body_is_read(
    graph: Served, client: httpx.Client, tmp_path: Path, name: str
) -> None:
    gate, answers = tmp_path / "gate", list[int]()
    thread = threading.Thread(
        target=lambda: answers.append(
            httpx.post(f"{graph.url}/{name}", json=held(gate), timeout=60).json()
        )
    )
    thread.start()
    try:
        eventually(Path(f"{gate}.begun").exists)
        assert client.get("/livez").status_code == 200
    finally:
        gate.touch()
        thread.join(60)
    assert answers == [LARGE_BODY]


def test_the_deadline_passes_while_a_body_is_read(client: httpx.Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    answer = client.post("/hold", json=held(gate), headers={"x-request-timeout": "0.3"})
    assert answer.status_code == 504 and answer.json()["service"] == "Large"
    gate.touch()
    assert client.post("/pid", json={}).status_code == 200  # the slot is free when the thread is


def test_a_client_that_leaves_while_its_body_is_read(
    graph: Served, client: httpx.Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    body = json.dumps(held(gate)).encode()
    head = (
        b"POST /hold HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n"
    )
    with socket.create_connection(address(graph), 30) as sock:
        sock.sendall(head % len(body) + body)
        eventually(Path(f"{gate}.begun").exists)
    gate.touch()
    assert client.post("/pid", json={}).status_code == 200
    assert "Traceback" not in graph.text


def test_answers_keep_their_order(graph: Served) -> None:
    def request(name: str, items: list[str], close: bool = False) -> bytes:
        body = json.dumps({"items": items}).encode()
        head = f"POST /{name} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += (
            f"Connection: {'close' if close else 'keep-alive'}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    with socket.create_connection(address(graph), 30) as sock:
        sock.sendall(
            request("sizes", ITEMS)
            + request("sizes", ["a"])
            + request("sizes", ITEMS[:4], close=True)
        )
        received = b""
        while data := sock.recv(65536):
            received += data
    bodies = [part.rpartition(b"\r\n\r\n")[2] for part in received.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [
        json.dumps(each).replace(" ", "").encode()
        for each in ([len(ITEM)] * 5, [1], [len(ITEM)] * 4)
    ]
