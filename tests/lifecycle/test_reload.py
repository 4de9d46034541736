"""`--reload` and SIGHUP: new workers start beside the old, and take their places only when they are
ready.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness import Served, alive, children, eventually, served
from tests.load import Load

APP = """
from graphserve import api, depends, service
from leaf import Leaf

@service
class Top:
    leaf = depends(Leaf)

    @api
    async def version(self) -> int:
        return await self.leaf.version()

    @api
    async def hold(self, gate: str) -> int:
        return await self.leaf.hold(gate)

    @api
    async def fail(self) -> int:
        raise ValueError("words for the developer")

    @api
    async def fail_below(self) -> int:
        return await self.leaf.fail()
"""
LEAF = """
import asyncio
import os
from graphserve import api, service

VERSION = 1

@service
class Leaf:
    def __init__(self) -> None:
        pass

    @api
    async def version(self) -> int:
        return VERSION

    @api
    async def hold(self, gate: str) -> int:
        open(gate + ".held", "w").close()
        while not os.path.exists(gate):
            await asyncio.sleep(0.01)
        return VERSION

    @api
    async def fail(self) -> int:
        raise KeyError("words from below")
"""
BROKEN = {
    "syntax": ("class Leaf:", "class Leaf(:", "SyntaxError"),
    "import": (
        "import os",
        "import no_such_module",
        "ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "init": ("        pass", "        raise OSError('no model there')", "OSError: no model there"),
    "graph": ("@service\n", "", "Leaf"),
    "exit": ("VERSION = 1", "os._exit(9)", "ended with exit code 9"),
}


def write(folder: Path, version: int = 1, old: str = "", new: str = "") -> None:
    """Write the leaf, whole at once as editors do."""
    text = LEAF.replace(old, new, 1) if old else LEAF
    (folder / "leaf.new").write_text(text.replace("VERSION = 1", f"VERSION = {version}"))
    (folder / "leaf.new").rename(folder / "leaf.py")


def write_one_that_hangs(folder: Path) -> None:
    """Write a leaf that never starts, and wait until a worker has begun to."""
    begun = folder / "begun"
    write(
        folder,
        2,
        "        pass",
        f"        open({str(begun)!r}, 'w').close()\n        __import__('time').sleep(600)",
    )
    eventually(begun.exists, 30)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    write(tmp_path)
    return tmp_path


def folders(run_dir: Path) -> list[str]:
    """The Plans that workers were started from, and the nodes."""
    return sorted(path.name for path in run_dir.iterdir() if path.is_dir())


def version(client: httpx.Client) -> int:
    answer = client.post("/version", json={})
    assert answer.status_code == 200, answer.text
    return int(answer.json())


def test_an_edit_takes_the_place_of_the_old_code_and_loses_no_request(
    app: Path, run_dir: Path
) -> None:
    with (
        served("app:Top", "--reload", "--run-dir", str(run_dir), cwd=app) as graph,
        graph.client() as client,
    ):
        graph.wait_log(f"watching {app}")
        before = graph.workers()
        with Load(graph.url, "/version", {}) as load:
            for number in (2, 3):
                seen = len(graph.log)
                write(app, number)
                graph.wait_log("changed: .*leaf.py", after=seen)
                graph.wait_log("reloaded in", after=seen)
                eventually(lambda number=number: version(client) == number)
            many = len(load.answers)
            eventually(lambda: len(load.answers) > many + 40)
        assert not load.failures
        eventually(lambda: not any(alive(pid) for pid in before))
        eventually(lambda: folders(run_dir) == ["3", "n0", "n1"])
        assert len(graph.workers()) == 2
        assert graph.stop() == 0
    assert not run_dir.exists()


@pytest.mark.slow
def test_a_broken_edit_leaves_the_old_code_serving(app: Path, run_dir: Path) -> None:
    with (
        served("app:Top", "--reload", "--run-dir", str(run_dir), cwd=app) as graph,
        graph.client() as client,
    ):
        graph.wait_log("watching")
        workers = graph.workers()
        for old, new, says in BROKEN.values():
            seen = len(graph.log)
            write(app, 2, old, new)
            graph.wait_log("the old code goes on serving", after=seen)
            assert says in "".join(graph.log[seen:])
            assert version(client) == 1
            assert graph.workers() == workers
            assert folders(run_dir) == ["1", "n0", "n1"]
        write(app, 7)
        eventually(lambda: version(client) == 7, 30)


@pytest.mark.slow
def test_a_change_while_the_new_code_starts_begins_anew(app: Path) -> None:
    with served("app:Top", "--reload", cwd=app) as graph, graph.client() as client:
        graph.wait_log("watching")
        write_one_that_hangs(app)
        stuck = [pid for pid in graph.workers()]
        assert version(client) == 1
        write(app, 3)
        eventually(lambda: version(client) == 3, 30)
        eventually(lambda: len(graph.workers()) == 2)
        assert len(stuck) == 3


@pytest.mark.slow
def test_a_stop_while_the_new_code_starts_leaves_nothing(app: Path, run_dir: Path) -> None:
    with served("app:Top", "--reload", "--run-dir", str(run_dir), cwd=app) as graph:
        graph.wait_log("watching")
        write_one_that_hangs(app)
        workers = graph.workers()
        assert len(workers) == 3
        assert graph.stop() == 0
        assert not any(alive(pid) for pid in workers)
        assert not run_dir.exists()


@pytest.mark.slow
def test_a_stop_while_modules_are_imported_is_quick(app: Path, run_dir: Path) -> None:
    write(
        app,
        1,
        "import os",
        f"import os\nopen({str(app / 'begun')!r}, 'w').close()\n__import__('time').sleep(600)",
    )
    graph = Served("app:Top", "--run-dir", str(run_dir), cwd=app)
    try:
        eventually((app / "begun").exists, 30)
        graph.wait_supervising()
        assert graph.stop() == 0
        assert not run_dir.exists()
    finally:
        graph.close()


@contextlib.contextmanager
def reloaded_during_a_call(app: Path) -> Iterator[tuple[Served, Callable[[], int]]]:
    """A graph that was reloaded while the old code still executes a call, which `answer` lets
    end.
    """
    answers: list[int] = []
    with served("app:Top", cwd=app) as graph, graph.client() as client:
        gate = str(app / "gate")
        thread = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{graph.url}/hold", json={"gate": gate}, timeout=60).json()
            )
        )
        thread.start()

        def answer() -> int:
            Path(gate).touch()
            thread.join(30)
            return answers[0]

        eventually(Path(gate + ".held").exists)
        write(app, 2)
        later_than_bytecode(app)
        graph.signal(signal.SIGHUP)
        graph.wait_log("reloaded in")
        eventually(lambda: version(client) == 2)
        yield graph, answer


@pytest.mark.slow
def test_a_call_that_is_under_way_is_answered_by_the_code_that_took_it(app: Path) -> None:
    with reloaded_during_a_call(app) as (graph, answer):
        assert len(graph.workers()) == 4
        assert answer() == 1
        eventually(lambda: len(graph.workers()) == 2)


@pytest.mark.slow
def test_a_stop_while_the_old_code_still_answers_waits_for_it(app: Path) -> None:
    with reloaded_during_a_call(app) as (graph, answer):
        graph.signal()
        graph.wait_log("Top draining")
        assert answer() == 1
        assert graph.wait_exit() == 0


@pytest.mark.slow
def test_a_reload_takes_in_changed_files_of_options(app: Path) -> None:
    (app / "pyproject.toml").write_text("[tool.graphserve.scale]\nLeaf = 1\n")
    with served("app:Top", "--reload", cwd=app) as graph:
        graph.wait_log("watching")
        assert len(graph.workers()) == 2
        (app / "pyproject.toml").write_text("[tool.graphserve.scale]\nLeaf = 2\n")
        graph.wait_log("changed: .*pyproject.toml")
        graph.wait_log("reloaded in")
        eventually(lambda: len(graph.workers()) == 3)
        seen = len(graph.log)
        (app / "pyproject.toml").write_text("[tool.graphserve]\nprot = 2\n")
        graph.wait_log("unknown option 'prot'", after=seen)
        graph.wait_log("the old code goes on serving", after=seen)


@pytest.fixture(params=[True, False])
def reloading(request: pytest.FixtureRequest, app: Path) -> Iterator[tuple[Served, bool]]:
    with served("app:Top", *(["--reload"] if request.param else []), cwd=app) as graph:
        yield graph, request.param


@pytest.mark.slow
def test_errors_carry_their_text_under_reload_only(reloading: tuple[Served, bool]) -> None:
    graph, shown = reloading
    with graph.client() as client:
        for api, status, words in (
            ("/fail", 500, "words for the developer"),
            ("/fail_below", 502, "words from below"),
        ):
            answer = client.post(api, json={})
            assert answer.status_code == status
            assert (words in answer.text) is shown


@pytest.mark.slow
def test_other_folders_are_watched_when_they_are_given(
    app: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    with served("app:Top", "--reload", "--reload-dir", str(other), cwd=app) as graph:
        graph.wait_log(f"watching {other}$")
        write(app, 2)
        (other / "notes.txt").write_text("no source")
        (other / ".hidden").mkdir()
        (other / ".hidden" / "x.py").write_text("no source of ours")
        (other / "x.py").write_text("")
        assert graph.wait_log("changed: (.*)").group(1) == str(other / "x.py")
        graph.wait_log("reloaded in")


def run(app: Path, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    graph = Served("app:Top", *arguments, cwd=app, env=env)
    try:
        return graph.wait_exit(), graph.text
    finally:
        graph.close()


@pytest.mark.slow
def test_wrong_uses_of_reload(app: Path) -> None:
    code, text = run(app, "--reload-dir", ".")
    assert (code, text) == (
        2,
        "Error: --reload-dir says which folders --reload watches: give --reload too\n",
    )
    code, text = run(app, "--reload", "--reload-dir", "none")
    assert (code, text) == (4, f"Error: --reload-dir {app}/none: there is no such folder\n")
    (app / "sitecustomize.py").write_text("import sys\nsys.modules['watchfiles'] = None\n")
    code, text = run(app, "--reload", env={"PYTHONPATH": str(app)})
    assert (code, text) == (
        4,
        "Error: --reload needs the package watchfiles: pip install 'pygraphserve[reload]'\n",
    )


@pytest.mark.slow
def test_a_hangup_stops_when_the_terminal_is_gone_and_reloads_else(
    app: Path, run_dir: Path
) -> None:
    master, slave = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "graphserve",
        "serve",
        "app:Top",
        "--port",
        "0",
        "--run-dir",
        str(run_dir),
    ]
    with open(app / "log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=app, stdin=slave, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
    try:
        os.close(slave)
        eventually(lambda: "serving on" in (app / "log").read_text(), 60)
        workers = children(process.pid)
        os.kill(process.pid, signal.SIGHUP)
        eventually(lambda: "reloaded in" in (app / "log").read_text(), 60)
        os.close(master)
        assert process.wait(30) == 0
        assert not any(alive(pid) for pid in workers)
        assert not run_dir.exists()
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_without_a_terminal_of_its_own_a_hangup_reloads(app: Path) -> None:
    master, slave = pty.openpty()
    try:
        # a session of its own: the terminal is another's
        with served("app:Top", cwd=app, stdin=slave) as graph:
            graph.signal(signal.SIGHUP)
            graph.wait_log("reloaded in")
    finally:
        os.close(master)
        os.close(slave)


def later_than_bytecode(folder: Path) -> None:
    """Without --reload bytecode is written, and Python takes a source of the same second and size
    for unchanged.
    """
    source = folder / "leaf.py"
    now = time.time() + 10
    os.utime(source, (now, now))
