"""Workers and supervisors that die: who is replaced, how fast, and what is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.harness import Served, alive, eventually, served


def test_a_killed_worker_is_replaced_and_the_call_waits_for_it() -> None:
    with served("steps:Gateway") as graph, graph.client() as client:
        (victim,) = graph.workers("n0")
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: not alive(victim))
        answer = client.post("/two", json={"x": 4, "gate": "/"})
        assert (answer.status_code, answer.json()) == (
            200,
            40,
        ), "the call waited for the replacement"
        assert graph.workers("n0") != [victim]
        graph.wait_log(r"was killed by SIGKILL \(.*\); replaced")


def test_a_killed_supervisor_leaves_no_worker_and_no_obstacle(run_dir: Path) -> None:
    with served("diamond:Top", "--run-dir", str(run_dir)) as graph:
        workers = graph.workers()
        assert len(workers) == 5
        graph.signal(signal.SIGKILL)
        eventually(lambda: not any(alive(pid) for pid in workers))
    with served("diamond:Top", "--run-dir", str(run_dir)) as again, again.client() as client:
        assert client.post("/top", json={"x": 1}).json() == 10


def test_a_worker_that_is_told_to_end_by_hand_is_replaced_without_loss() -> None:
    with served("diamond:Top") as graph, graph.client() as client:
        victims = graph.workers("n0")
        for victim in victims:
            os.kill(victim, signal.SIGTERM)
            for x in range(20):
                assert client.post("/top", json={"x": x}).status_code == 200
        eventually(lambda: len(set(graph.workers("n0")) - set(victims)) == 2)


def test_a_crash_loop_ends_as_a_failed_node(tmp_path: Path) -> None:
    flag = tmp_path / "crash"
    (tmp_path / "app.py").write_text(
        "import os\n"
        "from graphserve import api, depends, service\n\n\n"
        "@service\n"
        "class Leaf:\n"
        "    def __init__(self) -> None:\n"
        f"        if os.path.exists({str(flag)!r}):\n"
        "            raise OSError('the disk is gone')\n\n"
        "    @api\n"
        "    async def x(self) -> int:\n"
        "        return 1\n\n\n"
        "@service\n"
        "class Top:\n"
        "    leaf = depends(Leaf)\n\n"
        "    @api\n"
        "    async def x(self) -> int:\n"
        "        return await self.leaf.x()\n"
    )
    with served("app:Top", cwd=tmp_path) as graph, graph.client() as client:
        flag.touch()
        os.kill(graph.workers("n0")[0], signal.SIGKILL)
        graph.wait_log("Leaf failed", 60)
        answer = client.post("/x", json={})
        assert (answer.status_code, answer.json()["service"]) == (
            503,
            "Leaf",
        ), "not 504: a failed node is known"
        assert 15 <= int(answer.headers["retry-after"]) <= 38, "when the next worker is started"
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["missing"] == ["Leaf is failed: it does not start; its log says why"]
        assert any("the disk is gone" in line for line in graph.log)
        flag.unlink()
        eventually(lambda: client.post("/x", json={}).status_code == 200, 60)


def test_children_of_a_dead_worker_die_with_it(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import subprocess\n"
        "from graphserve import api, service\n\n\n"
        "@service\n"
        "class Top:\n"
        "    @api\n"
        "    async def spawn(self) -> int:\n"
        "        self.child = subprocess.Popen(['sleep', '600'])\n"
        "        return self.child.pid\n"
    )
    with served("app:Top", cwd=tmp_path) as graph, graph.client() as client:
        child = client.post("/spawn", json={}).json()
        assert alive(child)
        os.kill(graph.workers()[0], signal.SIGKILL)
        eventually(lambda: not alive(child))


def test_a_run_folder_in_use_is_refused(run_dir: Path) -> None:
    with served("diamond:Top", "--run-dir", str(run_dir)) as graph:
        second = Served("diamond:Top", "--run-dir", str(run_dir))
        try:
            assert second.wait_exit() == 3
            assert "a graph is running in" in second.text
        finally:
            second.close()
        with graph.client() as client:
            assert client.post("/top", json={"x": 1}).status_code == 200
