"""What a process inherits of signals: those that its parent ignored or blocked. Undone at the start of our processes.

`nohup` ignores SIGHUP, a shell without job control SIGINT for what it starts with `&`, and both go on to children and
to their children: where nobody undoes it, a server never hears Ctrl-C, nor does a program that user code starts.
"""

from __future__ import annotations

import signal
from types import FrameType

# Python ignores these itself, and gives them back to the programs that `subprocess` starts.
_OF_PYTHON = {getattr(signal, name, None) for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ")}


def default() -> None:
    """Have this process begin as any does: nothing is ignored, nothing is blocked. On the main thread."""
    for number in signal.valid_signals() - _OF_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    unblock()


def unblock() -> None:
    """Block nothing, and hear of children that end: whoever supervises needs both."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def is_ignored(number: int) -> bool:
    """Whether a signal is ignored, as a parent may have wished."""
    return signal.getsignal(number) is signal.SIG_IGN


def heedless(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing. Unlike a signal that is ignored, a program that is started from here has it not."""
