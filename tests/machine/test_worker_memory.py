"""What a worker costs in memory. How long imports and starts take is measured by `nox -s bench`."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

from tests.harness import served

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "hello"
WORKER_MB = 60


def test_a_worker_is_small() -> None:
    with served("app:Gateway", cwd=EXAMPLE) as graph:
        sizes = [pss(pid) for pid in graph.workers()]
    print(f"a worker has {statistics.median(sizes):.0f} MB (PSS)")
    assert sizes and max(sizes) < WORKER_MB


def pss(pid: int) -> float:
    """Megabytes of a process, what it shares divided by those who share it."""
    found = re.search(
        r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE
    )
    assert found
    return int(found[1]) / 1000
