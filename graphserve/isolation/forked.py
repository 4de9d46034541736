"""Processes that user code forks off one of ours: how it is seen that we are in such a child, and
how it ends.

A forked child has a copy of our loop, of our threads' work and of our exit handlers. Where it comes
back to us, from an API or from a module, none of that may go on: it would answer for its parent,
and take events from the loop of both.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import NoReturn

_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
# between the first process and this one; a call that ends with another number than it began with
# was forked
forks = 0


def _forked() -> None:
    global forks
    forks += 1


os.register_at_fork(after_in_child=_forked)


def leave(where: str, error: BaseException | None) -> NoReturn:
    """End this process, which user code forked, as Python would end one: the code of `sys.exit`, or
    a traceback and 1.

    Args:
        where: what came back to us, for the words about a child that forgot to end.
        error: what was raised; None if it simply returned.
    """
    code = 0
    words = ""
    if isinstance(error, SystemExit):
        code, words = _status(error)
    elif error is not None:
        code = 1
        frame = error.__traceback__
        while frame is not None and frame.tb_frame.f_code.co_filename.startswith(_OURS):
            frame = frame.tb_next
        words = "".join(traceback.format_exception(error.with_traceback(frame)))
    else:
        words = (
            f"a process that was forked in {where} came back from it, and ends here: end it with"
            " os._exit(0)\n"
        )
    with contextlib.suppress(Exception):
        sys.stderr.write(words)
    flush()
    os._exit(code)


def flush() -> None:
    """Write out what was printed, whatever user code has put in the place of the outputs."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _status(error: SystemExit) -> tuple[int, str]:
    """Return the exit status that `sys.exit` asked for, and what it has Python print."""
    if error.code is None:
        return 0, ""
    if isinstance(error.code, int):
        return error.code & 0xFF, ""
    return 1, f"{error.code}\n"
