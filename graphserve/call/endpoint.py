"""The connections of a caller to one worker, and whether the worker is left alone for a while. Runs in workers.

The supervisor says which workers are there. This is about one that is there, and fails all the same: it has no calls in
flight, so it would be given every call.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from graphserve.call.connection import Connection
from graphserve.wire.trust import PEER, PEER_BY_SOCKET, Trust

if TYPE_CHECKING:
    from graphserve.call.exchange import Exchange

FAILURES = 5  # calls in a row that were lost with their connection, after which a worker is left alone
FIRST_REST = 0.5  # seconds that it is left alone the first time; doubles up to …
LONGEST_REST = 30.0


class Endpoint:
    """The connections to one worker.

    Args:
        address: its own socket.
        loop: the loop that calls run on.
        keep_alive: seconds that an idle connection is kept.
        on_failing: called when it fails again and again; may let it `rest`.
        on_back: called when its rest is over.
    """

    def __init__(
        self, address: str, loop: asyncio.AbstractEventLoop, keep_alive: float,
        on_failing: Callable[[Endpoint], None], on_back: Callable[[], None],
    ) -> None:  # fmt: skip
        self.address = address
        self.loop = loop
        self.keep_alive = keep_alive
        self.on_failing = on_failing
        self.on_back = on_back
        # The latest used at the right. A connection carries requests of one kind: typed calls, and others by theirs.
        self.idle: deque[Connection] = deque()
        self.others: dict[Trust, deque[Connection]] = {}
        self.in_flight = 0
        self.reads_memory = False  # whether results may come by reference
        self.resting = False
        self.unreachable = False  # and rests because nobody listens at its socket
        self.retired = False
        self._failures = self._rests = 0
        self._sweep: asyncio.TimerHandle | None = None

    def send(self, exchange: Exchange) -> None:
        """Send on an idle connection, or on a new one; OSError if the worker cannot be reached."""
        request = exchange.request
        idle = self.idle if exchange.trust is PEER else self._idle_as(exchange.trust)
        if idle:
            connection = idle.pop()
            connection.idle = False
        else:
            connection = self._connect(exchange.trust)
            as_peer = exchange.trust is PEER and not self.reads_memory
            request = (PEER_BY_SOCKET if as_peer else exchange.trust).opening + request
        self.in_flight += 1
        exchange.connection = connection
        exchange.endpoint = self
        connection.send(request, exchange)
        if exchange.upload is not None:
            exchange.feed(connection)

    def rest(self) -> None:
        """Leave it alone for a while, longer each time until it answers again."""
        self.resting = True
        seconds = min(FIRST_REST * 2**self._rests, LONGEST_REST)
        self._rests += 1
        self._failures = FAILURES - 1  # one more failure after it, and it rests again
        self.loop.call_later(seconds, self._back)

    def miss(self) -> None:
        """Nobody listens there: leave it alone until there is news of it, or for a while."""
        self.resting = self.unreachable = True
        self.loop.call_later(FIRST_REST, self._back)

    def retire(self) -> None:
        """The worker drains or is gone: close what is idle, and the rest after its answer."""
        self.retired = True
        for idle in (self.idle, *self.others.values()):
            while idle:
                idle[0].close()
        if self._sweep is not None:
            self._sweep.cancel()

    def _back(self) -> None:
        self.resting = self.unreachable = False
        if not self.retired:
            self.on_back()

    def _idle_as(self, trust: Trust) -> deque[Connection]:
        return self.idle if trust is PEER else self.others.setdefault(trust, deque())

    def _connect(self, trust: Trust) -> Connection:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(self.address)
        except OSError:
            sock.close()
            raise
        return Connection(sock, self._idle, self._closed, trust=trust)

    def _idle(self, connection: Connection) -> None:
        self.in_flight -= 1
        if self._failures:
            self._failures = self._rests = 0
        connection.idle = True
        (self.idle if connection.trust is PEER else self._idle_as(connection.trust)).append(connection)
        if self.retired:
            connection.close()
            return
        if self._sweep is None:
            self._sweep = self.loop.call_later(self.keep_alive, self._expire)

    def _closed(self, connection: Connection) -> None:
        if connection.idle:
            self._idle_as(connection.trust).remove(connection)
        else:
            self.in_flight -= 1
        if connection.broken:
            self._failures += 1
            if self._failures >= FAILURES and not self.resting:
                self.on_failing(self)

    def _expire(self) -> None:
        self._sweep = None
        now = self.loop.time()
        for idle in (self.idle, *self.others.values()):
            while idle and now - idle[0].idle_since >= self.keep_alive:
                idle[0].close()
        left = [idle[0].idle_since for idle in (self.idle, *self.others.values()) if idle]
        if left:
            self._sweep = self.loop.call_later(max(min(left) + self.keep_alive - now, 0.001), self._expire)
