"""The fault that is none: SIGTERM while callers ask without a pause."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.load import Load, numbered
from tests.faults.outcome import Outcome, Setting
from tests.faults.scene import graph, wait_dead

FULL = 3.0  # seconds of full load before the signal
ROUND = 8.0  # seconds that a start, the load and a stop take about
SCALE = ("--workers", "2", "--scale", "Leaf=2", "--scale", "Middle=2")


def stop(setting: Setting, folder: Path) -> Outcome:
    """SIGTERM at full load, in new graphs again and again."""
    outcome, rounds = Outcome(), max(1, round(setting.seconds / ROUND))
    for number in range(rounds):
        (folder / str(number)).mkdir()
        _once(setting, folder / str(number), outcome)
    outcome.remarks.append(
        f"{rounds} stops, {setting.callers} callers; recovery is the time from SIGTERM to the exit"
    )
    return outcome


def _once(setting: Setting, folder: Path, outcome: Outcome) -> None:
    with graph(folder, *SCALE) as running:
        workers = running.served.workers()
        with Load(running.port, numbered(running.port, "/once"), callers=setting.callers) as load:
            time.sleep(min(FULL, setting.seconds / 2))
            began = time.monotonic()
            code = running.served.stop()
            outcome.recovered([time.monotonic() - began])
        outcome.take(load.results)
        outcome.never(code != 0, f"the stop exited with {code}")
        outcome.never(load.running, "callers were not refused after the stop")
        wrong = [answer for answer in load.results.failures if answer.status]
        outcome.never(wrong, f"{len(wrong)} accepted requests failed: {wrong[0] if wrong else ''}")
        wait_dead(workers)
        outcome.never(running.run_dir.exists(), "the run folder was left")
