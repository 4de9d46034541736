"""A graph in a folder of its own, and the commands that see and steer it, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.harness import Served, eventually

TOP = """
from graphserve import api, depends, service
from mid import Mid

@service
class Top:
    mid = depends(Mid)

    @api
    async def ask(self, x: int) -> dict[str, int]:
        return await self.mid.ask(x) | {"top": 1}
"""
MID = """
from graphserve import api, depends, service
from leaf import Leaf

@service(workers=2)
class Mid:
    leaf = depends(Leaf)

    @api
    async def ask(self, x: int) -> dict[str, int]:
        return {"leaf": await self.leaf.run(x), "mid": 1}
"""
LEAF = """
from graphserve import api, service

@service(workers=2)
class Leaf:
    def __init__(self) -> None:
        pass

    @api
    def run(self, x: int) -> int:
        return x + 1
"""


class Steered:
    """Three levels, the leaf in the queue lane, the middle in the pooled one.

    Args:
        folder: an empty folder, for the sources.
        runtime: where run folders are made; a short path.
    """

    def __init__(self, folder: Path, runtime: Path) -> None:
        self.folder, self.runtime = folder, runtime
        self.env = {"XDG_RUNTIME_DIR": str(runtime)}
        self._clock = time.time()
        self.write(app=TOP, mid=MID, leaf=LEAF)

    def write(self, **modules: str) -> None:
        """Write modules; each time later than the bytecode of the last."""
        self._clock += 10  # Python takes a source of the same second and size for unchanged
        for name, text in modules.items():
            path = self.folder / f"{name}.py"
            path.write_text(text)
            os.utime(path, (self._clock, self._clock))

    def serve(self, *arguments: str, env: dict[str, str] | None = None) -> Served:
        """`graphserve serve`."""
        return Served("app:Top", *arguments, cwd=self.folder, env=self.env | (env or {}))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command, to its end."""
        with self.begin(*arguments) as process:
            try:
                out, err = process.communicate(timeout=120)
            finally:
                process.kill()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Another command, that goes on."""
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("GRAPHSERVE_")
        }
        return subprocess.Popen(
            [sys.executable, "-m", "graphserve", *arguments], cwd=self.folder, env=clean | self.env,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @property
    def control(self) -> Path:
        """The control socket of the graph, which is the only one here."""
        (run,) = self.runtime.iterdir()
        return run / "control.sock"

    def operator(self) -> httpx.Client:
        """Return a client of the control socket, as curl would be one."""
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.control)),
            base_url="http://graph",
            timeout=60,
            trust_env=False,
        )

    def ps(self) -> list[dict[str, Any]]:
        """Return the workers: what `graphserve ps --json` prints, without a process for each look."""
        rows: list[dict[str, Any]] = self._asked("/ps")
        return rows

    def status(self) -> dict[str, Any]:
        """Return what `graphserve status --json` prints; nothing while there is no control socket."""
        try:
            known: dict[str, Any] = self._asked("/status")
        except (ValueError, httpx.ConnectError):  # no run folder, or no socket in it
            return {}
        return known

    def _asked(self, path: str) -> Any:
        with self.operator() as client:
            answer = client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def counts(self) -> dict[str, int]:
        """How many workers each node has."""
        names = [row["node"] for row in self.ps()]
        return {name: names.count(name) for name in names}

    def wait_counts(self, expected: dict[str, int]) -> None:
        """Wait until each node has so many workers: those that are replaced are there until they
        have ended.
        """
        eventually(lambda: self.counts() == expected)

    def folders(self) -> list[str]:
        """What is in the run folder: Plans that workers were started from, and nodes."""
        (run,) = self.runtime.iterdir()
        return sorted(path.name for path in run.iterdir() if path.is_dir())
