"""Ordered start, ordered stop, and starts that fail: real processes, read from the log."""

from __future__ import annotations

import re
import signal
import socket
import threading
from pathlib import Path

import httpx
import pytest

from tests.harness import Served, alive, eventually, served


def order(graph: Served, word: str) -> list[str]:
    return [match.group(1) for line in graph.out if (match := re.search(rf"{word} (\w+)$", line))]


def test_a_diamond_starts_leaves_first_and_stops_entry_first() -> None:
    with served("diamond:Top") as graph:
        with graph.client() as client:
            assert client.post("/top", json={"x": 1}).json() == 4 + 6
        entered = order(graph, "enter")
        assert entered[:2] == ["Base", "Base"]
        assert sorted(entered[2:4]) == ["Left", "Right"]
        assert entered[4:] == ["Top"]
        assert graph.stop() == 0
        left = order(graph, "exit")
        assert left[0] == "Top"
        assert sorted(left[1:3]) == ["Left", "Right"]
        assert left[3:] == ["Base", "Base"]


def test_a_node_that_raises_in_init_fails_the_start(run_dir: Path) -> None:
    run = run_dir
    graph = Served("broken:Top", "--run-dir", str(run))
    try:
        assert graph.wait_exit() == 3
        assert graph.text.rstrip().endswith("ValueError: the model file is missing")
        assert "line 11, in __init__" in graph.text
        assert "graphserve/worker" not in graph.text, (
            "our own frames are noise in a user's traceback"
        )
        assert not run.exists()
        assert not graph.workers()
    finally:
        graph.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("broken:Dies", "ended with exit code 7"),
        ("broken:TooSlow", "was not ready 5 s after it began to start"),
    ],
)
def test_other_failed_starts_say_why(target: str, said: str) -> None:
    graph = Served(target)
    try:
        assert graph.wait_exit() == 3
        assert said in graph.text
    finally:
        graph.close()


@pytest.mark.slow
def test_a_start_that_waits_too_long_says_where() -> None:
    graph = Served("broken:TooSlow", "--set", "TooSlow.startup_timeout=0.5")
    try:
        assert graph.wait_exit() == 3
        assert re.search(
            r"Stack .*:\n.*line \d+, in __aenter__\n    await self.load\(\)\n.*, in load\n",
            graph.text,
        )
    finally:
        graph.close()


@pytest.mark.slow
def test_the_last_words_of_a_worker_without_a_traceback_are_shown() -> None:
    graph = Served("broken:Dies")
    try:
        assert graph.wait_exit() == 3
        assert graph.text.rstrip().endswith("the last thing I said")
    finally:
        graph.close()


def test_what_was_ready_leaves_in_order_when_the_start_fails(run_dir: Path) -> None:
    graph = Served("broken:Last", "--run-dir", str(run_dir))
    try:
        assert graph.wait_exit() == 3
        assert order(graph, "exit") == ["Between", "Bottom", "Bottom"], (
            "who was never ready is not left"
        )
        assert graph.text.rstrip().endswith("ValueError: too late for that")
        assert not run_dir.exists()
        assert not graph.workers()
    finally:
        graph.close()


@pytest.mark.slow
def test_a_failed_start_does_not_wait_long_for_who_stays() -> None:
    graph = Served("broken:FailsAboveOneThatStays", "--set", "Stays.graceful_timeout=600")
    try:
        assert graph.wait_exit() == 3, "it is not given its graceful_timeout"
        assert order(graph, "exit") == ["begun"]
        assert graph.text.rstrip().endswith("ValueError: too late for that")
    finally:
        graph.close()


@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 2])
def test_signals_while_a_failed_start_is_left(signals: int) -> None:
    graph = Served("broken:FailsAboveOneThatStays")
    try:
        eventually(lambda: order(graph, "exit"), 30)
        for _ in range(signals):
            graph.signal()
            if signals == 2:
                graph.wait_log("stopping")
        assert graph.wait_exit() == (3 if signals == 1 else 130)
    finally:
        graph.close()


def test_a_signal_while_starting_has_what_is_ready_leave() -> None:
    graph = Served("broken:Waits")
    try:
        eventually(lambda: order(graph, "init")[-1:] == ["Waits"], 30)
        graph.signal()
        assert graph.wait_exit() == 0
        assert order(graph, "exit") == ["Between", "Bottom", "Bottom"]
    finally:
        graph.close()


def test_sigterm_answers_every_accepted_request(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    answers: list[int] = []

    def ask(url: str, x: int) -> None:
        answer = httpx.post(
            f"{url}/two", json={"x": x, "gate": str(gate)}, timeout=60, trust_env=False
        )
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())

    with served("steps:Gateway") as graph:
        threads = [threading.Thread(target=ask, args=(graph.url, x)) for x in range(50)]
        for thread in threads:
            thread.start()
        eventually(lambda: all((tmp_path / f"gate.{x}").exists() for x in range(50)))
        graph.signal()
        graph.wait_log("Gateway draining")
        host, port = graph.url.removeprefix("http://").split(":")
        eventually(lambda: refused(host, int(port)))
        gate.touch()
        for thread in threads:
            thread.join(30)
        assert sorted(answers) == [x * 10 for x in range(50)]
        assert graph.wait_exit() == 0


@pytest.mark.slow
def test_idle_keep_alive_connections_do_not_hold_a_stop_for_long() -> None:
    patient = ("--timeout-keep-alive", "600", "--timeout-graceful-shutdown", "600")
    with served("diamond:Top", *patient) as graph, graph.client() as client:
        assert client.post("/pid", json={}).status_code == 200
        assert graph.stop() == 0, "it waits for neither"


def test_a_second_signal_kills_at_once(tmp_path: Path, run_dir: Path) -> None:
    with served("steps:Gateway", "--run-dir", str(run_dir)) as graph:
        thread = threading.Thread(
            target=ask_and_forget, args=(f"{graph.url}/two", str(tmp_path / "never"))
        )
        thread.start()
        eventually((tmp_path / "never.1").exists)
        workers = graph.workers()
        graph.signal(signal.SIGINT)
        graph.wait_log("stopping")
        graph.signal(signal.SIGINT)
        assert graph.wait_exit(10) == 130
        assert not any(alive(pid) for pid in workers)
        assert not run_dir.exists()
        assert "killed at once by a second signal" in graph.log[-1]
        states = re.findall(r"graphserve  (\w+ \w+)  \d/\d worker", graph.text)
        assert set(states[-2:]) == {"Gateway stopped", "Slow stopped"}, (
            "what was killed is not ready"
        )
        thread.join(10)


def test_sigterm_before_there_is_a_supervisor_ends_in_order(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\nopen('begun', 'w').close()\ntime.sleep(600)\n")
    graph = Served("slow:Top", cwd=tmp_path)
    try:
        eventually((tmp_path / "begun").exists)
        graph.signal()
        assert graph.wait_exit() == 0
        assert "Traceback" not in graph.text
    finally:
        graph.close()


@pytest.mark.slow
def test_a_signal_while_starting_stops_cleanly(run_dir: Path) -> None:
    graph = Served(
        "broken:TooSlow", "--set", "TooSlow.startup_timeout=60", "--run-dir", str(run_dir)
    )
    try:
        eventually(lambda: graph.workers())
        graph.signal()
        assert graph.wait_exit() == 0
        assert not run_dir.exists()
    finally:
        graph.close()


def ask_and_forget(url: str, gate: str) -> None:
    try:
        httpx.post(url, json={"x": 1, "gate": gate}, timeout=60, trust_env=False)
    except httpx.HTTPError:
        pass


def refused(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("way", ["async def __aexit__", "def __exit__"])
def test_what_a_service_raises_when_it_is_left_is_shown_without_our_frames(
    tmp_path: Path, way: str
) -> None:
    (tmp_path / "app.py").write_text(
        "from graphserve import api, service\n\n\n@service\nclass Leaf:\n"
        f"    {way.replace('exit', 'enter')}(self): ...\n\n"
        f"    {way}(self, *exc):\n        raise ValueError('the door is stuck')\n\n"
        "    @api\n    async def x(self) -> int:\n        return 1\n"
    )
    with served("app:Leaf", cwd=tmp_path) as graph:
        assert graph.stop() == 0
        graph.wait_log(rf"Leaf\.{way.split()[-1]} raised ValueError: the door is stuck")
    assert "raise ValueError('the door is stuck')" in graph.text
    assert "graphserve/worker" not in graph.text


def test_a_file_that_is_not_ours_stays_in_the_run_folder_and_is_named(run_dir: Path) -> None:
    with served("steps:Slow", "--run-dir", str(run_dir)) as graph:
        (run_dir / "n0" / "thesis.txt").touch()
        assert graph.stop() == 0
        words = f"left in the run folder, since graphserve did not make it: {run_dir}/n0/thesis.txt"
        assert words in graph.text
    left = sorted(str(path.relative_to(run_dir)) for path in run_dir.rglob("*"))
    assert left == ["lock", "n0", "n0/thesis.txt"], (
        "the lock has our marker, by which the next graph knows the folder"
    )
