"""WebSockets of applications that are mounted: FastAPI, and Starlette by an import string."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from websockets.sync.client import ClientConnection, connect

from tests.harness import Served, eventually, served

KEY = "alice-s3cret-0123456789"


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def graph(notes: Path) -> Iterator[Served]:
    arguments = ("--access-log", "--root-path", "/proxy")
    with served("mounted:Gateway", *arguments, env={"NOTES": str(notes)}) as graph:
        yield graph


def talk(graph: Served, target: str, **options: Any) -> ClientConnection:
    return connect(graph.url.replace("http", "ws") + target, proxy=None, **options)


def closed(socket: ClientConnection) -> tuple[int, str]:
    with pytest.raises(websockets.ConnectionClosed) as caught:
        while True:
            socket.recv(timeout=30)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def status_of(graph: Served, target: str, **options: Any) -> int:
    with pytest.raises(websockets.InvalidStatus) as caught, talk(graph, target, **options):
        pass
    return caught.value.response.status_code


@pytest.mark.parametrize("prefix", ["", "/proxy"])
def test_an_application_talks_and_calls_dependencies(graph: Served, prefix: str) -> None:
    headers = {"X-Tenant": "blue", "X-Request-Id": "mine"}
    with talk(graph, f"{prefix}/ui/talk/a?loud=1", additional_headers=headers) as client:
        assert client.response is not None
        assert client.response.headers["x-request-id"] == "mine"
        for text in ("one", "two"):
            client.send(text)
            said = json.loads(client.recv(timeout=30))
            assert (said["room"], said["loud"], said["text"]) == ("a", True, text)
            assert said["opened"] and said["principal"] is None
            assert said["url"].endswith("/proxy/ui/talk/x")
            here = {"id": "mine", "principal": None, "tenant": "blue", "service": None}
            assert said["here"] == {**here, "path": f"{prefix}/ui/talk/a", "deadline": False}
            assert (said["below"]["id"], said["below"]["tenant"]) == ("mine", "blue")
            assert said["below"]["service"] == "Gateway"


def test_subprotocols_bytes_and_an_import_string(graph: Served) -> None:
    with talk(graph, "/ui/talk/a", subprotocols=["chat", "other"]) as client:
        assert client.subprotocol == "chat"
    with talk(graph, "/ui/star/echo") as client:
        for data in (b"", b"a", bytes(900_000)):
            client.send(data)
            assert client.recv(timeout=30) == data
        client.close(3000, "enough")
    assert client.close_code == 3000


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/ui/refuses", 403), ("/ui/nothing", 403), ("/ui/hello/x", 403), ("/ui/star", 403),
        ("/run", 405), ("/livez", 200), ("/site/", 200), ("/old/x", 200), ("/docs", 200), ("/nowhere", 500),
    ],
)  # fmt: skip
def test_where_there_is_none(graph: Served, target: str, status: int) -> None:
    assert status_of(graph, target) == status


def test_what_an_application_raises_is_logged_and_closes_it(graph: Served) -> None:
    lines = len(graph.log)
    with talk(graph, "/ui/fails") as client:
        assert closed(client)[0] == 1011
    graph.wait_log("the application failed at /ui/fails", after=lines)
    graph.wait_log("RuntimeError: no more words", after=lines)


def test_a_message_that_is_too_long_ends_it(graph: Served) -> None:
    with talk(graph, "/ui/star/echo") as client:
        client.send(bytes(2**20 + 1))
        assert closed(client)[0] == 1009


def test_a_client_that_leaves_ends_it_and_what_it_called(graph: Served, notes: Path) -> None:
    with talk(graph, "/ui/hangs"):
        eventually(lambda: (notes / "notes").read_text().endswith("waits\n"))
    eventually(lambda: (notes / "notes").read_text().endswith("cancelled\n"))


def test_a_page_of_another_site_gets_none(graph: Served) -> None:
    assert status_of(graph, "/ui/star/echo", origin="https://evil.test") == 403
    with talk(graph, "/ui/star/echo", origin=graph.url) as client:
        client.send(b"x")
        assert client.recv(timeout=30) == b"x"


def test_what_is_no_handshake_is_an_ordinary_request(graph: Served) -> None:
    with graph.client() as client:
        upgrade = {"connection": "upgrade", "upgrade": "websocket"}
        assert client.get("/ui/star/echo", headers=upgrade).status_code == 426  # no version
        assert client.get("/ui/star/echo").status_code == 404
        assert client.get("/ui/star/", headers=upgrade | {"upgrade": "h2c"}).status_code == 200


@pytest.mark.slow
def test_keys_and_a_drain(notes: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"alice:{KEY}\n")
    arguments = ("--api-key-file", str(tmp_path / "keys"), "--set", "Gateway.graceful_timeout=2")
    with served("mounted:Gateway", *arguments, env={"NOTES": str(notes)}) as graph:
        assert status_of(graph, "/ui/star/echo") == 401
        assert status_of(graph, "/ui/star/echo", additional_headers={"x-api-key": "x"}) == 401
        key = {"x-api-key": KEY}
        with talk(graph, "/ui/talk/a", additional_headers=key) as client:
            client.send("one")
            said = json.loads(client.recv(timeout=30))
            assert said["principal"] == said["below"]["principal"] == "alice"
            graph.signal()
            assert closed(client) == (1001, "it stops")
        assert graph.wait_exit() == 0


def test_an_access_log_has_it(graph: Served) -> None:
    lines = len(graph.log)
    with talk(graph, "/ui/star/echo") as client:
        client.close(1000)
    graph.wait_log("WEBSOCKET /ui/star/echo 1000", after=lines)
    assert httpx.get(f"{graph.url}/ui/star/", trust_env=False).status_code == 200
