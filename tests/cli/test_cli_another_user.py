"""Commands of a user who may not see everything: a line says what is not allowed."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.another_user import as_user, python


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of this user that no other may look into, in one that all may."""
    with tempfile.TemporaryDirectory(prefix="gs-test-") as name:
        Path(name).chmod(0o755)
        private = Path(name, "private")
        private.mkdir(mode=0o700)
        yield private


def run_there(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`graphserve …` of another user, whose current folder this is."""
    words = [*as_user(), *python(), "-m", "graphserve", *arguments]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_file_that_may_not_be_seen(folder: Path) -> None:
    done = run_there(folder.parent, "check", str(folder / "app.py:Gateway"), "--port", "0")
    reason = f"this user may not look into {str(folder)!r}"
    assert done.stderr == f"Error: there is no file {str(folder / 'app.py')!r}: {reason}\n"
    assert done.returncode == 4


def test_a_current_folder_that_may_not_be_seen(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.graphserve]\nrun-dir = "run"\n')
    done = run_there(folder, "ps")
    assert (done.returncode, done.stderr.startswith("Error: no graph of this user is running")) == (5, True)
    done = run_there(folder, "check", "app:Gateway", "--port", "0")
    reason = f"this user may not read {folder}; --app-dir names another folder"
    assert done.stderr == f"Error: there is no module 'app' ({reason})\n"
