"""Three times what a graph can do: most calls are refused, the others are answered.

How many, `nox -s faults` says.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.apps.overload import CAPACITY
from tests.harness import APPS, Served, eventually, served
from tests.overload import Outcome, measure

pytestmark = pytest.mark.slow

ROOT = APPS.parent.parent
TIMEOUT = 0.6  # seconds
SHED = "Gateway sheds calls of work: the queue of Model is full"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a byte for each call of `work` that was executed."""
    path = tmp_path_factory.mktemp("overload") / "executed"
    path.touch()
    return path


@pytest.fixture(scope="module")
def graph(executed: Path) -> Iterator[Served]:
    with served(
        "tests.apps.overload:Gateway", cwd=ROOT, env={"OVERLOAD_COUNT": str(executed)}
    ) as graph:
        yield graph


@pytest.mark.parametrize("path", ["/work", "/batched"])
def test_under_overload_calls_are_refused_and_others_answered(
    graph: Served, executed: Path, path: str
) -> None:
    before = executed.stat().st_size
    outcome = measure(graph, path, 3 * CAPACITY, 4, TIMEOUT)
    assert outcome.statuses[503] and outcome.statuses[200], outcome
    assert set(outcome.statuses) <= {0, 200, 503, 504} and not outcome.statuses[0], outcome
    assert outcome.statuses.total() == outcome.sent, "each call has one answer"
    if path == "/work":
        answered, late = outcome.statuses[200], outcome.statuses[504]
        ran = executed.stat().st_size - before
        assert answered <= ran <= answered + late, (
            "what is refused costs its node nothing, and nothing runs twice"
        )
    with graph.client() as client:  # and it is over when it is over
        eventually(lambda: client.post(path, json={"x": 1}).status_code == 200)


def test_async_apis_that_compute_too_much_are_shed(graph: Served) -> None:
    """What bounds them is their event loop: some calls are refused, so that the others are in
    time.
    """
    outcome = measure(graph, "/compute", 3 * CAPACITY, 5, 1.0)
    assert outcome.statuses[503] and outcome.statuses[200], outcome
    assert set(outcome.statuses) <= {0, 200, 503, 504} and not outcome.statuses[0], outcome
    with graph.client() as client:
        eventually(lambda: client.post("/compute", json={"x": 1}).status_code == 200)


def test_the_entry_sheds_what_would_end_at_a_full_queue() -> None:
    with (
        served("tests.apps.overload:Gateway", "--set", "Model.queue=1", cwd=ROOT) as graph,
        graph.client() as client,
    ):
        outcomes: list[Outcome] = []
        load = threading.Thread(
            target=lambda: outcomes.append(measure(graph, "/work", 5 * CAPACITY, 4, 5.0))
        )
        load.start()
        eventually(lambda: said(client) == SHED)
        load.join()
        assert outcomes[0].statuses[200], outcomes[0]
        eventually(lambda: client.post("/work", json={"x": 1}).status_code == 200, 5)


def said(client: httpx.Client) -> Any:
    answer = client.post("/work", json={"x": 1})
    return answer.status_code == 503 and answer.json()["detail"]
