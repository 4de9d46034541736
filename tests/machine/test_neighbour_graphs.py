"""Graphs beside each other and after each other on one machine, whatever way the one before
ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness import Served, alive, eventually, served

pytestmark = pytest.mark.slow


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A folder of its own for `$XDG_RUNTIME_DIR`."""
    with tempfile.TemporaryDirectory(prefix="gs-test-") as name:
        yield Path(name)


def test_two_graphs_do_not_meet(runtime: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(runtime)}
    with served("diamond:Top", env=env) as one, served("diamond:Top", env=env) as two:
        assert len(list(runtime.iterdir())) == 2
        assert one.url != two.url
        with one.client() as first, two.client() as second:
            assert first.post("/pid", json={}).json() in one.workers()
            assert second.post("/pid", json={}).json() in two.workers()
            two_before = two.workers()
            for pid in one.workers():
                os.kill(pid, signal.SIGKILL)
            for x in range(20):
                assert second.post("/top", json={"x": x}).status_code == 200
            assert one.stop() == 0
            assert two.workers() == two_before
            assert len(list(runtime.iterdir())) == 1
            assert second.post("/top", json={"x": 1}).json() == 10
            assert two.stop() == 0
    assert not list(runtime.iterdir())


@pytest.mark.parametrize("moment", ["starting", "serving", "stopping"])
def test_after_a_killed_supervisor_nothing_is_in_the_way(moment: str, runtime: Path) -> None:
    env, uds = {"XDG_RUNTIME_DIR": str(runtime)}, runtime / "public.sock"
    shared = set(os.listdir("/dev/shm"))
    target = {
        "starting": "broken:TooSlow",
        "serving": "strays:Top",
        "stopping": "lingering:Lingering",
    }[moment]
    option = {"starting": "startup_timeout=60", "stopping": "graceful_timeout=60"}.get(moment)
    more = ("--set", f"{target.partition(':')[2]}.{option}") if option else ()
    graph = Served(target, "--uds", str(uds), *more, env=env)
    pids: list[int] = []
    try:
        if moment == "starting":
            eventually(graph.workers, 30)
        else:
            graph.wait_ready()
        if moment == "serving":
            pids = post(uds, "start")
        if moment == "stopping":
            graph.signal()
            eventually(lambda: "lingering" in "".join(graph.out))
        workers = graph.workers()
        graph.signal(signal.SIGKILL)
        graph.process.wait(10)
        eventually(lambda: not any(alive(pid) for pid in workers))
        with served("strays:Top", "--uds", str(uds), env=env) as again:
            assert post(uds, "pid") in again.workers()
            assert not any(alive(pid) for pid in pids)
            assert len(list(runtime.iterdir())) == 2, "its run folder and its socket"
            assert again.stop() == 0
        assert not list(runtime.iterdir())
        eventually(lambda: left_in_memory(shared) == set())
    finally:
        graph.close()


def left_in_memory(before: set[str]) -> set[str]:
    """Return what is in shared memory by now and has no process: others of this machine put things
    there too.
    """
    maps = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            maps.append((folder / "maps").read_text())
    used = "".join(maps)
    left = set(os.listdir("/dev/shm")) - before
    return {name for name in left if f"/dev/shm/{name}" not in used}


def post(uds: Path, path: str) -> object:
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(uds)), base_url="http://x", timeout=30
    ) as client:
        return client.post(f"/{path}", json={}).json()


def test_an_open_umask_opens_nothing(runtime: Path) -> None:
    uds = runtime / "public.sock"
    words = Served.command(
        "diamond:Top", "--uds", str(uds), "--run-dir", str(runtime / "above" / "run")
    )
    graph = Served("", command=["sh", "-c", 'umask 0 && exec "$@"', "sh", *words])
    try:
        graph.wait_ready()
        assert post(uds, "pid") in graph.workers()
        found = [
            path for path in runtime.rglob("*") if path.parent != runtime or path.name != "above"
        ]
        assert sum(path.is_socket() for path in found) >= 9
        for path in found:
            mode = path.lstat().st_mode
            assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), path
        assert graph.stop() == 0
    finally:
        graph.close()
