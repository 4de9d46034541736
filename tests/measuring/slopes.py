"""The line through samples, to tell what grows from what only varies."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """By how much the second figure of the samples grows a unit of the first, by least squares."""
    return statistics.linear_regression(*zip(*samples, strict=True)).slope
