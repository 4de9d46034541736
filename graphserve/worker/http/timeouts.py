"""The patrol of the public port: ends connections that are too slow or idle too long, and makes room for new ones.

It looks at all connections once a round, so a request costs no timer. Runs in entry workers.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import struct
import termios
import time
from typing import TYPE_CHECKING, Any, cast

from graphserve.wire.problem import HttpProblem
from graphserve.worker.http.limits import LEAST_RATE, Limits
from graphserve.worker.http.request import HttpRequest

if TYPE_CHECKING:
    from graphserve.worker.http.listener import Listener
    from graphserve.worker.http.public import PublicProtocol

SHARE = 64  # where there is no room, one of so many connections goes, so that not each new one has to look for it
SPARE = 64  # connections beyond the limit that may stay, on which probes are answered and others told no
CROWD = 1024  # the same of those that are fresh, since each of them may be a probe
TOLD = 1024  # connections beyond those that are told no at once, and wait until their client has read it; others end
FRESH = 1.0  # seconds from accept in which a client is about to send its request, so that it is not idle
HEALTH = (b"/livez", b"/readyz")  # what a probe asks for: a worker that has much to do is no dead one


class Timeouts:
    """Looks after the connections of a public listener.

    Args:
        listener: the listener.
        limits: what they may do.
    """

    def __init__(self, listener: Listener, limits: Limits) -> None:
        self.listener = listener
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.spares = 0  # connections beyond the limit
        self._told: set[PublicProtocol] = set()
        self._before = self.loop.time()
        self.loop.call_later(limits.round, self._round)

    @property
    def connections(self) -> list[PublicProtocol]:
        """Those that are open."""
        return cast("list[PublicProtocol]", self.listener.open())

    def admit(self, newest: PublicProtocol) -> None:
        """Take a new connection in; beyond the limit as a spare one. If there is no place at all, it is told so."""
        if self.excess(newest=newest) <= 0:
            return
        newest.spare = True
        self.spares += 1
        if self.spares > SPARE and self._make_room(1, newest, spare=True) <= 0 and self.spares > CROWD:
            if len(self._told) < TOLD:
                newest.deny(_too_many())
            else:
                self._leave_out(newest)
                newest.transport.abort()

    def refusal(self, connection: PublicProtocol, target: bytes) -> HttpProblem | None:
        """Why a spare connection gets no answer to this request, if it gets none: a probe is answered all the same."""
        if len(self.listener.connections) - self.spares < self.limits.connections:  # others have gone meanwhile
            self.lost(connection)
            return None
        if self.listener.path(target) in HEALTH:
            return None
        return _too_many()

    def lost(self, connection: PublicProtocol) -> None:
        """It is no spare connection any more."""
        self.spares -= connection.spare
        connection.spare = False
        self._told.discard(connection)

    def told(self, connection: PublicProtocol) -> None:
        """A spare connection has had its answer, which its client is still to read: others may have its place."""
        if len(self._told) < TOLD:
            self._leave_out(connection)
            self._told.add(connection)

    def _leave_out(self, connection: PublicProtocol) -> None:
        # It ends in its own time, and counts no more.
        self.listener.connections.discard(connection)
        self.lost(connection)

    def excess(self, more: int = 0, newest: PublicProtocol | None = None) -> int:
        """How many connections there are beyond the limit, without spare ones; those that do nothing have to go first.

        Args:
            more: connections that are not the listener's yet.
            newest: the one that wants to stay.
        """
        over = len(self.listener.connections) - self.spares + more - self.limits.connections
        if over > 0:
            over -= self._make_room(max(over, self.limits.connections // SHARE), newest)
        return over

    def _make_room(self, wanted: int, newest: PublicProtocol | None, *, spare: bool = False) -> int:
        # No request is lost so: these have none in progress. The oldest go, since a client that is in earnest sends
        # its request at once.
        latest = self.loop.time() - FRESH
        unused = [
            one for one in self.connections
            if one.unused and one.spare is spare and one is not newest and not (one.silent and one.since > latest)
        ]  # fmt: skip
        oldest_first = sorted(unused, key=lambda one: one.since)
        leaving = list(itertools.islice((one for one in oldest_first if one.at_rest), wanted))
        for connection in leaving:
            if connection.receiving:  # half a request is an answer's due
                connection.deny(_too_many())
                connection.transport.close()
            else:
                connection.transport.abort()
            self._leave_out(connection)
        return len(leaving)

    def _round(self) -> None:
        now = self.loop.time()
        passed = now - self._before
        self._before = now
        # After a pause of the whole process nobody was slow but we.
        passed = min(passed, 2 * self.limits.round)
        if self.spares > SPARE:  # what was fresh is so no more
            self._make_room(self.spares - SPARE, None, spare=True)
        for connection in self.connections:
            self._look_at(connection, now, passed)
        self.loop.call_later(self.limits.round, self._round)

    def _look_at(self, connection: PublicProtocol, now: float, passed: float) -> None:
        if connection.transport.is_closing() or connection.flow.write_paused:
            self._look_at_answer(connection, passed)
        elif connection.refused:
            return  # its time is counted already
        elif connection.receiving and connection.headed:
            self._look_at_body(connection, passed)
        elif connection.unused and now - connection.since > self._time_for(connection) and connection.at_rest:
            if connection.receiving:
                text = f"the headers were not complete {self.limits.patience:g} seconds after they began"
                connection.deny(HttpProblem(408, text))
            else:
                connection.transport.close()

    def _time_for(self, connection: PublicProtocol) -> float:
        waits = connection.cycle is not None and not connection.receiving
        return self.limits.keep_alive if waits else self.limits.patience

    def _look_at_body(self, connection: PublicProtocol, passed: float) -> None:
        cycle: Any = connection.cycle
        if connection.flow.read_paused or (isinstance(cycle, HttpRequest) and cycle.source is not None):
            connection.counted = connection.body_seen
            return  # we hold it back; or an API reads it as it comes, which its deadline ends
        deadline = cycle.context.deadline_ns if isinstance(cycle, HttpRequest) else None
        if deadline is not None and time.monotonic_ns() > deadline:
            connection.deny(HttpProblem(408, "the body was not complete before the deadline of the call"))
            return
        came = connection.body_seen - connection.counted
        connection.counted = connection.body_seen
        if self._falls_behind(connection, passed, came):
            connection.deny(HttpProblem(408, f"the body came slower than {LEAST_RATE} bytes a second"))

    def _look_at_answer(self, connection: PublicProtocol, passed: float) -> None:
        # Nothing is written meanwhile, so what has gone from the buffer is what the client took.
        waits = _untaken(connection.transport)
        taken = max(0, connection.unread - waits)
        connection.unread = waits
        if self._falls_behind(connection, passed, taken):
            connection.transport.abort()

    def _falls_behind(self, connection: PublicProtocol, passed: float, moved: int) -> bool:
        connection.behind = max(0.0, connection.behind + passed - moved / LEAST_RATE)
        return connection.behind > self.limits.patience


def _too_many() -> HttpProblem:
    return HttpProblem(503, "there are too many connections", headers={"retry-after": "1"})


def _untaken(transport: asyncio.Transport) -> int:
    # What is with us, and what is with the kernel (SIOCOUTQ, which is TIOCOUTQ): that may be megabytes, and it asks for
    # more only when a third of them has gone.
    sock = transport.get_extra_info("socket")
    queued = 0
    if sock is not None and sock.fileno() >= 0:
        (queued,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    return transport.get_write_buffer_size() + int(queued)
