"""The event loop that calls run on. Runs where callers do."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class LoopThread:
    """The loop that calls run on, and its thread."""

    loop: asyncio.AbstractEventLoop
    thread: int

    @classmethod
    def here(cls) -> LoopThread:
        """Return the running loop, and this thread."""
        return cls(asyncio.get_running_loop(), threading.get_ident())

    def instead(self) -> tuple[str, str] | None:
        """Return whose call to await, and what else to do, if waiting in this thread would stop an
        event loop; else None.
        """
        if threading.get_ident() == self.thread:
            return "self.…", "or make this API a plain `def`, which runs in a thread"
        try:
            # it is not where the answer arrives, but all else on it would stand still
            asyncio.get_running_loop()
        except RuntimeError:
            return None
        return "server.call", "or wait in a thread: `await asyncio.to_thread(...)`"
