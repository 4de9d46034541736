"""What workers write: bytes from their pipes to records, line by line. Runs in the supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from graphserve.stack import Stack
from graphserve.supervise.observer import LogRecord

MARK = b"\x1e"  # what a worker's log records begin with (RFC 7464)
LONGEST_LINE = 64 * 1024  # bytes; a longer one is shown in pieces
READ_SIZE = 64 * 1024
TAIL = 60  # lines kept for the last words of a worker that died without any


class Pipe:
    """One output of one worker, or of the resolver.

    Args:
        descriptor: the reading end; stays its owner's.
        stream: which output it is.
        emit: called with each record.
        node: the worker's node, its slot, its pid; none for the resolver.
    """

    def __init__(
        self, descriptor: int, stream: Literal["stdout", "stderr"], emit: Callable[[LogRecord], None],
        node: str | None = None, slot: int | None = None, pid: int | None = None,
    ) -> None:  # fmt: skip
        self.descriptor, self.emit = descriptor, emit
        self.stream: Literal["stdout", "stderr"] = stream
        self.node, self.slot, self.pid = node, slot, pid
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.stack: Stack | None = None  # set when the process is asked for it
        self._partial = b""
        self._loop = asyncio.get_running_loop()
        self._open = True
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._readable)

    def close(self) -> None:
        """Read what is still there, and stop: the worker is gone (its own children may hold the other end)."""
        while self._open and self._read():
            pass
        self._stop()

    def _readable(self) -> None:
        self._read()

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
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._emit(line)
        while len(self._partial) > LONGEST_LINE and not self._partial.startswith(MARK):
            piece, self._partial = self._partial[:LONGEST_LINE], self._partial[LONGEST_LINE:]
            self._emit(piece)
        return True

    def _stop(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self.descriptor)
            if self._partial:
                self._emit(self._partial)
                self._partial = b""

    def _emit(self, line: bytes) -> None:
        record = self._record(line) if MARK in line else None
        if record is None:
            # A carriage return begins the line again: of a progress bar the last picture is shown.
            text = line.decode("utf-8", "backslashreplace").rstrip("\r").rpartition("\r")[2]
            if self.stack is not None and self.stack.takes(text):
                return
            self.tail.append(text)
            level = "info" if self.stream == "stdout" else "warning"
            record = LogRecord(time.time(), level, text, self.node, self.slot, self.pid, self.stream)
        self.emit(record)

    def _record(self, line: bytes) -> LogRecord | None:
        printed, _, marked = line.rpartition(MARK)  # no record has the mark inside
        try:
            said = json.loads(marked)
            record = LogRecord(
                float(said["time"]), str(said["level"]), str(said["message"]), self.node, self.slot, self.pid, "log",
                str(said.get("traceback", "")), dict(said.get("fields", {})),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # somebody printed the mark
        if printed:  # user code printed without a line end just before
            self._emit(printed)
        return record
