"""A graph that commands can steer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.graph.steering import Steered
from tests.harness import Served


@pytest.fixture
def steered(tmp_path: Path) -> Iterator[Steered]:
    """Sources of a graph, and a runtime folder in which no other graph is."""
    with tempfile.TemporaryDirectory(prefix="gs-test-") as runtime:
        yield Steered(tmp_path, Path(runtime))


@pytest.fixture
def graph(steered: Steered) -> Iterator[Served]:
    """The steered graph, ready."""
    graph = steered.serve()
    try:
        yield graph.wait_ready()
    finally:
        graph.close()
