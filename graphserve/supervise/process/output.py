"""What workers write: bytes from their pipes to records, line by line. Runs in the supervisor.

What they print and what they log come by different pipes, so nothing that is printed can pass for a
record of the log.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from graphserve.logs.text import printable
from graphserve.supervise.events import LEVELS, LogRecord
from graphserve.system.stack import Stack

LONGEST_LINE = 64 * 1024  # bytes; a longer one is shown in pieces
LONGEST_RECORD = 8 * 1024 * 1024  # bytes; workers write shorter ones
LATEST = 253402300799.0  # seconds since the epoch: the end of the year 9999
DEPTH = 20  # of the fields of a record
READ_SIZE = 64 * 1024
TAIL = 60  # lines kept for the last words of a worker that died without any

Emit = Callable[[LogRecord], None]


class _Lines:
    """The reading end of a pipe, line by line.

    Args:
        descriptor: stays its owner's.
        emit: called with each record.
        node: the worker's node, its slot, its pid; none for the resolver.
    """

    longest = LONGEST_LINE

    def __init__(
        self,
        descriptor: int,
        emit: Emit,
        node: str | None = None,
        slot: int | None = None,
        pid: int | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.emit = emit
        self.node = node
        self.slot = slot
        self.pid = pid
        self._partial = b""
        self._loop = asyncio.get_running_loop()
        self._open = True
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def close(self) -> None:
        """Read what is still there, and stop:
        the worker is gone (its own children may hold the other end).
        """
        while self._open and self._read():
            pass
        self._stop()

    def line(self, line: bytes) -> None:
        """Take a line, without its end; or a piece of one that is too long."""
        raise NotImplementedError

    def _read(self) -> bool:
        try:
            data = os.read(self.descriptor, READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._stop()
            return False
        first, *rest = data.split(b"\n")
        self._partial += first
        for piece in rest:
            self._complete()
            self._partial = piece
        while len(self._partial) > self.longest:
            piece = self._partial[: self.longest]
            self._partial = self._partial[self.longest :]
            self.line(piece)
        return True

    def _complete(self) -> None:
        line = self._partial
        self._partial = b""
        self.line(line)

    def _stop(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self.descriptor)
            if self._partial:
                self._complete()


class Pipe(_Lines):
    """One output of one worker, or of the resolver.

    Args:
        descriptor: the reading end; stays its owner's.
        stream: which output it is.
        emit: called with each record.
        node: the worker's node, its slot, its pid; none for the resolver.
    """

    def __init__(
        self, descriptor: int, stream: Literal["stdout", "stderr"], emit: Emit,
        node: str | None = None, slot: int | None = None, pid: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(descriptor, emit, node, slot, pid)
        self.stream: Literal["stdout", "stderr"] = stream
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.stack: Stack | None = None  # what it printed of where it hangs, once it was asked

    def collect_stack(self) -> None:
        """Keep apart what the process prints of where it hangs: it is about to be asked."""
        self.stack = Stack()

    def line(self, line: bytes) -> None:
        """Show a line that was printed, unless it is of the stack that was asked for."""
        # A carriage return begins the line again: of a progress bar the last picture is shown.
        text = line.decode("utf-8", "backslashreplace").rstrip("\r").rpartition("\r")[2]
        if self.stack is not None and self.stack.takes(text):
            return
        self.tail.append(text)
        level = "info" if self.stream == "stdout" else "warning"
        self.emit(LogRecord(time.time(), level, text, self.node, self.slot, self.pid, self.stream))


class Records(_Lines):
    """The pipe by which a worker's log records come; they are checked, since user code runs where
    they are made.
    """

    longest = LONGEST_RECORD

    def line(self, line: bytes) -> None:
        """Show the record in a line."""
        if line:
            self.emit(self._record(line) or self._unreadable(line))

    def _record(self, line: bytes) -> LogRecord | None:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(said, dict):
            return None
        when, level, fields = said.get("time"), said.get("level"), said.get("fields")
        return LogRecord(
            float(when) if isinstance(when, (int, float)) and 0 <= when <= LATEST else time.time(),
            level if isinstance(level, str) and level in LEVELS else "info",
            _text(said.get("message")),
            self.node, self.slot, self.pid, "log",
            _text(said.get("traceback")),
            _fields(fields) if isinstance(fields, dict) else {},
        )  # fmt: skip

    def _unreadable(self, line: bytes) -> LogRecord:
        begin = printable(line[:200].decode("utf-8", "backslashreplace"))
        text = f"a log record that cannot be read, of {len(line):,} bytes: {begin}"
        return LogRecord(time.time(), "warning", text, self.node, self.slot, self.pid)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _fields(said: dict[str, object]) -> dict[str, object]:
    return {name: _plain(value, DEPTH - 1) for name, value in said.items()}


def _plain(value: object, depth: int) -> object:
    """Return a value that every JSON has: no infinity, nothing deeper than anybody reads."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (dict, list)) and not depth:
        return "…"
    if isinstance(value, dict):
        return {name: _plain(item, depth - 1) for name, item in value.items()}
    return [_plain(item, depth - 1) for item in value] if isinstance(value, list) else value
