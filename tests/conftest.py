"""What every test may use."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.harness import Served


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a test that fails, show the logs of the graphs that still run: those that its module shares."""
    report = yield
    if report.failed:
        report.sections += [(f"log of {graph.url}", graph.text) for graph in Served.open]
    return report


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A path for a run folder, short enough for Unix sockets; nothing is there yet."""
    parent = Path(tempfile.mkdtemp(prefix="gs-test-"))
    yield parent / "run"
    shutil.rmtree(parent, ignore_errors=True)
