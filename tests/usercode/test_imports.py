"""User modules are imported as Python imports a program: main thread, no event loop, the program's
arguments.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import graphserve
from tests.harness import Served, checked, eventually, served

TOP = """
import argparse
import asyncio
import multiprocessing
import signal
import sys
import threading

import uvloop

from graphserve import api, depends, service


async def load() -> int:
    await asyncio.sleep(0)
    return 3


assert threading.current_thread() is threading.main_thread()
LOADED = asyncio.run(load())
asyncio.set_event_loop(asyncio.new_event_loop())
asyncio.get_event_loop().run_until_complete(load())
uvloop.install()
signal.signal(signal.SIGUSR1, lambda number, frame: None)
multiprocessing.set_start_method("spawn")
argparse.ArgumentParser().parse_args()
ARGUMENTS = list(sys.argv)
"""
SERVICES = """

@service
class Leaf:
    @api
    def run(self, x: int) -> int:
        return x + LOADED


@service
class Top:
    leaf = depends(Leaf)

    @api
    async def run(self, x: int) -> int:
        return await self.leaf.run(x)

    @api
    async def arguments(self) -> list[str]:
        return ARGUMENTS

    @api
    async def loop(self) -> str:
        return type(asyncio.get_running_loop()).__module__
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Modules that do at their top what programs do there."""
    folder = tmp_path_factory.mktemp("imports")
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "top.py").write_text(TOP + SERVICES)
    return folder


@pytest.fixture(scope="module", params=["auto", "asyncio"])
def graph(folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Served]]:
    """The graph of them, on each kind of event loop."""
    with served("package.top:Top", "--loop", request.param, cwd=folder) as graph:
        yield request.param, graph


def test_modules_run_loops_at_their_top(graph: tuple[str, Served]) -> None:
    with graph[1].client() as client:
        assert client.post("/run", json={"x": 1}).json() == 4


def test_modules_see_the_arguments_of_a_program(graph: tuple[str, Served], folder: Path) -> None:
    with graph[1].client() as client:
        assert client.post("/arguments", json={}).json() == [str(folder / "package" / "top.py")]


def test_the_loop_is_the_one_that_was_asked_for(graph: tuple[str, Served]) -> None:
    with graph[1].client() as client:  # although the module has installed uvloop
        assert (
            client.post("/loop", json={}).json()
            == {"auto": "uvloop", "asyncio": "asyncio.unix_events"}[graph[0]]
        )


def test_check_imports_likewise(folder: Path) -> None:
    for target in ("package.top:Top", "package/top.py:Top"):
        done = checked(target, folder)
        assert (done.returncode, done.stdout) == (0, "ok: 2 nodes\n"), done.stderr


def test_check_imports_from_packages_without_init(folder: Path, tmp_path: Path) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "outer" / "__init__.py").touch()
    (inner / "top.py").write_text(TOP + SERVICES)
    done = checked("outer.inner.top:Top", tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_script_keeps_its_arguments(folder: Path) -> None:
    script = folder / "script.py"
    script.write_text(
        "import asyncio, json, sys\n"
        "LOADED = asyncio.run(asyncio.sleep(0, 3))\n"
        "ARGUMENTS = list(sys.argv)\n"
        "import graphserve\n"
        "from graphserve import api, depends, service\n" + SERVICES + "\n"
        "async def main():\n"
        "    with graphserve.serve(Top, port=0) as server:\n"
        "        print(json.dumps([await server.call.arguments(), await server.call.run(1)]))\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    command = [sys.executable, str(script), "--model", "small"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[str(script), "--model", "small"], 4]


def test_local_imports_without_its_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "local_leaf.py").write_text(
        "import asyncio, signal\n"
        "from graphserve import api, service\n"
        "LOADED = asyncio.run(asyncio.sleep(0, 3))\n"
        "signal.signal(signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))\n"
        "@service\n"
        "class Leaf:\n"
        "    @api\n"
        "    def run(self, x: int) -> int:\n"
        "        return x + LOADED\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    @graphserve.service
    class Top:
        leaf: Any = graphserve.depends("local_leaf:Leaf")

        @graphserve.api
        async def run(self, x: int) -> int:
            value: int = await self.leaf.run(x=x)
            return value

    async def main() -> int:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        async with graphserve.local(Top) as top:
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is task
            return await top.run(1)

    assert asyncio.run(main()) == 4


def test_sigterm_ends_a_worker_that_still_imports(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, sys, time\n"
        "if 'worker' in sys.orig_argv:\n"
        "    open('imports', 'w').write(str(os.getpid()))\n"
        "    while not os.path.exists('go'): time.sleep(0.01)\n"
        "    open('done', 'w').close()\n"
        "from graphserve import api, service\n"
        "@service\n"
        "class Slow:\n"
        "    @api\n"
        "    def run(self) -> int:\n"
        "        return 1\n"
    )
    graph = Served("slow:Slow", cwd=tmp_path)
    try:
        graph.wait_log("Slow starting")
        imports = tmp_path / "imports"
        eventually(lambda: imports.exists() and imports.read_text().isdigit(), 30)
        os.kill(int(imports.read_text()), signal.SIGTERM)
        (tmp_path / "go").touch()
        assert graph.wait_exit() == 3
        assert (tmp_path / "done").exists(), "not in the middle of a module"
        assert "a worker of Slow ended with exit code 0" in graph.text
    finally:
        graph.close()
