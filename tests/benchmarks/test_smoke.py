"""The benchmarks run: figures are there and no call fails. How quick anything is, is no matter here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.benchmarks import report
from tests.benchmarks.bars import BARS, Bar
from tests.benchmarks.rounds import Run, medians
from tests.benchmarks.systems import GRAPHSERVE, PEERS, PLAIN
from tests.benchmarks.workloads import WORKLOADS, Workload
from tests.measuring.requests import percentile

SHORT = 0.3  # seconds of a load: below what wrk can do, so our own generator is used
SMOKE = ("local-16", "chain-1", "client-16", "uds-16", "balance-entry-4", "array-1", "stream-age", "start-2")


def named(*names: str) -> list[Workload]:
    return [workload for workload in WORKLOADS if workload.name in names]


def test_a_short_run_has_all_figures_and_no_errors(run_dir: Path) -> None:
    said: list[str] = []
    run = Run(
        [PLAIN, GRAPHSERVE], named(*SMOKE), rounds=1, seconds=SHORT, venvs=run_dir, folder=run_dir, say=said.append
    )
    results = run.run()
    assert not run.failures, said
    assert {name for name, system in results if system == "graphserve"} == set(SMOKE)
    assert {name for name, system in results if system == "plain"} == {"local-16", "stream-age"}
    for key, figures in results.items():
        assert figures["errors"] == 0, key
        values = [value for value in figures.values() if isinstance(value, float)]
        assert values and not any(math.isnan(value) for value in values), key
    assert results["local-16", "graphserve"]["rate"] > 0
    assert results["start-2", "graphserve"]["memory_mb"] > 1
    assert sum(results["balance-entry-4", "graphserve"]["shares"]) == pytest.approx(1)
    _check_reports(run, results)


def _check_reports(run: Run, results: dict) -> None:
    raw = json.loads(json.dumps(report.raw(run, results)))
    assert len(raw["medians"]) == len(results)
    page = report.page(run, results)
    for words in ("# Benchmarks", "local, 16 callers", "graphserve 0.", "processor", "nox -s bench"):
        assert words in page


def test_a_system_that_cannot_be_installed_or_started_is_told(run_dir: Path) -> None:
    run_dir.mkdir()
    (run_dir / "mosec").write_text("in the way of a virtual environment")
    broken = type(PLAIN)(
        "broken", (), (), PLAIN.graphs, lambda python, *_: [python, "-c", "raise SystemExit('no luck')"]
    )
    mosec = next(peer for peer in PEERS if peer.name == "mosec")
    run = Run(
        [broken, mosec],
        named("local-16"),
        rounds=1,
        seconds=SHORT,
        venvs=run_dir,
        folder=run_dir,
        say=lambda text: None,
    )
    assert run.run() == {}
    assert "no luck" in run.failures["broken, calls"]
    assert "mosec" in run.failures


def test_medians_add_errors_and_keep_the_least_even_shares() -> None:
    rounds = [
        {"rate": 1.0, "errors": 1, "shares": {"a": 1, "b": 1}},
        {"rate": 5.0, "errors": 0, "shares": {"a": 3, "b": 1}},
        {"rate": 3.0, "errors": 2, "shares": {"a": 1, "b": 1}},
    ]
    assert medians(rounds) == {"rate": 3.0, "errors": 3, "shares": [0.25, 0.75]}


def test_percentiles() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile([7.0], 99)) == (51.0, 100.0, 7.0)
    assert math.isnan(percentile([], 50))


def test_bars_are_reached_or_missed_or_not_measured() -> None:
    results = {("a", "x"): {"rate": 3.0}}
    assert Bar("", lambda r: r["a", "x"]["rate"], at_least=2).verdict(results) == ("3", "≥ 2", "reached")
    assert Bar("", lambda r: r["a", "x"]["rate"], at_most=2).verdict(results) == ("3", "≤ 2", "**missed**")
    assert Bar("", lambda r: r["b", "x"]["rate"], at_most=2).verdict(results) == ("–", "≤ 2", "not measured")
    assert all(bar.verdict({})[2] == "not measured" for bar in BARS)
