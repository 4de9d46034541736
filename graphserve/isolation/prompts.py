"""What asks a person (`breakpoint()`, `pdb`, `input()`), where nobody can answer.

Runs in the resolver and in workers.

They have no terminal: without this, a debugger would end with BdbQuit and `input()` with EOFError,
which say nothing.
"""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

_HINT = (
    "nobody can answer here, a worker has no terminal: run the class in one process, with `async"
    " with graphserve.local(...)`, or set PYTHONBREAKPOINT to a debugger on a socket, such as"
    " remote_pdb.set_trace"
)


def say_so() -> None:
    """Have what asks a person raise, in words, from now on."""
    sys.breakpointhook = _break
    sys.stdin = _Nobody()


def _break(*arguments: object, **named: object) -> object:
    """Answer `breakpoint()`: start the debugger that the environment names, if it names one."""
    if os.environ.get("PYTHONBREAKPOINT"):
        return sys.__breakpointhook__(*arguments, **named)
    raise RuntimeError(f"breakpoint(): {_HINT}")


class _Nobody(io.TextIOWrapper):
    """Standard input, which is empty for who reads it; `input()` and debuggers ask for a line."""

    def __init__(self) -> None:
        try:
            raw = io.FileIO(0, closefd=False)
        except OSError:  # it was closed
            raw = io.FileIO(os.devnull)
        super().__init__(io.BufferedReader(raw), encoding="utf-8", errors="surrogateescape")

    def readline(self, size: int | None = -1, /) -> NoReturn:
        raise RuntimeError(f"input() or a debugger: {_HINT}")

    def __next__(self) -> NoReturn:
        raise StopIteration
