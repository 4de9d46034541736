"""The pooled lane: kept-alive connections to each worker of a node. Runs in workers.

For APIs without a limit. `PooledLane` chooses the worker with the fewest calls in flight; an
`Endpoint` has the connections to one of them, and knows whether it is to be left alone for a while:
the supervisor says which workers are there, but one that is there may fail all the same, and would
be given every call, since it has none in flight.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from graphserve.call.connection import Connection
from graphserve.call.exchange import Compose, Exchange
from graphserve.call.lanes.base import GONE, NodeLane
from graphserve.call.membership import KnownNode, Membership
from graphserve.call.memory_sharing import Sharing
from graphserve.call.request import composer
from graphserve.call.retry_budget import RetryBudget
from graphserve.graph.plan import ApiPlan
from graphserve.wire.shared_buffers import readable
from graphserve.wire.trust import PEER, PEER_BY_SOCKET, Trust

CONNECT_PAUSE = 0.002  # seconds until a full accept queue of one worker is tried again
# share of a node's workers that may be left alone because calls to them were lost
MOST_RESTING = 0.5
# calls in a row that were lost with their connection, after which a worker is left alone
FAILURES = 5
FIRST_REST = 0.5  # seconds that it is left alone the first time; doubles up to …
LONGEST_REST = 30.0


class PooledLane(NodeLane):
    """Sends calls on kept-alive connections to the workers' own sockets, to the worker with the
    fewest calls in flight first.

    Args:
        membership: what is known about the nodes.
        node: the node's name.
        queue: calls that may wait while no worker is ready.
        keep_alive: seconds that an idle connection is kept; shorter than the worker keeps it.
        retry_budget: of calls to the node that may run again.
        sharing: what is known of sharing memory with the node; None if none is shared.
    """

    def __init__(
        self,
        membership: Membership,
        node: str,
        queue: int,
        keep_alive: float,
        retry_budget: RetryBudget,
        sharing: Sharing | None = None,
    ) -> None:
        super().__init__(membership, node, retry_budget, sharing)
        self.queue = queue
        self.keep_alive = keep_alive
        self.endpoints: dict[str, Endpoint] = {}
        self.waiting: dict[Exchange[bytes], None] = {}
        self._stopping = False  # whether the node stops
        # while the accept queue of the least busy worker is full
        self._pause: asyncio.TimerHandle | None = None
        membership.watch(node, self._changed)

    def composer(self, api: ApiPlan, *, checked: bool, caller: str) -> Compose[bytes]:
        """Return a function that makes requests to one API, in the form that this lane sends."""
        return composer(api, self.node, checked=checked, caller=caller)

    def send(self, exchange: Exchange[bytes]) -> None:
        """Send to the worker with the least in flight; wait if none is ready."""
        while True:
            endpoint = self._least(exchange.sent_to)
            if endpoint is None or self._pause is not None:
                self._wait(exchange)
                return
            try:
                endpoint.send(exchange)
                return
            except BlockingIOError:
                self._pause = self.loop.call_later(CONNECT_PAUSE, self._take_waiting)
            except OSError as exc:
                if exc.errno not in GONE:  # no descriptors: not the worker's fault
                    exchange.fail(self.no_socket(exc))
                    return
                endpoint.miss()  # gone, or somebody removed its name: the supervisor will say so
                self._membership.lost(endpoint.address)

    def forget(self, exchange: Exchange[bytes]) -> None:
        """Drop an exchange that is over."""
        self.waiting.pop(exchange, None)

    def _least(self, lost_at: object) -> Endpoint | None:
        best = None
        for endpoint in self.endpoints.values():
            if endpoint.resting or endpoint is lost_at:
                continue
            if best is None or endpoint.in_flight < best.in_flight:
                best = endpoint
        if best is None and lost_at is not None:  # there is no other
            return self._least(None)
        return best

    def _wait(self, exchange: Exchange[bytes]) -> None:
        if self.state is not None and self.state.hopeless:
            exchange.fail(self.failed(self.state))
        elif len(self.waiting) >= self.queue:
            exchange.fail(self.full())
        else:
            self.waiting[exchange] = None

    def _changed(self, node: KnownNode) -> None:
        self.state = node
        # A node that stops for good has none but draining workers; they take what is passed on to
        # them to the end.
        was_stopping = self._stopping
        self._stopping = node.state == "draining"
        takes = {
            worker.address for worker in node.workers if worker.state == "ready" or self._stopping
        }
        for address in self.endpoints.keys() - (takes if was_stopping == self._stopping else set()):
            self.endpoints.pop(address).retire()
        for address in takes - self.endpoints.keys():
            self.endpoints[address] = self._endpoint(address, node)
        for endpoint in self.endpoints.values():
            if endpoint.unreachable:  # the news may be that it listens again
                endpoint.end_rest()
        self._take_waiting()

    def _endpoint(self, address: str, node: KnownNode) -> Endpoint:
        reads_memory = self._sharing is not None and all(
            readable(worker.pid) for worker in node.workers if worker.address == address
        )
        return Endpoint(
            address, self.loop, self.keep_alive, reads_memory, self._failing, self._take_waiting
        )

    def _failing(self, endpoint: Endpoint) -> None:
        resting = sum(other.resting for other in self.endpoints.values())
        if resting + 1 <= MOST_RESTING * len(self.endpoints):
            endpoint.rest()

    def _take_waiting(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        waiting = list(self.waiting)
        self.waiting = {}
        for exchange in waiting:
            self.send(exchange)


class Endpoint:
    """Keeps the connections to one worker.

    Args:
        address: its own socket.
        loop: the loop that calls run on.
        keep_alive: seconds that an idle connection is kept.
        reads_memory: whether results may come by reference.
        on_failing: called when it fails again and again; may let it `rest`.
        on_back: called when its rest is over.
    """

    def __init__(
        self, address: str, loop: asyncio.AbstractEventLoop, keep_alive: float, reads_memory: bool,
        on_failing: Callable[[Endpoint], None], on_back: Callable[[], None],
    ) -> None:  # fmt: skip
        self.address = address
        self.loop = loop
        self.keep_alive = keep_alive
        self.reads_memory = reads_memory
        self.on_failing = on_failing
        self.on_back = on_back
        # The latest used at the right. A connection carries requests of one kind: typed calls, and
        # others by theirs.
        self.idle: deque[Connection] = deque()
        self.others: dict[Trust, deque[Connection]] = {}
        self.in_flight = 0
        self.resting = False
        self.unreachable = False  # and rests because nobody listens at its socket
        self.retired = False
        self._failures = 0
        self._rests = 0
        self._sweep: asyncio.TimerHandle | None = None

    def send(self, exchange: Exchange[bytes]) -> None:
        """Send on an idle connection, or on a new one; OSError if the worker cannot be reached."""
        request = exchange.request
        idle = self.idle if exchange.trust is PEER else self._idle_as(exchange.trust)
        if idle:
            connection = idle.pop()
        else:
            connection = self._connect(exchange.trust)
            as_peer = exchange.trust is PEER and not self.reads_memory
            request = (PEER_BY_SOCKET if as_peer else exchange.trust).opening + request
        self.in_flight += 1
        exchange.send_on(connection, request, self)

    def rest(self) -> None:
        """Leave it alone for a while, longer each time until it answers again."""
        self.resting = True
        seconds = min(FIRST_REST * 2**self._rests, LONGEST_REST)
        self._rests += 1
        self._failures = FAILURES - 1  # one more failure after it, and it rests again
        self.loop.call_later(seconds, self._back)

    def miss(self) -> None:
        """Leave it alone until there is news of it, or for a while: nobody listens there."""
        self.resting = True
        self.unreachable = True
        self.loop.call_later(FIRST_REST, self._back)

    def end_rest(self) -> None:
        """Try it with the next call: there is news of it."""
        self.resting = False
        self.unreachable = False

    def retire(self) -> None:
        """Close what is idle, and the rest after its answer: the worker drains or is gone."""
        self.retired = True
        for idle in (self.idle, *self.others.values()):
            while idle:
                idle[0].close()
        if self._sweep is not None:
            self._sweep.cancel()

    def _back(self) -> None:
        self.end_rest()
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
            self._failures = 0
            self._rests = 0
        idle = self.idle if connection.trust is PEER else self._idle_as(connection.trust)
        idle.append(connection)
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
            self._sweep = self.loop.call_later(
                max(min(left) + self.keep_alive - now, 0.001), self._expire
            )
