"""Shows what a start or a reload took, as `graphserve status --timing` prints it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphserve.cli.display import say, table
from graphserve.cli.display.table import Column

if TYPE_CHECKING:
    from graphserve.supervise.timing import Step, TimingRow, WorkerTimingRow

SHOWN = 0.005  # seconds: steps that take less would be shown as 0.00 s
PHASES = ("import", "wait", "init", "warm-up", "port")


def show(rows: Sequence[TimingRow]) -> None:
    """Print operations: of each the chain of what came one after the other, and its workers."""
    for place, row in enumerate(rows):
        if place:
            say.out("")
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"]))
        state = "" if row["state"] == "done" else f", {row['state']}"
        say.out(f"{row['operation']}  {row['seconds']:.2f} s{state}, begun {clock}")
        if row["reason"]:
            say.out(row["reason"])
        if row["chain"]:
            say.out("\nWhat came one after the other:")
            table.show(STEP_COLUMNS, [step for step in row["chain"] if step["seconds"] >= SHOWN])
        if row["workers"]:
            say.out("\nEach worker:")
            table.show(WORKER_COLUMNS, row["workers"])


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


def _who(step: Step) -> str:
    return "" if step["node"] is None else f"{step['node']}[{step['slot']}]"


def _phase(name: str) -> Column[WorkerTimingRow]:
    return Column(name.upper(), lambda worker: _seconds(worker["phases"].get(name)), is_number=True)


def _state(worker: WorkerTimingRow) -> str:
    if worker["ready"] is not None:
        return f"{worker['ready']:.2f} s"
    return "ended" if worker["ended"] is not None else f"({worker['doing']})"


STEP_COLUMNS: tuple[Column[Step], ...] = (
    Column("BEGINS", lambda step: _seconds(step["begins"]), is_number=True),
    Column("TAKES", lambda step: _seconds(step["seconds"]), is_number=True),
    Column("WHAT", lambda step: step["what"]),
    Column("WORKER", _who),
)
WORKER_COLUMNS: tuple[Column[WorkerTimingRow], ...] = (
    Column("NODE", lambda worker: worker["node"]),
    Column("SLOT", lambda worker: str(worker["slot"]), is_number=True),
    Column("SPAWNED", lambda worker: _seconds(worker["spawned"]), is_number=True),
    *map(_phase, PHASES),
    Column("READY", _state, is_number=True),
    Column("WAITED FOR", lambda worker: worker["waited_for"] or ""),
)
