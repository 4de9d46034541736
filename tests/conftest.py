"""What every test may use."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A path for a run folder, short enough for Unix sockets; nothing is there yet."""
    parent = Path(tempfile.mkdtemp(prefix="gs-test-"))
    yield parent / "run"
    shutil.rmtree(parent, ignore_errors=True)
