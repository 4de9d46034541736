"""The table of all metrics: names, types, labels, and what each one means. Runs in the supervisor.

Names are those of OpenTelemetry where it has some, as Prometheus writes them. A metric that is
added here gets its row in `docs/reference/metrics.md`; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphserve.metrics.layout import BATCH_SIZE, BATCH_WAIT, CALL, QUEUE, REQUEST, SeriesKind

NANOSECONDS = 1_000_000_000  # in a second


@dataclass(frozen=True)
class Family:
    """A metric: all series of one name.

    Args:
        name: as it is written; of a counter it ends in `_total`.
        type: how its values behave.
        help: one sentence about it.
        labels: names, in order.
        kind: of the series that workers count, if it is a histogram.
        units: how many of what workers count in make one of the unit in the name.
    """

    name: str
    type: Literal["counter", "gauge", "histogram", "info"]
    help: str
    labels: tuple[str, ...] = ()
    kind: SeriesKind | None = None
    units: int = 1


REQUEST_DURATION = Family(
    "http_server_request_duration_seconds",
    "histogram",
    "Requests at the public port, from their head to the end of their answer.",
    ("service", "http_route", "http_request_method", "http_response_status_code"),
    REQUEST,
    NANOSECONDS,
)
CALL_DURATION = Family(
    "graphserve_call_duration_seconds",
    "histogram",
    "Calls to a dependency as their caller sees them, from being sent to their end.",
    ("caller", "service", "api", "outcome"),
    CALL,
    NANOSECONDS,
)

QUEUE_SECONDS = Family(
    "graphserve_queue_seconds",
    "histogram",
    "How long calls waited in the queue of a node until a worker took them.",
    ("service", "api"),
    QUEUE,
    NANOSECONDS,
)
IN_FLIGHT = Family(
    "graphserve_in_flight", "gauge", "Calls that the workers of a node execute now.", ("service",)
)
SLOTS = Family(
    "graphserve_slots",
    "gauge",
    "Calls that the ready workers of a node execute at once at most, of APIs that are limited.",
    ("service",),
)
QUEUE_LENGTH = Family(
    "graphserve_queue_length",
    "gauge",
    "Calls to a node that were sent and are not executed yet.",
    ("service",),
)
QUEUE_LIMIT = Family(
    "graphserve_queue_limit", "gauge", "Calls that may wait for a node.", ("service",)
)
WORKERS = Family("graphserve_workers", "gauge", "Workers in each state.", ("service", "state"))
RESTARTS = Family(
    "graphserve_worker_restarts_total",
    "counter",
    "Workers that were replaced though nobody asked for it.",
    ("service", "reason"),
)
START_SECONDS = Family(
    "graphserve_worker_start_seconds",
    "gauge",
    "How long each phase of the start took of the worker that is in a slot now.",
    ("service", "slot", "phase"),
)
RETRIES_TOTAL = Family(
    "graphserve_retries_total",
    "counter",
    "Calls that were sent again, since their worker was lost or had no memory for them.",
    ("caller", "service", "api"),
)
SHED_TOTAL = Family(
    "graphserve_shed_total",
    "counter",
    "Calls that a worker refused before it began them.",
    ("service", "reason"),
)
ABANDONED_TOTAL = Family(
    "graphserve_abandoned_total",
    "counter",
    "Calls that ran on after whoever made them had gone.",
    ("service",),
)
STREAM_ITEMS_TOTAL = Family(
    "graphserve_stream_items_total",
    "counter",
    "Items of streams that were made.",
    ("service", "api"),
)
BATCH_SIZES = Family(
    "graphserve_batch_size",
    "histogram",
    "Items that one execution of a batched API has got.",
    ("service", "api"),
    BATCH_SIZE,
)
BATCH_WAIT_SECONDS = Family(
    "graphserve_batch_wait_seconds",
    "histogram",
    "How long batches were collected, from their first call to their execution.",
    ("service", "api"),
    BATCH_WAIT,
    NANOSECONDS,
)
LOOP_LAG = Family(
    "graphserve_loop_lag_seconds",
    "gauge",
    "How late the event loop of a worker was at its last beat, or is now if that is overdue.",
    ("service", "slot"),
)
SHARED_MEMORY = Family(
    "graphserve_shared_memory_bytes",
    "gauge",
    "Shared memory that a worker holds for large arrays.",
    ("service", "slot"),
)
BUILD_INFO = Family(
    "graphserve_build_info", "gauge", "The versions that run; always 1.", ("version", "python")
)
CPU_SECONDS = Family(
    "process_cpu_seconds_total",
    "counter",
    "CPU time of the workers of a slot.",
    ("service", "slot"),
)
RESIDENT_MEMORY = Family(
    "process_resident_memory_bytes", "gauge", "Resident memory of a slot.", ("service", "slot")
)
OPEN_FDS = Family(
    "process_open_fds", "gauge", "Descriptors that a slot has open.", ("service", "slot")
)
START_TIME = Family(
    "process_start_time_seconds",
    "gauge",
    "When the worker of a slot was started, seconds since 1970.",
    ("service", "slot"),
)

FAMILIES = (
    REQUEST_DURATION,
    CALL_DURATION,
    RETRIES_TOTAL,
    QUEUE_SECONDS,
    IN_FLIGHT,
    SLOTS,
    QUEUE_LENGTH,
    QUEUE_LIMIT,
    BATCH_SIZES,
    BATCH_WAIT_SECONDS,
    STREAM_ITEMS_TOTAL,
    SHED_TOTAL,
    ABANDONED_TOTAL,
    WORKERS,
    RESTARTS,
    START_SECONDS,
    LOOP_LAG,
    SHARED_MEMORY,
    CPU_SECONDS,
    RESIDENT_MEMORY,
    OPEN_FDS,
    START_TIME,
    BUILD_INFO,
)
