"""`depends(X, optional=True)`: the graph starts and is ready without it, and lives if it never
comes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import graphserve
from tests.apps import optional
from tests.harness import APPS, Served, eventually, served

WITHOUT = ["no Late", "no Late", "no Never-a", "no connection", "no Late"]
WITH = ["late and below", "late", "no Never-a", "late and below", "late"]


def states(graph: Served, run: Path) -> dict[str, str]:
    """The state of each node, as `graphserve status` says."""
    command = [sys.executable, "-m", "graphserve", "status", "--json", "--run-dir", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return {node["name"]: node["state"] for node in json.loads(done.stdout)["nodes"]}


def reload(run: Path) -> None:
    """Reload the graph, which is done although not all of it has started."""
    command = [sys.executable, "-m", "graphserve", "reload", "--run-dir", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Late begins anew; the graph does not wait for it" in done.stdout + done.stderr


def test_a_graph_without_it_serves_and_calls_it_when_it_comes(
    tmp_path: Path, run_dir: Path
) -> None:
    go = tmp_path / "go"
    arguments = ("--run-dir", str(run_dir))
    with served("optional:Top", *arguments, env={"OPTIONAL_GO": str(go)}) as graph:
        with graph.client() as client:
            assert client.get("/readyz").status_code == 200
            answer = client.post("/ask", json={})
            assert (answer.status_code, answer.json()["service"]) == (503, "Late")
            assert "retry-after" in answer.headers
            assert client.post("/all", json={}).json() == WITHOUT
            assert states(graph, run_dir)["Late"] == "starting"
            graph.wait_log("there is no model")
            reload(run_dir)
            assert client.post("/ask", json={}).status_code == 503
            go.touch()
            eventually(lambda: client.post("/all", json={}).json() == WITH)
            assert client.post("/ask", json={}).json() == "late and below"
            graph.wait_log("Never-a failed")
            known = states(graph, run_dir)
            assert (known["Never-a"], known["Late"]) == ("failed", "ready")
            assert client.get("/readyz").status_code == 200
        assert graph.stop() == 0


def test_a_stop_does_not_wait_for_its_start(run_dir: Path) -> None:
    with served("optional:Top", "--run-dir", str(run_dir)) as graph:
        assert graph.stop() == 0
        assert not graph.workers()


def test_it_is_waited_for_where_another_service_requires_it(tmp_path: Path) -> None:
    go = tmp_path / "go"
    graph = Served("optional:Strict", env={"OPTIONAL_GO": str(go)})
    try:
        graph.wait_log("Top ready")  # which can do without it
        assert "serving on" not in graph.text
        go.touch()
        graph.wait_ready()
        with graph.client() as client:
            assert client.post("/ask", json={}).json() == "late and below"
    finally:
        graph.close()


def test_the_plan_says_so() -> None:
    command = [sys.executable, "-m", "graphserve", "graph", "optional:Top", "--format", "json"]
    done = subprocess.run(command, cwd=APPS, capture_output=True, text=True, timeout=60, check=True)
    top = json.loads(done.stdout)["nodes"][-1]
    assert [edge["optional"] for edge in top["edges"]] == [True, True, True]


def test_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = tmp_path / "go"
    go.touch()
    monkeypatch.setattr(optional, "GO", go)

    async def main() -> Any:
        async with graphserve.local(optional.Top) as top:
            return await top.all()

    with pytest.warns(RuntimeWarning, match=r"Never-a: Never.__init__ raised .*since it is optio"):
        assert asyncio.run(main()) == WITH
