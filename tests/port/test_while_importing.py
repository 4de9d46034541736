"""The public port while the modules of the graph are still imported: health is answered, and calls
wait.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from tests.harness import InThread, Served, alive, eventually

RAW = {"content-type": "application/octet-stream"}
STARTS = "Entry starts: a fallback server is at the public port, where calls wait"
CALL = (
    b"POST /double HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b'content-length: 7\r\nconnection: close\r\n\r\n{"x":4}'
)


class Importing:
    """A graph whose modules are being imported, at a Unix socket."""

    def __init__(self, flags: Path, run_dir: Path, *arguments: str) -> None:
        self.flags, self.run_dir, self.path = flags, run_dir, f"{run_dir.parent}/early.sock"
        (flags / "slow").touch()
        where = ("--uds", self.path, "--run-dir", str(run_dir))
        self.graph = Served("imports:Entry", *where, *arguments, env={"FLAGS": str(flags)})

    def client(self, base: str = "http://localhost", **options: object) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=self.path, **options)  # type: ignore[arg-type]
        return httpx.Client(transport=transport, base_url=base, timeout=60)

    def raw(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(60)
        client.connect(self.path)
        return client

    def go_on(self) -> None:
        (self.flags / "slow").unlink()

    def nothing_is_left(self) -> bool:
        return not self.run_dir.exists() and not os.path.exists(self.path)


@pytest.fixture
def importing(tmp_path: Path, run_dir: Path) -> Iterator[Importing]:
    early = Importing(tmp_path, run_dir)
    try:
        eventually(lambda: os.path.exists(early.path))
        yield early
    finally:
        early.graph.close()


def test_health_is_answered_and_calls_wait_for_the_modules(importing: Importing) -> None:
    graph = importing.graph
    with importing.client() as client, importing.raw() as ahead, importing.raw() as quiet:
        assert client.get("/livez").status_code == 200
        ready = client.get("/readyz?verbose")
        assert ready.status_code == 503
        assert ready.json()["missing"] == ["Entry is being resolved: its modules are imported"]
        assert client.head("/livez").status_code == 200
        graph.wait_log(STARTS)
        (fallback,) = graph.fallback_servers()
        late = client.post("/double", json={"x": 1}, headers={"x-request-timeout": "0.3"})
        assert (late.status_code, late.json()["service"]) == (504, "Entry"), late.text
        calls = {
            "8": InThread(lambda: client.post("/double", json={"x": 4})),
            "0\n1\n": InThread(lambda: client.post("/count", json={"n": 2})),
            "2000000": InThread(
                lambda: client.post("/size?times=2", content=b"x" * 1_000_000, headers=RAW)
            ),
            "did you mean": InThread(lambda: client.post("/dubble", json={"x": 4})),
            "missing argument": InThread(lambda: client.post("/double", json={})),
        }
        ahead.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n" + CALL)
        assert ahead.recv(100).startswith(b"HTTP/1.1 200"), "the probe before the call"
        quiet.sendall(CALL[:20])
        assert not any(call.answers for call in calls.values())
        importing.go_on()
        graph.wait_log("serving on")
        for said, call in calls.items():
            assert said in call.answer().text
        assert ahead.makefile("rb").read().endswith(b"\r\n\r\n8")
        quiet.sendall(CALL[20:])
        assert quiet.makefile("rb").read().endswith(b"\r\n\r\n8")
    with importing.client() as client:
        assert client.post("/pid", json={}).json() in graph.workers()
    eventually(lambda: not alive(fallback))
    assert "front-door takes calls: the fallback server at the public port ends" in graph.text
    assert not (importing.run_dir / "0").exists()
    assert graph.stop() == 0
    assert "WARNING" not in graph.text and "Traceback" not in graph.text
    assert importing.nothing_is_left()


@pytest.mark.parametrize("has_fallback", [True, False])
def test_modules_that_raise_end_the_start_as_ever_and_who_waits_is_told(
    importing: Importing, has_fallback: bool
) -> None:
    graph = importing.graph
    with importing.raw() as client, importing.raw() as half:
        client.sendall(CALL)
        half.sendall(CALL[:-3])
        if has_fallback:
            graph.wait_log(STARTS)
        (importing.flags / "fails").touch()
        importing.go_on()
        for each in (client, half):
            answer = each.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 503"), answer
            assert b"retry-after" in answer and b'"service":"Entry"' in answer
            assert b"disk" not in answer
    assert graph.wait_exit() == 4
    assert "OSError: the disk is full" in graph.text
    assert "front-door" not in graph.text
    assert importing.nothing_is_left()
    assert not graph.fallback_servers()


def test_a_stop_while_modules_are_imported_answers_who_waits(importing: Importing) -> None:
    with importing.client() as client:
        assert client.get("/livez").status_code == 200
        call = InThread(lambda: client.post("/double", json={"x": 4}))
        importing.graph.wait_log(STARTS)
        assert importing.graph.stop() == 0
        assert call.answer().status_code == 503
    assert importing.nothing_is_left()


def test_a_fallback_server_that_dies_meanwhile_is_replaced(importing: Importing) -> None:
    graph = importing.graph
    with importing.client() as client:
        assert client.get("/livez", headers={"connection": "close"}).status_code == 200
        (first,) = graph.fallback_servers()
        os.kill(first, 9)
        eventually(lambda: not alive(first))
        assert client.get("/livez").status_code == 200
        call = InThread(lambda: client.post("/double", json={"x": 4}))
        importing.go_on()
        assert call.answer().json() == 8
        assert graph.stop() == 0


@pytest.mark.slow
def test_with_tls_and_a_root_path(tmp_path: Path, run_dir: Path) -> None:
    authority = trustme.CA()
    pem = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    early = Importing(tmp_path, run_dir, "--ssl-certfile", str(pem), "--root-path", "/under")
    with contextlib.closing(early.graph):
        eventually(lambda: os.path.exists(early.path))
        with early.client("https://localhost", verify=trust) as client:
            assert client.get("/under/livez").status_code == 200
            assert client.get("/readyz").status_code == 503
            call = InThread(lambda: client.post("/under/double", json={"x": 4}))
            early.go_on()
            assert call.answer().json() == 8
        assert early.graph.stop() == 0
