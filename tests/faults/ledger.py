"""The ledger: which calls each worker executes, and when.

Workers write it; the suite reads it, dead workers' too.

One file a worker, `<node>-<pid>`. A line is written by one system call and stays when the worker is
killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = "FAULTS_FOLDER"  # the environment variable that says where
# of the event loop, after which the answer of a call that ended has been written to its socket
ANSWER_TURNS = 3
ANSWER_NS = 10_000_000  # the same for a call in a thread, which cannot see what the loop does


class Pen:
    """Writes what this worker executes.

    Args:
        node: the name of its service.
    """

    def __init__(self, node: str) -> None:
        path = Path(os.environ[FOLDER]) / f"{node}-{os.getpid()}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def call(self, id: int) -> Iterator[None]:
        """A call that is executed in here; until its answer is written, as far as it is known."""
        self._write("+", id, time.monotonic_ns())
        try:
            yield
        finally:
            ended = time.monotonic_ns()
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                self._write("~", id, ended)
            else:
                self._later(loop, ANSWER_TURNS, id, ended)

    def _later(self, loop: asyncio.AbstractEventLoop, turns: int, id: int, ended: int) -> None:
        if turns:
            loop.call_soon(self._later, loop, turns - 1, id, ended)
        else:
            self._write("-", id, ended)

    def _write(self, sign: str, id: int, at: int) -> None:
        os.write(self._file, f"{sign} {id} {at}\n".encode())


@dataclass(frozen=True)
class Entry:
    """One call in one worker.

    Args:
        id: its number.
        began: by CLOCK_MONOTONIC, in ns.
        ended: the same; None if it never did.
        answered: its answer was written for certain.
    """

    id: int
    began: int
    ended: int | None = None
    answered: bool = False

    def executing(self, at: int) -> bool:
        """Whether its answer may have been still to come at this time."""
        return (
            self.began <= at
            and not self.answered
            and (self.ended is None or self.ended > at - ANSWER_NS)
        )


def read(folder: Path, node: str = "*", pid: int | str = "*") -> list[Entry]:
    """What the workers of a node have executed: of all, or of one of them."""
    return [entry for file in sorted(folder.glob(f"{node}-{pid}")) for entry in _entries(file)]


def executing(folder: Path, pid: int, at: int) -> set[int]:
    """The ids of the calls that a worker had not answered for certain at this time."""
    return {each.id for each in read(folder, pid=pid) if each.executing(at)}


def _entries(file: Path) -> Iterator[Entry]:
    open_calls: dict[int, list[int]] = {}
    for line in file.read_text().splitlines():
        sign, id, at = line.split()
        if sign == "+":
            open_calls.setdefault(int(id), []).append(int(at))
        else:
            yield Entry(int(id), open_calls[int(id)].pop(), int(at), answered=sign == "-")
    yield from (Entry(id, began) for id, all in open_calls.items() for began in all)
