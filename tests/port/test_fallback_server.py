"""The public port while the entry has no worker that takes calls: a fallback server answers, and no
call is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tests.harness import APPS, InThread, Served, alive, eventually, served

SERVES = "a fallback server is at the public port"
RAW = {"content-type": "application/octet-stream"}
CALLS: dict[str, tuple[dict[str, Any], int, Any]] = {  # by path: what is sent, and what is answered
    "/double": ({"json": {"x": 4}}, 200, "8"),
    "/doubles": ({"json": {"xs": [1, 2]}}, 200, "[2,4]"),
    "/count": ({"json": {"n": 3}}, 200, "0\n1\n2\n"),
    "/size?times=2": ({"content": b"x" * 1_000_000, "headers": RAW}, 200, "2000000"),
    "/length": ({"content": b"abc", "headers": {"content-type": "text/plain"}}, 200, "3"),
    "/double?": ({"json": {"y": 4}}, 422, "missing argument"),
    "/double?json": (
        {"content": b"{", "headers": {"content-type": "application/json"}},
        400,
        "not valid JSON",
    ),
    "/double?form": ({"data": {"x": 4}}, 200, "8"),
    "/double?text": (
        {"content": b"4", "headers": {"content-type": "text/plain"}},
        415,
        "takes application/json",
    ),
    "/size?times=no": ({"content": b"x" * 1_000_000, "headers": RAW}, 422, "times"),
}


def target(call: str) -> str:
    """Where a call goes: what stands behind `/double?` only tells one from another."""
    return call.partition("?")[0] if call.startswith("/double") else call


@contextlib.contextmanager
def entry(flags: Path, *arguments: str) -> Iterator[Served]:
    with served("entry:Entry", *arguments, env={"FLAGS": str(flags)}) as graph:
        yield graph


def kill_worker(graph: Served) -> None:
    (worker,) = graph.workers()
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: not alive(worker))


def fallback_pid(graph: Served, times: int = 1) -> int:
    """Wait until so many have stood in; the pid of the one that does."""
    eventually(lambda: graph.text.count(SERVES) == times, 30)
    (pid,) = graph.fallback_servers()
    return pid


def asked(graph: Served, path: str, **options: Any) -> httpx.Response:
    """Ask on a new connection."""
    return httpx.get(graph.url + path, timeout=60, trust_env=False, **options)


def post(graph: Served, path: str, **options: Any) -> httpx.Response:
    return httpx.post(graph.url + path, timeout=60, trust_env=False, **options)


def test_an_entry_that_fails_is_named_at_once_and_comes_back(tmp_path: Path) -> None:
    with entry(tmp_path) as graph:
        (tmp_path / "broken").touch()
        kill_worker(graph)
        answers = [asked(graph, "/readyz")]
        assert answers[0].status_code == 503
        assert any(words.startswith("Entry is ") for words in answers[0].json()["missing"])
        graph.wait_log("Entry failed", 60)
        fallback = fallback_pid(graph)
        for path in ("/pid", "/double", "/doubles", "/count"):
            answers.append(
                refused := post(graph, path, json=CALLS.get(path, ({"json": {}},))[0]["json"])
            )
            assert (refused.status_code, refused.json()["service"]) == (
                503,
                "Entry",
            ), "not 504: nothing waits for it"
            assert int(refused.headers["retry-after"]) > 0
        answers.append(post(graph, "/size?times=1", content=b"x", headers=RAW))
        assert answers[-1].status_code == 503
        answers += [
            asked(graph, path)
            for path in ("/livez", "/readyz", "/nope", "/openapi.json", "/docs", "/")
        ]
        assert [answer.status_code for answer in answers[-6:]] == [200, 503, 404, 503, 503, 503]
        assert answers[-5].json()["missing"][0].startswith("Entry is failed")
        for answer in answers:
            said = answer.text + str(answer.headers)
            assert "Traceback" not in said
            assert str(tmp_path) not in said
            assert str(APPS) not in said
            assert "the disk is gone" not in said
        assert not (tmp_path / f"imported-{fallback}").exists(), (
            "it knows nothing of the user's code"
        )
        (tmp_path / "broken").unlink()
        eventually(lambda: post(graph, "/pid", json={}).status_code == 200, 60)
        eventually(lambda: not graph.fallback_servers())
        assert asked(graph, "/readyz").status_code == 200
        assert graph.stop() == 0


def test_calls_wait_for_an_entry_that_starts_slowly(tmp_path: Path) -> None:
    with entry(tmp_path) as graph:
        (tmp_path / "slow").touch()
        kill_worker(graph)
        ready = asked(graph, "/readyz")
        assert (ready.status_code, ready.json()["missing"]) == (503, ["Entry is starting"])
        waiting = {
            path: InThread(lambda path=path, sent=sent: post(graph, target(path), **sent))  # type: ignore[misc]
            for path, (sent, _, _) in CALLS.items()
        }
        for path, arguments in (("/pid", {}), ("/double", {"x": 1}), ("/count", {"n": 1})):
            began = time.monotonic()
            late = post(graph, path, json=arguments, headers={"x-request-timeout": "0.5"})
            assert (late.status_code, late.json()["service"]) == (504, "Entry")
            assert time.monotonic() - began >= 0.5
        assert {path for path, call in waiting.items() if call.answers} <= {"/double?text"}, (
            "a text fits no API"
        )
        (tmp_path / "slow").unlink()
        for path, (_, status, text) in CALLS.items():
            answer = waiting[path].answer()
            assert answer.status_code == status, (path, answer.text)
            assert text in answer.text
        eventually(lambda: not graph.fallback_servers())
        assert post(graph, "/pid", json={}).json() in graph.workers()
        assert graph.text.count(SERVES) == 1
        assert graph.stop() == 0


@pytest.mark.slow
def test_a_client_that_leaves_takes_its_call_with_it(tmp_path: Path) -> None:
    with entry(tmp_path) as graph:
        (tmp_path / "slow").touch()
        kill_worker(graph)
        fallback_pid(graph)
        for path in ("/block", "/double"):
            with pytest.raises(httpx.TimeoutException):
                httpx.post(
                    graph.url + path,
                    json={"x": 1} if path == "/double" else {},
                    timeout=0.3,
                    trust_env=False,
                )
        (tmp_path / "slow").unlink()
        assert post(graph, "/pid", json={}).status_code == 200
        eventually(lambda: not graph.fallback_servers())
        assert not (tmp_path / "blocked").exists(), "nobody waited for it any more"


def test_health_is_answered_while_the_only_loop_is_busy(tmp_path: Path) -> None:
    (tmp_path / "blocks").touch()
    with entry(tmp_path) as graph:
        busy = InThread(lambda: post(graph, "/block", json={}))
        eventually((tmp_path / "blocked").exists)
        ready = asked(graph, "/readyz")
        assert ready.status_code == 503
        assert ready.json()["missing"] == ["Entry does not react: its event loop is busy"]
        assert asked(graph, "/livez").status_code == 200
        fallback = fallback_pid(graph)
        late = post(graph, "/pid", json={}, headers={"x-request-timeout": "0.5"})
        assert (late.status_code, late.json()["service"]) == (504, "Entry")
        call = InThread(lambda: post(graph, "/pid", json={}))
        (tmp_path / "blocks").unlink()
        assert {busy.answer().json(), call.answer().json()} == set(graph.workers()), (
            "it was not replaced"
        )
        eventually(lambda: not alive(fallback))
        assert asked(graph, "/readyz").status_code == 200


@pytest.mark.slow
def test_a_stop_answers_what_waits_at_the_fallback_server(tmp_path: Path) -> None:
    with entry(tmp_path) as graph:
        (tmp_path / "slow").touch()
        kill_worker(graph)
        fallback = fallback_pid(graph)
        calls = [
            InThread(lambda: post(graph, "/pid", json={})),
            InThread(lambda: post(graph, "/double", json={"x": 1})),
            InThread(lambda: post(graph, "/count", json={"n": 1})),
        ]
        eventually(lambda: connections(graph, fallback) >= 3)
        assert graph.stop() == 0
        for call in calls:
            answer = call.answer()
            assert (answer.status_code, answer.json()["service"]) == (503, "Entry")
            assert int(answer.headers["retry-after"]) > 0
        assert not alive(fallback)


@pytest.mark.slow
def test_a_stop_answers_what_waits_before_there_is_a_fallback_server(tmp_path: Path) -> None:
    with entry(tmp_path) as graph, socket.socket() as client:
        (tmp_path / "slow").touch()
        kill_worker(graph)
        client.settimeout(60)
        client.connect(address(graph))
        client.sendall(
            b"POST /double HTTP/1.1\r\nhost: localhost\r\nContent-Type: application/json\r\n"
            b'content-length: 7\r\n\r\n{"x":4}'
        )
        assert graph.stop() == 0
        answer = client.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after" in answer
        assert b'"service":"Entry"' in answer
        assert not graph.fallback_servers()


@pytest.mark.slow
@pytest.mark.parametrize("dies", [False, True])
def test_the_port_closes_while_the_rest_of_the_graph_still_drains(
    tmp_path: Path, dies: bool
) -> None:
    (tmp_path / "app.py").write_text(HOLDING)
    with (
        served("app:Entry", cwd=tmp_path, env={"PYTHONDONTWRITEBYTECODE": "1"}) as graph,
        socket.socket() as client,
    ):
        held = InThread(lambda: hang_up(graph))
        eventually((tmp_path / "held").exists)
        (tmp_path / "slow").touch()
        (worker,) = graph.workers("n1")
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: not alive(worker))
        held.answer()
        client.settimeout(60)
        client.connect(address(graph))
        client.sendall(
            b"POST /hold HTTP/1.1\r\nhost: localhost\r\nContent-Type: application/json\r\n"
            b"content-length: 2\r\n\r\n{}"
        )
        graph.signal()
        (fallback,) = eventually(graph.fallback_servers)
        if dies:
            os.kill(fallback, signal.SIGKILL)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(100) == b""
        else:
            assert client.recv(100).startswith(b"HTTP/1.1 503")
        eventually(lambda: refuses(address(graph)))
        assert alive(graph.pid), "the leaf is still busy"
        (tmp_path / "enough").touch()
        assert graph.wait_exit() == 0


HOLDING = """
import time
from pathlib import Path
from graphserve import api, depends, service

@service(graceful_timeout=600)
class Leaf:
    @api
    def hold(self) -> int:
        Path("held").touch()
        while not Path("enough").exists():
            time.sleep(0.01)
        return 1

@service
class Entry:
    leaf = depends(Leaf)

    def __init__(self) -> None:
        while Path("slow").exists():
            time.sleep(0.01)

    @api
    async def hold(self) -> int:
        return await self.leaf.hold()
"""


def hang_up(graph: Served) -> httpx.Response:
    """A call whose worker is killed."""
    with pytest.raises(httpx.TransportError):
        post(graph, "/hold", json={})
    return httpx.Response(200)


def refuses(where: tuple[str, int]) -> bool:
    with socket.socket() as client:
        return client.connect_ex(where) != 0


@pytest.mark.slow
def test_a_stop_while_the_loop_is_busy_loses_no_call(tmp_path: Path) -> None:
    (tmp_path / "blocks").touch()
    with entry(tmp_path) as graph:
        busy = InThread(lambda: post(graph, "/block", json={}))
        eventually((tmp_path / "blocked").exists)
        asked(graph, "/readyz")
        fallback = fallback_pid(graph)
        calls = [
            InThread(lambda: post(graph, "/pid", json={})),
            InThread(lambda: post(graph, "/double", json={"x": 1})),
        ]
        eventually(lambda: connections(graph, fallback) >= 2)
        graph.signal()
        graph.wait_log("Entry draining")
        (tmp_path / "blocks").unlink()
        assert [call.answer().status_code for call in (busy, *calls)] == [200] * 3
        assert graph.wait_exit() == 0
        assert not alive(fallback)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/pid", "/double", "/doubles", "/count", "/size?times=2"])
def test_a_stop_waits_for_what_clients_of_the_fallback_server_send_late(
    tmp_path: Path, path: str
) -> None:
    (tmp_path / "blocks").touch()
    with (
        entry(tmp_path) as graph,
        httpx.Client(base_url=graph.url, timeout=60, trust_env=False) as client,
    ):
        busy = InThread(lambda: post(graph, "/block", json={}))
        eventually((tmp_path / "blocked").exists)
        assert client.get("/livez").status_code == 200, "a connection to the fallback server"
        fallback = fallback_pid(graph)
        (worker,) = graph.workers()
        graph.signal()
        graph.wait_log("Entry draining")
        (tmp_path / "blocks").unlink()
        assert busy.answer().status_code == 200
        # a worker that would not wait has had the time to go
        with contextlib.suppress(AssertionError):
            eventually(lambda: not alive(worker), 0.3)
        said, status, answer = CALLS.get(path, ({"json": {}}, 200, str(worker)))
        called = client.post(path, **said)
        assert (called.status_code, called.text.strip()) == (status, answer.strip())
        assert graph.wait_exit() == 0
        assert not alive(fallback)


@pytest.mark.slow
def test_connections_end_in_their_own_time_but_hold_no_stop_up(tmp_path: Path) -> None:
    patient = ("--timeout-keep-alive", "600", "--timeout-graceful-shutdown", "600")
    with entry(tmp_path, *patient) as graph, contextlib.ExitStack() as opened:
        (tmp_path / "slow").touch()
        kill_worker(graph)
        fallback = fallback_pid(graph)
        late, idle = (
            opened.enter_context(socket.create_connection(address(graph), 10)) for _ in range(2)
        )
        eventually(lambda: connections(graph, fallback) == 2)
        (tmp_path / "slow").unlink()
        graph.wait_log("takes calls again")
        began = time.monotonic()
        eventually(
            lambda: (
                post(graph, "/pid", json={}).status_code == 200 and time.monotonic() - began > 0.6
            )
        )
        late.sendall(
            b"POST /double HTTP/1.1\r\nhost: localhost\r\nContent-Type: application/json\r\n"
            b'content-length: 7\r\n\r\n{"x":4}'
        )
        answer = late.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"\r\n\r\n8")
        assert alive(fallback)
        assert graph.stop() == 0, "it waits for neither"
        assert idle.recv(1) == b""
        assert not alive(fallback)


@pytest.mark.slow
def test_it_ends_with_the_supervisor(tmp_path: Path) -> None:
    with entry(tmp_path) as graph:
        (tmp_path / "slow").touch()
        kill_worker(graph)
        fallback = fallback_pid(graph)
        graph.signal(signal.SIGKILL)
        eventually(lambda: not alive(fallback))


@pytest.mark.slow
def test_one_that_dies_is_replaced(tmp_path: Path) -> None:
    with entry(tmp_path) as graph:
        (tmp_path / "slow").touch()
        kill_worker(graph)
        first = fallback_pid(graph)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: not alive(first))
        assert asked(graph, "/livez").status_code == 200
        assert fallback_pid(graph, 2) != first
        (tmp_path / "slow").unlink()
        assert post(graph, "/pid", json={}).status_code == 200


@pytest.mark.slow
def test_the_first_start_and_a_rolling_reload_need_none(tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    graph = Served("entry:Entry", env={"FLAGS": str(tmp_path)})
    try:
        graph.wait_log("Entry starting")
        eventually(lambda: list(tmp_path.glob("imported-*")))
        (tmp_path / "slow").unlink()
        graph.wait_ready()
        (old,) = graph.workers()
        graph.signal(signal.SIGHUP)
        graph.wait_log("reloaded in")
        eventually(lambda: not alive(old))
        assert post(graph, "/pid", json={}).json() != old
        assert graph.stop() == 0
        assert "fallback server" not in graph.text
    finally:
        graph.close()


@pytest.mark.slow
def test_a_reload_brings_a_failed_entry_back(tmp_path: Path) -> None:
    with entry(tmp_path, "--run-dir", str(tmp_path / "run")) as graph:
        (tmp_path / "broken").touch()
        kill_worker(graph)
        graph.wait_log("Entry failed", 60)
        fallback = fallback_pid(graph)
        assert steer(tmp_path, "scale", "Entry=2").returncode == 1, (
            "it does not start, and one stands in all the while"
        )
        status = json.loads(steer(tmp_path, "status", "--json").stdout)
        assert (status["fallback_server"], status["state"]) == (fallback, "degraded")
        assert [row["pid"] for row in json.loads(steer(tmp_path, "ps", "--json").stdout)] != [
            fallback
        ]
        (tmp_path / "broken").unlink()
        done = steer(tmp_path, "reload")
        assert done.returncode == 0, done.stderr
        eventually(lambda: not alive(fallback))
        assert post(graph, "/pid", json={}).json() in graph.workers()
        assert json.loads(steer(tmp_path, "status", "--json").stdout)["fallback_server"] is None
        assert graph.stop() == 0


CHANGING = """
import time
from graphserve import api, service

@service
class Entry:
    def __init__(self) -> None:
        {init}

    @api
    def {name}(self) -> str:
        return "{name}"
"""


@pytest.mark.slow
def test_a_reload_with_other_apis_at_the_fallback_server(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(CHANGING.format(init="pass", name="old"))
    with served("app:Entry", cwd=tmp_path, env={"PYTHONDONTWRITEBYTECODE": "1"}) as graph:
        app.write_text(CHANGING.format(init="time.sleep(3600)", name="old"))
        kill_worker(graph)
        fallback = fallback_pid(graph)
        call = InThread(lambda: post(graph, "/old", json={}))
        eventually(lambda: connections(graph, fallback) == 1)
        app.write_text(CHANGING.format(init="pass", name="new"))
        graph.signal(signal.SIGHUP)
        graph.wait_log("reloaded in", 60)
        answer = call.answer()
        assert answer.status_code == 503, "it can be tried again"
        assert "stopped" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) > 0
        eventually(lambda: not alive(fallback))
        assert post(graph, "/new", json={}).json() == "new"
        assert post(graph, "/old", json={}).status_code == 404
        assert graph.stop() == 0


@pytest.mark.slow
def test_a_restart_of_the_only_worker(tmp_path: Path) -> None:
    with entry(tmp_path, "--run-dir", str(tmp_path / "run")) as graph:
        (old,) = graph.workers()
        (tmp_path / "slow").touch()
        restart = InThread(lambda: httpx.Response(200, text=steer(tmp_path, "restart").stderr))
        eventually(lambda: not alive(old))
        call = InThread(lambda: post(graph, "/pid", json={}))
        assert asked(graph, "/readyz").status_code == 503
        (tmp_path / "slow").unlink()
        assert call.answer().json() in graph.workers()
        restart.answer()
        eventually(lambda: not graph.fallback_servers())


@pytest.mark.slow
def test_tls_and_the_limits_of_the_port(tmp_path: Path) -> None:
    authority = trustme.CA()
    pem = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with entry(tmp_path, "--ssl-certfile", str(pem), "--max-body-size", "1000000") as graph:
        (tmp_path / "slow").touch()
        kill_worker(graph)
        assert asked(graph, "/readyz", verify=trust).status_code == 503
        late = post(graph, "/pid", json={}, headers={"x-request-timeout": "0.5"}, verify=trust)
        assert (late.status_code, late.json()["service"]) == (504, "Entry")
        for path in ("/length", "/size?times=1"):
            large = post(graph, path, content=b"x" * 1_000_001, headers=RAW, verify=trust)
            assert large.status_code == 413
        with trust.wrap_socket(
            socket.create_connection(address(graph)), server_hostname="127.0.0.1"
        ) as client:
            client.sendall(
                b"POST /pid HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}"
            )
            client.settimeout(10)
            assert client.recv(1000).startswith(b"HTTP/1.1 400")
        call = InThread(lambda: post(graph, "/double", json={"x": 1}, verify=trust))
        (tmp_path / "slow").unlink()
        assert call.answer().json() == 2
        eventually(lambda: not graph.fallback_servers())
        assert graph.stop() == 0


def address(graph: Served) -> tuple[str, int]:
    host, port = graph.url.partition("://")[2].split(":")
    return host, int(port)


def connections(graph: Served, pid: int) -> int:
    """How many connections of its public port a process has."""
    port = f":{address(graph)[1]:04X}"
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    open_ = {f"socket:[{line[9]}]" for line in lines if line[1].endswith(port) and line[3] == "01"}
    held = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            held.add(os.readlink(entry))
    return len(open_ & held)


def steer(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command for the graph whose run folder is in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "graphserve", *arguments, "--run-dir", str(folder / "run")],
        cwd=APPS, env={**os.environ, "FLAGS": str(folder)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


# --- while the graph starts ---


@pytest.fixture
def early(tmp_path: Path, run_dir: Path) -> Iterator[tuple[Served, httpx.Client]]:
    """A graph whose entry starts as slowly as the flag says, and a client of its Unix socket."""
    (tmp_path / "slow").touch()
    path = f"{run_dir.parent}/early.sock"
    graph = Served(
        "entry:Entry", "--uds", path, "--run-dir", str(run_dir), env={"FLAGS": str(tmp_path)}
    )
    transport = httpx.HTTPTransport(uds=path)
    try:
        graph.wait_log("Entry starting")
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as client:
            yield graph, client
    finally:
        graph.close()


def test_a_graph_that_starts_slowly_lives(
    early: tuple[Served, httpx.Client], tmp_path: Path
) -> None:
    graph, client = early
    assert client.get("/livez").status_code == 200
    ready = client.get("/readyz")
    assert ready.status_code == 503 and "Entry" in str(ready.json()["missing"])
    assert client.get("/docs").status_code == 503
    graph.wait_log("Entry starts: a fallback server is at the public port, where calls wait")
    for path in ("/double", "/pid"):
        late = client.post(
            path, json={"x": 1} if path == "/double" else {}, headers={"x-request-timeout": "0.3"}
        )
        assert (late.status_code, late.json()["service"]) == (504, "Entry")
    calls = [
        InThread(lambda: client.post("/double", json={"x": 4})),
        InThread(lambda: client.post("/pid", json={})),
    ]
    upload = InThread(lambda: client.post("/size?times=2", content=b"x" * 1_000_000, headers=RAW))
    (tmp_path / "slow").unlink()
    graph.wait_log("serving on")
    assert [call.answer().json() for call in calls] == [8, graph.workers()[0]]
    assert upload.answer().json() == 2_000_000
    eventually(lambda: not graph.fallback_servers())
    assert client.get("/readyz").status_code == 200
    assert "takes calls: the fallback server at the public port ends" in graph.text
    assert graph.stop() == 0
    assert "WARNING" not in graph.text


def test_a_start_that_fails_answers_who_waits(
    early: tuple[Served, httpx.Client], tmp_path: Path, run_dir: Path
) -> None:
    graph, client = early
    assert client.get("/livez", headers={"connection": "close"}).status_code == 200
    calls = [
        InThread(lambda: client.post("/double", json={"x": 4})),
        InThread(lambda: client.post("/pid", json={})),
    ]
    (pid,) = graph.fallback_servers()
    eventually(lambda: connections_to(f"{run_dir.parent}/early.sock") >= 2)
    (tmp_path / "fails").touch()
    (tmp_path / "slow").unlink()
    for call in calls:
        answer = call.answer()
        assert answer.status_code == 503 and answer.json()["service"] == "Entry"
    assert graph.wait_exit() == 3
    assert "OSError: the disk is full" in graph.text.splitlines()[-1], (
        "its own traceback is the last word"
    )
    assert (
        not alive(pid)
        and not run_dir.exists()
        and not os.path.exists(f"{run_dir.parent}/early.sock")
    )


def test_a_stop_during_a_start_answers_who_waits(
    early: tuple[Served, httpx.Client], run_dir: Path
) -> None:
    graph, client = early
    assert client.get("/livez", headers={"connection": "close"}).status_code == 200
    call = InThread(lambda: client.post("/double", json={"x": 4}))
    eventually(lambda: connections_to(f"{run_dir.parent}/early.sock") >= 1)
    assert graph.stop() == 0
    assert call.answer().status_code == 503
    assert not run_dir.exists()


def connections_to(path: str) -> int:
    """How many connections a Unix socket has, accepted or waiting."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return sum(fields[-1] == path and fields[5] in ("02", "03") for fields in lines)
