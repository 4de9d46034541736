"""A small project on disk, and the real command in a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

APP = """
from graphserve import api, depends, service

@service(workers=2)
class Recognizer:
    @api
    def read(self, crops: list[str]) -> list[str]:
        return [crop.upper() for crop in crops]

@service
class Gateway:
    recognizer = depends(Recognizer)

    @api
    async def ocr(self, crops: list[str]) -> list[str]:
        return await self.recognizer.read(crops)
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with app.py: Gateway calls Recognizer."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment without options for graphserve."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GRAPHSERVE_")}


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str]) -> Run:
    """Runs `graphserve …` in the test's folder until it ends."""

    def start(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "graphserve", *arguments],
            cwd=tmp_path, env=environment | more, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return start
