"""The benchmarks run: figures are there and no call fails.

How quick anything is, is no matter here.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import report
from tests.benchmarks.bars import BARS, Bar, Results
from tests.benchmarks.rounds import Run, medians, spread
from tests.benchmarks.systems import GRAPHSERVE, PEERS, PLAIN
from tests.benchmarks.workloads import WORKLOADS, Workload
from tests.measuring.requests import percentile

pytestmark = pytest.mark.slow

SHORT = 0.3  # seconds of a load: below what wrk can do, so our own generator is used
SMOKE = (
    "local-16",
    "chain-1",
    "client-16",
    "uds-16",
    "balance-entry-4",
    "array-1",
    "stream-age",
    "start-2",
)


def named(*names: str) -> list[Workload]:
    return [workload for workload in WORKLOADS if workload.name in names]


def test_a_short_run_has_all_figures_and_no_errors(run_dir: Path) -> None:
    said: list[str] = []
    run = Run(
        [PLAIN, GRAPHSERVE],
        named(*SMOKE),
        rounds=1,
        seconds=SHORT,
        venvs=run_dir,
        folder=run_dir,
        say=said.append,
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
    shares = results["balance-entry-4", "graphserve"]["shares"]
    assert (len(shares), sum(shares)) == (4, pytest.approx(1))
    _check_reports(run, results)


def _check_reports(run: Run, results: dict) -> None:
    raw = json.loads(json.dumps(report.raw(run, results)))
    assert len(raw["medians"]) == len(results)
    page = report.page(run, results)
    for words in (
        "# Benchmarks",
        "local, 16 callers",
        "graphserve 0.",
        "processor",
        "nox -s bench",
    ):
        assert words in page


def test_a_system_that_cannot_be_installed_or_started_is_told(run_dir: Path) -> None:
    run_dir.mkdir()
    (run_dir / "mosec").write_text("in the way of a virtual environment")
    broken = type(PLAIN)(
        "broken",
        (),
        (),
        PLAIN.graphs,
        lambda python, *_: [python, "-c", "raise SystemExit('no luck')"],
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
        {"rate": 1.0, "errors": 1, "shares": [0.5, 0.5]},
        {"rate": 5.0, "errors": 0, "shares": [0.25, 0.75]},
        {"rate": 3.0, "errors": 2, "shares": [0.5, 0.5]},
    ]
    assert medians(rounds) == {"rate": 3.0, "errors": 3, "shares": [0.25, 0.75]}


def test_a_worker_without_an_answer_has_a_share_of_nothing() -> None:
    assert spread({"11": 1, "22": 3}, 2) == [0.25, 0.75]
    assert spread({"11": 1, "22": 3}, 4) == [0.0, 0.0, 0.25, 0.75]


def test_percentiles() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile([7.0], 99)) == (
        51.0,
        100.0,
        7.0,
    )
    assert math.isnan(percentile([], 50))


def test_bars_are_reached_or_missed_or_not_measured() -> None:
    results = {("a", "x"): {"rate": 3.0}}
    assert Bar("", lambda r: r["a", "x"]["rate"], at_least=2).verdict(results) == (
        "3",
        "≥ 2",
        "reached",
    )
    assert Bar("", lambda r: r["a", "x"]["rate"], at_most=2).verdict(results) == (
        "3",
        "≤ 2",
        "**missed**",
    )
    assert Bar("", lambda r: r["b", "x"]["rate"], at_most=2).verdict(results) == (
        "–",
        "≤ 2",
        "not measured",
    )
    assert (
        Bar("", lambda r: r["a", "x"]["rate"], at_most=0).verdict({("a", "x"): {"rate": 0}})[2]
        == "reached"
    )
    assert Bar("", lambda r: float("nan"), at_most=2).verdict(results)[2] == "**missed**"
    assert Bar("", lambda r: 12_345.6, at_least=20_000, aim=True).verdict(results) == (
        "12,346", "aim: ≥ 20000", "not reached",
    )  # fmt: skip
    assert all(bar.verdict({})[2] == "not measured" for bar in BARS)


# What each of our bars is made of: exactly at its bar, with round figures of the others.
AT_THE_BAR: Results = {
    ("local-16", "plain"): {"rate": 10_000.0}, ("local-16", "graphserve"): {"rate": 8_000.0, "errors": 0},
    ("chain-16", "graphserve"): {"rate": 6_000.0, "errors": 0}, ("chain-16", "bentoml"): {"rate": 300.0, "errors": 99},
    ("chain-16", "ray"): {"rate": 120.0}, ("chain-16", "mosec"): {"rate": 2_400.0},
    ("local-1", "graphserve"): {"p50_ms": 1.0, "errors": 0}, ("chain-1", "graphserve"): {"p50_ms": 2.2, "errors": 0},
    ("deep-1", "graphserve"): {"p50_ms": 18.0, "errors": 0}, ("client-16", "graphserve"): {"rate": 500.0, "errors": 0},
    ("uds-16", "graphserve"): {"rate": 100.0, "errors": 0},
    **{
        (f"{form}-{callers}", "graphserve"): {
            "rate": rate, "p99_ms": p99, "errors": 0, "shares": [0.2, 0.2, 0.2, 0.4],
        }
        for form in ("balance", "balance-wide", "balance-entry")
        for callers, rate, p99 in ((4, 176.0, 26.0), (16, 184.0, 92.0))
    },
    ("balance-4", "mosec"): {"rate": 176.0, "p99_ms": 26.0}, ("balance-16", "mosec"): {"rate": 184.0, "p99_ms": 92.0},
    ("batch-64", "graphserve"): {"rate": 0.91 * 64 / 0.082, "errors": 0},
    ("array-1", "graphserve"): {"hop_ms": 1.0, "errors": 0},
    **{(f"array-{mb}", "graphserve"): {"hop_ms": 16.0, "here_ms": 10.0, "errors": 0} for mb in (16, 64)},
    **{(f"array-{mb}", "bentoml"): {"hop_ms": 80.0} for mb in (16, 64)},
    ("stream-age", "graphserve"): {"first_ms": 3.0, "errors": 0},
    **{(f"stream-{callers}", "graphserve"): {"rate": 10_000.0, "errors": 0} for callers in (1, 16)},
    ("start-5", "graphserve"): {"start_s": 1.0, "errors": 0}, ("start-5", "bentoml"): {"start_s": 2.0},
    ("start-2", "graphserve"): {"memory_mb": 50.0, "errors": 0}, ("start-2", "bentoml"): {"memory_mb": 100.0},
}  # fmt: skip


def test_figures_at_the_bars_reach_them_and_slightly_worse_ones_miss_them() -> None:
    assert [bar.title for bar in BARS if bar.verdict(AT_THE_BAR)[2] != "reached"] == []
    worse = {
        key: slightly_worse(found) for key, found in AT_THE_BAR.items() if key[1] == "graphserve"
    }
    # what others are compared to: better is worse
    worse["local-1", "graphserve"] = {"p50_ms": 0.99, "errors": 0}
    worse["uds-16", "graphserve"] = {"rate": 101.0, "errors": 0}
    reached = [bar for bar in BARS if bar.verdict(AT_THE_BAR | worse)[2] == "reached"]
    assert [bar.title for bar in reached] == [
        "chain, 16 callers: calls/s over the plain floor's local"
    ]
    assert reached[0].at_least == 0.5, "the figure stands at the aim, 0.6"
    assert not reached[0].reached(0.499)


def slightly_worse(found: dict[str, Any]) -> dict[str, Any]:
    """Figures that are one hundredth worse, and an error."""
    factor = {"rate": 0.99, "here_ms": 1.0}
    worse = {
        name: value * factor.get(name, 1.01)
        for name, value in found.items()
        if isinstance(value, float)
    }
    return worse | {"shares": [0.99 * share for share in found.get("shares", [])], "errors": 1}


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("over the ideal", 13),
        ("least used worker", 3),
        ("Mosec", 5),
        ("BentoML", 5),
        ("errors", 1),
        ("stream", 3),
    ],
)
def test_all_bars_are_there(words: str, count: int) -> None:
    assert sum(words in bar.title for bar in BARS) == count


def test_errors_of_others_are_theirs_and_ours_are_all_counted() -> None:
    bar = next(bar for bar in BARS if bar.title.startswith("errors"))
    assert bar.value({("a", "bentoml"): {"errors": 137}, ("a", "graphserve"): {"errors": 0}}) == 0
    assert bar.value({("a", "graphserve"): {"errors": 1}, ("b", "graphserve"): {"errors": 2}}) == 3
