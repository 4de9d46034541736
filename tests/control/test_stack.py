"""`graphserve stack`: where workers are, whatever they do at that moment; asking changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from graphserve.cli.client import RunningGraph
from graphserve.supervise.control.stacks import _in_c, _take
from tests.documents import fields
from tests.harness import Served, eventually, served, state

LINES = (Path(__file__).parents[1] / "apps/stuck.py").read_text().splitlines()


class Asked:
    """A graph whose workers are somewhere."""

    def __init__(self, graph: Served, run_dir: Path, folder: Path) -> None:
        self.graph = graph
        self.run_dir = run_dir
        self.gate = folder / "gate"
        self.pool = ThreadPoolExecutor(8)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "graphserve", "stack", "--run-dir", str(self.run_dir), *arguments],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def row(self, node: str = "Stuck") -> dict[str, Any]:
        (row,) = RunningGraph(self.run_dir).stacks([node])
        return dict(row)

    def post(self, path: str, **arguments: Any) -> int:
        with self.graph.client() as client:
            headers = {"x-request-id": path}
            return client.post(f"/{path}", json=arguments, headers=headers).status_code

    def begin(self, path: str) -> Future[int]:
        return self.pool.submit(self.post, path, file=str(self.gate))

    def open(self) -> None:
        """Have everything that waits come to its end."""
        self.gate.touch()
        eventually(lambda: self.ended())
        self.gate.unlink()

    def ended(self) -> bool:
        return not any(
            place["requests"]
            for node in ("Stuck", "Deep")
            for kind in ("threads", "tasks")
            for place in self.row(node)[kind]
        )


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("stack")
    with served("stuck:Stuck", "--run-dir", str(folder / "r")) as graph:
        asked = Asked(graph, folder / "r", folder)
        yield asked
        asked.pool.shutdown()


def serving(row: dict[str, Any], request: str) -> list[dict[str, Any]]:
    return [
        place for kind in ("threads", "tasks") for place in row[kind] if request in place["requests"]
    ]  # fmt: skip


def inner(place: dict[str, Any], function: str) -> str:
    """The line of the source where a function is."""
    (line,) = (line for file, line, name in place["frames"] if name == function)
    return LINES[line - 1].strip()


WHERE = {
    "waits_below": ("waits_below", "await self.deep.waits(file)"),
    "waits_in_a_task": ("waits_in_a_task", 'await asyncio.create_task(self._inner(file), name="of-user")'),
    "in_thread": ("in_thread", "time.sleep(0.01)"),
    "busy": ("busy", "while not exists(file):"),
}  # fmt: skip


def test_what_waits_and_what_runs_is_shown_with_its_request(asked: Asked) -> None:
    answers = [asked.begin(how) for how in ("waits_below", "waits_in_a_task", "in_thread")]
    eventually(lambda: serving(asked.row("Deep"), "waits_below"))
    eventually(lambda: all(serving(asked.row(), how) for how in list(WHERE)[:3]))
    answers.append(asked.begin("busy"))  # the loop is stuck from here on
    eventually(lambda: serving(asked.row(), "busy"))
    row = asked.row()
    assert set(row) == fields("reference/cli.md", "A stack")
    assert row["trouble"] == ""
    for how, (function, line) in WHERE.items():
        (place,) = serving(row, how)
        assert inner(place, function) == line or how in ("in_thread", "busy")
        assert 0 < place["left"] <= 60
    assert serving(row, "waits_below")[0]["waits_for"] == "Deep"
    assert serving(row, "busy")[0]["name"] == "MainThread"
    (task,) = (task for task in row["tasks"] if task["name"] == "of-user")
    assert inner(task, "_inner") == "await opened(file)"
    assert sys.version_info < (3, 12) or task["requests"] == ["waits_in_a_task"]
    text = asked.run("Stuck.0")
    assert "  thread MainThread, request busy, " in text
    assert "      await self.deep.waits(file)\n" in text
    (row,) = json.loads(asked.run("Stuck.0", "--json"))
    assert serving(row, "busy")
    assert "/graphserve/" not in text.replace(str(asked.run_dir), ""), "no frame of ours"
    asked.open()
    assert [answer.result() for answer in answers] == [200] * 4


def test_a_main_thread_that_is_blocked_in_c(asked: Asked, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    answer = asked.pool.submit(asked.post, "in_c", fifo=str(fifo))
    eventually(lambda: state(asked.row()["pid"]) == "S" and asked.row()["trouble"])
    row = asked.row()
    assert "in C code, or in a system call" in row["trouble"]
    main = row["threads"][0]
    assert (main["name"], inner(main, "in_c")) == (
        "the main thread",
        "blocks(os.open(fifo, os.O_RDWR))",
    )
    assert row["tasks"] == []
    assert not answer.done(), "the system call goes on, however often it was asked"
    fifo.write_text("x")
    assert answer.result() == 200
    assert asked.row()["trouble"] == ""


def test_a_process_that_is_stopped(asked: Asked) -> None:
    pid = asked.row()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: state(pid) == "T")
        text = asked.run("Stuck")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert f"Stuck[0]  pid {pid}  ready, stopped" in text
    assert f"`kill -CONT {pid}` continues it" in text
    assert asked.row()["trouble"] == ""


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("takes_signals", "user code has taken the signal"),
        ("closes_all", "has closed the descriptor"),
    ],
)
def test_user_code_that_takes_the_means_away(asked: Asked, how: str, words: str) -> None:
    assert asked.post(how) == 200
    row = asked.row()
    assert words in row["trouble"]
    assert asked.post("waits_in_a_task", file=str(asked.run_dir)) == 200, "nothing has ended it"
    os.kill(row["pid"], signal.SIGKILL)
    eventually(lambda: _new(asked, row["pid"]))


def _new(asked: Asked, pid: int) -> bool:
    rows = RunningGraph(asked.run_dir).stacks(["Stuck"])
    return [row["state"] for row in rows if row["pid"] != pid] == ["ready"]


PLACE = {"name": "x", "frames": [["f", 1, "g"]], "requests": [], "waits_for": None, "left": None}


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(threads=3),
        lambda said: said.update(tasks=[3]),
        lambda said: said.update(tasks=[{}]),
        lambda said: said.pop("left_out"),
        lambda said: said["threads"][0].update(frames=[["f", "one", "g"]]),
        lambda said: said["threads"][0].update(frames=[["f"]]),
        lambda said: said["threads"][0].update(requests="abc"),
    ],
)
def test_what_a_worker_makes_up_is_no_answer(change: Callable[[dict[str, Any]], object]) -> None:
    said = {"threads": [dict(PLACE)], "tasks": [], "left_out": 0}
    row: Any = {}
    assert _take(json.dumps(said).encode(), row)
    change(said)
    assert not _take(json.dumps(said).encode(), row)


def test_what_c_code_writes_is_read_whatever_is_between() -> None:
    text = (
        b'{"late": 1}\nThread 0x0001 (most recent call first):\n  File "\xff.py", line 3 in f\n\n'
        b'Current thread 0x0002 [x] (most recent call first):\n  File "a", line 1 in in\n  File "b", line 2 in out\n'
    )
    main, other = _in_c(text)
    assert main["frames"] == [("b", 2, "out"), ("a", 1, "in")]
    assert other["frames"] == [("\\xff.py", 3, "f")]
