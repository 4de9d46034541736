"""The timeouts of the public port: end connections that are too slow or idle too long, and make
room for new ones.

They are checked for all connections once a round, so a request costs no timer. Runs in entry
workers and fallback servers.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Protocol

from graphserve.errors import CallError
from graphserve.loop.periodic import Periodic
from graphserve.wire.headers import RETRY_AFTER
from graphserve.wire.problem import HttpProblem
from graphserve.worker.http.limits import LEAST_RATE, Limits
from graphserve.worker.http.listener import Listener, OpenConnection
from graphserve.worker.http.transport import FlowControl

# where there is no room, one of so many connections goes, so that not each new one has to look for
# it
SHARE = 64
# connections beyond the limit that may stay, on which probes are answered and others told no
SPARE = 64
CROWD = 1024  # the same of those that are fresh, since each of them may be a probe
# connections beyond those that are told no at once, and wait until their client has read it; others
# end
TOLD = 1024
# seconds from accept in which a client is about to send its request, so that it is not idle
FRESH = 1.0
# what a probe asks for: a worker that has much to do is no dead one
HEALTH = (b"/livez", b"/readyz")


class TimedConnection(OpenConnection, Protocol):
    """A connection as the timeouts know it: what they look at, and how they end it."""

    @property
    def spare(self) -> bool:
        """Return whether it is beyond the limit."""
        ...

    @property
    def transport(self) -> asyncio.Transport:
        """Return where it is written."""
        ...

    @property
    def flow(self) -> FlowControl:
        """Return what says whether either side is held back."""
        ...

    @property
    def since(self) -> float:
        """Return when what it does now began, on the loop's clock."""
        ...

    @property
    def silent(self) -> bool:
        """Return whether nothing has come yet."""
        ...

    @property
    def unused(self) -> bool:
        """Return whether no request is in progress, and nothing of the next one is here but a part
        of its headers.
        """
        ...

    @property
    def between_requests(self) -> bool:
        """Return whether a request was answered, and nothing of the next one is here."""
        ...

    @property
    def receiving(self) -> bool:
        """Return whether a part of a request is here."""
        ...

    @property
    def head_complete(self) -> bool:
        """Return whether the headers of that request are complete."""
        ...

    @property
    def discarding(self) -> bool:
        """Return whether what still comes is thrown away."""
        ...

    @property
    def body_waits(self) -> bool:
        """Return whether the body waits for us, and not for the client."""
        ...

    @property
    def deadline_ns(self) -> int | None:
        """Return when its request has to be answered, by CLOCK_MONOTONIC."""
        ...

    def make_spare(self) -> None:
        """Let it only ask for health, once: it is beyond the limit."""

    def make_regular(self) -> None:
        """Let it ask for anything: there is a place for it."""

    def body_moved(self) -> int:
        """Return how many bytes of the body have come since the last look."""
        ...

    def answers_moved(self) -> int:
        """Return how many bytes of answers the client has taken since the last look."""
        ...

    def note_progress(self, seconds: float, moved: int) -> float:
        """Note how many bytes have moved in these seconds, and return how many seconds the client
        is behind the least rate by now.
        """
        ...

    def reject(self, problem: CallError) -> None:
        """Answer with a problem, and end the connection."""


class Timeouts:
    """Ends connections of a public listener that are too slow, and decides who stays when there are
    too many.

    Args:
        listener: the listener.
        limits: what they may do.
    """

    def __init__(self, listener: Listener, limits: Limits) -> None:
        self.listener = listener
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.spares = 0  # connections beyond the limit
        self._open: set[TimedConnection] = set()
        self._told: set[TimedConnection] = set()
        self._before = self.loop.time()
        Periodic(limits.round, self._round).begin_later()

    @property
    def connections(self) -> list[TimedConnection]:
        """Return those that are open."""
        return list(self._open)

    def admit(self, newest: TimedConnection) -> None:
        """Take a new connection in; beyond the limit as a spare one.

        If there is no place at all, it is told so.
        """
        self._open.add(newest)
        if self.excess(newest=newest) <= 0:
            return
        newest.make_spare()
        self.spares += 1
        if (
            self.spares > SPARE
            and self._make_room(1, newest, spare=True) <= 0
            and self.spares > CROWD
        ):
            if len(self._told) < TOLD:
                newest.reject(_too_many())
            else:
                self._leave_out(newest)
                newest.transport.abort()

    def refusal(self, connection: TimedConnection, target: bytes) -> HttpProblem | None:
        """Return why a spare connection gets no answer to this request; None: it gets one, since it
        is a probe, or others have gone meanwhile.
        """
        if len(self.listener.connections) - self.spares < self.limits.connections:
            self._make_regular(connection)
            return None
        if self.listener.path(target) in HEALTH:
            return None
        return _too_many()

    def lost(self, connection: TimedConnection) -> None:
        """Forget a connection, which is closed or counts no more."""
        self._open.discard(connection)
        self._make_regular(connection)

    def _make_regular(self, connection: TimedConnection) -> None:
        """Count it as a spare connection no more."""
        if connection.spare:
            self.spares -= 1
            connection.make_regular()
        self._told.discard(connection)

    def told(self, connection: TimedConnection) -> None:
        """Give the place of a spare connection to others: it has its answer, which its client is
        still to read.
        """
        if len(self._told) < TOLD:
            self._leave_out(connection)
            self._told.add(connection)

    def _leave_out(self, connection: TimedConnection) -> None:
        # It ends in its own time, and counts no more.
        self.listener.connections.discard(connection)
        self.lost(connection)

    def excess(self, more: int = 0, newest: TimedConnection | None = None) -> int:
        """Close connections that do nothing, and return how many are still beyond the limit,
        without spare ones.

        Args:
            more: connections that are not the listener's yet.
            newest: the one that wants to stay.
        """
        over = len(self.listener.connections) - self.spares + more - self.limits.connections
        if over > 0:
            over -= self._make_room(max(over, self.limits.connections // SHARE), newest)
        return over

    def _make_room(
        self, wanted: int, newest: TimedConnection | None, *, spare: bool = False
    ) -> int:
        # No request is lost so: these have none in progress. The oldest go, since a client that is
        # in earnest sends its request at once.
        latest = self.loop.time() - FRESH
        unused = [
            one
            for one in self.connections
            if one.unused
            and one.spare is spare
            and one is not newest
            and not (one.silent and one.since > latest)
        ]
        oldest_first = sorted(unused, key=lambda one: one.since)
        leaving = list(itertools.islice((one for one in oldest_first if one.at_rest), wanted))
        for connection in leaving:
            if connection.receiving:  # half a request is an answer's due
                connection.reject(_too_many())
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

    def _look_at(self, connection: TimedConnection, now: float, passed: float) -> None:
        if connection.transport.is_closing() or connection.flow.write_paused:
            self._look_at_answer(connection, passed)
        elif connection.discarding:
            return  # its time is counted already
        elif connection.receiving and connection.head_complete:
            self._look_at_body(connection, passed)
        elif (
            connection.unused
            and now - connection.since > self._time_for(connection)
            and connection.at_rest
        ):
            if connection.receiving:
                text = (
                    f"the headers were not complete {self.limits.patience:g} seconds after they"
                    " began"
                )
                connection.reject(HttpProblem(408, text))
            else:
                connection.transport.close()

    def _time_for(self, connection: TimedConnection) -> float:
        return self.limits.keep_alive if connection.between_requests else self.limits.patience

    def _look_at_body(self, connection: TimedConnection, passed: float) -> None:
        if connection.body_waits:
            connection.body_moved()
            return  # we hold it back; or an API reads it as it comes, which its deadline ends
        deadline = connection.deadline_ns
        if deadline is not None and time.monotonic_ns() > deadline:
            connection.reject(
                HttpProblem(408, "the body was not complete before the deadline of the call")
            )
            return
        if connection.note_progress(passed, connection.body_moved()) > self.limits.patience:
            connection.reject(
                HttpProblem(408, f"the body came slower than {LEAST_RATE} bytes a second")
            )

    def _look_at_answer(self, connection: TimedConnection, passed: float) -> None:
        if connection.note_progress(passed, connection.answers_moved()) > self.limits.patience:
            connection.transport.abort()


def _too_many() -> HttpProblem:
    return HttpProblem(503, "there are too many connections", headers={RETRY_AFTER.decode(): "1"})
