"""The examples as their READMEs say: every command of them is run, and prints what stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, Page, skip_without_library
from tests.harness import rarely

EXAMPLES = ROOT / "examples"
READMES = [
    EXAMPLES / "hello/README.md",
    *(
        rarely(EXAMPLES / name / "README.md")
        for name in ("diamond", "fastapi", "library", "ported", "recommender", "speech", "tls")
    ),
]


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.parent.name)
def test_an_example_does_what_its_readme_says(readme: Path, tmp_path: Path) -> None:
    if readme.parent.name == "tls" and shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    skip_without_library(readme.parent.name)
    page = Page(readme, tmp_path)
    try:
        page.run()
    finally:
        page.close()


@pytest.mark.slow
def test_the_test_of_an_example_needs_pytest_alone() -> None:
    # what the tests of graphserve have
    without = ["-p", "no:timeout", "-p", "no:xdist", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *without, "examples/library/test_pipeline.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


DRAWN = {
    "hello/graph.svg": "app.py:Gateway",
    "fastapi/graph.svg": "app.py:Gateway",
    "diamond/graph.svg": "app.py:Report",
    "library/graph.svg": "pipeline.py:Pipeline",
    "ocr/../../docs/images/ocr.svg": "app.py:Gateway",
    "ocr/documents.svg": "documents.py:Documents",
    "recommender/graph.svg": "app.py:Gateway",
    "speech/graph.svg": "app.py:Gateway",
}


@pytest.mark.slow
@pytest.mark.parametrize("picture", DRAWN)
def test_a_picture_shows_the_graph(picture: str) -> None:
    skip_without_library(picture.partition("/")[0])
    command = [sys.executable, "-m", "graphserve", "graph", DRAWN[picture], "--format", "svg"]
    folder = EXAMPLES / picture.partition("/")[0]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    # the words in it, those for readers too: how they are drawn may change
    shown, now = (
        re.findall(r">([^<>]+)</(?!style)", svg)
        for svg in ((EXAMPLES / picture).read_text(), done.stdout)
    )
    assert shown == now and len(now) > 1, done.stderr


@pytest.mark.slow
def test_examples_are_typed(tmp_path: Path) -> None:
    for name in ("hello", "diamond", "fastapi", "library", "ported", "speech"):
        files = sorted(path.name for path in (EXAMPLES / name).glob("*.py"))
        # (what is installed is looked at once: the folders share a cache)
        command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), *files]
        done = subprocess.run(
            command, cwd=EXAMPLES / name, capture_output=True, text=True, timeout=250
        )
        assert done.returncode == 0, done.stdout


def test_every_example_is_in_the_index() -> None:
    listed = re.findall(r"\]\((\w+)/README\.md\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == sorted(path.parent.name for path in EXAMPLES.glob("*/README.md"))
