"""The scene of a fault: a fresh graph in a folder of its own, what is known of its workers, and how
it is steered.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from graphserve.cli import COMMANDS
from tests.faults.ledger import FOLDER
from tests.harness import Served, alive, eventually, sockets
from tests.measuring.processes import free_port

ROOT = Path(__file__).parents[2]
TARGET = "tests.faults.graph:Gateway"
NODES = ("Leaf", "Middle", "Gateway")
COMMAND_LIMIT = 120.0  # seconds
LOOK = 0.01  # seconds between two looks at something that changes


class Graph:
    """A graph that runs.

    Args:
        folder: where ledgers and flags are, and in `r` its run folder.
        port: where it listens.
        arguments: of `graphserve serve`.
    """

    def __init__(self, folder: Path, port: int, *arguments: str) -> None:
        self.folder, self.port, self.runtime = folder, port, folder / "r"
        self.runtime.mkdir(exist_ok=True)
        self.served = Served(
            TARGET, "--port", str(port), "--no-access-log", *arguments, cwd=ROOT,
            env={FOLDER: str(folder), "XDG_RUNTIME_DIR": str(self.runtime)},
        )  # fmt: skip
        self.run_dir = Path()

    def wait_ready(self) -> Graph:
        """Wait until it serves."""
        self.served.wait_ready()
        found = list(self.runtime.iterdir())
        assert len(found) == 1, f"run folders of killed graphs were left: {found}"
        self.run_dir = found[0]
        return self

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self.served.pid

    def workers(self, *nodes: str) -> list[int]:
        """The workers of these nodes that take calls; of all nodes if none is named.

        Each has signed its ledger, and its own socket is there, which it removes when it has
        drained.
        """
        signed = (
            int(file.name.rpartition("-")[2])
            for node in nodes or NODES
            for file in self._ledgers(node)
        )
        taking = {int(path.stem) for path in sockets(self.run_dir)}
        return [pid for pid in signed if pid in taking and alive(pid)]

    def node_of(self, pid: int) -> str:
        """The node that a worker is of, dead or alive."""
        return next(node for node in NODES if (self.folder / f"{node}-{pid}").exists())

    def wait_workers(self, node: str, count: int, seconds: float = 60) -> float:
        """Wait until a node has so many workers; how long that took, in seconds."""
        began = time.monotonic()
        while len(self.workers(node)) != count:
            if time.monotonic() - began > seconds:
                raise AssertionError(
                    f"{node} has {self.workers(node)}, not {count}, after {seconds:g} s"
                )
            time.sleep(LOOK)  # between two looks
        return time.monotonic() - began

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `graphserve …` on this graph."""
        name, *rest = words
        return subprocess.run(
            [sys.executable, "-m", "graphserve", name, "--run-dir", str(self.run_dir), *rest],
            capture_output=True, text=True, timeout=COMMAND_LIMIT, cwd=ROOT,
        )  # fmt: skip

    def reload(self) -> tuple[int, str]:
        """Have every worker take the code as it is now: an exit code, and what was said."""
        if steerable("reload"):
            ended = self.command("reload")
            return ended.returncode, ended.stdout + ended.stderr
        seen = len(self.served.log)
        self.served.signal(signal.SIGHUP)
        came = self.served.wait_log(
            "reloaded in|the old code goes on serving", COMMAND_LIMIT, after=seen
        )
        return int("reloaded" not in came.group()), "".join(self.served.log[seen:])

    def _ledgers(self, node: str) -> Iterator[Path]:
        return self.folder.glob(f"{node}-*")


def steerable(command: str) -> bool:
    """Whether the command line has this command."""
    return command in COMMANDS


@contextlib.contextmanager
def graph(folder: Path, *arguments: str, port: int = 0) -> Iterator[Graph]:
    """A graph that is ready; all of it is ended at the end."""
    made = Graph(folder, port or free_port(), *arguments)
    try:
        yield made.wait_ready()
    finally:
        made.served.close()


@contextlib.contextmanager
def stage() -> Iterator[Path]:
    """A folder for one scene, with a path that is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="gs-faults-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shared_memory() -> set[str]:
    """What is in /dev/shm."""
    return set(os.listdir("/dev/shm"))


def wait_dead(pids: list[int], seconds: float = 10) -> None:
    """Wait until none of these processes lives."""
    eventually(lambda: not any(alive(pid) for pid in pids), seconds)
