"""Middleware around everything at the port: APIs, streams, uploads, pages, mounts and WebSockets go through it,
and are what they are without it.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from starlette.middleware import Middleware
from websockets.sync.client import connect

from graphserve.errors import StartupError
from graphserve.worker.middleware import stack
from tests.harness import Served, alive, eventually, served
from tests.hostile.wire import address, answers, read_to_end
from tests.relaying import free_or_relayed

WORD = {"X-Word": "please"}


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flags")


@pytest.fixture(scope="module")
def graph(flags: Path) -> Iterator[Served]:
    options = ("--access-log", "--max-body-size", "2MB", "--cors-origin", "https://app.test")
    with served("wrapped:Wrapped", *options, env={"FLAGS": str(flags)}) as graph:
        yield graph


@pytest.fixture
def client(graph: Served) -> Iterator[httpx.Client]:
    with graph.client(headers=WORD) as client:
        yield client


def test_everything_goes_through_it(graph: Served, client: httpx.Client) -> None:
    asked: list[tuple[str, str, dict[str, Any], int]] = [
        ("POST", "/twice", {"json": {"x": 4}}, 200), ("POST", "/alias", {"json": {"x": 4}}, 200), ("POST", "/twice", {"json": {"x": "4"}}, 422),
        ("POST", "/twice", {"content": b"{", "headers": {"content-type": "application/json"}}, 400), ("POST", "/twice", {"content": b"{}"}, 415),
        ("GET", "/twice", {}, 405), ("POST", "/nothing", {}, 404), ("POST", "/refuses", {"json": {}}, 418), ("GET", "/seen", {}, 201),
        ("GET", "/docs", {}, 200), ("GET", "/openapi.json", {}, 200), ("GET", "/ui/", {}, 200), ("OPTIONS", "/twice", {}, 204),
        ("GET", "/count?n=2", {}, 200), ("GET", "/count?n=x", {}, 422), ("HEAD", "/seen", {}, 201),
    ]  # fmt: skip
    for method, path, options, status in asked:
        answer = client.request(method, path, **options)
        assert answer.status_code == status, (method, path, answer.text)
        assert answer.headers["x-timed"] == "yes"
        assert answer.headers["x-kept"] == path.partition("?")[0].replace("alias", "twice")
        with graph.client() as stranger:
            refused = stranger.request(method, path, **options)
            assert refused.status_code == 403 and refused.text in ("say the word", "")
    with graph.client() as stranger:
        for probe in ("/livez", "/readyz"):
            assert stranger.get(probe).status_code == 200, "nothing holds up a probe"


def test_calls_are_what_they_are_without(client: httpx.Client) -> None:
    for _ in range(6):  # no head is known here without the middleware
        assert client.post("/twice", json={"x": 4}).json() == 8
    seen = client.get("/seen", headers={"X-Request-Id": "mine"})
    assert seen.headers["x-own"] == "1" and seen.headers["x-request-id"] == "mine"
    assert seen.headers["content-type"] == "application/json"
    below = {"id": "mine", "service": "Wrapped", "principal": None}
    assert seen.json() == {"below": below, "path": "/seen", "word": "please"}
    assert client.get("/ui/", headers={"X-Request-Id": "mine"}).json() == below
    assert seen.headers["date"] and len(seen.headers.get_list("date")) == 1
    large = client.post("/large", json={"n": 100_000})
    assert large.headers["content-encoding"] == "gzip" and large.json() == "x" * 100_000
    assert client.post("/length", content=b"abc", headers={"content-type": "image/png"}).json() == 3
    assert (
        client.post(
            "/upload",
            content=b"x" * 1_500_000,
            headers={"content-type": "application/octet-stream"},
        ).json()
        == 1_500_000
    )
    pieces = iter([b"a" * 70_000] * 10)
    assert (
        client.post(
            "/upload", content=pieces, headers={"content-type": "application/octet-stream"}
        ).json()
        == 700_000
    )
    for path, kind in (
        ("/length", "image/png"),
        ("/twice", "application/json"),
        ("/upload", "application/octet-stream"),
    ):
        for body in (b"x" * 3_000_000, iter([b"x" * 1_500_000] * 2)):
            assert (
                client.post(path, content=body, headers={"content-type": kind}).status_code == 413
            )
    late = client.post("/waits", json={"place": "/dev/null"}, headers={"X-Request-Timeout": "0.05"})
    assert late.status_code == 504 and late.json()["service"] == "Below"


def test_files_on_disk_come_and_leave(client: httpx.Client) -> None:
    content = bytes(range(256)) * 2000
    png = {"content-type": "image/png"}
    for answer in (
        client.post("/kept", content=content, headers=png),
        client.post("/kept", content=iter([content[:5], content[5:]]), headers=png),
        client.post("/kept", files={"file": ("a.png", content)}),
        client.post("/kept", json={"file": base64.b64encode(content).decode()}),
    ):
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["x-timed"] == "yes"
    assert client.post("/kept", json={"file": "/etc/passwd"}).status_code == 422


def test_streams_come_as_they_are_made(client: httpx.Client) -> None:
    assert client.get("/count?n=3").text == "0\n1\n2\n"
    events = client.get("/count?n=2", headers={"Accept": "text/event-stream"})
    assert events.headers["content-type"] == "text/event-stream" and events.text.startswith(
        "id: 1\ndata: 0\n\n"
    )
    assert client.get("/count?n=0&breaks=true").status_code == 409
    assert (
        "event: error"
        in client.get("/count?n=1&breaks=true", headers={"Accept": "text/event-stream"}).text
    )
    with pytest.raises(httpx.RemoteProtocolError):  # cut, since NDJSON has no place for an error
        client.get("/count?n=1&breaks=true")
    with client.stream("GET", "/count?n=1000000") as stream:
        lines = stream.iter_lines()
        assert [next(lines) for _ in range(3)] == ["0", "1", "2"]
    assert client.post("/twice", json={"x": 1}).json() == 2, (
        "and who did not want more may ask again"
    )


def test_who_waits_to_be_told_is_told_only_what_is_wanted(graph: Served) -> None:
    head = b"POST /length HTTP/1.1\r\nHost: localhost\r\nX-Word: please\r\nContent-Length: 3\r\nExpect: 100-continue\r\n"
    with socket.create_connection(address(graph), 30) as sock:
        sock.sendall(head + b"Content-Type: image/png\r\nConnection: close\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        (answer,) = answers(read_to_end(sock))
    assert answer.body == b"3"
    for refused, status in ((head + b"\r\n", 415), (head.replace(b"please", b"no") + b"\r\n", 403)):
        with socket.create_connection(address(graph), 30) as sock:
            sock.sendall(refused)
            received = read_to_end(sock)
        assert b"100 Continue" not in received and answers(received)[0].status == status


def test_a_busy_worker_passes_on(graph: Served, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "client", lambda **options: httpx.Client(
            base_url=graph.url, timeout=60, trust_env=False, headers=WORD, **options))  # fmt: skip
        with free_or_relayed("relayed", graph, tmp_path) as post:
            answer = post("/pid", json={})
            assert answer.status_code == 200 and answer.headers["x-timed"] == "yes"


def test_a_client_that_leaves_ends_its_call(graph: Served, tmp_path: Path) -> None:
    place = tmp_path / "place"
    body = json.dumps({"place": str(place)})
    head = f"POST /waits HTTP/1.1\r\nHost: localhost\r\nX-Word: please\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    with socket.create_connection(address(graph), 30) as sock:
        sock.sendall(head.encode())
        eventually(lambda: place.exists() and place.read_text() == "waits")
    eventually(lambda: place.read_text() == "cancelled")


def test_requests_sent_ahead_have_their_answers_in_turn(graph: Served) -> None:
    def ask(x: int, close: str = "") -> bytes:
        body = json.dumps({"x": x})
        return (f"POST /twice HTTP/1.1\r\nHost: localhost\r\nX-Word: please\r\n{close}Content-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}").encode()  # fmt: skip

    for parts in (
        [ask(1) + ask(2) + ask(3, "Connection: close\r\n")],
        [ask(1), ask(2), ask(3, "Connection: close\r\n")],
    ):
        with socket.create_connection(address(graph), 30) as sock:
            for part in parts:
                sock.sendall(part)
            assert [answer.body for answer in answers(read_to_end(sock))] == [b"2", b"4", b"6"]


def test_the_log_has_one_line_for_each(graph: Served, client: httpx.Client) -> None:
    client.post("/twice", json={"x": 4}, headers={"X-Request-Id": "logged-1"})
    client.post("/twice", json={"x": 4}, headers={"X-Request-Id": "logged-2"})
    graph.wait_log(r"POST /twice 200 [0-9.]+ ms \[request logged-2\]")
    assert graph.text.count("[request logged-1]") == 1


def test_pages_of_other_origins(graph: Served, client: httpx.Client) -> None:
    app = {"Origin": "https://app.test", "Sec-Fetch-Site": "cross-site"}
    answer = client.post("/twice", json={"x": 4}, headers=app)
    assert answer.headers["access-control-allow-origin"] == "https://app.test"
    assert answer.headers.get_list("vary").count("Origin") == 1
    assert "x-timed" in answer.headers["access-control-expose-headers"]
    with graph.client() as stranger:
        asked = stranger.options("/twice", headers={**app, "Access-Control-Request-Method": "POST"})
        assert asked.status_code == 200, "before the middleware: browsers do not say the word there"
        assert (
            stranger.post("/twice", headers={"Origin": "https://evil.test"}).headers.get("x-timed")
            is None
        )


@pytest.mark.parametrize(
    ("path", "said"), [("/talk", "hello"), ("/ui/talk", "hello from Wrapped's page")]
)
def test_a_websocket_goes_through_it(graph: Served, path: str, said: str) -> None:
    url = graph.url.replace("http", "ws") + path
    with connect(url, proxy=None, additional_headers=WORD) as socket:
        assert socket.recv() == said
    with pytest.raises(websockets.InvalidStatus) as refused:
        connect(url, proxy=None)
    assert refused.value.response.status_code == 403


def test_one_that_cannot_be_made_stops_the_start() -> None:
    def broken(app: Any) -> None:
        raise ValueError("no database")

    with pytest.raises(
        StartupError, match=r"Gateway: the middleware .*broken raised ValueError: no database"
    ):
        stack([Middleware(broken)], None, "Gateway")  # type: ignore[arg-type]


def test_no_call_goes_around_it_while_there_is_no_worker(
    graph: Served, client: httpx.Client, flags: Path
) -> None:
    """The fallback server has no middleware: it says so, and passes nothing on."""
    (flags / "slow").touch()
    for worker in graph.workers("n1"):
        os.kill(worker, signal.SIGKILL)
        eventually(lambda worker=worker: not alive(worker))
    graph.wait_log("a fallback server is at the public port")
    with graph.client() as stranger:
        for method, path in (
            ("POST", "/twice"),
            ("GET", "/seen"),
            ("GET", "/docs"),
            ("GET", "/ui/"),
            ("GET", "/nothing"),
        ):
            answer = stranger.request(method, path, json={"x": 1} if method == "POST" else None)
            assert answer.status_code == 503 and "takes no calls now" in answer.json()["detail"], (
                path
            )
        assert stranger.get("/livez").status_code == 200
    (flags / "slow").unlink()
    assert eventually(lambda: client.post("/twice", json={"x": 1}).status_code == 200)
