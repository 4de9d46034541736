"""Faults of change: reloads, also of code that does not start, and more or fewer workers, all of it
under load.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.load import Load, numbered
from tests.faults.outcome import Outcome, Setting
from tests.faults.scene import NODES, Graph, graph
from tests.harness import eventually

RELOADS = 3
WORST = 0.25  # seconds that an answer may take in a reload, or …
TIMES_NORMAL = 3.0  # … so many times the normal p99
SCALE = ("--scale", "Leaf=2", "--scale", "Middle=2", "--scale", "Gateway=2")


def reload(setting: Setting, folder: Path) -> Outcome:
    """Every worker of every node is replaced, three times."""
    outcome = Outcome()
    with graph(folder, *SCALE) as running:
        with Load(running.port, numbered(running.port, "/once"), rate=setting.rate) as load:
            began = [time.monotonic()]
            for pause in _pauses(setting.seconds, RELOADS):
                began[1:] = began[1:] or [pause]
                outcome.recovered([_reload(running, outcome)])
        outcome.take(load.results)
        outcome.never(load.results.failures, f"{outcome.failed} calls failed")
    normal = load.results.between(began[0], began[1]).percentile(99)
    outcome.remarks.append(f"{RELOADS} reloads; normal p99 {normal * 1e3:.0f} ms")
    if outcome.worst > max(WORST, TIMES_NORMAL * normal):
        outcome.slow.append(f"the worst answer took {outcome.worst * 1e3:.0f} ms")
    return outcome


def _pauses(seconds: float, times: int) -> Iterator[float]:
    """As many moments as there are changes, spread over the load; each is told when it has come."""
    end = time.monotonic() + seconds
    for left in range(times, 0, -1):
        time.sleep(max(0.0, end - time.monotonic()) / (left + 1))
        yield time.monotonic()
    time.sleep(max(0.0, end - time.monotonic()))


def _reload(running: Graph, outcome: Outcome) -> float:
    before, began = set(running.workers()), time.monotonic()
    code, said = running.reload()
    outcome.never(code != 0, f"the reload exited with {code}: {said}")
    eventually(
        lambda: not before & set(running.workers()) and len(running.workers()) == len(before), 60
    )
    return time.monotonic() - began


def failing_reload(setting: Setting, folder: Path) -> Outcome:
    """A reload of code that raises when it starts."""
    outcome = Outcome()
    with graph(folder, *SCALE) as running:
        before = running.workers()
        with Load(running.port, numbered(running.port, "/once"), rate=setting.rate) as load:
            (folder / "broken").touch()
            for _ in _pauses(setting.seconds, RELOADS):
                began = time.monotonic()
                code, said = running.reload()
                outcome.recovered([time.monotonic() - began])
                outcome.never(code != 1, f"the reload exited with {code}")
                outcome.never(
                    "the model is not there" not in said, f"the reload did not say why: {said}"
                )
        outcome.take(load.results)
        outcome.never(load.results.failures, f"{outcome.failed} calls failed")
        outcome.never(running.workers() != before, "the old workers were replaced")
        (folder / "broken").unlink()
        _reload(running, outcome)
    outcome.remarks.append(f"{RELOADS} reloads refused, and one after the repair done")
    return outcome


def scale(setting: Setting, folder: Path) -> Outcome:
    """Each inner node from one worker to four and back."""
    outcome = Outcome()
    with graph(folder) as running:
        with Load(running.port, numbered(running.port, "/once"), rate=setting.rate) as load:
            for number, _ in enumerate(_pauses(setting.seconds, 2 * len(NODES))):
                node, count = NODES[number // 2], (4, 1)[number % 2]
                began = time.monotonic()
                ended = running.command("scale", f"{node}={count}")
                said = ended.stdout + ended.stderr
                outcome.never(
                    ended.returncode != 0,
                    f"scale {node}={count} exited with {ended.returncode}: {said}",
                )
                running.wait_workers(node, count)
                outcome.recovered([time.monotonic() - began])
        outcome.take(load.results)
        outcome.never(load.results.failures, f"{outcome.failed} calls failed")
    outcome.remarks.append("each of the three nodes, one after the other")
    return outcome
