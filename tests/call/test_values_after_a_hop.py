"""Any value of any type that can be sent is the same after a hop, by socket and by shared memory;
arrays read-only.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apps import values
from tests.harness import APPS, Served, served

pytestmark = pytest.mark.slow

ROOT = APPS.parent.parent
EXAMPLES = 30  # of each kind


@pytest.fixture(scope="module", params=["64MiB", "0"], ids=["by_memory", "by_socket"])
def graph(request: pytest.FixtureRequest) -> Iterator[Served]:
    with served(
        "tests.apps.values:Gateway", "--shared-memory", request.param, "--timeout", "110", cwd=ROOT
    ) as graph:
        graph.cap = request.param  # type: ignore[attr-defined]
        yield graph


@pytest.mark.parametrize(
    "kind", [*values.PLAIN, *values.WITH_ARRAYS, *values.NESTED, *values.BY_REFERENCE]
)
def test_values_are_the_same_after_a_hop(graph: Served, kind: str) -> None:
    with graph.client() as client:
        answer = client.post("/holds", json={"name": kind, "examples": EXAMPLES}, timeout=110)
    assert answer.status_code == 200, answer.text
    assert answer.json() == "", f"{values.KINDS[kind][0]}\n{answer.json()}"


def test_items_of_streams_are_the_same_after_a_hop(graph: Served) -> None:
    with graph.client() as client:
        assert client.post("/streams", json={"examples": EXAMPLES}, timeout=110).json() == ""


def test_large_values_took_the_way_that_they_should(graph: Served) -> None:
    with graph.client() as client:
        assert client.post("/holds", json={"name": "large", "examples": 5}).json() == ""
        sent, answered = client.post("/facts", json={}).json()
    by_memory = graph.cap != "0"  # type: ignore[attr-defined]
    assert [facts["memfd"] > 0 for facts in (sent, answered)] == [by_memory, by_memory]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("surrogates", "surrogates not allowed"),
        ("objects", "give it a dtype of numbers"),
        ("masked", "fill it first"),
        ("unknown", "cannot be sent"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_the_caller(graph: Served, kind: str, says: str) -> None:
    with graph.client() as client:
        answer = client.post("/refused", json={"kind": kind}).json()
    assert answer.startswith("Echo: ") and "argument 'value'" in answer and says in answer
