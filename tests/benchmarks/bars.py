"""The bars: what a run on two cores shall reach, computed from its figures; and the aims beyond
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.workloads import DEEP_SERVICES, WORKLOADS, Workload

Results = dict[tuple[str, str], dict[str, Any]]
Value = Callable[[Results], float]


@dataclass(frozen=True)
class Bar:
    """One bar: a value, and what it shall be (`at_least` or `at_most`).

    Args:
        title: what the value is.
        value_in: takes it from the results.
        at_least: the least value that reaches the bar, or None.
        at_most: the greatest value that reaches it, or None.
        aim: whether it is wished for, not demanded.
    """

    title: str
    value_in: Value
    at_least: float | None = None
    at_most: float | None = None
    aim: bool = False

    def value(self, results: Results) -> float | None:
        """The value, or None if a figure is missing."""
        try:
            return self.value_in(results)
        except (KeyError, ZeroDivisionError):
            return None

    def reached(self, value: float) -> bool:
        """Whether the bar is reached; NaN reaches none."""
        at_least, at_most = self.at_least, self.at_most
        return (at_least is None or value >= at_least) and (at_most is None or value <= at_most)

    def verdict(self, results: Results) -> tuple[str, str, str]:
        """The value, the bar and the verdict, as words."""
        value = self.value(results)
        bound = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        bar = f"aim: {bound}" if self.aim else bound
        if value is None:
            return "–", bar, "not measured"
        said = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        return (
            said,
            bar,
            "reached" if self.reached(value) else "not reached" if self.aim else "**missed**",
        )


OURS = "graphserve"


def figure(name: str, workload: str) -> Value:
    """A figure of ours as it is."""
    return lambda results: results[workload, OURS][name]


def ratio(name: str, over: tuple[str, str], under: tuple[str, str]) -> Value:
    """A figure of one (workload, system) over that of another."""
    return lambda results: results[over][name] / results[under][name]


def against(name: str, workload: str, system: str, *, less: bool = False) -> Value:
    """Our figure over that of another system on the same work; `less`: theirs over ours."""
    ours, theirs = (workload, OURS), (workload, system)
    return ratio(name, theirs, ours) if less else ratio(name, ours, theirs)


def per_hop(results: Results) -> float:
    """The p50 of the deep chain for each of its hops, the public one too, over local's, which is
    one hop.
    """
    return results["deep-1", OURS]["p50_ms"] / DEEP_SERVICES / results["local-1", OURS]["p50_ms"]


def over_copy(workload: str) -> Value:
    """A hop with an array over a copy and a sum of the same array in one process."""
    return lambda results: results[workload, OURS]["hop_ms"] / results[workload, OURS]["here_ms"]


def errors(results: Results) -> float:
    """All errors of all our workloads."""
    ours = [found["errors"] for (_, system), found in results.items() if system == OURS]
    return float(sum(ours)) if ours else results["local-1", OURS]["errors"]


def _of_ideal(work: Workload, rate: float, p99: float | None = None) -> list[Bar]:
    """The bars of work that has an ideal: calls/s, p99, and that no worker stands aside."""
    name, ideal_rate, ideal_p99 = work.name, work.ideal_rate, work.ideal_p99_ms
    assert ideal_rate is not None
    bars = [
        Bar(
            f"{work.title}: calls/s over the ideal",
            lambda r: r[name, OURS]["rate"] / ideal_rate,
            at_least=rate,
        )
    ]
    if ideal_p99 is not None:
        bars.append(
            Bar(
                f"{work.title}: p99 over the ideal",
                lambda r: r[name, OURS]["p99_ms"] / ideal_p99,
                at_most=p99,
            )
        )
    return bars


def _balance(form: str) -> list[Bar]:
    few, many = BY_NAME[f"{form}-4"], BY_NAME[f"{form}-16"]
    return [
        *_of_ideal(many, 0.92, 1.15),
        *_of_ideal(few, 0.88, 1.3),
        Bar(f"{few.title}: calls of the least used worker, % of all", lambda r: 100 * min(r[few.name, OURS]["shares"]),
            at_least=20),
    ]  # fmt: skip


BY_NAME = {work.name: work for work in WORKLOADS}
BARS = [
    Bar("local, 16 callers: calls/s over the plain floor", against("rate", "local-16", "plain"), at_least=0.8),
    Bar("chain, 16 callers: calls/s over the plain floor's local",
        ratio("rate", ("chain-16", OURS), ("local-16", "plain")), at_least=0.5),
    Bar("chain, 16 callers: calls/s over the plain floor's local",
        ratio("rate", ("chain-16", OURS), ("local-16", "plain")), at_least=0.6, aim=True),
    Bar("chain, 16 callers: calls/s over BentoML, tuned", against("rate", "chain-16", "bentoml"), at_least=20),
    Bar("chain, 16 callers: calls/s over Ray Serve", against("rate", "chain-16", "ray"), at_least=50),
    Bar("chain, 16 callers: calls/s over Mosec", against("rate", "chain-16", "mosec"), at_least=2.5),
    Bar("chain, 1 caller: p50 over local's", ratio("p50_ms", ("chain-1", OURS), ("local-1", OURS)), at_most=2.2),
    Bar("chain of 10, 1 caller: p50 a hop (10, with the public one) over local's p50", per_hop, at_most=1.8),
    Bar("injected httpx client over httpx's own uds transport, calls/s",
        ratio("rate", ("client-16", OURS), ("uds-16", OURS)), at_least=5),
    *[bar for form in ("balance", "balance-wide", "balance-entry") for bar in _balance(form)],
    *[
        bar for callers in (4, 16) for bar in (
            Bar(f"balance, {callers} callers: calls/s over Mosec", against("rate", f"balance-{callers}", "mosec"),
                at_least=1, aim=True),
            Bar(f"balance, {callers} callers: p99 over Mosec's", against("p99_ms", f"balance-{callers}", "mosec"),
                at_most=1, aim=True),
        )
    ],
    *_of_ideal(BY_NAME["batch-64"], 0.91),
    *[
        bar for mb in (16, 64) for bar in (
            Bar(f"array of {mb} MB: a hop over a copy and a sum in one process", over_copy(f"array-{mb}"), at_most=1.6),
            Bar(f"array of {mb} MB: BentoML's hop over ours", against("hop_ms", f"array-{mb}", "bentoml", less=True),
                at_least=5),
        )
    ],
    Bar("array of 1 MB: a hop, ms", figure("hop_ms", "array-1"), at_most=1),
    Bar("stream through 2 hops: age of the first item on arrival, ms", figure("first_ms", "stream-age"), at_most=3),
    Bar("stream through 2 hops, 1 caller: items/s", figure("rate", "stream-1"), at_least=10_000),
    Bar("stream through 2 hops, 16 callers: items/s", figure("rate", "stream-16"), at_least=10_000),
    Bar("start of 5 nodes over BentoML's", against("start_s", "start-5", "bentoml"), at_most=0.5),
    Bar("memory of 2 nodes over BentoML's", against("memory_mb", "start-2", "bentoml"), at_most=0.5),
    Bar("errors of graphserve, over all of it", errors, at_most=0),
]  # fmt: skip
