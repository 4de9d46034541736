"""Metrics as text: the format of Prometheus (0.0.4), and OpenMetrics (1.0.0). Runs in the
supervisor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from graphserve.metrics.families import Family

PLAIN = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
_OPENMETRICS_NAME = b"application/openmetrics-text"
_QUALITY = re.compile(rb";\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*$")


@dataclass(frozen=True)
class Sample:
    """One series of a metric, now.

    Args:
        labels: values, in the order of the metric's labels.
        value: of a counter or a gauge.
        counts: of a histogram: the observations in each bucket, the last one without a bound, and
            behind them their sum, in the unit that was counted in.
    """

    labels: tuple[str, ...]
    value: float = 0
    counts: Sequence[int] = ()


def wants_openmetrics(accept: bytes) -> bool:
    """Return whether who sends this Accept header would rather have OpenMetrics than plain text."""
    qualities: dict[bytes, float] = {}
    for item in accept.lower().split(b","):
        name = item.partition(b";")[0].strip()
        found = _QUALITY.search(item)
        quality = float(found[1]) if found else 1.0
        qualities[name] = max(quality, qualities.get(name, 0.0))
    openmetrics = qualities.get(_OPENMETRICS_NAME, 0.0)
    plain = max(qualities.get(b"text/plain", 0.0), qualities.get(b"text/*", 0.0))
    return openmetrics > 0 and openmetrics >= plain


def written(found: Mapping[Family, Iterable[Sample]], *, openmetrics: bool = False) -> str:
    """Return metrics as text.

    Args:
        found: the series of each metric; one without any is left out.
        openmetrics: whether in that format, and not in the plain one.
    """
    lines: list[str] = []
    for family, samples in found.items():
        ordered = sorted(samples, key=lambda sample: sample.labels)
        if not ordered:
            continue
        # OpenMetrics names the counter, Prometheus its only sample
        name = family.name.removesuffix("_total") if openmetrics else family.name
        lines.append(f"# HELP {name} {_escaped_help(family.help)}")
        lines.append(f"# TYPE {name} {family.type}")
        for sample in ordered:
            if family.type == "histogram":
                lines += _histogram(family, sample)
            else:
                braces = _braces(_pairs(family.labels, sample.labels))
                lines.append(f"{family.name}{braces} {_number(sample.value)}")
    if openmetrics:
        lines.append("# EOF")
    return "\n".join([*lines, ""])


def _histogram(family: Family, sample: Sample) -> Iterable[str]:
    assert family.kind is not None
    pairs = _pairs(family.labels, sample.labels)
    comma = "," if pairs else ""
    count = 0
    for bound, number in zip(family.kind.bounds, sample.counts, strict=False):
        count += number
        yield f'{family.name}_bucket{{{pairs}{comma}le="{_bound(family, bound)}"}} {count}'
    count += sample.counts[len(family.kind.bounds)]
    yield f'{family.name}_bucket{{{pairs}{comma}le="+Inf"}} {count}'
    braces = _braces(pairs)
    yield f"{family.name}_sum{braces} {_number(sample.counts[-1] / family.units)}"
    yield f"{family.name}_count{braces} {count}"


def _bound(family: Family, bound: int) -> float:
    return float(f"{bound / family.units:g}")


def _pairs(names: Iterable[str], values: Iterable[str]) -> str:
    return ",".join(
        f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)
    )


def _braces(pairs: str) -> str:
    return f"{{{pairs}}}" if pairs else ""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escaped_help(words: str) -> str:
    return words.replace("\\", "\\\\").replace("\n", "\\n")
