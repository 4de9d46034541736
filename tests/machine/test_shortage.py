"""What happens where the machine gives out: one line that says what to do, nothing left behind, and
service goes on.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shlex
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.another_user import NOBODY, as_user, python
from tests.harness import Served, eventually, served

pytestmark = pytest.mark.slow

Mount = Callable[..., Path]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts a small file system, and takes it away at the end."""
    folders: list[Path] = []

    def small(options: str) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="gs-disk-"))
        folders.append(folder)
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True
        ).returncode:
            pytest.skip("this user may not mount a file system")
        return folder

    yield small
    for folder in folders:
        subprocess.run(["umount", str(folder)], capture_output=True)
        folder.rmdir()


def fails(graph: Served, message: str) -> None:
    """The start fails with one line, and no process is left."""
    try:
        assert graph.wait_exit() == 3
        assert "Traceback" not in graph.text
        errors = [line for line in graph.log if line.startswith("Error: ")]
        assert len(errors) == 1 and graph.log[-1] == errors[0], graph.text
        assert re.search(message, errors[0])
        assert not graph.workers()
    finally:
        graph.close()


@pytest.mark.parametrize("inodes", [2, 3, 4, 6, 8])
def test_no_inodes(mount: Mount, inodes: int) -> None:
    disk = mount(f"size=1m,nr_inodes={inodes}")
    fails(
        Served("diamond:Top", "--run-dir", str(disk / "run")),
        r"no space or no inode is left .* --run-dir",
    )
    assert not list(disk.iterdir())


def test_a_full_disk(mount: Mount) -> None:
    disk = mount("size=4k")
    (disk / "data").write_bytes(b"x" * 4096)
    fails(
        Served("diamond:Top", "--run-dir", str(disk / "run")),
        r"no space or no inode is left .* --run-dir",
    )
    assert [path.name for path in disk.iterdir()] == ["data"]


def test_a_read_only_disk(mount: Mount) -> None:
    disk = mount("ro")
    fails(Served("diamond:Top", "--run-dir", str(disk / "run")), "read-only .* --run-dir elsewhere")


def test_a_run_folder_that_is_a_file(run_dir: Path) -> None:
    run_dir.touch()
    fails(Served("diamond:Top", "--run-dir", str(run_dir)), "something else than a folder")
    assert run_dir.is_file()


@pytest.mark.parametrize("limit", [5, 9, 12, 15, 18, 22, 26])
def test_no_descriptors(run_dir: Path, limit: int) -> None:
    shell = ["sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh"]
    words = Served.command("diamond:Top", "--run-dir", str(run_dir))
    fails(
        Served("", command=[*shell, *words]),
        f"no file descriptor is left, the limit is {limit}: raise it",
    )
    assert not run_dir.exists()


# --- another user ---


def served_by(
    run_dir: Path, *words: str, arguments: tuple[str, ...] = (), user: int = NOBODY
) -> Served:
    _, *rest = Served.command("diamond:Top", "--run-dir", str(run_dir), *arguments)
    return Served("", command=[*as_user(*words, user=user), *python(), *rest])


def test_an_unprivileged_user(run_dir: Path) -> None:
    run_dir.parent.chmod(0o777)
    graph = served_by(run_dir)
    try:
        with graph.wait_ready().client() as client:
            assert client.post("/top", json={"x": 1}).json() == 10
        assert run_dir.stat().st_uid == NOBODY
        assert graph.stop() == 0
        assert not run_dir.exists()
    finally:
        graph.close()


def test_folders_of_others(run_dir: Path) -> None:
    run_dir.parent.chmod(0o755)
    fails(
        served_by(run_dir),
        "this user may not do that .*/run.: give it the permission, or a --run-dir elsewhere",
    )
    run_dir.mkdir()
    run_dir.chmod(0o777)
    fails(served_by(run_dir), "belongs to another user: give another --run-dir")
    assert not list(run_dir.iterdir())


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8])
def test_no_processes(run_dir: Path, limit: int) -> None:
    run_dir.parent.chmod(0o777)
    # nobody else runs as this one: the limit counts all of a user's
    user = 40_000 + os.getpid() % 10_000
    fails(
        served_by(run_dir, "prlimit", f"--nproc={limit}", user=user),
        "no further process or thread may be started",
    )
    assert not run_dir.exists()


def test_a_port_for_the_privileged(run_dir: Path) -> None:
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        if int(file.read()) <= 80:
            pytest.skip("here every user may have port 80")
    run_dir.parent.chmod(0o777)
    fails(
        served_by(run_dir, arguments=("--port", "80")),
        "permission denied; ports below 1024 need privileges",
    )


# --- while it runs ---


def test_a_disk_that_fills_up_while_it_serves(mount: Mount) -> None:
    disk = mount("size=1m,nr_inodes=60")
    with served("diamond:Top", "--run-dir", str(disk / "run")) as graph, graph.client() as client:
        for number in range(60):
            with contextlib.suppress(OSError):
                (disk / f"fill{number}").touch()
        for x in range(20):
            assert client.post("/top", json={"x": x}).status_code == 200
        (first, _) = graph.workers("n0")
        next((disk / "run").rglob(f"{first}.sock")).rename(disk / "fill60")  # its place stays taken
        os.kill(first, signal.SIGKILL)
        graph.wait_log("Base: no space or no inode is left .*; replaced in", 30)
        for x in range(20):
            assert client.post("/top", json={"x": x}).status_code == 200, "the other worker serves"
        for path in disk.glob("fill*"):
            path.unlink()
        eventually(lambda: len(graph.workers("n0")) == 2 and "Base ready  2/2" in graph.log[-1], 60)
        assert graph.stop() == 0


def test_no_descriptor_for_the_supervisor_while_it_serves() -> None:
    with served("diamond:Top") as graph, graph.client() as client:
        before = resource.prlimit(graph.pid, resource.RLIMIT_NOFILE)
        held = len(os.listdir(f"/proc/{graph.pid}/fd"))
        resource.prlimit(graph.pid, resource.RLIMIT_NOFILE, (held - 1, before[1]))
        os.kill(graph.workers("n0")[0], signal.SIGKILL)
        graph.wait_log(
            "Base: no worker could be started, the next try is in 1 s: no file descriptor is left"
        )
        for x in range(20):
            assert client.post("/top", json={"x": x}).status_code == 200
        resource.prlimit(graph.pid, resource.RLIMIT_NOFILE, before)
        eventually(lambda: "Base ready  2/2" in graph.log[-1], 30)
        assert graph.stop() == 0


def test_no_descriptor_for_the_entry_while_it_serves() -> None:
    with served("diamond:Top") as graph, contextlib.ExitStack() as stack:
        (entry,) = graph.workers("n3")
        held = len(os.listdir(f"/proc/{entry}/fd"))
        hard = resource.prlimit(entry, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(entry, resource.RLIMIT_NOFILE, (held + 10, hard))
        host, port = graph.url.removeprefix("http://").split(":")
        for _ in range(50):
            stack.enter_context(socket.create_connection((host, int(port)), 10))
        eventually(lambda: len(os.listdir(f"/proc/{entry}/fd")) >= held + 9)
        stack.close()
        # Until then libuv accepts who comes with a descriptor of its own, and closes him
        # (uv__emfile_trick).
        eventually(lambda: len(os.listdir(f"/proc/{entry}/fd")) <= held)
        with graph.client() as client:
            eventually(lambda: client.post("/top", json={"x": 1}).status_code == 200)
        assert graph.workers("n3") == [entry]
        assert graph.stop() == 0


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    command = ["sh", "-c", f"ulimit -Sn 256 && exec {shlex.join(Served.command('diamond:Top'))}"]
    graph = Served("", command=command)
    try:
        graph.wait_ready()
        for pid in (graph.pid, *graph.workers()):
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            assert soft == hard > 256
    finally:
        graph.close()
