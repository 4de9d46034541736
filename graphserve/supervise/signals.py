"""The signals of the supervisor: what operators and terminals send, as events on its loop."""

from __future__ import annotations

import asyncio
import os
import signal

from graphserve.supervise.events import EventKind, Say
from graphserve.system.inherited import is_ignored


class Signals:
    """Handlers for SIGTERM, SIGINT, SIGHUP and SIGTSTP, on the running event loop.

    SIGINT is heard also where it was ignored, as in a background job of a script: whoever sends it
    means it.

    Args:
        say: takes what is to be said.
    """

    def __init__(self, say: Say) -> None:
        self.stopping = asyncio.Event()  # drain and end
        self.killing = asyncio.Event()  # end at once
        self.changing = asyncio.Event()  # reload
        self._say = say
        self._count = 0
        self._told = False  # what Ctrl-Z does not do
        self._had_terminal = _has_terminal()
        heard = {
            signal.SIGTERM: self._on_stop,
            signal.SIGINT: self._on_stop,
            signal.SIGTSTP: self._on_suspend,
        }
        if is_ignored(signal.SIGHUP):  # nohup: what a closed terminal sends shall not stop us
            words = "SIGHUP is ignored, as under nohup: `graphserve reload` reloads"
            say(EventKind.NOTICE, "info", words)
        else:
            heard[signal.SIGHUP] = self._on_hangup
        for number, handler in heard.items():
            asyncio.get_running_loop().add_signal_handler(number, handler)
        self._heard = tuple(heard)

    def stop(self) -> None:
        """Drain and end; nothing new if that is under way."""
        if not self.stopping.is_set():
            words = "stopping: answering what was accepted; a second signal kills at once"
            self._say(EventKind.GRAPH_STOPPING, "info", words)
            self.stopping.set()

    def end(self) -> None:
        """Ignore them from now on: the graph has ended, and its exit code says how, until the
        process is gone.
        """
        loop = asyncio.get_running_loop()
        for number in self._heard:
            # a closed loop would give the signal its default back: it kills
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _on_stop(self) -> None:
        self._count += 1
        if self._count == 1:
            self.stop()
        else:
            self.killing.set()

    def _on_hangup(self) -> None:
        if self._had_terminal and not _has_terminal():
            self._on_stop()  # the terminal is gone, and with it who could stop us
        else:
            self.changing.set()

    def _on_suspend(self) -> None:
        # Workers have sessions of their own, so they would go on, without anybody who reads what
        # they print, watches and replaces them.
        if not self._told:
            self._told = True
            words = "a graph is not suspended by Ctrl-Z, it serves on; Ctrl-C stops it"
            words = f"{words}. To keep the terminal, start it with & at the end"
            self._say(EventKind.NOTICE, "warning", words)


def _has_terminal() -> bool:
    """Return whether this process has a controlling terminal (which its outputs may not be)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
