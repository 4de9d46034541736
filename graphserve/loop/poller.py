"""Readers for sockets that live for one call: an epoll of our own, inside the loop's.

Runs in workers.

A reader of the loop costs a handle and eight system calls from its birth to its end, more than the
call itself. Here it costs two. Connections that are kept use the loop's readers, which have one
system call less at each event.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import weakref
from collections.abc import Callable

EVENTS = 64  # that are taken at once; the rest comes in the next turn of the loop


class Poller:
    """The readers of one loop, with the loop's own names for what it does.

    Args:
        loop: the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], object]] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def add_reader(self, sock: socket.socket, call: Callable[[], object]) -> None:
        """Call `call` whenever the socket can be read."""
        self._watch(sock.fileno(), select.EPOLLIN, call)

    def remove_reader(self, sock: socket.socket) -> bool:
        """Stop calling it; return False if there was no reader."""
        descriptor = sock.fileno()
        if self._calls.pop(descriptor, None) is None:
            return False
        self._epoll.unregister(descriptor)
        return True

    def watch_end(self, descriptor: int, call: Callable[[], object]) -> None:
        """Call `call`, which must `forget_end`, when the other side has closed its end, whether
        all was read or not.

        The descriptor may be closed by its transport, and its number be another socket's, before it
        is forgotten here.
        """
        self._watch(descriptor, select.EPOLLRDHUP, call)

    def forget_end(self, descriptor: int, call: Callable[[], object]) -> None:
        """Stop calling it, unless the number is another socket's by now."""
        if self._calls.get(descriptor) == call:
            del self._calls[descriptor]
            with contextlib.suppress(OSError):  # it is closed already
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Stop watching."""
        self._epoll.close()

    def _watch(self, descriptor: int, events: int, call: Callable[[], object]) -> None:
        if descriptor not in self._calls:
            self._epoll.register(descriptor, events)
        else:
            try:  # as with a loop's: a second one takes the place of the first
                self._epoll.modify(descriptor, events)
            # that was of a socket which is closed: the kernel has forgotten it
            except FileNotFoundError:
                self._epoll.register(descriptor, events)
        self._calls[descriptor] = call

    def _ready(self) -> None:
        for descriptor, _ in self._epoll.poll(0, EVENTS):
            call = self._calls.get(descriptor)  # an earlier one of these may have removed it
            if call is not None:
                call()


_pollers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Poller] = weakref.WeakKeyDictionary()


def poller(loop: asyncio.AbstractEventLoop) -> Poller:
    """Return the readers of a loop."""
    found = _pollers.get(loop)
    if found is None:
        found = _pollers[loop] = Poller(loop)
    return found


def _close_in_forked_child() -> None:
    # It would hold on to sockets that the parent closed. One for all: a hook for each would keep
    # each of them.
    for each in list(_pollers.values()):
        each.close()


os.register_at_fork(after_in_child=_close_in_forked_child)
