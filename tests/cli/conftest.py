"""A small project on disk, and the real command in a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from graphserve.cli import main

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
STARTS_NOTHING = ("graph", "check")  # but the process that imports the user's modules


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with app.py: Gateway calls Recognizer."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment without options for graphserve, but for a free port: another test may have
    the usual one.
    """
    return {
        name: value for name, value in os.environ.items() if not name.startswith("GRAPHSERVE_")
    } | {"GRAPHSERVE_PORT": "0"}


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str]) -> Run:
    """Runs `graphserve …` in the test's folder until it ends."""

    def start(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "graphserve", *arguments],
            cwd=tmp_path, env=environment | more, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return start


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs `graphserve graph …` or `graphserve check …` as `run` does, but for a process of its own.

    Modules of the user are imported in one, as ever.
    """
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GRAPHSERVE_")]:
        monkeypatch.delenv(name)

    def call(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        assert arguments[0] in STARTS_NOTHING
        with monkeypatch.context() as environment:
            for name, value in more.items():
                environment.setenv(name, value)
            code = main(arguments)
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return call
