"""Standard input, output and error of our processes: always open, always what they should be. Used at their very start.

A process may be started without them (`<&- >&-`). The next file that it opens then has the number 0, 1 or 2, and
whoever reads or prints gets at that file.
"""

from __future__ import annotations

import fcntl
import os
import sys

_NAMES = ("stdin", "stdout", "stderr")
closed: set[int] = set()  # those that this process was started without


def open_standard() -> list[str]:
    """Open those of the three descriptors that are closed, on /dev/null, and the files of `sys` for them.

    Returns:
        Which descriptors were closed.
    """
    opened = []
    for descriptor, name in enumerate(_NAMES):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.add(descriptor)
            opened.append(name)
            _put_null(descriptor)
        if getattr(sys, name) is None:  # it was closed when the interpreter began
            closed.add(descriptor)
            mode = "w" if descriptor else "r"
            file = open(descriptor, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, file)
            setattr(sys, f"__{name}__", file)
    return opened


def take_input() -> int:
    """What stands at descriptor 0, under a number of its own that no other program gets; at 0 is /dev/null then."""
    taken = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, len(_NAMES))
    _put_null(0)
    return taken


def pipe() -> tuple[int, int]:
    """A pipe whose ends have numbers from 3 on: one with a lower number a child would take for its input or output."""
    first, second = os.pipe()
    return _raised(first), _raised(second)


def _raised(descriptor: int) -> int:
    if descriptor >= len(_NAMES):
        return descriptor
    higher = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, len(_NAMES))
    os.close(descriptor)
    return higher


def _put_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)  # it may have got the very number
    if null == descriptor:
        os.set_inheritable(null, True)
        return
    os.dup2(null, descriptor)
    os.close(null)
