"""What a process inherits from its parent, put right at its very start: standard streams and
signals. The variables that a worker inherits from the supervisor are named here too.

Any process.

Standard input, output and error may be closed (`<&- >&-`). The next file that the process opens
then has the number 0, 1 or 2, and whoever reads or prints gets at that file.

Signals may be ignored or blocked: `nohup` ignores SIGHUP, a shell without job control SIGINT for
what it starts with `&`, and both go on to children and to their children. Where nobody undoes it, a
server never hears Ctrl-C, nor does a program that user code starts.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from types import FrameType

# The environment of a worker, with what the supervisor tells it. These are no options.
INTERNAL_PREFIX = "GRAPHSERVE_INTERNAL_"
RUN_VARIABLE = INTERNAL_PREFIX + "RUN"  # the run folder
REVISION_VARIABLE = INTERNAL_PREFIX + "REVISION"  # of the Plan that is executed
SUPERVISOR_VARIABLE = INTERNAL_PREFIX + "SUPERVISOR"  # its pid: the worker ends with it
SLOT_VARIABLE = INTERNAL_PREFIX + "SLOT"  # which of the node's workers it is
# by it the reaper knows what a worker started; no two workers have the same
MARK_VARIABLE = INTERNAL_PREFIX + "WORKER"

_NAMES = ("stdin", "stdout", "stderr")
# Python ignores these itself, and gives them back to the programs that `subprocess` starts.
_IGNORED_BY_PYTHON = {getattr(signal, name, None) for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ")}
closed: set[int] = set()  # the standard descriptors that this process was started without


def open_standard_streams() -> list[str]:
    """Open the standard descriptors that are closed on /dev/null, and the files of `sys` for them.

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
            file = open(  # noqa: SIM115
                descriptor, mode, encoding="utf-8", errors="backslashreplace", closefd=False
            )
            setattr(sys, name, file)
            setattr(sys, f"__{name}__", file)
    return opened


def take_input() -> int:
    """Move descriptor 0 to a number that no other program gets, and return that; at 0 is /dev/null
    then.
    """
    taken = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, len(_NAMES))
    _put_null(0)
    return taken


def pipe() -> tuple[int, int]:
    """Return a pipe whose ends have numbers from 3 on: a lower one a child would take for its input
    or output.
    """
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


def reset_signals() -> None:
    """Ignore and block no signal, as a process usually begins. Call it on the main thread."""
    for number in signal.valid_signals() - _IGNORED_BY_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(
                number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            )
    unblock_signals()


def unblock_signals() -> None:
    """Block no signal, and receive SIGCHLD: whoever supervises needs both."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def is_ignored(number: int) -> bool:
    """Return whether a signal is ignored, as a parent may have wished."""
    return signal.getsignal(number) is signal.SIG_IGN


def do_nothing(number: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing.

    Unlike an ignored signal, it is not inherited by programs.
    """
