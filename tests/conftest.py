"""What every test may use."""

from __future__ import annotations

import gc
import shutil
import signal
import ssl
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest

from graphserve.system.inherited import do_nothing, is_ignored
from tests.harness import Served
from tests.steering import Steered

# Under nohup, or in a background job of a script: that a signal is ignored would go on to what
# tests start.
for number in (signal.SIGINT, signal.SIGHUP):
    if is_ignored(number):
        signal.signal(number, do_nothing)

# Each client of httpx reads the certificates of all authorities anew, which is most of what a short
# test costs: those that say nothing of certificates share them.
_context = httpx.create_ssl_context()


def _create_ssl_context(
    verify: Any = True, cert: Any = None, trust_env: bool = True
) -> ssl.SSLContext:
    return (
        _context
        if verify is True and cert is None
        else httpx.create_ssl_context(verify, cert, trust_env)
    )


httpx._transports.default.create_ssl_context = _create_ssl_context

# A busy machine is slow; how long anything takes is asserted nowhere.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


def pytest_collection_finish() -> None:
    """What thousands of tests are made of stays until the end: no garbage collection of a test has
    to look at it.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a test that fails, show the logs of the graphs that still run: those that its module
    shares.
    """
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


@pytest.fixture
def steered(tmp_path: Path) -> Iterator[Steered]:
    """Make the sources of a graph, and a runtime folder in which no other graph is."""
    with tempfile.TemporaryDirectory(prefix="gs-test-") as runtime:
        yield Steered(tmp_path, Path(runtime))


@pytest.fixture
def graph(steered: Steered) -> Iterator[Served]:
    """Run the steered graph, and end it after the test."""
    graph = steered.serve()
    try:
        yield graph.wait_ready()
    finally:
        graph.close()
