"""Figures of a running graph, from two looks at its metrics: rates, quantiles, what is in flight.

Pure; used by `top`. Rates are differences of counters by the time between the two looks. A quantile
is that of Prometheus' `histogram_quantile`: linear inside of the bucket that it is in, and the
highest bound where it is above all of them.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphserve.metrics import families as f

if TYPE_CHECKING:
    from graphserve.metrics.families import Family
    from graphserve.supervise.control.status import Status

SUPERVISOR = "supervisor"
# (those of clients, 4xx, and those that their caller gave up are none)
_FAILED = ("error", "unavailable", "deadline")
_SAMPLE = re.compile(r'(\w+)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})? (\S+)')
_LABEL = re.compile(r'\w+="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")

Labels = tuple[str, ...]
Buckets = dict[float, float]  # how many observations are at most the bound


class Snapshot:
    """One look at a graph.

    Args:
        at: when, by the monotonic clock, in seconds.
        metrics: what `GET /metrics` has answered, in the format of Prometheus.
        status: what `GET /status` has answered.
    """

    def __init__(self, at: float, metrics: str, status: Status) -> None:
        self.at = at
        self.status = status
        self._samples: dict[str, dict[Labels, float]] = defaultdict(dict)
        for line in metrics.splitlines():
            found = _SAMPLE.fullmatch(line)
            if found is not None:  # else a comment
                labels = tuple(
                    _ESCAPE.sub(_unescaped, value) for value in _LABEL.findall(found[2] or "")
                )
                self._samples[found[1]][labels] = float(found[3])

    def is_of_same_run(self, other: Snapshot) -> bool:
        """Return whether both are of one supervisor: another one counts from 0."""
        run = f.START_TIME.name
        pids = self.status["pid"], other.status["pid"]
        starts = (each.samples(run).get((SUPERVISOR, "")) for each in (self, other))
        return pids[0] == pids[1] and len(set(starts)) == 1

    def counts(self) -> bool:
        """Return whether the workers count, or there are none (`--metrics`)."""
        lags = self.samples(f.LOOP_LAG.name)
        return bool(lags) or not any(row["ready"] for row in self.status["nodes"])

    def samples(self, name: str) -> dict[Labels, float]:
        """Return the values of one name, by labels in the order of its family."""
        return self._samples.get(name, {})

    def gauge(self, family: Family, *labels: str) -> float:
        """Return the value of one series; 0 if there is none."""
        return self.samples(family.name).get(labels, 0.0)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests or calls that ended between two looks; None: there was no look before.

    Args:
        rate: how many a second.
        errors: how many of them failed, a second.
        p50: seconds that half of them took at most; None also if there were none.
        p99: seconds that 99 of 100 took at most.
    """

    rate: float | None = None
    errors: float | None = None
    p50: float | None = None
    p99: float | None = None

    @property
    def error_share(self) -> float | None:
        """Return which part of them failed, from 0 to 1; None if there were none."""
        return self.errors / self.rate if self.rate and self.errors is not None else None


@dataclass(frozen=True, slots=True)
class EdgeFigures:
    """Calls from one node to an API of another one."""

    caller: str
    service: str
    api: str
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class SlotFigures:
    """The worker in one slot; `cpu` is in percent of one CPU, `memory` in bytes, `lag` and `age` in
    seconds.
    """

    slot: str
    cpu: float | None
    memory: int
    descriptors: int
    lag: float | None  # None: it counts nothing
    age: float


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """A node: what is called of it, what it holds, and its workers."""

    name: str
    state: str
    traffic: Traffic
    in_flight: int
    slots: int
    queue: int
    queue_limit: int
    ready: int
    workers: int
    cpu: float | None
    memory: int
    of_slots: tuple[SlotFigures, ...]


@dataclass(frozen=True, slots=True)
class GraphFigures:
    """A graph between two looks.

    Args:
        seconds: between the two; None: there was no look before, or at another run.
        status: of the latter look.
        port: the requests at the public port.
        in_flight: requests at the port that are not answered yet.
        nodes: the entry first.
        edges: in the order of their callers.
        supervisor: its own process.
        counted: whether its workers count (`--metrics`).
    """

    seconds: float | None
    status: Status
    port: Traffic
    in_flight: int
    nodes: tuple[NodeFigures, ...]
    edges: tuple[EdgeFigures, ...]
    supervisor: SlotFigures
    counted: bool


def between(before: Snapshot | None, after: Snapshot) -> GraphFigures:
    """Return the figures of a graph between two looks at it.

    Args:
        before: the former; what is of another run says nothing, as None does.
        after: the latter.
    """
    if before is not None and (not after.is_of_same_run(before) or after.at <= before.at):
        before = None
    growth = _Growth(before, after)
    rows = list(reversed(after.status["nodes"]))  # which has the entry last
    entry = rows[0]["name"] if rows else ""
    port = growth.traffic(f.REQUEST_DURATION, _is_request_error)
    nodes = []
    for row in rows:
        name = row["name"]
        called = growth.traffic(f.CALL_DURATION, _is_call_error, {1: name})
        slots = tuple(_slots(growth, name))
        cpus = [slot.cpu for slot in slots if slot.cpu is not None]
        nodes.append(
            NodeFigures(
                name=name,
                state=row["state"],
                traffic=port if name == entry else called,
                in_flight=int(after.gauge(f.IN_FLIGHT, name)),
                slots=int(after.gauge(f.SLOTS, name)),
                queue=int(after.gauge(f.QUEUE_LENGTH, name)),
                queue_limit=int(after.gauge(f.QUEUE_LIMIT, name)),
                ready=row["ready"],
                workers=row["workers"],
                cpu=sum(cpus) if before is not None else None,
                memory=sum(slot.memory for slot in slots),
                of_slots=slots,
            )
        )
    return GraphFigures(
        seconds=after.at - before.at if before is not None else None,
        status=after.status,
        port=port,
        in_flight=nodes[0].in_flight + nodes[0].queue if nodes else 0,
        nodes=tuple(nodes),
        edges=tuple(_edges(growth, [row["name"] for row in rows])),
        supervisor=_slot(growth, SUPERVISOR, ""),
        counted=after.counts(),
    )


class _Growth:
    """What was counted between two looks."""

    def __init__(self, before: Snapshot | None, after: Snapshot) -> None:
        self.before = before
        self.after = after

    def of(self, name: str) -> Iterator[tuple[Labels, float]]:
        """Yield by how much each counter of a name has grown; never less than 0."""
        assert self.before is not None
        old = self.before.samples(name)
        for labels, value in self.after.samples(name).items():
            yield labels, max(0.0, value - old.get(labels, 0.0))

    def traffic(
        self, family: Family, is_error: Callable[[str], bool], labels: dict[int, str] | None = None
    ) -> Traffic:
        """Return what the series of a histogram that have these labels, by place, have counted."""
        if self.before is None or not self.after.counts():
            return Traffic()
        seconds = self.after.at - self.before.at
        asked = labels or {}
        buckets = defaultdict[float, float](float)
        failed = 0.0
        for (*given, bound), number in self.of(f"{family.name}_bucket"):
            if all(given[place] == value for place, value in asked.items()):
                buckets[float(bound)] += number
                if bound == "+Inf" and is_error(given[-1]):
                    failed += number
        return Traffic(
            buckets[math.inf] / seconds,
            failed / seconds,
            quantile(0.5, buckets),
            quantile(0.99, buckets),
        )

    def cpu(self, service: str, slot: str) -> float | None:
        """Return the percent of one CPU that a slot has used."""
        if self.before is None:
            return None
        now = self.after.gauge(f.CPU_SECONDS, service, slot)
        used = max(0.0, now - self.before.gauge(f.CPU_SECONDS, service, slot))
        return 100 * used / (self.after.at - self.before.at)


def quantile(share: float, buckets: Buckets) -> float | None:
    """Return what a share of the observations is at most, as Prometheus' `histogram_quantile` does;
    None if there are none.

    Args:
        share: from 0 to 1.
        buckets: how many are at most each bound; the last bound is infinite.
    """
    total = max(buckets.values(), default=0.0)
    if not total:
        return None
    rank = share * total
    lower = below = 0.0
    for bound, count in sorted(buckets.items()):
        if count >= rank and count > below:
            if math.isinf(bound):
                break
            return lower + (bound - lower) * (rank - below) / (count - below)
        below = max(below, count)
        if not math.isinf(bound):
            lower = bound
    return lower


def _edges(growth: _Growth, names: list[str]) -> Iterator[EdgeFigures]:
    """Yield the edges on which there were calls since the graph began."""
    places = {name: place for place, name in enumerate(names)}
    edges = {labels[:3] for labels in growth.after.samples(f"{f.CALL_DURATION.name}_count")}
    for caller, service, api in sorted(edges, key=lambda edge: (places.get(edge[0], -1), edge)):
        asked = {0: caller, 1: service, 2: api}
        traffic = growth.traffic(f.CALL_DURATION, _is_call_error, asked)
        yield EdgeFigures(caller, service, api, traffic)


def _slots(growth: _Growth, name: str) -> Iterator[SlotFigures]:
    """Yield the slots of a node that have a worker."""
    held = growth.after.samples(f.RESIDENT_MEMORY.name)
    slots = [slot for service, slot in held if service == name]
    for slot in sorted(slots, key=lambda slot: (not slot.isdecimal(), len(slot), slot)):
        yield _slot(growth, name, slot)


def _slot(growth: _Growth, name: str, slot: str) -> SlotFigures:
    look = growth.after
    uptime = look.status["uptime"]
    since_start = look.gauge(f.START_TIME, name, slot) - look.gauge(f.START_TIME, SUPERVISOR, "")
    return SlotFigures(
        slot=slot,
        cpu=growth.cpu(name, slot),
        memory=int(look.gauge(f.RESIDENT_MEMORY, name, slot)),
        descriptors=int(look.gauge(f.OPEN_FDS, name, slot)),
        lag=look.samples(f.LOOP_LAG.name).get((name, slot)),
        age=max(0.0, uptime - since_start),
    )


def _is_call_error(outcome: str) -> bool:
    return outcome in _FAILED


def _is_request_error(status: str) -> bool:
    return status.startswith("5")


def _unescaped(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]
