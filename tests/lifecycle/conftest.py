"""What tests of the life cycle share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short path: those of sockets are limited."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
