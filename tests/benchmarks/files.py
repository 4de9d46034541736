"""Sends files through a graph and says what its processes held meanwhile: `python -m
tests.benchmarks.files [SIZE]`, as in `2GB`.

Each file goes up as a body and as a form, over a hop by its path, and comes down again; the largest
PSS of each process is printed, less what it had before.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx

from graphserve.declare.sizes import read_size
from tests.harness import APPS, Served, served
from tests.measuring.processes import pss, tree

ROOT = APPS.parent.parent
PIECE = bytes(256 * 1024)


class Peaks:
    """Looks what each process holds, in a thread, until it is left."""

    def __init__(self, graph: Served) -> None:
        self._pids = tree(graph.process.pid)
        self.before = {pid: pss(pid) for pid in self._pids}
        self.most = dict(self.before)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def grown(self) -> int:
        """Return by how many KB the process has grown that has grown most."""
        return max(self.most[pid] - self.before[pid] for pid in self._pids)

    def _look(self) -> None:
        while not self._over.wait(0.05):
            for pid in self._pids:
                self.most[pid] = max(self.most[pid], pss(pid))


def pieces(size: int) -> Iterator[bytes]:
    """Yield so many bytes."""
    for _ in range(size // len(PIECE)):
        yield PIECE


class Form:
    """A file that is made while it is read, for a form."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size

    def tell(self) -> int:
        """Return how much of it has been read."""
        return self._size - self._left

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place in it, from its beginning or its end."""
        self._left = self._size - offset if whence == 0 else 0
        return self._size - self._left

    def read(self, size: int = -1) -> bytes:
        """Return more of it."""
        found = PIECE[: min(self._left, len(PIECE) if size < 0 else size)]
        self._left -= len(found)
        return found


class Way(NamedTuple):
    """Says how one way went: status, bytes that came back, seconds, and the growth in KB."""

    name: str
    status: int
    came: int
    seconds: float
    grown: int


def ways(size: int) -> Iterator[Way]:
    """Send a file of so many bytes in each way."""
    raw = {"content-type": "a/b"}
    with tempfile.TemporaryDirectory(prefix="gs-") as folder:
        options = ["--run-dir", f"{folder}/run", "--max-body-size", str(size + 10**6)]
        with (
            served("tests.apps.disk:Disk", *options, "--timeout", "600", cwd=ROOT) as graph,
            httpx.Client(base_url=graph.url, timeout=600, trust_env=False) as client,
        ):
            for _ in range(4):  # (each worker has imported what it needs)
                client.post("/counted", files={"file": b"x"})
                client.post("/back", content=b"x", headers=raw)
            requests: dict[str, tuple[str, dict[str, Any]]] = {
                "up, as a body": ("/counted", {"content": pieces(size), "headers": raw}),
                "up, in a form": ("/counted", {"files": {"file": ("a.bin", Form(size))}}),
                "held": (
                    "/several",
                    {"files": [("files", b"x"), ("data", ("a.bin", Form(size)))]},
                ),
                "up and down": ("/back", {"content": pieces(size), "headers": raw}),
            }
            for name, (path, request) in requests.items():
                began = time.perf_counter()
                came = 0
                with Peaks(graph) as peaks, client.stream("POST", path, **request) as answer:
                    for piece in answer.iter_raw():
                        came += len(piece)
                seconds = time.perf_counter() - began
                yield Way(name, answer.status_code, came, seconds, peaks.grown())


def main(size: int) -> None:
    """Print a line for each way."""
    for way in ways(size):
        print(
            f"{way.name:14} {way.status} {way.came:13,} B {way.seconds:6.1f} s"
            f" {way.grown / 1e3:6.1f} MB"
        )


if __name__ == "__main__":
    main(read_size(sys.argv[1] if len(sys.argv) > 1 else "2GB"))
