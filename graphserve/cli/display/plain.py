"""The displays as text and as JSON: they show a running graph line by line.

Run in the supervisor.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from graphserve.cli.display import lines
from graphserve.cli.display.say import STDERR, STDOUT, is_journal, with_priority
from graphserve.cli.display.writer import DescriptorWriter
from graphserve.errors import GraphServeError, StartupError
from graphserve.logs.text import printable
from graphserve.supervise.events import LogRecord, NodeState, log_of, record_of

FLUSH = 2.0  # seconds that the end of the process waits for a slow terminal


class _PriorityWriter:
    """Writes lines with their priority before them, if the journal of systemd reads them.

    Args:
        fd: the descriptor.
        apology: the line that says how many lines were dropped.
    """

    def __init__(self, fd: int, apology: Callable[[int], str]) -> None:
        self._marks = is_journal(fd)
        self._writer = DescriptorWriter(fd, lambda count: self._marked(apology(count), "warning"))
        self.idle = self._writer.idle
        self.close = self._writer.close

    def write(self, text: str, level: str) -> bool:
        """Queue whole lines, or drop them when too much waits already;
        return whether they were queued.
        """
        return self._writer.write(self._marked(text, level))

    def _marked(self, text: str, level: str) -> str:
        return with_priority(text, level) if self._marks else text


class TextDisplay:
    """Plain lines. What workers write to stdout goes to stdout, all else to stderr.

    Args:
        level: log records below it are not shown.
        stdout: the descriptor for workers' stdout.
        stderr: the descriptor for everything else.
        paint: how colours are made.
    """

    def __init__(
        self,
        level: str = "info",
        stdout: int = STDOUT,
        stderr: int = STDERR,
        paint: lines.Paint = lines.plain,
    ) -> None:
        self._level = level
        self._paint = paint
        self._err = _PriorityWriter(stderr, lines.dropped_line)
        # One writer where both are one terminal or file: lines then keep their order.
        self._out = (
            self._err if _same(stdout, stderr) else _PriorityWriter(stdout, lines.dropped_line)
        )

    def node(self, state: NodeState) -> None:
        record = record_of(state)
        if lines.shown(record, self._level):
            self._show(lines.state_line(state, self._paint), record.level)

    def log(self, record: LogRecord) -> None:
        if not lines.shown(record, self._level):
            return
        if record.stream == "stdout" and self._out is not self._err:
            self._out.write(lines.text_line(record), record.level)
        else:
            self._show(lines.text_line(record, self._paint), record.level)

    def serving(self, url: str) -> None:
        clock = self._paint(time.strftime("%H:%M:%S"), "2")
        more = "/docs describes it; Ctrl-C stops" if url.startswith("http") else "Ctrl-C stops"
        shown = f"{self._paint(printable(url), '1')} {self._paint(f'({more})', '2')}"
        self._show(f"{clock} graphserve  serving on {shown}\n", "info")

    def failed(self, error: GraphServeError) -> None:
        words = log_of(error).rstrip("\n")
        self._show(
            printable(f"Error: {error}\n" + (f"\n{words}\n" if words else ""), lines=True),
            "critical",
        )

    def close(self) -> None:
        deadline = time.monotonic() + FLUSH
        for writer in (self._out, self._err):
            writer.close(max(0.0, deadline - time.monotonic()))

    def _show(self, text: str, level: str) -> bool:
        return self._err.write(text, level)


class JsonDisplay:
    """One JSON object a line, all on stderr, in order.

    Args:
        level: log records below it are not shown.
        stderr: the descriptor.
    """

    def __init__(self, level: str = "info", stderr: int = STDERR) -> None:
        self._level = level
        self._err = _PriorityWriter(stderr, lines.dropped_json)

    def node(self, state: NodeState) -> None:
        self.log(record_of(state))

    def log(self, record: LogRecord) -> None:
        if lines.shown(record, self._level):
            self._err.write(lines.json_line(record), record.level)

    def serving(self, url: str) -> None:
        record = LogRecord(time.time(), "info", f"serving on {url}", fields={"url": url})
        self._err.write(lines.json_line(record), record.level)

    def failed(self, error: GraphServeError) -> None:
        node = error.node if isinstance(error, StartupError) else None
        log = log_of(error).rstrip("\n")
        record = LogRecord(time.time(), "critical", str(error), node=node, traceback=log)
        self._err.write(lines.json_line(record), record.level)

    def close(self) -> None:
        self._err.close(FLUSH)


def _same(first: int, second: int) -> bool:
    try:
        one, other = os.fstat(first), os.fstat(second)
    except OSError:
        return True  # a closed stdout: its lines go where they can be seen
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
