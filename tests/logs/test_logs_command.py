"""`graphserve logs`: what a graph has said can be had again, whoever reads it and however."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from graphserve.cli import main
from graphserve.supervise.control.logs import MAX_READERS
from graphserve.system.rundir.paths import control_socket
from tests.documents import fields
from tests.harness import Served, alive, eventually, served, state

LIMIT = 256 * 1024  # bytes that the graph keeps


class Logged:
    """A graph, its log, and who reads it."""

    def __init__(self, graph: Served, run_dir: Path) -> None:
        self.graph = graph
        self.run_dir = run_dir

    def command(self, *arguments: str) -> list[str]:
        return [
            sys.executable, "-m", "graphserve", "logs", "--run-dir", str(self.run_dir), *arguments
        ]  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=60)

    def connect(self, query: str) -> socket.socket:
        """A client that asks, and does not read yet."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(60)
        sock.connect(control_socket(self.run_dir))
        sock.sendall(f"GET /logs?{query} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        return sock

    def ask(self, query: str) -> tuple[int, list[dict[str, Any]]]:
        """The status and the lines of an answer."""
        with self.connect(query) as sock:
            response = http.client.HTTPResponse(sock)
            response.begin()
            return response.status, [json.loads(line) for line in response.read().splitlines()]

    def lines(self, query: str = "") -> list[dict[str, Any]]:
        status, lines = self.ask(query)
        assert status == 200
        assert lines.pop() == {"done": True}
        return lines

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        with self.graph.client() as client:
            return client.post(path, json=arguments)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    run_dir = tmp_path_factory.mktemp("run") / "r"
    with served(
        "silent:Silent", "--run-dir", str(run_dir), "--log-buffer", str(LIMIT), "--access-log"
    ) as graph:
        yield Logged(graph, run_dir)


def test_it_is_shown_as_the_terminal_shows_it(logged: Logged) -> None:
    request = logged.post("/fail", how="nothing").json()["request_id"]
    eventually(lambda: len(logged.lines(f"request={request}")) == 2)
    done = logged.run("--request", request)
    assert (done.returncode, done.stderr) == (0, "")
    error, traceback, *_, access = done.stdout.splitlines()
    shown = [line.rstrip("\n") for line in logged.graph.log]
    assert error in shown and access in shown
    assert traceback == "    Traceback (most recent call last):"
    (found,) = logged.run("--request", request, "--json", "-n", "1").stdout.splitlines()
    assert json.loads(found)["message"].startswith("POST /fail 500 ")
    assert logged.run("graphserve", "--grep", "SERVING on").stdout.endswith(f"{logged.graph.url}\n")


def test_a_record_has_the_documented_fields(logged: Logged) -> None:
    documented = fields("reference/cli.md", "A record")
    found = {name for line in logged.lines() for name in line}
    assert found == documented


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("Silnt",), 1, "there is no node 'Silnt'; did you mean 'Silent'?"),
        (("--since", "soon"), 2, "'soon' is no time: write 30s"),
        (("--since", "5m", "-n", "0"), 0, ""),
        (("--since", "2099-01-01"), 0, ""),
        (("-n", "-1"), 2, "-1 is not in the range"),
        (("--level", "loud"), 2, "'loud' is not one of"),
    ],
    ids=str,
)
def test_mistakes(
    logged: Logged,
    arguments: tuple[str, ...],
    code: int,
    words: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["logs", "--run-dir", str(logged.run_dir), *arguments]) == code
    printed, said = capfd.readouterr()
    assert printed == ""
    assert words in said
    assert "Traceback" not in said


def test_what_a_dead_worker_said_last_is_there(logged: Logged) -> None:
    with contextlib.suppress(httpx.HTTPError):
        logged.post("/dies", how="exit")
    (line,) = eventually(lambda: logged.lines("grep=last+words&level=error"))
    eventually(lambda: not alive(line["pid"]))
    assert logged.lines("grep=last+words&level=error")
    eventually(lambda: logged.lines("grep=replaced&node=Silent"))
    eventually(lambda: _is_ready(logged))


def _is_ready(logged: Logged) -> bool:
    with contextlib.suppress(httpx.HTTPError), logged.graph.client() as client:
        return client.get("/readyz").status_code == 200
    return False


@contextlib.contextmanager
def following(logged: Logged, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`graphserve logs -f`, until it is ended."""
    process = subprocess.Popen(
        logged.command("-f", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_follower_gets_each_line_once_and_ends_with_ctrl_c(logged: Logged) -> None:
    logged.post("/floods", count=2)
    eventually(lambda: logged.lines("grep=record+1"))
    with following(logged, "--json", "--grep", "record", "-n", "1") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["message"].startswith("record 1")
        for _ in range(3):
            assert logged.post("/floods", count=200).status_code == 200
        numbers = [
            int(json.loads(process.stdout.readline())["message"].split()[1]) for _ in range(600)
        ]
        assert numbers == [*range(200)] * 3
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0


def test_a_follower_that_does_not_read_holds_nothing_and_is_told(logged: Logged) -> None:
    with logged.connect("follow=1&n=0") as sock:
        response = http.client.HTTPResponse(sock)
        response.begin()  # it follows now
        for _ in range(4):  # several times what the graph keeps and the socket takes
            assert logged.post("/floods", count=6000).status_code == 200
        logged.post("/fail", how="nothing")
        eventually(lambda: logged.lines("grep=after+nothing&n=1"))
        seen, left_out = [], 0
        for line in response:
            said = json.loads(line)
            left_out += said.get("left_out", 0) if seen else 0
            seen += [said["seq"]] if "seq" in said else []
            if "after nothing" in said.get("message", ""):
                break
    assert left_out > 1000
    assert seen == sorted(set(seen))
    assert seen[-1] - seen[0] + 1 == len(seen) + left_out, "each was read, or is counted"


def test_many_who_read_and_leave(logged: Logged) -> None:
    for _ in range(3):
        open_ = [logged.connect("follow=1") for _ in range(MAX_READERS)]
        for sock in open_:
            assert sock.recv(12) == b"HTTP/1.1 200"
        status, (problem,) = logged.ask("")
        assert (status, problem["status"]) == (503, 503)
        assert "clients read the log already" in problem["detail"]
        for sock in open_:
            sock.close()
        eventually(lambda: logged.ask("n=1")[0] == 200)


def test_it_comes_to_its_end_with_the_graph(tmp_path: Path, run_dir: Path) -> None:
    with served("silent:Silent", "--run-dir", str(run_dir), "--log-buffer", "1MiB") as graph:
        logged = Logged(graph, run_dir)
        with following(logged, "-n", "100") as process:
            assert process.stdout is not None
            shown = [process.stdout.readline()]
            while "serving on" not in shown[-1]:
                shown.append(process.stdout.readline())
            graph.signal(signal.SIGSTOP)
            eventually(lambda: state(graph.pid) == "T")
            graph.signal(signal.SIGCONT)
            assert graph.stop() == 0
            rest, trouble = process.communicate(timeout=60)
            assert (process.returncode, trouble) == (0, "")
            assert "Silent stopped" in rest or "draining" in rest
