"""The displays: observers that show a running graph as text or JSON. Run in the supervisor, and never block it."""

from __future__ import annotations

import os
import time
from typing import Protocol

from graphserve.cli import lines
from graphserve.cli.writer import Writer
from graphserve.errors import GraphError, GraphServeError, StartupError
from graphserve.supervise.observer import LogRecord, NodeState, Observer

FLUSH = 2.0  # seconds that the end of the process waits for a slow terminal
STDOUT, STDERR = 1, 2


class Display(Observer, Protocol):
    """An observer with an end."""

    def failed(self, error: GraphServeError) -> None:
        """The graph could not start or go on: what went wrong, and the failing node's own words last."""

    def close(self) -> None:
        """Show what waits, for a bounded time, and stop."""


class TextDisplay:
    """Plain lines. What workers write to stdout goes to stdout, all else to stderr.

    Args:
        level: log records below it are not shown.
        stdout: the descriptor for workers' stdout.
        stderr: the descriptor for everything else.
        paint: how colours are made.
    """

    def __init__(
        self, level: str = "info", stdout: int = STDOUT, stderr: int = STDERR, paint: lines.Paint = lines.plain
    ) -> None:
        self._level, self._paint = level, paint
        self._err = Writer(stderr, lines.dropped_line)
        # One writer where both are one terminal or file: lines then keep their order.
        self._out = self._err if _same(stdout, stderr) else Writer(stdout, lines.dropped_line)

    def node(self, state: NodeState) -> None:
        if lines.shown(lines.record_of(state), self._level):
            self._show(lines.state_line(state, self._paint))

    def log(self, record: LogRecord) -> None:
        if not lines.shown(record, self._level):
            return
        if record.stream == "stdout" and self._out is not self._err:
            self._out.write(lines.text_line(record))
        else:
            self._show(lines.text_line(record, self._paint))

    def serving(self, url: str) -> None:
        clock = self._paint(time.strftime("%H:%M:%S"), "2")
        self._show(f"{clock} graphserve  serving on {self._paint(url, '1')}\n")

    def failed(self, error: GraphServeError) -> None:
        words = log_of(error)
        self._show(f"Error: {error}\n" + (f"\n{words}\n" if words else ""))

    def close(self) -> None:
        deadline = time.monotonic() + FLUSH
        for writer in (self._out, self._err):
            writer.close(max(0.0, deadline - time.monotonic()))

    def _show(self, text: str) -> bool:
        return self._err.write(text)


class JsonDisplay:
    """One JSON object a line, all on stderr, in order.

    Args:
        level: log records below it are not shown.
        stderr: the descriptor.
    """

    def __init__(self, level: str = "info", stderr: int = STDERR) -> None:
        self._level = level
        self._err = Writer(stderr, lines.dropped_json)

    def node(self, state: NodeState) -> None:
        self.log(lines.record_of(state))

    def log(self, record: LogRecord) -> None:
        if lines.shown(record, self._level):
            self._err.write(lines.json_line(record))

    def serving(self, url: str) -> None:
        self._err.write(lines.json_line(LogRecord(time.time(), "info", f"serving on {url}", fields={"url": url})))

    def failed(self, error: GraphServeError) -> None:
        node = error.node if isinstance(error, StartupError) else None
        record = LogRecord(time.time(), "critical", str(error), node=node, traceback=log_of(error))
        self._err.write(lines.json_line(record))

    def close(self) -> None:
        self._err.close(FLUSH)


def log_of(error: GraphServeError) -> str:
    """The user's own traceback or last words, if the error has any."""
    return error.log.rstrip("\n") if isinstance(error, (StartupError, GraphError)) else ""


def open_display(log_format: str, level: str) -> Display:
    """The display for `--log-format`: `auto` draws on a terminal and writes text elsewhere."""
    if log_format == "json":
        return JsonDisplay(level)
    paint = lines.coloured if _takes_colour(STDERR) else lines.plain
    if log_format == "auto" and _draws(STDERR):
        from graphserve.cli.terminal import TerminalDisplay

        return TerminalDisplay(level, paint=paint)
    return TextDisplay(level)


def _draws(fd: int) -> bool:
    return os.isatty(fd) and os.environ.get("TERM", "dumb") != "dumb"


def _takes_colour(fd: int) -> bool:
    return _draws(fd) and not os.environ.get("NO_COLOR")


def _same(first: int, second: int) -> bool:
    try:
        one, other = os.fstat(first), os.fstat(second)
    except OSError:
        return True  # a closed stdout: its lines go where they can be seen
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
