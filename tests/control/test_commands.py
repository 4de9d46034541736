"""The commands that see and steer a running graph, and the socket that they speak to."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest

from graphserve.system.messages import HealthReport
from tests.documents import DOCS, fields
from tests.harness import Served, alive, eventually
from tests.steering import LEAF, Steered

HOLD = """
import asyncio
import os
from graphserve import api, service

@service(workers=2)
class Leaf:
    @api
    def run(self, x: int) -> int:
        return x + 1

    @api
    async def hold(self, gate: str) -> int:
        open(gate + ".held", "w").close()
        while not os.path.exists(gate):
            await asyncio.sleep(0.01)
        return 1
"""
HELD = (
    "        import os, time\n        while os.path.exists('hold'):\n            time.sleep(0.01)"
)
HEADS = ["NODE", "SLOT", "PID", "STATE", "RESTARTS", "UPTIME", "CPU", "%", "MEMORY", "IN", "FLIGHT"]
REFERENCE = "reference/cli.md"


@pytest.mark.slow
def test_ps_shows_a_row_a_worker(steered: Steered, graph: Served) -> None:
    lines = steered.run("ps").stdout.splitlines()
    assert lines[0].split() == HEADS
    assert [line.split()[:2] for line in lines[1:]] == [
        ["Leaf", "0"],
        ["Leaf", "1"],
        ["Mid", "0"],
        ["Mid", "1"],
        ["Top", "0"],
    ]
    rows = json.loads(steered.run("ps", "--json").stdout)
    assert all(set(row) == fields(REFERENCE, "A worker") for row in rows)
    assert sorted(row["pid"] for row in rows) == graph.workers()
    assert {row["state"] for row in rows} == {"ready"}
    assert all(row["memory"] > 1e7 and row["uptime"] > 0 for row in rows)
    assert all(set(row["health"]) == set(HealthReport.fields) for row in rows)
    reference = (DOCS / REFERENCE).read_text()
    assert all(f"`{name}`" in reference for name in HealthReport.fields)
    victim = rows[1]
    os.kill(victim["pid"], signal.SIGKILL)
    eventually(
        lambda: (
            [row["restarts"] for row in steered.ps()] == [0, 1, 0, 0, 0] and len(steered.ps()) == 5
        ),
        30,
    )


@pytest.mark.slow
def test_ps_knows_of_calls_and_cpu_at_once(steered: Steered) -> None:
    steered.write(app=HOLD.replace("Leaf", "Top"))
    graph = steered.serve()
    gate = steered.folder / "gate"
    threads = []
    try:
        graph.wait_ready()
        for index in range(3):
            held = {"gate": str(gate) if index else str(gate) + "0"}
            threads.append(
                threading.Thread(
                    target=lambda held=held: httpx.post(f"{graph.url}/hold", json=held, timeout=60)
                )
            )
            threads[-1].start()
        eventually(lambda: Path(f"{gate}.held").exists() and Path(f"{gate}0.held").exists())
        eventually(lambda: sum(row["in_flight"] or 0 for row in steered.ps()) == 3)
        with steered.operator() as client:
            rows = client.get("/ps").json()
            assert sum(row["in_flight"] or 0 for row in rows) == 3, (
                "as it is now, not as of the last second"
            )
            (spinning, _) = rows
            os.kill(spinning["pid"], signal.SIGSTOP)
            still = client.get("/ps")  # a worker that does not answer holds nobody
            assert len(still.json()) == 2
            os.kill(spinning["pid"], signal.SIGCONT)
    finally:
        gate.touch()
        Path(f"{gate}0").touch()
        for thread in threads:
            thread.join(30)
        graph.close()


def test_status_and_its_exit_codes(steered: Steered) -> None:
    none = steered.run("status")
    assert (none.returncode, none.stdout) == (5, "")
    assert "no graph of this user is running" in none.stderr
    steered.write(
        leaf=LEAF.replace(
            "        pass",
            HELD,
        )
    )
    (steered.folder / "hold").touch()
    graph = steered.serve()
    try:
        eventually(lambda: steered.status().get("nodes"))
        done = steered.run("status", "--json")
        assert (done.returncode, json.loads(done.stdout)["state"]) == (1, "starting")
        early = steered.run("reload")
        assert early.returncode == 1
        assert "the graph is starting" in early.stderr
        waiting = threading.Thread(
            target=lambda: codes.append(steered.run("status", "--wait").returncode)
        )
        codes: list[int] = []
        waiting.start()
        (steered.folder / "hold").unlink()
        waiting.join(60)
        assert codes == [0]
        done = steered.run("status")
        assert done.returncode == 0
        assert done.stdout.startswith(f"ready  {graph.wait_ready().url}  up ")
        assert [line.split() for line in done.stdout.splitlines()[2:]] == [
            ["Leaf", "ready", "2/2"], ["Mid", "ready", "2/2"], ["Top", "ready", "1/1"]
        ]  # fmt: skip
        (steered.folder / "hold").touch()
        os.kill(graph.workers("n0")[0], signal.SIGKILL)
        eventually(lambda: steered.status()["state"] == "degraded")
        done = steered.run("status", "--json")
        status = json.loads(done.stdout)
        assert (done.returncode, status["state"]) == (1, "degraded")
        assert next((node["name"], node["ready"], node["workers"]) for node in status["nodes"]) == (
            "Leaf",
            1,
            2,
        )
        short = steered.run("status", "--wait", "0.5")
        assert short.returncode == 1
        assert ["Leaf", "degraded", "1/2"] in [line.split() for line in short.stdout.splitlines()]
        graph.wait_log("Leaf degraded  1/2 workers")
        (steered.folder / "hold").unlink()
        assert steered.run("status", "--wait", "30").returncode == 0
    finally:
        graph.close()


@pytest.mark.slow
def test_waiting_for_a_graph_that_does_not_run_yet(steered: Steered) -> None:
    codes: list[int] = []
    waiting = threading.Thread(
        target=lambda: codes.append(steered.run("status", "--wait").returncode)
    )
    waiting.start()
    graph = steered.serve()
    try:
        waiting.join(60)
        assert codes == [0]
        graph.wait_ready()
    finally:
        graph.close()
    none = steered.run("status", "--wait", "0.2")
    assert none.returncode == 5
    assert "waited 0.2 s" in none.stderr


@pytest.mark.slow
def test_waiting_for_a_graph_that_does_not_start_ends_with_it(steered: Steered) -> None:
    (steered.folder / "hold").touch()
    steered.write(leaf=LEAF.replace("        pass", f"{HELD}\n        raise OSError('no')"))
    done: list[Any] = []
    waiting = threading.Thread(target=lambda: done.append(steered.run("status", "--wait", "100")))
    waiting.start()  # before there is a graph, so that it has seen one when the start fails
    graph = steered.serve()
    try:
        for _ in range(3):
            eventually(lambda: steered.run("status").returncode == 1, 30)
        (steered.folder / "hold").unlink()
        assert graph.wait_exit() == 3
        waiting.join(30)
        assert done[0].returncode == 5, "also if it saw that the start was given up"
        assert "the graph ended before it was ready" in done[0].stderr
    finally:
        graph.close()


@pytest.mark.slow
def test_waiting_for_a_failed_start_whose_workers_leave_slowly(
    steered: Steered, run_dir: Path
) -> None:
    graph = Served("broken:FailsAboveOneThatStays", "--run-dir", str(run_dir))
    try:
        graph.wait_log("the start has failed, the nodes that are ready stop: ")
        waited = steered.run("status", "--wait", "60", "--run-dir", str(run_dir))
        assert waited.returncode == 5, "it saw it stopping"
        assert graph.wait_exit() == 3
    finally:
        graph.close()


def test_stop_returns_when_the_graph_is_gone_and_says_what_it_waits_for(steered: Steered) -> None:
    steered.write(app=HOLD.replace("Leaf", "Top"))
    graph = steered.serve()
    gate = steered.folder / "gate"
    answers: list[int] = []
    try:
        graph.wait_ready()
        workers = graph.workers()
        held = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{graph.url}/hold", json={"gate": str(gate)}, timeout=60).status_code
            )
        )
        held.start()
        eventually(Path(f"{gate}.held").exists)
        with steered.begin("stop") as stopping:
            graph.wait_log("stopping")
            status = steered.run("status", "--json")
            assert status.returncode == 1
            assert json.loads(status.stdout)["state"] == "stopping"
            assert steered.run("status", "--wait").returncode == 1, "it will not be ready any more"
            assert stopping.stderr is not None
            assert stopping.stderr.readline().startswith(
                f"stopping the graph {graph.url}  app:Top  --run-dir "
            )
            assert stopping.stderr.readline() == "waiting for 1 call in 2 workers\n"
            gate.touch()
            assert stopping.wait(30) == 0
            assert stopping.stdout is not None
            assert stopping.stdout.read() == "stopped\n"
        held.join(30)
        assert answers == [200]
        assert graph.wait_exit() == 0
        assert not any(map(alive, workers))
        assert list(steered.runtime.iterdir()) == []
        assert steered.run("stop").returncode == 5
    finally:
        graph.close()


@pytest.mark.slow
def test_a_stop_during_an_operation_gives_it_up(steered: Steered, graph: Served) -> None:
    steered.write(
        leaf=LEAF.replace(
            "        pass",
            "        open('begun', 'w').close()\n        __import__('time').sleep(600)",
        )
    )
    done: list[Any] = []
    reloading = threading.Thread(target=lambda: done.append(steered.run("reload")))
    reloading.start()
    eventually((steered.folder / "begun").exists, 30)
    assert len(graph.workers()) == 6
    busy = steered.run("scale", "Leaf=3")
    assert busy.returncode == 1
    assert "a reload is under way" in busy.stderr
    status = json.loads(steered.run("status", "--json").stdout)
    assert (status["state"], status["operation"]) == ("ready", "reload")
    assert "a reload is under way" in steered.run("status").stdout
    assert steered.run("stop").returncode == 0
    assert graph.wait_exit() == 0
    reloading.join(30)
    assert done[0].returncode in (1, 5)
    assert "given up: the graph stops" in done[0].stderr
    assert list(steered.runtime.iterdir()) == []


@pytest.mark.slow
def test_scaling_and_restarting_what_does_not_start(steered: Steered, graph: Served) -> None:
    steered.write(leaf=LEAF.replace("        pass", "        raise OSError('no model there')"))
    scaled = steered.run("scale", "Leaf=4")
    assert scaled.returncode == 1
    assert scaled.stderr.startswith("scaling the graph http://")
    assert scaled.stderr.splitlines()[1].startswith("Traceback")
    assert "OSError: no model there" in scaled.stderr
    assert steered.counts()["Leaf"] == 2
    assert steered.run("status").returncode == 0
    restarted = steered.run("restart", "Leaf")
    assert restarted.returncode == 1
    assert "OSError: no model there" in restarted.stderr
    assert steered.run("status").returncode == 1
    steered.write(leaf=LEAF)
    assert steered.run("status", "--wait", "60").returncode == 0, "it is tried again"
    assert steered.counts()["Leaf"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["scale", "Leef=2"], 1, "there is no node 'Leef'; did you mean 'Leaf'?"),
        (["reload", "Nope"], 1, "there is no node 'Nope'; nodes are Leaf, Mid, Top"),
        (["restart", "Nope"], 1, "there is no node 'Nope'"),
        (["scale", "Leaf=0"], 2, "Leaf"),
        (["scale", "Leaf=20000"], 1, "from 1 to 10000 workers"),
        (["scale", "Leaf"], 2, "NODE=N"),
        (["scale"], 2, "NODE=N"),
        (["status", "--wait", "soon"], 2, "soon"),
        (["ps", "--run-dir", "nowhere"], 5, "no graph is running in"),
    ],
)
def test_wrong_uses(
    steered: Steered, graph: Served, arguments: list[str], code: int, words: str
) -> None:
    done = steered.run(*arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(graph.workers()) == 5


@pytest.mark.slow
def test_two_graphs_are_told_apart(steered: Steered, graph: Served, run_dir: Path) -> None:
    (first,) = steered.runtime.iterdir()
    other = steered.serve("--run-dir", str(run_dir))
    try:
        other.wait_ready()
        for command in (
            ["ps"],
            ["status"],
            ["status", "--wait"],
            ["stop"],
            ["reload"],
            ["restart"],
            ["scale", "Leaf=1"],
        ):
            done = steered.run(*command)
            assert done.returncode == 2, "5 says that nothing is running"
            assert f"--run-dir {first}  {graph.url}  app:Top\n" in done.stderr
            assert f"--run-dir {run_dir}  {other.url}  app:Top\n" in done.stderr
        assert steered.run("stop", "--run-dir", str(run_dir)).returncode == 0
        assert other.wait_exit() == 0
        assert not run_dir.exists()
        assert steered.run("status").returncode == 0, "the other one is the only one now"
    finally:
        other.close()


def test_the_graph_of_this_folder_is_preferred_and_named(steered: Steered, tmp_path: Path) -> None:
    one_node = LEAF.replace("workers=2", "workers=1")
    steered.write(app=one_node.replace("Leaf", "Top"))
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "other.py").write_text(one_node)
    graph, other = steered.serve(), Served("other:Leaf", cwd=elsewhere, env=steered.env)
    try:
        graph.wait_ready()
        other.wait_ready()
        done = steered.run("scale", "Top=1")
        named = f"scaling the graph {graph.url}  app:Top  --run-dir "
        assert (done.returncode, done.stderr.startswith(named)) == (0, True), done.stderr
        assert json.loads(steered.run("status", "--json").stdout)["target"] == "app:Top"
        assert graph.stop() == 0
        done = steered.run("stop")
        assert (done.returncode, other.wait_exit()) == (0, 0), (
            "it is the only one now, wherever it is from"
        )
        assert done.stderr.startswith(
            f"stopping the graph {other.url}  other:Leaf  --run-dir {steered.runtime}"
        )
    finally:
        graph.close()
        other.close()


@pytest.mark.slow
def test_a_graph_elsewhere_is_found_too(steered: Steered, run_dir: Path) -> None:
    graph = steered.serve("--run-dir", str(run_dir))
    try:
        graph.wait_ready()
        assert json.loads(steered.run("status", "--json").stdout)["run_dir"] == str(run_dir)
        graph.process.kill()
        graph.wait_exit()
        assert steered.run("status").returncode == 5
    finally:
        graph.close()


@pytest.mark.slow
def test_where_the_graph_runs_may_be_configured(steered: Steered, run_dir: Path) -> None:
    (steered.folder / "pyproject.toml").write_text(f'[tool.graphserve]\nrun-dir = "{run_dir}"\n')
    graph = steered.serve()
    try:
        graph.wait_ready()
        assert json.loads(steered.run("status", "--json").stdout)["run_dir"] == str(run_dir)
        assert graph.stop() == 0
        assert f"no graph is running in {run_dir}" in steered.run("status").stderr
    finally:
        graph.close()


# --- the socket ---


def test_the_control_socket_is_private_and_speaks_plain_http(
    steered: Steered, graph: Served
) -> None:
    assert stat.S_IMODE(steered.control.stat().st_mode) == 0o600
    assert stat.S_IMODE(steered.control.parent.stat().st_mode) == 0o700
    with steered.operator() as client:
        status = client.get("/status").json()
        assert status["state"] == "ready"
        assert set(status) == fields(REFERENCE, "The status")
        assert all(set(node) == fields(REFERENCE, "A node") for node in status["nodes"])
        assert len(client.get("/ps").json()) == 5
        answer = client.post("/scale", json={"Leaf": 1})
        assert answer.json() == {"done": True, "steps": ["Leaf has 1 worker"]}
        answer = client.post(
            "/restart", json={"nodes": ["Top"]}, headers={"accept": "application/x-ndjson"}
        )
        assert [json.loads(line) for line in answer.text.splitlines()] == [
            {"progress": "Top 1/1 restarted"}, {"done": True}
        ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("POST", "/ps", None, 405),
        ("GET", "/stop", None, 405),
        ("POST", "/scale", None, 422),
        ("POST", "/scale", b"[1]", 422),
        ("POST", "/scale", b'{"Leaf": true}', 422),
        ("POST", "/scale", b'{"Leaf": 0}', 422),
        ("POST", "/scale", b'{"Nope": 1}', 404),
        ("POST", "/reload", b'{"nodes": "Leaf"}', 422),
        ("POST", "/restart", b'{"nodez": ["Leaf"]}', 422),
        ("POST", "/restart", b'{"nodes": []}', 422),
        ("POST", "/restart", b'{"nodes": null}', 422),
        ("POST", "/restart", b'{"nodes": ["Leaf"], "force": true}', 422),
        ("POST", "/restart", b"[]", 422),
        ("POST", "/reload", b'{"nodes": []}', 422),
        ("POST", "/reload", b'{"Leaf": 1}', 422),
        ("POST", "/stop", b'{"nodes": ["Leaf"]}', 422),
        ("POST", "/reload", b"nodes=Leaf", 400),
        ("POST", "/reload", b'{"nodes": ["Leaf"], "nodes": ["Top"]}', 400),
        ("POST", "/reload", b"[" * 60000, 400),
        ("POST", "/reload", b" " * 70000, 413),
    ],
)
def test_wrong_requests_are_answered_with_problems(
    steered: Steered, graph: Served, method: str, path: str, body: bytes | None, status: int
) -> None:
    with steered.operator() as client:
        before = [row["pid"] for row in client.get("/ps").json()]
        answer = client.request(method, path, content=body)
        assert [row["pid"] for row in client.get("/ps").json()] == before
    assert answer.reason_phrase == answer.json()["title"]
    assert answer.reason_phrase == {413: "Content Too Large", 422: "Unprocessable Content"}.get(
        status, HTTPStatus(status).phrase
    )
    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET /ps\r\n\r\n",
    b"GET /ps HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET /ps HTTP/1.1\nhost: x\n\n\r\n\r\n",
    b"GET /ps HTTP/1.1\r\nx: 1\r\n folded\r\n\r\n",
    b"POST /stop HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    b"POST /stop HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    b"POST /stop HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n",
    b"GET /ps HTTP/1.1\r\n" + b"x: y\r\n" * 5000 + b"\r\n",
]


def sent_away(sock: socket.socket) -> bool:
    """Whether the server ends a connection, within its limits, without a word."""
    sock.settimeout(30)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.slow
def test_garbage_is_refused_and_stuck_clients_hold_nothing(steered: Steered, graph: Served) -> None:
    path = str(steered.control)
    for garbage in GARBAGE:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.settimeout(30)
            sock.sendall(garbage)
            assert sock.recv(65536).split(b" ")[1] in (b"400", b"411", b"431"), garbage[:60]
    silent = [socket.socket(socket.AF_UNIX) for _ in range(80)]
    try:
        for sock in silent:
            sock.connect(path)
            sock.sendall(b"GET /ps HTT")
        # The first ones have a place, and a few seconds; whoever comes when all are taken is sent
        # away at once.
        assert sent_away(silent[-1])
        eventually(lambda: steered.run("status").returncode == 0, 30)
        with graph.client() as client:
            assert client.post("/ask", json={"x": 1}).status_code == 200
    finally:
        for sock in silent:
            sock.close()
    assert graph.stop() == 0
