"""The fault of too much: three times the load that the graph can carry."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.faults.load import LOST, Answer, Load, Results, Send, numbered
from tests.faults.outcome import Outcome, Setting
from tests.faults.scene import Graph, graph
from tests.measuring.processes import pss, tree
from tests.measuring.slopes import slope

TIMES = 3.0
LEAVES = 4
SCALE = ("--scale", f"Leaf={LEAVES}")
SHORT_QUEUE = 50  # calls: a quarter of a second of work
DEADLINE = 1.0  # seconds
LATE = 0.05  # seconds after it that an answer may come
SHARE = 0.9  # of the peak
GROWTH = 0.05  # of the memory, in the second half of the load
PROBE = 0.2  # seconds between two questions for health
HEALTH_LIMIT = 1.0  # seconds


def overload(setting: Setting, folder: Path) -> Outcome:
    """Three times the peak: with deadlines that a full queue would use up, then with a queue that
    is full before.
    """
    outcome = Outcome()
    with graph(folder, *SCALE) as running:
        peak = _peak(running, setting.seconds / 4)
        _overload(outcome, running, peak, setting.seconds / 2, "calls that run out of time")
    with graph(folder, *SCALE, "--set", f"Leaf.queue={SHORT_QUEUE}") as running:
        _overload(outcome, running, peak, setting.seconds / 4, f"a queue of {SHORT_QUEUE}")
    return outcome


def _overload(outcome: Outcome, running: Graph, peak: float, seconds: float, words: str) -> None:
    load = Load(running.port, _ask(running.port), rate=TIMES * peak, expect=_fair)
    with Health(running.port) as health, Memory(running.pid) as memory, load:
        time.sleep(seconds)
    held, growth = load.results, memory.growth()
    share = _good(held.between(load.began, load.began + seconds)) / seconds / peak
    outcome.take(held)
    outcome.recovered(
        [max((answer.ended for answer in held.answers), default=0.0) - load.began - seconds]
    )
    outcome.remarks.append(
        f"{words}: goodput {share:.0%} of {peak:.0f}/s, {_statuses(held)}, memory {growth:+.1%}, "
        f"health within {health.worst * 1e3:.0f} ms"
    )
    _judge(outcome, held)
    outcome.never(health.wrong, f"health endpoints said {health.wrong[:3]}")
    if share < SHARE:
        outcome.slow.append(f"{words}: goodput is {share:.0%} of the peak")
    if health.worst > HEALTH_LIMIT:
        outcome.slow.append(f"a health endpoint took {health.worst:.2f} s")
    if growth > GROWTH:
        outcome.slow.append(f"memory grew by {growth:.1%}")


def _ask(port: int) -> Send:
    return numbered(port, "/heavy", x_request_timeout=f"{DEADLINE}")


def _peak(running: Graph, seconds: float) -> float:
    """Answers a second when callers ask without a pause."""
    with Load(running.port, numbered(running.port, "/heavy"), callers=4 * LEAVES) as load:
        time.sleep(seconds)
    return _good(load.results.between(load.began, load.began + seconds)) / seconds


def _good(results: Results) -> int:
    return sum(
        answer.status == 200 and answer.took <= DEADLINE + LATE for answer in results.answers
    )


def _fair(answer: Answer) -> bool:
    """What overload may answer: the result, too much, too late."""
    return answer.status in (200, 503, 504)


def _judge(outcome: Outcome, results: Results) -> None:
    wrong = [answer for answer in results.failures if answer.status != LOST]
    outcome.never(
        wrong, f"{len(wrong)} answers were neither 200 nor 503 nor 504: {wrong[0] if wrong else ''}"
    )
    outcome.never(results.lost, f"{len(results.lost)} requests were lost")
    late = [answer for answer in results.answers if answer.took > DEADLINE + LATE]
    if late:
        outcome.slow.append(
            f"{len(late)} answers came too late, the last {results.worst - DEADLINE:.3f} s"
        )


def _statuses(results: Results) -> str:
    counted = {
        status: sum(answer.status == status for answer in results.answers)
        for status in (200, 503, 504)
    }
    return ", ".join(f"{count} × {status}" for status, count in counted.items())


@dataclass
class Health:
    """Asks the health endpoints while the `with` block lasts."""

    port: int
    wrong: list[str] = field(default_factory=list)
    worst: float = 0.0

    def __enter__(self) -> Health:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", timeout=10, trust_env=False
        ) as client:
            while not self._over.wait(PROBE):
                for path in ("/livez", "/readyz"):
                    began = time.monotonic()
                    try:
                        answer = client.get(path)
                        words = (
                            ""
                            if answer.status_code == 200
                            else f"{path} {answer.status_code} {answer.text}"
                        )
                    except httpx.HTTPError as exc:
                        words = f"{path} {exc!r}"
                    self.worst = max(self.worst, time.monotonic() - began)
                    if words:
                        self.wrong.append(words)


@dataclass
class Memory:
    """Weighs a process and its descendants once a second while the `with` block lasts."""

    pid: int
    samples: list[tuple[float, float]] = field(default_factory=list)

    def __enter__(self) -> Memory:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._weigh)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _weigh(self) -> None:
        while not self._over.wait(1.0):
            self.samples.append((time.monotonic(), float(sum(pss(pid) for pid in tree(self.pid)))))

    def growth(self) -> float:
        """By which part it grew in the second half, by a line through the samples."""
        half = self.samples[len(self.samples) // 2 :]
        if len(half) < 2:
            return 0.0
        return slope(half) * (half[-1][0] - half[0][0]) / half[0][1]
