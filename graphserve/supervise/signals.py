"""The signals of the supervisor: what operators and terminals send, as events on its loop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable


class Signals:
    """Handlers for SIGTERM, SIGINT and SIGHUP, on the running event loop.

    Args:
        say: tells the user that a stop begins.
    """

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self.stopping = asyncio.Event()  # drain and end
        self.killing = asyncio.Event()  # end at once
        self.changing = asyncio.Event()  # reload
        self._say = say
        self._count = 0
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_stop)
        loop.add_signal_handler(signal.SIGINT, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_stop(self) -> None:
        self._count += 1
        if self._count == 1:
            self._say("info", "stopping: answering what was accepted; a second signal kills at once")
            self.stopping.set()
        else:
            self.killing.set()

    def _on_hangup(self) -> None:
        if _lost_terminal():
            self._on_stop()
        else:
            self.changing.set()


def _lost_terminal() -> bool:
    """Whether a hangup came because the controlling terminal is gone, and not from an operator."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return os.isatty(0) or os.isatty(2)
    return False
