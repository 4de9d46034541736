"""`python -m tests.faults.soak`: mixed load with deaths and reloads for a long time; memory and
descriptors stay flat.

The leaf's workers are killed all the time. The others are replaced for the last time in the first
sixth: what they hold in the second half, by the line through its samples, is what counts. (A worker
reaches its size in the first 10,000 to 20,000 requests, so a run below five minutes does not judge
its memory.) Exit code 1 if anything failed, or grew. A stream whose worker is killed is cut off, or
a 502 before its first item, as it is not sent again; it is not counted.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import report
from tests.faults.holds import leave
from tests.faults.load import LOST, Answer, Load, Send
from tests.faults.outcome import Outcome
from tests.faults.scene import Graph, graph, shared_memory, stage, steerable
from tests.measuring.processes import adopt_orphans, descriptors, pss
from tests.measuring.requests import Request
from tests.measuring.slopes import slope
from tests.measuring.tables import table

RATE = 80.0  # requests a second
WARM = 1 / 6  # of the time, in which all nodes are reloaded, and not only the leaf
STREAM = 50  # items
LEAVES = 2
KILL_EVERY, RELOAD_EVERY, LEAVE_EVERY = 5.0, 30.0, 3.0  # seconds
LEAVERS = 20  # clients that leave at once
SAMPLE_EVERY = 1.0  # seconds
GROWTH = 0.03  # of memory, in the second half
LEAST_MINUTES = 5.0  # from which on memory is judged
MEMORY_NOISE = 1024.0  # KB that memory may vary by
DESCRIPTORS = 2.0  # more of them, in the second half


@dataclass
class Samples:
    """What one long-lived process, or a folder, held over time: `(seconds, KB or count)`."""

    memory: list[tuple[float, float]] = field(default_factory=list)
    open: list[tuple[float, float]] = field(default_factory=list)


class Watch:
    """Samples of the supervisor, and of workers that are never killed.

    Args:
        running: the graph.
        noise: KB that memory may grow by in any case.
    """

    def __init__(self, running: Graph, noise: float) -> None:
        self.running, self.noise = running, noise
        self.samples = {"supervisor": Samples(), "Middle": Samples(), "Gateway": Samples()}
        self.files: list[tuple[float, float]] = []

    def look(self) -> None:
        """Take one sample of everything."""
        now = time.monotonic()
        for name, each in self.samples.items():
            for pid in (
                [self.running.pid] if name == "supervisor" else self.running.workers(name)[:1]
            ):
                each.memory.append((now, float(pss(pid))))
                each.open.append((now, float(descriptors(pid))))
        self.files.append(
            (now, float(sum(len(files) for _, _, files in os.walk(self.running.run_dir))))
        )

    def rows(self) -> Iterator[tuple[str, str, str, str, bool]]:
        """What was watched, at half time, at the end, its growth by the line through the second
        half, whether flat.
        """
        for name, each in self.samples.items():
            yield line(f"{name}: memory, KB", each.memory, GROWTH, self.noise)
            yield line(f"{name}: descriptors", each.open, 0.0, DESCRIPTORS)
        yield line("files in the run folder", self.files, 0.0, DESCRIPTORS)


def line(
    what: str, samples: list[tuple[float, float]], part: float, least: float
) -> tuple[str, str, str, str, bool]:
    """A row of the table.

    Args:
        what: is watched.
        samples: `(seconds, figure)`.
        part: of the figure by which it may grow in the second half.
        least: by which it may grow in any case.
    """
    half = samples[len(samples) // 2 :]
    if len(half) < 2:
        return what, "", "", "too short to tell", True
    grown = slope(half) * (half[-1][0] - half[0][0])
    flat = grown <= max(least, part * half[0][1])
    return what, f"{half[0][1]:,.0f}", f"{half[-1][1]:,.0f}", f"{grown:+,.1f}", flat


def soak(minutes: float, folder: Path) -> tuple[Outcome, Watch]:
    """All of it: the load, what happens meanwhile, and what was seen."""
    outcome, before = Outcome(), shared_memory()
    with graph(folder, "--scale", f"Leaf={LEAVES}") as running:
        watch = Watch(running, MEMORY_NOISE if minutes >= LEAST_MINUTES else math.inf)
        with Load(running.port, _mixed(running.port), rate=RATE, expect=_right) as load:
            events = _events(running, outcome, load.began + minutes * 60)
            due = load.began
            for _ in events:
                if time.monotonic() >= due:
                    watch.look()
                    due += SAMPLE_EVERY
        outcome.take(load.results)
        outcome.remarks.append(
            f"{sum(map(_cut, load.results.answers))} streams cut off by the death of their worker"
        )
        outcome.never(
            outcome.failed, f"{outcome.failed} calls failed{_words(running, load.results.failures)}"
        )
        outcome.never(running.served.stop() != 0, "the stop did not exit with 0")
        outcome.never(running.run_dir.exists(), "the run folder was left")
    outcome.never(left := shared_memory() - before, f"left in /dev/shm: {left}")
    for what, _, _, grown, flat in watch.rows():
        outcome.never(not flat, f"{what} grew by {grown} in the second half")
    return outcome, watch


def _words(running: Graph, failures: list[Answer]) -> str:
    """What the log of the graph says of failed calls, by the ids that stand in their answers."""
    ids = {str(answer.problem.get("request_id")) for answer in failures}
    said = [line.rstrip() for line in running.served.log if any(id in line for id in ids)]
    return "".join(
        f"\n      {line}" for line in [*(f"request {answer.id}" for answer in failures), *said]
    )


def _events(running: Graph, outcome: Outcome, end: float) -> Iterator[None]:
    """Deaths, reloads and clients that leave, each at its time; comes back often."""
    now = time.monotonic()
    warm = now + (end - now) * WARM
    due = {
        KILL_EVERY: now + KILL_EVERY,
        RELOAD_EVERY: now + RELOAD_EVERY,
        LEAVE_EVERY: now + LEAVE_EVERY,
    }
    count = {every: 0 for every in due}
    while (now := time.monotonic()) < end:
        for every in [every for every, at in due.items() if now >= at]:
            due[every] += every
            count[every] += 1
            if every == KILL_EVERY:
                os.kill(random.choice(running.workers("Leaf")), signal.SIGKILL)
                running.wait_workers("Leaf", LEAVES)
            elif every == LEAVE_EVERY:
                leave(running, range(first := 1_000_000 + count[every] * LEAVERS, first + LEAVERS))
            else:
                _reload(running, outcome, everything=now < warm)
        time.sleep(0.05)  # between two looks at the clock
        yield
    words = {
        KILL_EVERY: "workers killed",
        RELOAD_EVERY: "reloads",
        LEAVE_EVERY: f"times {LEAVERS} clients left",
    }
    outcome.remarks += [f"{count[every]} {word}" for every, word in words.items()]


def _reload(running: Graph, outcome: Outcome, *, everything: bool) -> None:
    """Of all nodes at first; then only of the leaf, so that the others grow old."""
    if everything:
        code, said = running.reload()
    elif steerable("reload"):
        ended = running.command("reload", "Leaf")
        code, said = ended.returncode, ended.stderr
    else:
        return
    outcome.never(code, f"the reload exited with {code}: {said}")
    running.wait_workers("Leaf", LEAVES)


def _mixed(port: int) -> Send:
    """Half are calls of all kinds side by side, the rest simple ones, streams and mistakes."""

    def send(id: int) -> Request:
        match id % 6:
            case 0 | 1 | 2:
                return Request(port, "/mixed", {"id": id})
            case 3:
                return Request(port, "/again", {"id": id})
            case 4:
                return Request(port, "/count", {"to": STREAM})
            case _:
                return Request(port, "/again", {"id": "no number"})

    return send


def _right(answer: Answer) -> bool:
    match answer.id % 6:
        case 4:
            return answer.status == 200 or _cut(answer)
        case 5:
            return answer.status == 422
        case _:
            return answer.status == 200 and answer.body == b"%d" % answer.id


def _cut(answer: Answer) -> bool:
    """A stream whose worker died.

    If it had begun its status was sent, so all that can tell is its missing end.
    """
    begun = answer.status == LOST and not answer.body.endswith(b"after 0 bytes")
    return answer.id % 6 == 4 and (
        begun or (answer.status == 502 and answer.problem.get("service") == "Leaf")
    )


def main() -> int:
    """Everything, in order."""
    parser = argparse.ArgumentParser(prog="nox -s soak --", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process is ended
    with stage() as folder:
        outcome, watch = soak(given.minutes, folder)
    print(
        table(
            [
                ("what", "half time", "end", "grown in the second half"),
                *(row[:4] for row in watch.rows()),
            ]
        )
    )
    print(f"\n{outcome.sent:,} requests, {outcome.failed} failed, worst {outcome.worst:.2f} s")
    print(report.details(outcome))
    return int(bool(outcome.broken))


if __name__ == "__main__":
    raise SystemExit(main())
