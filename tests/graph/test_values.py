"""Any value of any type that can be sent is the same after a hop, by socket and by shared memory; arrays read-only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apps import values
from tests.harness import APPS, Served, served

ROOT = APPS.parent.parent
EXAMPLES = 30  # of each kind


@pytest.fixture(scope="module", params=["64MiB", "0"], ids=["by_memory", "by_socket"])
def graph(request: pytest.FixtureRequest) -> Iterator[Served]:
    with served("tests.apps.values:Gateway", "--shared-memory", request.param, "--timeout", "110", cwd=ROOT) as graph:
        yield graph


@pytest.mark.parametrize("kind", [*values.PLAIN, *values.WITH_ARRAYS, *values.NESTED, *values.BY_REFERENCE])
def test_values_are_the_same_after_a_hop(graph: Served, kind: str) -> None:
    with graph.client() as client:
        answer = client.post("/holds", json={"name": kind, "examples": EXAMPLES}, timeout=110)
    assert answer.status_code == 200, answer.text
    assert answer.json() == "", f"{values.KINDS[kind][0]}\n{answer.json()}"
