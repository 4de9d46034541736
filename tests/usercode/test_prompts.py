"""`breakpoint()`, `pdb` and `input()` in a worker: a hint, since nobody can answer there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Served, served

HINT = (
    r"a worker has no terminal: run the class in one process, with `async with"
    r" graphserve\.local\(\.\.\.\)`"
)
HERE = Path.cwd()


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    """A service whose APIs ask."""
    with served("tests.apps.asking:Asking", cwd=HERE) as graph:
        yield graph


@pytest.mark.parametrize("name", ["sync", "unlimited", "stream"])
@pytest.mark.parametrize("way", ["breakpoint", "pdb", "input"])
def test_who_asks_gets_a_hint(graph: Served, name: str, way: str) -> None:
    after = len(graph.log)
    with graph.client() as client:
        assert client.post(f"/{name}", json={"way": way}).status_code == 500
        graph.wait_log(HINT, after=after)
        graph.wait_log("in ask", after=after)
        assert not any("BdbQuit" in line or "EOFError" in line for line in graph.log[after:])
        assert client.post(f"/{name}", json={"way": "none"}).status_code == 200, "tracing has ended"


def test_who_only_reads_finds_nothing(graph: Served) -> None:
    with graph.client() as client:
        for way, said in {"read": "", "lines": "", "terminal": "False"}.items():
            assert client.post("/sync", json={"way": way}).json() == said


def test_a_debugger_of_the_environment_is_called() -> None:
    env = {"PYTHONBREAKPOINT": "tests.apps.asking.debugger"}
    with served("tests.apps.asking:Asking", cwd=HERE, env=env) as graph, graph.client() as client:
        assert client.post("/sync", json={"way": "breakpoint"}).json() == "debugger"


@pytest.mark.parametrize("way", ["breakpoint", "pdb", "input"])
def test_a_module_that_asks_is_told_by_check(way: str) -> None:
    command = [sys.executable, "-m", "graphserve", "check", "tests.apps.asking:Asking"]
    env = os.environ | {"ASKING_WAY": way}
    done = subprocess.run(command, cwd=HERE, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert "importing 'tests.apps.asking' raised RuntimeError" in done.stderr
    assert "a worker has no terminal" in done.stderr
