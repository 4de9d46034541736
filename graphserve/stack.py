"""The stack of a process that hangs: it writes it to its stderr at a signal, and ends; who watches it reads it there.

Used in the children that run user code, and in the process that started them.
"""

from __future__ import annotations

import faulthandler
import linecache
import os
import re
import signal
from collections.abc import Iterable
from pathlib import Path

# The last one: user code and its libraries hardly use it, and its default is to end the process without a core dump.
SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
PATIENCE = 1.0  # seconds that a process has to write its stack and to end, before it is killed
_THREAD = re.compile(r"(Current t|T)hread 0x[0-9a-f]+.* \(most recent call first\):$")
_FRAME = re.compile(r'  File "(?P<file>.+)", line (?P<line>\d+) in (?P<name>.+)$')
_BETWEEN = ("", "  ...", "  <no Python frame>")  # other lines of it
_OURS = str(Path(__file__).parent) + os.sep
_PYTHON = str(Path(os.__file__).parent) + os.sep


def show_on_signal() -> None:
    """Have this process write the stack of each thread to its stderr when the signal comes, and end by it."""
    faulthandler.register(SIGNAL, file=2, all_threads=True, chain=True)


class Stack:
    """What a process wrote, line by line, since it was sent the signal."""

    def __init__(self) -> None:
        self._threads: list[list[tuple[str, int, str]]] = []

    def takes(self, line: str) -> bool:
        """Take in a line; False: it is of something else."""
        if _THREAD.match(line):
            self._threads.append([])
        elif self._threads and (frame := _FRAME.match(line)):
            self._threads[-1].append((frame["file"], int(frame["line"]), frame["name"]))
        else:
            return bool(self._threads) and line in _BETWEEN
        return True

    def __str__(self) -> str:
        """The threads that were in user code, as Python prints a traceback; empty if none was."""
        linecache.checkcache()  # sources are edited
        # The thread that the signal interrupted, which mostly is the main one, comes last: it goes first.
        found = [frames for thread in reversed(self._threads) if (frames := _of_user(reversed(thread)))]
        return "\n".join("Stack (most recent call last):\n" + "".join(map(_frame, frames)) for frames in found)


def _of_user(frames: Iterable[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
    """From the first frame of user code on, without those of the import system."""
    shown: list[tuple[str, int, str]] = []
    for file, line, name in frames:
        if not file.startswith("<frozen") and (shown or not _is_machinery(file)):
            shown.append((file, line, name))
    return shown


def _is_machinery(file: str) -> bool:
    packages = f"{os.sep}site-packages{os.sep}"
    return file.startswith(_OURS) or (file.startswith(_PYTHON) and packages not in file)


def _frame(frame: tuple[str, int, str]) -> str:
    file, line, name = frame
    source = linecache.getline(file, line).strip()
    return f'  File "{file}", line {line}, in {name}\n' + (f"    {source}\n" if source else "")
