"""A stop with something that is stuck: it alone is killed, what is not stuck leaves in order, and nothing stays."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from tests.harness import alive, children, eventually, served


def semaphores(pids: list[int]) -> set[str]:
    """The named semaphores of processes (sem_overview(7)), those that still have a name."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found |= set(re.findall(r"/dev/shm/sem\.\S+$", Path(f"/proc/{pid}/maps").read_text(), re.M))
    return found


@pytest.mark.parametrize("how", ["stopped", "computing"])
def test_only_what_is_stuck_is_killed(tmp_path: Path, how: str) -> None:
    with served("pools:Many", env={"FOLDER": str(tmp_path)}) as graph:
        workers = graph.workers()
        if how == "stopped":
            stuck = workers[1]
            os.kill(stuck, signal.SIGSTOP)
        else:
            threading.Thread(target=search, args=(graph.url,), daemon=True).start()
            stuck = int(eventually(lambda: [*tmp_path.glob("stuck-*")])[0].name.removeprefix("stuck-"))
        assert graph.stop() == 0
        left = {int(path.name.removeprefix("left-")) for path in tmp_path.glob("left-*")}
        assert left == set(workers) - {stuck}
        assert graph.text.count("not drained after 1 s, killed") == 1
        assert not any(alive(pid) for pid in workers)


def search(url: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(f"{url}/search", json={"text": "a" * 60 + "b"}, timeout=60, trust_env=False)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_made_at_import_does_not_hold_the_stop_up(tmp_path: Path, method: str) -> None:
    with served("pools:Pooled", env={"METHOD": method, "FOLDER": str(tmp_path)}) as graph:
        workers = graph.workers()
        with graph.client() as client:
            answer = client.post("/double", json={"x": 3})
            assert (answer.status_code, answer.json()) == (200, [0, 2, 4])
        family = [*workers, *(child for pid in workers for child in children(pid))]
        before = semaphores(family)
        assert graph.stop() == 0
        assert "not drained" not in graph.text
        assert len(list(tmp_path.glob("left-*"))) == 2
        eventually(lambda: not any(alive(pid) for pid in family))
        assert not [path for path in before if os.path.exists(path)]


def test_a_child_that_ignores_its_end_does_not_hold_the_stop_up(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import multiprocessing, os, signal, time\nfrom graphserve import api, service\n\n\n"
        "def stay(daemon):\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    open(f'began-{daemon}', 'w').close()\n    time.sleep(600)\n\n\n@service\nclass Top:\n"
        "    async def __aenter__(self):\n        fork = multiprocessing.get_context('fork')\n"
        "        for daemon in (True, False):\n"
        "            fork.Process(target=stay, args=(daemon,), daemon=daemon).start()\n"
        "        while not (os.path.exists('began-True') and os.path.exists('began-False')):\n"
        "            time.sleep(0.005)\n\n"
        "    async def __aexit__(self, *exc): ...\n\n    @api\n    async def x(self) -> int:\n        return 1\n"
    )
    with served("app:Top", cwd=tmp_path) as graph:
        (worker,) = graph.workers()
        family = [worker, *children(worker)]
        assert len(family) == 3
        assert graph.stop() == 0
        assert "not drained" not in graph.text
        assert not any(alive(pid) for pid in family)


def test_check_ends_although_a_pool_is_made_at_import(tmp_path: Path) -> None:
    environment = {**os.environ, "METHOD": "fork", "FOLDER": str(tmp_path)}
    done = subprocess.run(
        ["graphserve", "check", "pools:Pooled", "--port", "0"], cwd=Path(__file__).parents[1] / "apps",
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
