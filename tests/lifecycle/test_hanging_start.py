"""Code that hangs before a worker is ready: it is ended in time, it says where, and it locks nobody
out.
"""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from graphserve.graph.resolver import LEAST_IMPORT
from tests.harness import Served, alive, children, command, eventually
from tests.steering import LEAF, Steered

pytestmark = pytest.mark.slow

LIMIT = 5  # seconds that `__init__` has
HANG = (
    "import os, sys, time\n"
    "if {condition}: open('hangs', 'w').close()\n"
    "while {condition}: time.sleep(0.01)\n"
)
IN_RESOLVER = HANG.format(condition="'resolve' in sys.orig_argv")
IN_WORKER = HANG.format(condition="'worker' in sys.orig_argv and os.path.exists('hold')")
STACK = r'File ".*leaf\.py", line 3, in <module>'


def test_a_reload_ends_although_a_module_hangs(steered: Steered, graph: Served) -> None:
    before = graph.workers()
    (steered.folder / "pyproject.toml").write_text(
        f"[tool.graphserve]\nstartup-timeout = {LIMIT}\n"
    )
    steered.write(leaf=IN_RESOLVER + LEAF)
    began = time.monotonic()
    done = steered.run("reload")
    assert time.monotonic() - began >= LEAST_IMPORT
    assert done.returncode == 1
    assert (
        f"importing 'app:Top' was not done after {LEAST_IMPORT:g} s (--startup-timeout, at least"
        " 15 s)" in done.stderr
    )
    assert "the old code goes on serving" in done.stderr
    assert "leaf.py\", line 3, in <module>\n    while 'resolve'" in done.stderr, "it says where"
    assert "<frozen" not in done.stderr
    assert graph.workers() == before
    steered.write(leaf=LEAF)
    assert steered.run("reload").returncode == 0, "the next one works"


def test_a_check_ends_although_a_module_hangs(steered: Steered) -> None:
    steered.write(leaf=IN_RESOLVER + LEAF)
    began = time.monotonic()
    done = steered.run("check", "app:Top", "--startup-timeout", str(LIMIT))
    assert time.monotonic() - began >= LEAST_IMPORT
    assert done.returncode == 3
    assert (
        f"importing 'app:Top' was not done after {LEAST_IMPORT:g} s (--startup-timeout"
        in done.stderr
    )
    assert 'leaf.py", line 3 in <module>' in done.stderr, "it says where"


@pytest.mark.parametrize("by", ["command", "hangup"])
def test_a_reload_takes_the_place_of_one_that_hangs(
    steered: Steered, graph: Served, by: str
) -> None:
    steered.write(leaf=IN_RESOLVER + LEAF)
    with steered.begin("reload") as hanging:
        eventually((steered.folder / "hangs").exists, 30)
        assert "a reload is under way" in steered.run("scale", "Leaf=1").stderr
        assert "a reload is under way" in steered.run("reload", "Leaf").stderr, "it would do less"
        steered.write(leaf=LEAF.replace("x + 1", "x + 5"))
        if by == "command":
            assert steered.run("reload").returncode == 0
        else:
            graph.signal(signal.SIGHUP)
            graph.wait_log("reloaded in")
        _, words = hanging.communicate(timeout=30)
        assert hanging.returncode == 1
        assert "given up: another reload takes its place" in words
    with graph.client() as client:
        eventually(lambda: client.post("/ask", json={"x": 1}).json()["leaf"] == 6)


def test_a_module_that_hangs_ends_with_the_supervisor(steered: Steered, graph: Served) -> None:
    steered.write(leaf=IN_RESOLVER + LEAF)
    graph.signal(signal.SIGHUP)
    eventually((steered.folder / "hangs").exists, 30)
    (resolver,) = [pid for pid in children(graph.pid) if "resolve" in command(pid)]
    graph.signal(signal.SIGKILL)
    eventually(lambda: not alive(resolver))


def test_a_worker_that_hangs_while_it_imports_is_replaced(steered: Steered) -> None:
    steered.write(leaf=IN_WORKER + LEAF.replace("workers=2", f"startup_timeout={LIMIT}"))
    graph = steered.serve()
    try:
        graph.wait_ready()
        (steered.folder / "hold").touch()
        os.kill(graph.workers("n0")[0], signal.SIGKILL)
        graph.wait_log(
            rf"Leaf was still importing its modules {LEAST_IMPORT:g} s after it was spawned"
            r" \(startup_timeout\); repl"
        )
        graph.wait_log(STACK)
        (steered.folder / "hold").unlink()
        with graph.client() as client:
            assert client.post("/ask", json={"x": 1}).json()["leaf"] == 2
        assert steered.ps()[0]["restarts"] >= 2
    finally:
        graph.close()


def test_a_start_ends_although_a_module_hangs(steered: Steered) -> None:
    (steered.folder / "hold").touch()
    for source, words in (
        (IN_RESOLVER, "importing 'app:Top' was not done"),
        (IN_WORKER, "was still importing"),
    ):
        steered.write(leaf=source + LEAF)
        graph = steered.serve("--startup-timeout", str(LIMIT))
        try:
            assert graph.wait_exit(60) == 3
            assert words in graph.text
            graph.wait_log(STACK)
            assert not graph.workers()
        finally:
            graph.close()
        assert not list(steered.runtime.iterdir())


def test_new_code_has_the_time_that_it_asks_for(steered: Steered, graph: Served) -> None:
    waits = "        import threading\n        threading.Event().wait()"
    steered.write(
        leaf=LEAF.replace("        pass", waits).replace("workers=2", f"startup_timeout={LIMIT}")
    )
    done = steered.run("reload")
    assert done.returncode == 1
    assert f"Leaf was not ready {LIMIT} s after it began to start (startup_timeout)" in done.stderr
    assert re.search(
        r'leaf.py", line \d+, in __init__\n    threading.Event\(\).wait\(\)', done.stderr
    ), "in a thread"
    assert "old code goes on serving" in done.stderr
