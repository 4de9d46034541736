"""The examples as their READMEs say: every command of them is run, and prints what stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, Page
from tests.harness import rarely

EXAMPLES = ROOT / "examples"
READMES = [
    EXAMPLES / "hello/README.md",
    *(
        rarely(EXAMPLES / name / "README.md")
        for name in ("diamond", "library", "ported", "speech", "tls")
    ),
]


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.parent.name)
def test_an_example_does_what_its_readme_says(readme: Path, tmp_path: Path) -> None:
    if readme.parent.name == "tls" and shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
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


def test_every_example_is_in_the_index() -> None:
    listed = re.findall(r"\]\((\w+)/README\.md\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == sorted(path.parent.name for path in EXAMPLES.glob("*/README.md"))
