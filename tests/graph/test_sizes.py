"""What graphserve costs: the import, the start of a small graph, a worker's memory; a loaded machine has slack."""

from __future__ import annotations

import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.harness import SLACK, served

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "hello"
IMPORT_SECONDS, READY_SECONDS, WORKER_MB = 0.06, 1.7, 60


def times(code: str) -> tuple[float, float]:
    """Seconds by the clock, and seconds of CPU, of a child that runs this code."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def crowding() -> float:
    """How many times longer than its work a process takes here, because others run too; 1 on an idle machine."""
    took, work = times("import asyncio, email, ssl")
    return max(1.0, took / work)


def test_the_import_is_quick() -> None:
    pairs = [(times("pass")[1], times("import graphserve")[1]) for _ in range(9)]
    cost = statistics.median(whole - bare for bare, whole in pairs)
    print(f"import graphserve: {cost * 1e3:.0f} ms")
    assert cost < IMPORT_SECONDS * SLACK


def test_a_graph_of_two_nodes_is_ready_soon_and_small() -> None:
    ready, sizes, crowds = [], [], [crowding()]
    for _ in range(3):
        with served("app:Gateway", cwd=EXAMPLE) as graph:
            ready.append(graph.ready_after)
            sizes += [pss(pid) for pid in graph.workers()]
        crowds.append(crowding())
    print(f"ready after {statistics.median(ready):.2f} s; a worker has {statistics.median(sizes):.0f} MB (PSS)")
    assert min(ready) < READY_SECONDS * SLACK * max(crowds)
    assert statistics.median(sizes) < WORKER_MB * SLACK


def pss(pid: int) -> float:
    """Megabytes of a process, what it shares divided by those who share it."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1000
