"""What the machine refuses a command before there is a graph: one line, and no traceback of
ours.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from graphserve.cli import COMMANDS, WITH_TARGET

Shell = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shell(project: Path, environment: dict[str, str]) -> Shell:
    """Runs a line of bash in the folder of `project`; `graphserve` is the real one."""
    ours = f'graphserve() {{ "{sys.executable}" -m graphserve "$@"; }}\n'

    def run(line: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", ours + line],
            cwd=project,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def arguments(name: str) -> str:
    return " app:Gateway" if name in WITH_TARGET else " Model=2" if name == "scale" else ""


@pytest.mark.parametrize(("name", "code"), [("serve", 3), ("check", 4), ("ps", 5)])
def test_no_temporary_folder(name: str, code: int, shell: Shell, tmp_path: Path) -> None:
    # (Where no byte may be written to a file, no folder is a temporary one.)
    done = shell(
        f"ulimit -f 0; graphserve {name}{arguments(name)}", XDG_RUNTIME_DIR="", GRAPHSERVE_PORT="0"
    )
    assert done.returncode == code, done.stderr
    assert (
        "there is no temporary folder that can be written to: set XDG_RUNTIME_DIR or TMPDIR"
        in done.stderr
    )
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_a_current_folder_that_was_removed(name: str, shell: Shell) -> None:
    done = shell(f"mkdir gone; cd gone; rmdir ../gone; graphserve {name}{arguments(name)}")
    assert done.returncode == 4
    assert (
        done.stderr
        == "Error: the current folder cannot be used, it was removed: change to another one\n"
    )


def test_an_output_without_unicode(shell: Shell) -> None:
    done = shell("graphserve graph app:Gateway", PYTHONIOENCODING="ascii")
    assert done.stdout == "Gateway  1 worker\n`-- Recognizer  2 workers, 1 at once\n"
    done = shell(
        "graphserve graph app:Gateway -o graph.txt && cat graph.txt", PYTHONIOENCODING="ascii"
    )
    assert "└── Recognizer" in done.stdout, "a file has no terminal's limits"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("name", ["graph", "check"])
def test_an_output_that_is_full(name: str, unbuffered: str, shell: Shell) -> None:
    done = shell(
        f"graphserve {name} app:Gateway > /dev/full",
        PYTHONUNBUFFERED=unbuffered,
        GRAPHSERVE_PORT="0",
    )
    assert (done.returncode, done.stderr) == (
        1,
        "Error: the output cannot be written: No space left on device\n",
    )


def test_an_output_that_is_closed(shell: Shell) -> None:
    done = shell("graphserve graph app:Gateway >&-")
    assert (done.returncode, done.stderr) == (
        1,
        "Error: there is no output to draw on, it is closed: give -o FILE\n",
    )
    assert shell(
        "graphserve graph app:Gateway -o graph.txt >&- && cat graph.txt"
    ).stdout.startswith("Gateway")
    done = shell("graphserve check app:Gateway >&-", GRAPHSERVE_PORT="0")
    assert (done.returncode, done.stderr) == (0, "")
