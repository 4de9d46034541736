"""The bars: ratios that a run on two cores shall reach, computed from its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.workloads import DEEP_SERVICES, WORKLOADS

Results = dict[tuple[str, str], dict[str, Any]]
Ratio = Callable[[Results], float]


@dataclass(frozen=True)
class Bar:
    """One bar: a ratio, and what it shall be (`at_least` or `at_most`; neither: it is only told)."""

    title: str
    ratio: Ratio
    at_least: float | None = None
    at_most: float | None = None

    def value(self, results: Results) -> float | None:
        """The ratio, or None if a figure is missing."""
        try:
            return self.ratio(results)
        except (KeyError, ZeroDivisionError):
            return None

    def reached(self, value: float) -> bool:
        """Whether the bar is reached."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def verdict(self, results: Results) -> tuple[str, str, str]:
        """The ratio, the bar and the verdict, as words."""
        value = self.value(results)
        bar = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}" if self.at_most else "–"
        if value is None:
            return "–", bar, "not measured"
        return f"{value:.3g}", bar, "" if bar == "–" else "reached" if self.reached(value) else "**missed**"


def ratio(figure: str, over: tuple[str, str], under: tuple[str, str], *, hops: int = 1) -> Ratio:
    """A figure of one (workload, system) over that of another."""
    return lambda results: results[over][figure] / hops / results[under][figure]


OURS = "graphserve"
CHAIN, LOCAL = ("chain-16", OURS), ("local-16", OURS)
BARS = [
    Bar("local, 16 callers: calls/s over the plain floor", ratio("rate", LOCAL, ("local-16", "plain")), at_least=0.8),
    Bar("chain, 16 callers: calls/s over the plain floor's local",
        ratio("rate", CHAIN, ("local-16", "plain")), at_least=0.5),
    Bar("chain, 16 callers: calls/s over BentoML, tuned", ratio("rate", CHAIN, ("chain-16", "bentoml")), at_least=20),
    Bar("chain, 16 callers: calls/s over Ray Serve", ratio("rate", CHAIN, ("chain-16", "ray")), at_least=50),
    Bar("chain, 16 callers: calls/s over Mosec", ratio("rate", CHAIN, ("chain-16", "mosec")), at_least=2.5),
    Bar("chain, 1 caller: p50 over local's", ratio("p50_ms", ("chain-1", OURS), ("local-1", OURS)), at_most=2.2),
    Bar("chain of 10, 1 caller: p50 per hop (of 10, the public one too) over local's p50",
        ratio("p50_ms", ("deep-1", OURS), ("local-1", OURS), hops=DEEP_SERVICES), at_most=1.8),
    Bar("injected httpx client over httpx's own uds transport, calls/s",
        ratio("rate", ("client-16", OURS), ("uds-16", OURS)), at_least=5),
    *[
        bar for work in WORKLOADS if work.ideal_rate for bar in (
            Bar(f"{work.title}: calls/s over the ideal",
                lambda results, work=work: results[work.name, OURS]["rate"] / work.ideal_rate),
            *([Bar(f"{work.title}: p99 over the ideal",
                   lambda results, work=work: results[work.name, OURS]["p99_ms"] / work.ideal_p99_ms)]
              if work.ideal_p99_ms else []),
        )
    ],
    *[
        Bar(f"array of {mb} MB: a hop over a copy and a sum in one process",
            lambda results, mb=mb: results[f"array-{mb}", OURS]["hop_ms"] / results[f"array-{mb}", OURS]["here_ms"])
        for mb in (1, 16, 64)
    ],
    *[
        Bar(f"{nodes} nodes: {word} over BentoML's",
            ratio(figure, (f"start-{nodes}", OURS), (f"start-{nodes}", "bentoml")))
        for nodes in (2, 5) for word, figure in (("start", "start_s"), ("memory", "memory_mb"))
    ],
]  # fmt: skip
