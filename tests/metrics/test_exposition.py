"""Metrics as text, in both formats."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import graphserve
from graphserve.metrics.exposition import Sample, wants_openmetrics, written
from graphserve.metrics.families import FAMILIES, Family
from graphserve.metrics.layout import SECONDS, SeriesKind

COUNTER = Family("things_total", "counter", "Things that came.", ("name",))
GAUGE = Family("level", "gauge", "How high \\ it\nis.")
HISTOGRAM = Family(
    "size_bytes", "histogram", "Sizes.", ("of",), SeriesKind(9, (1000, 2000, 5_000_000)), 1000
)
FOUND = {
    COUNTER: [Sample(('a"b\\c\nd',), 2), Sample(("a",), 1)],
    GAUGE: [Sample((), 0.25)],
    HISTOGRAM: [Sample(("x",), counts=[1, 0, 2, 4, 123_456])],
    Family("none", "gauge", "Nobody has it."): [],
}
PLAIN = r"""# HELP things_total Things that came.
# TYPE things_total counter
things_total{name="a"} 1
things_total{name="a\"b\\c\nd"} 2
# HELP level How high \\ it\nis.
# TYPE level gauge
level 0.25
# HELP size_bytes Sizes.
# TYPE size_bytes histogram
size_bytes_bucket{of="x",le="1.0"} 1
size_bytes_bucket{of="x",le="2.0"} 1
size_bytes_bucket{of="x",le="5000.0"} 3
size_bytes_bucket{of="x",le="+Inf"} 7
size_bytes_sum{of="x"} 123.456
size_bytes_count{of="x"} 7
"""


def test_the_text_of_prometheus() -> None:
    assert written(FOUND) == PLAIN


def test_the_text_of_openmetrics() -> None:
    named = PLAIN.replace("HELP things_total", "HELP things").replace("TYPE things_total", "TYPE things")  # fmt: skip
    assert written(FOUND, openmetrics=True) == named + "# EOF\n"


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (b"", False),
        (b"*/*", False),
        (b"text/plain", False),
        (b"application/openmetrics-text", True),
        (b"Application/OpenMetrics-Text; version=1.0.0", True),
        (
            b"application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;"
            b"version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            True,
        ),
        (b"application/openmetrics-text;q=0.1, text/plain", False),
        (b"application/openmetrics-text;q=0", False),
        (b"application/openmetrics-text;q=nonsense", True),
        (b";;;,,,q=1;q=9", False),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: bytes, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted


PAGE = Path(graphserve.__file__).parents[1] / "docs" / "reference" / "metrics.md"


def test_the_reference_has_all_metrics() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines()]
    written = {row[0].strip("`"): row[1:] for row in rows if len(row) == 4 and row[0][0] == "`"}
    assert written == {
        family.name: [family.type, ", ".join(f"`{label}`" for label in family.labels) or "–", family.help]
        for family in FAMILIES
    }  # fmt: skip


def test_the_reference_has_all_buckets() -> None:
    (line,) = re.findall(r"Buckets of seconds end at (.*?);", PAGE.read_text())
    assert [float(each) for each in re.split(", | and ", line)] == [
        bound / 1e9 for bound in SECONDS
    ]


def test_no_two_metrics_have_one_name() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert all(family.name.endswith("_total") is (family.type == "counter") for family in FAMILIES)
