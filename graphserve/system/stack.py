"""The stack of a process: where it hangs, or is at this moment, because somebody asks by a signal.

Children that run user code write it; the process that started them reads it. At `SIGNAL` they write
it to their stderr and end. Workers have two more signals, at which they write it into memory of
their own and go on (`worker/stacks.py`).
"""

from __future__ import annotations

import contextlib
import faulthandler
import linecache
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType

# The last one: user code and its libraries hardly use it, and its default is to end the process
# without a core dump.
SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
# The two before it: a worker writes where it is, in Python at the first and in C at the second.
ASK = SIGNAL - 1
ASK_IN_C = SIGNAL - 2
# The name of the memory that it writes to, and its descriptor behind that: no other file has it.
# (no value that is sent lies there: those segments are `graphserve`)
MEMORY_NAME = "stack-of-graphserve-"
WRITE_TIMEOUT = 1.0  # seconds that a process has to write its stack and to end, before it is killed
_THREAD = re.compile(r"(Current t|T)hread 0x[0-9a-f]+.* \(most recent call first\):$")
_FRAME = re.compile(r'  File "(?P<file>.+)", line (?P<line>\d+) in (?P<name>.+)$')
_BETWEEN = ("", "  ...", "  <no Python frame>")  # other lines of it
Frame = tuple[str, int, str]  # file, line, name of the function
_OURS = str(Path(__file__).parents[1]) + os.sep
_PYTHON = str(Path(os.__file__).parent) + os.sep
_shows = False  # whether this process writes its stack at the signal


def show_on_signal() -> None:
    """Have this process write the stack of each thread to its stderr when the signal comes,
    and end by it.
    """
    global _shows
    _shows = True
    faulthandler.register(SIGNAL, file=2, all_threads=True, chain=True)


@contextlib.contextmanager
def awaiting(awaitable: object) -> Iterator[None]:
    """Have the signal show also where a coroutine waits, which is in the stack of no thread;
    on the main thread.
    """
    if not _shows:
        yield
        return

    def show(number: int, frame: FrameType | None) -> None:
        frames = reversed(awaited(awaitable))
        lines = "".join(f'  File "{file}", line {line} in {name}\n' for file, line, name in frames)
        os.write(2, f"Thread {id(awaitable):#x} (most recent call first):\n{lines}".encode())
        signal.signal(SIGNAL, signal.SIG_DFL)
        os.kill(os.getpid(), SIGNAL)

    _chain(show)
    try:
        yield
    finally:
        _chain(signal.SIG_DFL)


def _chain(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Have the signal call this once the stacks of the threads are written."""
    faulthandler.unregister(SIGNAL)
    signal.signal(SIGNAL, handler)
    show_on_signal()


def awaited(awaitable: object) -> list[Frame]:
    """Return the frames of a coroutine that waits, the innermost last; none while it runs: a thread
    has them then.
    """
    return [described_frame(frame) for frame in awaited_frames(awaitable)]


def awaited_frames(awaitable: object) -> Iterator[FrameType]:
    """Yield the same as they are."""
    while awaitable is not None and not getattr(awaitable, "cr_running", False):
        frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        if frame is not None:
            yield frame
        awaitable = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)


def described_frame(frame: FrameType) -> Frame:
    """Return where a frame is."""
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name


def of_error(error: BaseException | None) -> str:
    """Return where an error was raised, as a stack; empty if that is not in user code."""
    summary = traceback.extract_tb(error.__traceback__) if error is not None else []
    return shown([(each.filename, each.lineno or 0, each.name) for each in summary])


def of_threads(threads: Iterable[threading.Thread]) -> str:
    """Return where threads of this process are in user code; empty if none is."""
    current = sys._current_frames()
    stacks = [
        traceback.extract_stack(current[thread.ident])
        for thread in threads
        if thread.ident in current
    ]
    return "\n".join(
        filter(
            None,
            (
                shown([(each.filename, each.lineno or 0, each.name) for each in stack])
                for stack in stacks
            ),
        )
    )


def shown(frames: Iterable[Frame]) -> str:
    """Return frames as Python prints a traceback, from the first one of user code on; empty if
    there is none.

    Args:
        frames: the innermost last.
    """
    lines = "".join(map(line_of, of_user(frames)))
    return f"Stack (most recent call last):\n{lines}" if lines else ""


class Stack:
    """Reads what a process writes, line by line, from the moment it was sent the signal."""

    def __init__(self) -> None:
        self.threads: list[list[Frame]] = []  # the innermost frame of each first

    def takes(self, line: str) -> bool:
        """Take a line, and return whether it belongs to the stack."""
        if _THREAD.match(line):
            self.threads.append([])
        elif self.threads and (frame := _FRAME.match(line)):
            self.threads[-1].append((frame["file"], int(frame["line"]), frame["name"]))
        else:
            return bool(self.threads) and line in _BETWEEN
        return True

    def __str__(self) -> str:
        """Return the threads that were in user code, as Python prints a traceback;
        empty if none was.
        """
        linecache.checkcache()  # sources are edited
        # The thread that the signal interrupted, which mostly is the main one, comes last: it goes
        # first.
        return "\n".join(
            filter(None, (shown(reversed(thread)) for thread in reversed(self.threads)))
        )


def of_user(frames: Iterable[Frame]) -> list[Frame]:
    """Return the frames from the first one of user code on, without those of the import system."""
    shown: list[Frame] = []
    for file, line, name in frames:
        if not file.startswith("<frozen ") and (shown or not is_machinery(file)):
            shown.append((file, line, name))
    return shown


def is_machinery(file: str) -> bool:
    """Return whether code of this file is ours, Python's own, or the event loop's: it calls user
    code, and is none.
    """
    packages = f"{os.sep}site-packages{os.sep}"
    return file.startswith((_OURS, "<frozen ", "uvloop/")) or (
        file.startswith(_PYTHON) and packages not in file
    )


def line_of(frame: Frame) -> str:
    """Return a frame as a traceback has it, with its line of source if that can be read."""
    file, line, name = frame
    source = linecache.getline(file, line).strip()
    return f'  File "{file}", line {line}, in {name}\n' + (f"    {source}\n" if source else "")
