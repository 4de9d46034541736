"""The gate of the queue lane: a worker accepts from its node's shared sockets only while it has a free slot.

The kernel's accept queue is then one queue for all callers and all workers of the node. Runs in workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable
from typing import Any

Attach = Callable[[socket.socket], None]


class Gate:
    """The slots of one worker.

    Args:
        limit: slots.
        listeners: the shared sockets, each with what takes a connection that was accepted there, one slot taken for it.
    """

    def __init__(self, limit: int, listeners: list[tuple[socket.socket, Attach]]) -> None:
        self.limit, self.listeners = limit, listeners
        self.in_use = 0
        self.loop = asyncio.get_running_loop()
        self._open = False
        self._reading = False

    def open(self) -> None:
        """Begin to accept."""
        self._open = True
        self._update()

    def close(self) -> None:
        """Accept no more; what waits in the shared sockets is left to the other workers."""
        self._open = False
        self._update()
        for listener, _ in self.listeners:
            listener.close()
        self.listeners = []

    def take(self) -> bool:
        """Take a slot if one is free."""
        if self.in_use >= self.limit:
            return False
        self.in_use += 1
        if self.in_use == self.limit:
            self._update()
        return True

    def release(self) -> None:
        """Give a slot back."""
        self.in_use -= 1
        if self.in_use == self.limit - 1:
            self._update()

    def _update(self) -> None:
        wanted = self._open and self.in_use < self.limit
        if wanted and not self._reading:
            for listener, attach in self.listeners:
                self.loop.add_reader(listener, self._accept, listener, attach)
        elif self._reading and not wanted:
            for listener, _ in self.listeners:
                self.loop.remove_reader(listener)
        self._reading = wanted

    def _accept(self, listener: socket.socket, attach: Attach) -> None:
        # One connection a turn: a worker with many slots leaves some for its siblings.
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another worker took it
            return
        except OSError:  # no descriptors: leave it in the queue, and give others the time to close some
            self._reading = False
            for sock, _ in self.listeners:
                self.loop.remove_reader(sock)
            self.loop.call_later(0.05, self._update)
            return
        if left(connection):
            connection.close()
        elif self.take():
            connection.setblocking(False)
            attach(connection)


def left(connection: Any) -> bool:
    """Whether the caller has closed its end already: it gave up while it waited (poll(2), POLLRDHUP)."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def drain_backlog(listener: socket.socket, attach: Attach) -> None:
    """Accept all that waits at a listener, then close it: connections left in its queue would be reset."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            attach(connection)
    listener.close()
