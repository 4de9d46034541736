"""A stop with something that is stuck: it alone is killed, what is not stuck leaves in order, and
nothing stays.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from graphserve.system.child_process import _members, cleans_up, end_group
from tests.harness import LONG, alive, children, eventually, rarely, served


def semaphores(folder: Path) -> list[str]:
    """The named semaphores that processes made, those that still have a name."""
    files = list(folder.glob("names-*"))
    assert files
    made = [name for path in files for name in path.read_text().split()]
    return [name for name in made if os.path.exists(name)]


@pytest.mark.parametrize("how", ["stopped", rarely("computing")])
def test_only_what_is_stuck_is_killed(tmp_path: Path, how: str) -> None:
    with served("pools:Many", env={"FOLDER": str(tmp_path)}) as graph:
        workers = graph.workers()
        if how == "stopped":
            stuck = workers[1]
            os.kill(stuck, signal.SIGSTOP)
        else:
            threading.Thread(target=search, args=(graph.url,), daemon=True).start()
            stuck = int(
                eventually(lambda: [*tmp_path.glob("stuck-*")])[0].name.removeprefix("stuck-")
            )
        assert graph.stop() == 0
        left = {int(path.name.removeprefix("left-")) for path in tmp_path.glob("left-*")}
        assert left == set(workers) - {stuck}
        assert graph.text.count("had not ended 1 s after it was told to stop") == 1
        assert not any(alive(pid) for pid in workers)


def search(url: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(f"{url}/search", json={"text": "a" * 60 + "b"}, timeout=60, trust_env=False)


@pytest.mark.parametrize("method", ["fork", rarely("spawn")])
def test_a_pool_made_at_import_does_not_hold_the_stop_up(tmp_path: Path, method: str) -> None:
    with served("pools:Pooled", env={"METHOD": method, "FOLDER": str(tmp_path)}) as graph:
        workers = graph.workers()
        with graph.client() as client:
            answer = client.post("/double", json={"x": 3})
            assert (answer.status_code, answer.json()) == (200, [0, 2, 4])
        family = [*workers, *(child for pid in workers for child in children(pid))]
        assert bool(semaphores(tmp_path)) is (method == "spawn")
        assert graph.stop() == 0
        assert "not drained" not in graph.text
        assert len(list(tmp_path.glob("left-*"))) == 2
        eventually(lambda: not any(alive(pid) for pid in family))
        assert semaphores(tmp_path) == []


@pytest.mark.parametrize("whom", ["worker", rarely("supervisor")])
def test_what_a_killed_worker_has_named_is_removed(
    tmp_path: Path, run_dir: Path, whom: str
) -> None:
    environment = {"METHOD": "spawn", "FOLDER": str(tmp_path)}
    with served("pools:Leaf", "--run-dir", str(run_dir), env=environment) as graph:
        (worker,) = graph.workers()
        with graph.client() as client:
            assert client.post("/double", json={"x": 3}).json() == [0, 2, 4]
        family = [worker, *children(worker)]
        assert len(family) == 5, "the pool's three, and the process that removes names"
        names = eventually(lambda: semaphores(tmp_path))
        seen = len(graph.log)
        if whom == "worker":
            os.kill(worker, signal.SIGKILL)
            # since it was whole, not since the start
            graph.wait_log(r"Leaf .*0/1 worker  0\.0+ s", after=seen)
            graph.wait_log("Leaf ready  1/1", after=seen)
        else:
            os.kill(graph.pid, signal.SIGKILL)
            graph.wait_exit()
            with served("steps:Gateway", "--run-dir", str(run_dir)):
                pass  # it ends what the graph before it has left
        eventually(lambda: not any(os.path.exists(name) for name in names))
        eventually(lambda: not any(alive(pid) for pid in family))


def test_a_group_with_no_end_of_children_is_ended_but_for_who_cleans_up() -> None:
    tracker = "import sys, os; os.read(0, 1)  # multiprocessing.resource_tracker import main"
    forks = "import os\nwhile True:\n    if not os.fork(): os._exit(0)\n    os.waitpid(-1, 0)"
    leader = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {tracker!r}], stdin=subprocess.PIPE)\n"
        f"subprocess.Popen([sys.executable, '-c', {forks!r}])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", leader], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            cleaner = int(process.stdout.readline())
            eventually(lambda: cleans_up(cleaner))
            end_group(process.pid)
            eventually(lambda: not any(alive(pid) for pid in _members(process.pid)))
            assert process.wait(LONG) == -signal.SIGKILL
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_child_that_ignores_its_end_does_not_hold_the_stop_up(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import multiprocessing, os, signal, time\n"
        "from graphserve import api, service\n\n\n"
        "def stay(daemon):\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    open(f'began-{daemon}', 'w').close()\n"
        "    time.sleep(600)\n\n\n"
        "@service\n"
        "class Top:\n"
        "    async def __aenter__(self):\n"
        "        fork = multiprocessing.get_context('fork')\n"
        "        for daemon in (True, False):\n"
        "            fork.Process(target=stay, args=(daemon,), daemon=daemon).start()\n"
        "        while not (os.path.exists('began-True') and os.path.exists('began-False')):\n"
        "            time.sleep(0.005)\n\n"
        "    async def __aexit__(self, *exc): ...\n\n"
        "    @api\n"
        "    async def x(self) -> int:\n"
        "        return 1\n"
    )
    with served("app:Top", cwd=tmp_path) as graph:
        (worker,) = graph.workers()
        family = [worker, *children(worker)]
        assert len(family) == 3
        assert graph.stop() == 0
        assert "not drained" not in graph.text
        assert not any(alive(pid) for pid in family)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_check_ends_although_a_pool_is_made_at_import(tmp_path: Path, method: str) -> None:
    environment = {**os.environ, "METHOD": method, "FOLDER": str(tmp_path)}
    done = subprocess.run(
        ["graphserve", "check", "pools:Pooled", "--port", "0"], cwd=Path(__file__).parents[1] / "apps",
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    eventually(lambda: not semaphores(tmp_path))
