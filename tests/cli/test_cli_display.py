"""The displays on real pipes and terminals: what they write, and that nothing they write to can
stop them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import re
import select
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from graphserve.cli.display import lines
from graphserve.cli.display.display import Display
from graphserve.cli.display.plain import JsonDisplay, TextDisplay
from graphserve.cli.display.terminal import TerminalDisplay
from graphserve.cli.display.writer import DescriptorWriter
from graphserve.errors import StartupError
from graphserve.supervise.events import LogRecord, NodeState

NOW = 1_700_000_000.25
CLOCK = r"\d\d:\d\d:\d\d"
SECONDS = 20.0  # a deadline for what should take milliseconds


class Pipe:
    """A pipe; what was written is read when the test asks for it."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def close(self) -> None:
        for fd in (self.reading, self.writing):
            try:
                os.close(fd)
            except OSError:
                pass

    def rest(self) -> str:
        """Everything until the end; nobody writes after that."""
        os.close(self.writing)
        with open(self.reading, encoding="utf-8", closefd=False) as file:
            return file.read()

    def until(self, pattern: str) -> str:
        return read_until(self.reading, pattern)


def read_until(fd: int, pattern: str) -> str:
    """What comes until the pattern does; it is looked for in the last 4 KiB and what is new."""
    text, old, deadline = "", 0, time.monotonic() + SECONDS
    while not re.search(pattern, text[max(0, old - 4096) :]):
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{pattern!r} did not come; the end of what came: {text[-2000:]!r}"
        old = len(text)
        text += os.read(fd, 65536).decode("utf-8", "replace")
    return text


@pytest.fixture
def pipes() -> Iterator[tuple[Pipe, Pipe]]:
    both = Pipe(), Pipe()
    yield both
    for pipe in both:
        pipe.close()


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """(the side that a person looks at, the side that we write to)"""
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def log(message: str, **rest: Any) -> LogRecord:
    return LogRecord(**{"time": NOW, "level": "info", "message": message} | rest)


def state(name: str = "Recognizer", what: Any = "ready", ready: int = 2) -> NodeState:
    return NodeState(name, what, ready, 2, 0.8123)


class TestText:
    def test_streams_and_lines(self, pipes: tuple[Pipe, Pipe]) -> None:
        out, err = pipes
        display = TextDisplay("info", out.writing, err.writing)
        display.node(state())
        display.log(log("printed", node="Recognizer", slot=1, stream="stdout"))
        display.log(log("complained", node="Recognizer", slot=0, stream="stderr"))
        display.log(log("careful", level="warning", node="Gateway"))
        display.log(log("broken", level="error", traceback="Traceback …\nValueError: 1\n"))
        display.serving("http://127.0.0.1:8000")
        display.close()
        assert re.fullmatch(rf"{CLOCK} Recognizer\[1\] printed\n", out.rest())
        assert re.fullmatch(
            rf"{CLOCK} graphserve  Recognizer ready  2/2 workers  0\.81 s\n"
            rf"{CLOCK} Recognizer\[0\] complained\n"
            rf"{CLOCK} Gateway WARNING careful\n"
            rf"{CLOCK} graphserve  ERROR broken\n    Traceback …\n    ValueError: 1\n"
            rf"{CLOCK} graphserve  serving on http://127\.0\.0\.1:8000 \(/docs describes it; Ctrl-C"
            r" stops\)\n",
            err.rest(),
        )

    def test_order_is_kept_where_both_streams_are_one(self, pipes: tuple[Pipe, Pipe]) -> None:
        out, _ = pipes
        display = TextDisplay("info", out.writing, out.writing)
        for number in range(100):
            display.log(log(f"line {number}", stream="stdout" if number % 2 else "stderr"))
        display.close()
        assert re.findall(r"line (\d+)", out.rest()) == [str(number) for number in range(100)]

    def test_the_failing_nodes_log_is_last(self, pipes: tuple[Pipe, Pipe]) -> None:
        _, err = pipes
        display = TextDisplay("info", err.writing, err.writing)
        display.node(state(what="failed", ready=0))
        display.failed(
            StartupError(
                "Recognizer could not start", "Recognizer", "Traceback …\nValueError: no model\n"
            )
        )
        display.close()
        assert err.rest().endswith(
            "\nError: Recognizer could not start\n\nTraceback …\nValueError: no model\n"
        )

    def test_what_is_no_text_is_shown_somehow(self, pipes: tuple[Pipe, Pipe]) -> None:
        _, err = pipes
        display = TextDisplay("info", err.writing, err.writing)
        display.log(log("lone \ud800 surrogate"))
        display.close()
        assert "lone \\ud800 surrogate" in err.rest()


class TestJson:
    def test_lines(self, pipes: tuple[Pipe, Pipe]) -> None:
        _, err = pipes
        display = JsonDisplay("info", err.writing)
        display.node(state())
        display.log(
            log("a\nb", node="R", slot=0, pid=7, stream="stdout", fields={"request_id": "x"})
        )
        display.serving("http://127.0.0.1:8000")
        display.failed(StartupError("no", "R", "Traceback"))
        display.close()
        first, second, third, last = (json.loads(line) for line in err.rest().splitlines())
        assert (first["node"], first["level"], first["fields"]["state"]) == (
            "Recognizer",
            "info",
            "ready",
        )
        assert second == {
            "time": "2023-11-14T22:13:20.250Z", "level": "info", "message": "a\nb", "node": "R", "slot": 0, "pid": 7,
            "stream": "stdout", "traceback": "", "fields": {"request_id": "x"},
        }  # fmt: skip
        assert third["fields"] == {"url": "http://127.0.0.1:8000"}
        assert (last["level"], last["node"], last["traceback"]) == ("critical", "R", "Traceback")


def test_a_request_stands_on_the_last_line_of_its_message() -> None:
    record = log(
        "app.py:3: UserWarning: old\n  warn('old')\n", level="warning", fields={"request_id": "x1"}
    )
    assert lines.text_line(record).endswith("UserWarning: old\n      warn('old') [request x1]\n")


@pytest.mark.parametrize(
    ("threshold", "visible"),
    [("debug", "abcde"), ("info", "bcde"), ("warning", "cde"), ("error", "de"), ("critical", "e")],
)
def test_log_level_is_for_records_only(threshold: str, visible: str) -> None:
    found = "".join(
        mark
        for mark, level in zip("abcde", lines.LEVELS, strict=True)
        if lines.shown(log("", level=level), threshold)
    )
    assert found == visible
    assert lines.shown(log("", level="debug", stream="stdout"), threshold)
    assert lines.shown(log("", level="debug", stream="stderr"), threshold)


class TestTerminal:
    def test_draws_while_it_starts_then_shows_lines(self, terminal: tuple[int, int]) -> None:
        master, slave = terminal
        display = TerminalDisplay("info", slave, slave, lines.coloured)
        display.node(state(what="starting", ready=0))
        read_until(master, r"starting[^\n]*0/2")
        display.log(log("loading", node="Recognizer", slot=0))
        # the line, and the picture again below it
        read_until(master, "loading[^\n]*\r\n.*starting[^\n]*0/2")
        display.node(dataclasses.replace(state(what="starting", ready=0), warms_up=True))
        read_until(master, r"warming up[^\n]*0/2")
        display.node(state())
        read_until(master, r"ready[^\n]*2/2")
        display.serving("http://127.0.0.1:8000")
        shown = read_until(master, "serving on")
        display.log(log("after", node="Recognizer", slot=0))
        shown += read_until(master, "after\r\n")
        assert "\x1b[36m" in shown or re.search(r"\x1b\[\d+mRecognizer\[0\]", shown)
        display.close()

    def test_more_nodes_than_lines(self, terminal: tuple[int, int]) -> None:
        master, slave = terminal
        display = TerminalDisplay("info", slave, slave)
        for number in range(60):
            display.node(state(f"node{number}", "starting", 0))
        assert read_until(master, r"… and \d+ more").count("\n") < 60 * 3
        display.close()

    def test_a_start_that_fails_leaves_the_error_last(self, terminal: tuple[int, int]) -> None:
        master, slave = terminal
        display = TerminalDisplay("info", slave, slave)
        display.node(state(what="failed", ready=0))
        display.failed(StartupError("no", "Recognizer", "ValueError: no model"))
        display.close()
        shown = read_until(master, "no model\r\n")
        assert shown.endswith("Error: no\r\n\r\nValueError: no model\r\n")
        assert re.search("failed[^\n]*0/2", shown)


def displays(fd: int) -> dict[str, Any]:
    return {
        "text": lambda: TextDisplay("info", fd, fd),
        "json": lambda: JsonDisplay("info", fd),
        "terminal": lambda: TerminalDisplay("info", fd, fd, lines.coloured),
    }


@pytest.mark.parametrize("form", ["text", "json", "terminal"])
def test_a_paused_terminal_stops_nothing_and_hears_what_was_dropped(
    form: str, terminal: tuple[int, int]
) -> None:
    master, slave = terminal  # nobody reads: as if Ctrl-S had been pressed
    display: Display = displays(slave)[form]()
    display.node(state(what="starting", ready=0))
    flood(display, 60_000)  # the write itself would wait for ever
    shown = read_until(master, r"\d+ lines were dropped")
    display.log(log("and now on"))
    assert "and now on" in read_until(master, "and now on")
    assert int(re.findall(r"(\d+) lines were dropped", shown)[-1]) > 10_000
    closing = threading.Thread(target=display.close)
    closing.start()
    while closing.is_alive():  # a terminal that is read lets us go
        if select.select([master], [], [], 0.05)[0]:
            os.read(master, 65536)


def flood(display: Display, count: int) -> None:
    """Log `count` long lines."""
    for number in range(count):
        display.log(log(f"line {number} " + "x" * 90))


@pytest.mark.parametrize("form", ["text", "json", "terminal"])
def test_the_end_waits_a_bounded_time(form: str, terminal: tuple[int, int]) -> None:
    _, slave = terminal
    display: Display = displays(slave)[form]()
    flood(display, 2_000)
    display.close()  # or the test would not end


@pytest.mark.parametrize("form", ["text", "json", "terminal"])
def test_nobody_reads_any_more(form: str, pipes: tuple[Pipe, Pipe]) -> None:
    pipe, _ = pipes
    os.close(pipe.reading)
    display: Display = displays(pipe.writing)[form]()
    flood(display, 100)
    display.close()


def test_a_terminal_that_is_gone() -> None:
    master, slave = pty.openpty()
    display = TerminalDisplay("info", slave, slave)
    display.node(state())
    os.close(master)
    flood(display, 100)
    display.close()
    os.close(slave)


class TestWriter:
    def test_says_where_lines_are_missing(self, pipes: tuple[Pipe, Pipe]) -> None:
        pipe, _ = pipes
        writer = DescriptorWriter(pipe.writing, lambda count: f"<{count} missing>\n", limit=100_000)
        for number in range(3_000):
            writer.write(f"{number} {'x' * 93}\n")
        first = pipe.until(r"<\d+ missing>\n")
        writer.write("later\n")
        numbers = [int(n) for n in re.findall(r"^(\d+) x", first, re.MULTILINE)]
        missing = int(re.findall(r"<(\d+) missing>", first)[0])
        assert numbers == list(range(len(numbers)))
        assert len(numbers) + missing == 3_000
        assert pipe.until("later") == "later\n"
        writer.close(SECONDS)

    def test_a_descriptor_that_does_not_block(self, pipes: tuple[Pipe, Pipe]) -> None:
        pipe, _ = pipes
        os.set_blocking(pipe.writing, False)
        writer = DescriptorWriter(pipe.writing, str)
        text = "".join(f"{number}\n" for number in range(100_000))
        writer.write(text)
        assert pipe.until("\n99999\n") == text
        assert writer.close(SECONDS)

    def test_colours_are_off_by_no_color(
        self, monkeypatch: pytest.MonkeyPatch, terminal: tuple[int, int]
    ) -> None:
        from graphserve.cli.display import display as choice

        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert choice.takes_colour(terminal[1])
        monkeypatch.setenv("NO_COLOR", "1")
        assert not choice.takes_colour(terminal[1])
        assert "\x1b" not in lines.text_line(log("x", level="error", node="R"))
        assert isinstance(choice.open_display("json", "info"), JsonDisplay)
