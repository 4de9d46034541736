"""The table of all metrics: names, types, labels, and what each one means. Runs in the supervisor.

Names are those of OpenTelemetry where it has some, as Prometheus writes them. A metric that is
added here gets its row in `docs/reference/metrics.md`; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphserve.metrics.layout import CALL, REQUEST, SeriesKind

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

FAMILIES = (REQUEST_DURATION, CALL_DURATION)
