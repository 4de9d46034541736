"""The results in words: a table for the terminal, raw figures, and the page in the
documentation.
"""

from __future__ import annotations

import shutil
from typing import Any

from tests.benchmarks.bars import BARS, Results
from tests.benchmarks.rounds import Run
from tests.benchmarks.workloads import Workload
from tests.measuring.tables import machine, number, table

COLUMNS = (
    "workload",
    "system",
    "per s",
    "p50 ms",
    "p99 ms",
    "errors",
    "CPU µs a call",
    "of the ideal",
    "graphserve is",
    "remarks",
)


def figures(run: Run, results: Results) -> str:
    """One line a workload and system."""
    rows = [COLUMNS]
    for workload in run.workloads:
        first = workload.title
        for system in run.systems:
            found = results.get((workload.name, system.name))
            if found is not None:
                rows.append((first, system.name, *_cells(workload, found, results)))
                first = ""
    return table(rows)


def bars(results: Results) -> str:
    """One line a bar."""
    return table(
        [("value", "is", "shall be", ""), *((bar.title, *bar.verdict(results)) for bar in BARS)]
    )


def text(run: Run, results: Results) -> str:
    """What the terminal shows."""
    return "\n\n".join(["", figures(run, results), bars(results), *_failures(run)])


def raw(run: Run, results: Results) -> dict[str, Any]:
    """Everything, for a program."""
    return {
        "machine": _machine(), "versions": run.versions, "failures": run.failures, "seconds": run.seconds,
        "rounds": [
            {"workload": workload, "system": system, "figures": each}
            for (workload, system), rounds in run.raw.items() for each in rounds
        ],
        "medians": [
            {"workload": workload, "system": system, "figures": found} for (workload, system), found in results.items()
        ],
        "bars": [
            {"value": bar.title, "is": bar.value(results), "at_least": bar.at_least, "at_most": bar.at_most,
             "aim": bar.aim}
            for bar in BARS
        ],
    }  # fmt: skip


def page(run: Run, results: Results) -> str:
    """`docs/benchmarks.md`."""
    facts = [f"- {name}: {value}" for name, value in _machine().items()]
    known = [
        f"- {name}: {', '.join(f'{of} {version}' for of, version in each.items())}"
        for name, each in run.versions.items()
    ]
    turns = f"Figures are medians of {run.rounds} interleaved rounds of {run.seconds:g} s:"
    parts = [
        "# Benchmarks", f"{_INTRODUCTION} {turns} {_TURNS}", "## Bars", bars(results), "## Figures", _LEGEND,
        figures(run, results), *_failures(run), "## The work", _WORK, "## Machine and versions",
        "\n".join([*facts, *known]), "## Again", _AGAIN,
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = """\
graphserve, a plain floor and its peers on the same work, in one run, written by `nox -s bench`. Absolute figures are
those of one machine on one day; the ratios are what counts.\
"""
_TURNS = """\
in each round the systems take their turns, on the same
cores, while the others are idle. A round that other programs on the machine disturbed was taken again, a few times at
most.\
"""
_LEGEND = """\
*graphserve is*: how many times better graphserve does the same work (calls/s; for arrays the time of a hop, for ages
that of the first item, for starts the time). Errors are all answers but 2xx, and broken connections, of all rounds;
only good answers count as throughput. *CPU µs a call*: what all processes of the system used. For arrays, p50 is one
warm hop; the remark has the same array copied and summed in one process. *shares*: the part of the answers
that each worker gave, in the least even round.\
"""
_WORK = """\
- plain: one process with Starlette and uvicorn, no second node: the floor under everything else.
- local: the entry adds 1. chain: the entry calls another service that adds 1. chain of 10: ten services in a line.
- fan-out: the entry calls eight services at once.
- balance: four workers that take one call at a time and sleep 20 ms. Ideal are 200 calls/s, and 20 ms at 4 callers, 80
  at 16.
- batch: two workers that sleep 50 ms and 1 ms an item, batches of up to 32. 780 items/s are ideal.
- array: the entry passes float64 numbers to a service that sums them.
- stream: the entry passes on the items of another service's stream. Age: from the making of an item to its arrival.
- start: from the start of the command to the first 200; memory is the PSS of all processes after 200 calls.
- BentoML runs tuned: uvloop, no access log, client sessions that are not recycled (its default loses calls).\
"""
_AGAIN = """\
`nox -s bench` installs each peer in a virtual environment of its own under `.nox/bench-peers` and measures everything.
`nox -s bench -- --peers bentoml,mosec` takes these peers, `--workloads chain,local` these workloads, `--quick` one
round of a second, `--json FILE` keeps the raw figures, `--page FILE` writes this page. Load comes from `wrk` where it
is installed. The programs are in `tests/benchmarks/`.\
"""


def _machine() -> dict[str, str]:
    return machine() | {"load": "wrk" if shutil.which("wrk") else "the benchmark's own generator"}


def _failures(run: Run) -> list[str]:
    return (
        [
            "\n".join(
                ["Did not run:", "", *(f"- {what}: {why}" for what, why in run.failures.items())]
            )
        ]
        if run.failures
        else []
    )


def _cells(workload: Workload, found: dict[str, Any], results: Results) -> tuple[str, ...]:
    ideal = found["rate"] / workload.ideal_rate if workload.ideal_rate else None
    return (
        number(found.get("rate")), number(found.get("p50_ms", found.get("hop_ms"))), number(found.get("p99_ms")),
        str(found["errors"]), number(found.get("cpu_us")), "" if ideal is None else f"{ideal:.2f}",
        _against(workload, found, results),
        _remarks(workload, found),
    )  # fmt: skip


def _against(workload: Workload, found: dict[str, Any], results: Results) -> str:
    ours = results.get((workload.name, "graphserve"))
    if ours is None or ours is found:
        return ""
    for figure, more_is_better in (
        ("rate", True),
        ("hop_ms", False),
        ("first_ms", False),
        ("start_s", False),
    ):
        if figure in found:
            ratio = ours[figure] / found[figure] if more_is_better else found[figure] / ours[figure]
            return f"{ratio:.3g}×"
    return ""


def _remarks(workload: Workload, found: dict[str, Any]) -> str:
    words = []
    if workload.ideal_p99_ms:
        words.append(f"p99 {found['p99_ms'] / workload.ideal_p99_ms:.2f} of the ideal")
    if shares := found.get("shares"):
        words.append("shares " + " ".join(f"{share:.2f}" for share in shares[:8]))
    if "here_ms" in found:
        words.append(f"copy and sum here {found['here_ms']:.2f} ms")
    if "first_ms" in found:
        words.append(f"first item {found['first_ms']:.2f} ms")
    if "start_s" in found:
        words.append(f"start {found['start_s']:.2f} s, {found['memory_mb']:.0f} MB")
    return ", ".join(words)
