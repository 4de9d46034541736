"""Commands of a user who may not see everything: a line says what is not allowed."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from graphserve.cli import WITH_GRAPH
from tests.another_user import as_user, python
from tests.harness import served


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of this user that no other may look into, in one that all may."""
    with tempfile.TemporaryDirectory(prefix="gs-test-") as name:
        Path(name).chmod(0o755)
        private = Path(name, "private")
        private.mkdir(mode=0o700)
        yield private


def run_there(
    folder: Path, *arguments: str, more: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """`graphserve …` of another user, whose current folder this is."""
    words = [*as_user(*more), *python(), "-m", "graphserve", *arguments]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_file_that_may_not_be_seen(folder: Path) -> None:
    done = run_there(folder.parent, "check", str(folder / "app.py:Gateway"), "--port", "0")
    reason = f"this user may not look into {str(folder)!r}"
    assert done.stderr == f"Error: there is no file {str(folder / 'app.py')!r}: {reason}\n"
    assert done.returncode == 4


def test_a_current_folder_that_may_not_be_seen(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.graphserve]\nrun-dir = "run"\n')
    done = run_there(folder, "ps")
    assert (done.returncode, done.stderr.startswith("Error: no graph of this user is running")) == (
        5,
        True,
    )
    done = run_there(folder, "check", "app:Gateway", "--port", "0")
    reason = f"this user may not read {folder}; --app-dir names another folder"
    assert done.stderr == f"Error: there is no module 'app' ({reason})\n"


def test_a_run_folder_where_this_user_may_not_look(folder: Path) -> None:
    (folder.parent / "app.py").write_text("from graphserve import api, service\n\n\n@service\nclass A:\n    @api\n"
                                          "    async def x(self) -> int:\n        return 1\n")  # fmt: skip
    done = run_there(
        folder.parent, "check", "app:A", "--port", "0", "--run-dir", str(folder / "run")
    )
    assert done.stderr.startswith(
        f"Error: the run folder {folder / 'run'} cannot be used: this user may not do that"
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)


# What reads every file may still not connect to a socket.
READER = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def test_a_graph_of_another_user(folder: Path) -> None:
    run_dir = folder / "run"
    denied = (
        f"Error: this user may not look into {run_dir}: run this as the user who started the graph"
        " there\n"
    )
    with served("diamond:Top", "--run-dir", str(run_dir)):
        for name in WITH_GRAPH:
            done = run_there(
                folder.parent,
                name,
                *(["Top=1"] if name == "scale" else []),
                "--run-dir",
                str(run_dir),
            )
            assert (done.returncode, done.stderr) == (1, denied)
        done = run_there(folder.parent, "ps", "--run-dir", str(run_dir), more=READER)
        assert (done.returncode, done.stderr) == (1, denied)
