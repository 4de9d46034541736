"""What `GET /metrics` answers: what workers have counted, and what the supervisor knows of them.

Runs in the supervisor, and asks no worker: one whose loop is stuck, or that is stopped, is told of
as every other is.
"""

from __future__ import annotations

import platform
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache

from graphserve.metrics import families as f
from graphserve.metrics.exposition import OPENMETRICS, PLAIN, Sample, wants_openmetrics, written
from graphserve.metrics.families import FAMILIES, Family
from graphserve.metrics.labels import ELSE, Counted
from graphserve.metrics.layout import BEAT_AT, LAG_AT, SECOND, SHARED_MEMORY_AT
from graphserve.supervise.fleet import Fleet
from graphserve.supervise.process.worker_process import Usage, WorkerProcess, slot_of
from graphserve.supervise.states import WorkerState

SUPERVISOR = ("supervisor", "")  # the service and the slot of this process
STATES = tuple(
    state.value
    for state in WorkerState
    if state not in (WorkerState.OPENING, WorkerState.GONE)  # (`shown`)
)


def exposed(fleet: Fleet, own: Usage, accept: bytes) -> tuple[bytes, bytes]:
    """Return the metrics of a graph as text, and the Content-Type of that.

    Args:
        fleet: its processes.
        own: what this process uses.
        accept: the Accept header of who asks.
    """
    found: dict[Family, list[Sample]] = {family: [] for family in FAMILIES}
    for family, sample in _samples(fleet, own):
        found[family].append(sample)
    openmetrics = wants_openmetrics(accept)
    text = written(found, openmetrics=openmetrics).encode()
    return text, OPENMETRICS if openmetrics else PLAIN


def _samples(fleet: Fleet, own: Usage) -> Iterator[tuple[Family, Sample]]:
    processes = fleet.processes()
    counted = fleet.counts.counted(processes)
    for (family, labels), values in fleet.counts.totals.plus(counted).items():
        if family.type == "histogram":
            yield family, Sample(labels, counts=values)
        else:
            yield family, Sample(labels, values[0])
    yield from _of_nodes(fleet, counted)
    for (service, reason), number in fleet.counts.restarts.items():
        yield f.RESTARTS, Sample((service, reason), number)
    slots = defaultdict[tuple[str, str], list[WorkerProcess]](list)
    for process in processes:
        slots[slot_of(process)].append(process)
    for slot, workers in slots.items():
        yield from _of_slot(slot, workers)
    used = defaultdict[tuple[str, str], float](float, fleet.counts.cpu_seconds)
    for slot, workers in slots.items():
        used[slot] += sum(worker.usage.seconds() for worker in workers)
    used[SUPERVISOR] = own.seconds()
    for slot, seconds in used.items():
        yield f.CPU_SECONDS, Sample(slot, seconds)
    yield f.RESIDENT_MEMORY, Sample(SUPERVISOR, own.memory())
    yield f.OPEN_FDS, Sample(SUPERVISOR, own.descriptors())
    yield f.START_TIME, Sample(SUPERVISOR, own.since)
    yield f.BUILD_INFO, Sample((_version(), platform.python_version()), 1)


def _of_nodes(fleet: Fleet, counted: list[Counted]) -> Iterator[tuple[Family, Sample]]:
    sent = Counter[str]()  # and not answered, by the node that they are for
    for each in counted:
        for (family, labels), number in each.in_flight.items():
            if family is f.CALL_DURATION:
                sent[labels[1]] += number
            elif labels[1] != ELSE:
                sent[labels[0]] += number
    nodes = fleet.current_nodes()
    for name, node in nodes.items():
        # (a reload may have two nodes of one name)
        workers = [
            worker for each in fleet.nodes if each.plan.name == name for worker in each.workers
        ]
        executing = sum(worker.page.executing() for worker in workers)
        ready = sum(worker.state is WorkerState.READY for worker in workers)
        yield f.IN_FLIGHT, Sample((name,), executing)
        yield f.SLOTS, Sample((name,), ready * node.plan.limit)
        yield f.QUEUE_LENGTH, Sample((name,), max(0, sent[name] - executing))
        yield f.QUEUE_LIMIT, Sample((name,), node.plan.options.queue)
        states = Counter(worker.state.shown for worker in workers)
        for state in STATES:
            yield f.WORKERS, Sample((name, state), states[state])


def _of_slot(
    slot: tuple[str, str], workers: list[WorkerProcess]
) -> Iterator[tuple[Family, Sample]]:
    """Yield what is known of a slot, in which two workers are while one takes the other's place."""
    yield f.RESIDENT_MEMORY, Sample(slot, sum(worker.usage.memory() for worker in workers))
    yield f.OPEN_FDS, Sample(slot, sum(worker.usage.descriptors() for worker in workers))
    latest = max(workers, key=lambda worker: worker.usage.since)
    yield f.START_TIME, Sample(slot, latest.usage.since)
    for phase, begin, end in latest.timing.phases():
        yield f.START_SECONDS, Sample((*slot, phase), round(end - begin, 6))
    now = time.monotonic_ns()
    lags = []
    held = 0
    for worker in workers:
        for memory in worker.counts:
            words = memory.read()
            if words[BEAT_AT]:
                overdue = now - words[BEAT_AT] - SECOND
                lags.append(max(words[LAG_AT], overdue, 0))
                held += words[SHARED_MEMORY_AT]
    if lags:
        yield f.LOOP_LAG, Sample(slot, max(lags) / f.NANOSECONDS)
        yield f.SHARED_MEMORY, Sample(slot, held)


@cache
def _version() -> str:
    # it brings 1.4 MB along, which a supervisor that nobody asks has no use for
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pygraphserve")
    except PackageNotFoundError:  # it runs from a folder
        return "unknown"
