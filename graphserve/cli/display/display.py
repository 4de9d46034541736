"""What a display is, and which one `--log-format` and the terminal choose.

Runs in the supervisor. It stands apart because it knows all displays, and none of them knows it.
"""

from __future__ import annotations

import os
from typing import Protocol

from graphserve.cli.display import lines
from graphserve.cli.display.plain import JsonDisplay, TextDisplay
from graphserve.cli.display.say import STDERR
from graphserve.errors import GraphServeError
from graphserve.supervise.events import Observer


class Display(Observer, Protocol):
    """Shows a running graph: an observer that is told of a failure, and closed."""

    def failed(self, error: GraphServeError) -> None:
        """Show why the graph could not start or go on, with the failing node's own words last."""

    def close(self) -> None:
        """Show what waits, for a bounded time, and stop."""


def open_display(log_format: str, level: str) -> Display:
    """Open the display for `--log-format`: `auto` draws on a terminal and writes text elsewhere."""
    if log_format == "json":
        return JsonDisplay(level)
    paint = lines.coloured if takes_colour(STDERR) else lines.plain
    if log_format == "auto" and draws(STDERR):
        from graphserve.cli.display.terminal import TerminalDisplay

        return TerminalDisplay(level, paint=paint)
    return TextDisplay(level)


def draws(fd: int) -> bool:
    """Return whether a descriptor is a terminal on which pictures can be drawn."""
    return os.isatty(fd) and os.environ.get("TERM", "dumb") != "dumb"


def takes_colour(fd: int) -> bool:
    """Return whether a descriptor is a terminal that shows colours, and the user wants them."""
    return draws(fd) and not os.environ.get("NO_COLOR")
