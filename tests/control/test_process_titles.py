"""Processes are named after node and slot, for who looks with `ps` and `top`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphserve.system.process_title import COMM_BYTES, _fit, _short
from tests.harness import children, command, served


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")


def test_workers_have_the_names_of_their_nodes_and_slots() -> None:
    with served("steps:Gateway", "--scale", "Slow=2") as graph:
        shown = {
            (command(pid)[0], comm(pid)) for pid in children(graph.pid) if "worker" in command(pid)
        }
        assert shown == {
            ("graphserve: Slow[0]", "Slow[0]"),
            ("graphserve: Slow[1]", "Slow[1]"),
            ("graphserve: Gateway[0]", "Gateway[0]"),
        }
        listed = subprocess.run(
            ["ps", "-o", "args=", "--ppid", str(graph.pid)], capture_output=True, text=True
        )
        assert "graphserve: Slow[1] worker n0" in listed.stdout.splitlines()
        pid, *_ = graph.workers("n0")
        assert b"PATH=" in Path(f"/proc/{pid}/environ").read_bytes(), (
            "the environment lies behind, and is whole"
        )


def test_a_name_in_fifteen_bytes() -> None:
    assert _short("Recognizer[2]") == "Recognizer[2]"
    assert _short("TheVeryLongRecognizer[12]") == "TheVeryLong[12]"
    assert len(_short("TheVeryLongRecognizer[12]")) == COMM_BYTES
    assert _short("supervisor") == "supervisor"


@pytest.mark.parametrize("room", [1, 5, 12, 30, 31, 200])
def test_a_title_fits_into_what_is_there(room: int) -> None:
    made = _fit("Recognizer[2]", ("worker", "n0"), room)
    assert len(made) == room
    if room == 200:
        assert made.rstrip(b"\0") == b"graphserve: Recognizer[2]\0worker\0n0"
    if room == 30:
        assert made == b"graphserve: Recogni\0worker\0n0\0"


def test_what_python_knows_of_its_command_line_stays() -> None:
    code = (
        "import sys\n"
        "from graphserve.system.process_title import name_process\n"
        "before = [*sys.argv], [*sys.orig_argv]\n"
        "name_process('A[0]', 'worker')\n"
        "assert (sys.argv, sys.orig_argv) == before\n"
        "print(open('/proc/self/cmdline').read().rstrip(chr(0)).replace(chr(0), '|'), open('/proc/self/comm').read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=os.path.dirname(__file__)
    )
    assert done.stdout.split() == ["graphserve:", "A[0]|worker", "A[0]"], done.stderr
