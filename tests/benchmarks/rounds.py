"""The run: for each workload, round by round, one system after the other.

Medians of the rounds are the result.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.benchmarks import load, streams
from tests.benchmarks.disturbance import Disturbance, wait_for_calm
from tests.benchmarks.processes import Server, StartError
from tests.benchmarks.systems import System, python_of, versions
from tests.benchmarks.workloads import STREAM_ITEMS, Workload

WARM_UP = 0.5  # seconds, before the first round
CALLS_BEFORE_WEIGHING = 200
STREAMS_A_ROUND = 10
DISTURBED = 0.10  # of all cores, used by others: such a round is taken again
Figures = dict[str, Any]


class Run:
    """One run.

    Args:
        systems: what is compared, in the order of a round.
        workloads: what they do.
        rounds: how often.
        seconds: how long one load lasts.
        venvs: where the peers' virtual environments are.
        folder: where servers run.
        tries: how often a round is taken at most, while others disturb it.
        patience: seconds that each try waits at most for others to be calm.
        say: is told how it goes.
    """

    def __init__(
        self, systems: Iterable[System], workloads: Iterable[Workload], *, rounds: int, seconds: float, venvs: Path,
        folder: Path, tries: int = 1, patience: float = 0.0,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ) -> None:  # fmt: skip
        self.systems, self.workloads, self.rounds, self.seconds = (
            list(systems),
            list(workloads),
            rounds,
            seconds,
        )
        self.folder, self.tries, self.patience, self.say = folder, tries, patience, say
        self.failures: dict[str, str] = {}
        self.raw: dict[tuple[str, str], list[Figures]] = {}
        self.pythons: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self._servers: dict[tuple[str, str], Server] = {}
        self._count = 0
        for system in self.systems:
            self._install(system, venvs)

    def run(self) -> dict[tuple[str, str], Figures]:
        """Measure everything; figures by workload and system.

        Every process is ended when this returns.
        """
        try:
            for index, workload in enumerate(self.workloads):
                self._workload(workload)
                later = {each.graph for each in self.workloads[index + 1 :] if each.kind != "start"}
                self._stop(graph for _, graph in list(self._servers) if graph not in later)
        finally:
            self._stop(graph for _, graph in list(self._servers))
        return {key: medians(figures) for key, figures in self.raw.items()}

    def _install(self, system: System, venvs: Path) -> None:
        try:
            self.pythons[system.name] = python_of(system, venvs)
            self.versions[system.name] = versions(system, self.pythons[system.name])
        except (StartError, OSError) as exc:
            self.failures[system.name] = str(exc)

    def _workload(self, workload: Workload) -> None:
        able = [
            system
            for system in self.systems
            if system.serves(workload) and system.name in self.pythons
        ]
        if workload.kind != "start":
            able = [system for system in able if self._server(system, workload)]
            for system in able:
                self._once(system, workload, WARM_UP)
        for _ in range(self.rounds):
            for system in able:
                figures = self._calm(system, workload)
                if figures is not None:
                    self.raw.setdefault((workload.name, system.name), []).append(figures)
                    self.say(f"{workload.name:18} {system.name:10} {brief(figures)}")

    def _calm(self, system: System, workload: Workload) -> Figures | None:
        """One round; the least disturbed of a few tries, if others use the machine too."""
        best: Figures | None = None
        for _ in range(self.tries):
            wait_for_calm(self.patience, DISTURBED)
            disturbance = Disturbance()
            figures = self._once(system, workload, self.seconds)
            if figures is None:
                break
            figures["others"] = disturbance.share()
            if best is None or figures["others"] < best["others"]:
                best = figures
            if best["others"] < DISTURBED:
                break
        return best

    def _once(self, system: System, workload: Workload, seconds: float) -> Figures | None:
        try:
            if workload.kind == "start":
                return self._start(system, workload)
            server = self._servers[system.name, workload.graph]
            request = system.request(workload, server.port)
            if workload.kind == "array":
                return load.ask(request)
            if workload.kind == "stream":
                return streams.measure(request, STREAM_ITEMS, STREAMS_A_ROUND)
            before = server.cpu()
            figures = load.measure(request, workload.callers, seconds, bodies=workload.workers > 0)
            used = {pid: seconds - before.get(pid, 0.0) for pid, seconds in server.cpu().items()}
            calls = max(1.0, figures.pop("calls"))
            figures |= {
                "cpu_us": sum(used.values()) / calls * 1e6,
                "busiest_us": max(used.values()) / calls * 1e6,
            }
            if (bodies := figures.pop("shares", None)) and workload.workers:
                figures["shares"] = spread(bodies, workload.workers)
            return figures | {"rate": figures["rate"] * workload.rate_factor}
        except (StartError, OSError, ValueError) as exc:
            self._failed(system, workload, exc)
            return None

    def _server(self, system: System, workload: Workload) -> Server | None:
        key = (system.name, workload.graph)
        if key not in self._servers and f"{system.name}, {workload.graph}" not in self.failures:
            try:
                self._servers[key], _ = system.start(
                    workload, self.pythons[system.name], self._next_folder()
                )
            except (StartError, OSError) as exc:
                self.failures[f"{system.name}, {workload.graph}"] = str(exc)
                self.say(f"{system.name} did not start {workload.graph}: {exc}")
        return self._servers.get(key)

    def _start(self, system: System, workload: Workload) -> Figures:
        server, seconds = system.start(workload, self.pythons[system.name], self._next_folder())
        try:
            request = system.request(workload, server.port)
            errors = sum(not load.succeeds(request) for _ in range(CALLS_BEFORE_WEIGHING))
            return {"start_s": seconds, "memory_mb": server.memory(), "errors": errors}
        finally:
            server.stop()

    def _failed(self, system: System, workload: Workload, exc: Exception) -> None:
        self.failures[f"{system.name}, {workload.name}"] = str(exc)
        self.say(f"{system.name} failed at {workload.name}: {exc}")

    def _stop(self, graphs: Iterable[str]) -> None:
        gone = set(graphs)
        for key in [key for key in self._servers if key[1] in gone]:
            self._servers.pop(key).stop()

    def _next_folder(self) -> Path:
        self._count += 1
        return self.folder / str(self._count)


def medians(rounds: list[Figures]) -> Figures:
    """The median of each figure; errors are added up, and of shares the most uneven round is
    kept.
    """
    result: Figures = {
        name: statistics.median(figures[name] for figures in rounds)
        for name in rounds[0]
        if name not in ("errors", "shares")
    }
    result["errors"] = int(sum(figures.get("errors", 0) for figures in rounds))
    shares = [figures["shares"] for figures in rounds if figures.get("shares")]
    if shares:
        result["shares"] = max(shares, key=lambda each: max(each) - min(each))
    return result


def spread(bodies: dict[str, int], workers: int) -> list[float]:
    """The part of all answers that each worker gave, the least first; 0 for those that gave
    none.
    """
    total, idle = max(1, sum(bodies.values())), max(0, workers - len(bodies))
    return [0.0] * idle + sorted(count / total for count in bodies.values())


def brief(figures: Figures) -> str:
    """Figures in one line."""
    return "  ".join(
        f"{name} {value:,.2f}" for name, value in figures.items() if isinstance(value, float | int)
    )
