"""What graphserve costs: the import, the start of a small graph, a worker's memory. Medians; a loaded machine has slack."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.harness import SLACK, served

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "hello"
IMPORT_SECONDS, READY_SECONDS, WORKER_MB = 0.06, 1.7, 60


def seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def test_the_import_is_quick() -> None:
    pairs = [(seconds("pass"), seconds("import graphserve")) for _ in range(9)]
    cost = statistics.median(whole - bare for bare, whole in pairs)
    print(f"import graphserve: {cost * 1e3:.0f} ms")
    assert cost < IMPORT_SECONDS * SLACK


def test_a_graph_of_two_nodes_is_ready_soon_and_small() -> None:
    ready, sizes = [], []
    for _ in range(3):
        with served("app:Greeter", cwd=EXAMPLE) as graph:
            ready.append(graph.ready_after)
            sizes += [pss(pid) for pid in graph.workers()]
    print(f"ready after {statistics.median(ready):.2f} s; a worker has {statistics.median(sizes):.0f} MB (PSS)")
    assert statistics.median(ready) < READY_SECONDS * SLACK
    assert statistics.median(sizes) < WORKER_MB * SLACK


def pss(pid: int) -> float:
    """Megabytes of a process, what it shares divided by those who share it."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1000
