"""The two lanes to a node: kept-alive connections to each worker, or one connection a call on the shared socket.

Which one an API takes is declared (DESIGN.md, the two lanes). Both follow the pushed membership. Runs in workers.
"""

from __future__ import annotations

import asyncio
import errno
import socket

from graphserve.call.connection import Connection
from graphserve.call.context import CallContext
from graphserve.call.endpoint import Endpoint
from graphserve.call.exchange import Exchange
from graphserve.call.membership import KnownNode, Membership
from graphserve.call.memory_sharing import Sharing
from graphserve.call.request import Compose, composer
from graphserve.call.retry_budget import RetryBudget
from graphserve.errors import Unavailable
from graphserve.graph.plan import ApiPlan
from graphserve.loop.poller import poller
from graphserve.wire.memory import readable
from graphserve.wire.trust import PEER, PEER_BY_SOCKET

CONNECT_PAUSE = 0.002  # seconds until a full accept queue of one worker is tried again
MOST_RESTING = 0.5  # share of a node's workers that may be left alone because calls to them were lost
GONE = (errno.ECONNREFUSED, errno.ENOENT)  # nobody listens there
FIRST_LOOK = 0.005  # seconds after which a shared socket is tried again where nobody listened; doubles up to …
LONGEST_LOOK = 0.2


class QueueLane:
    """A connection a call to the node's shared socket: the free worker takes the oldest call.

    Args:
        members: what is known about the node.
        node: the node's name.
        path: its shared socket.
        budget: of calls to the node that may run again.
        sharing: what is known of sharing memory with the node; None if none is shared.
    """

    def __init__(
        self, members: Membership, node: str, path: str, budget: RetryBudget, sharing: Sharing | None = None
    ) -> None:
        self.node = node
        self.path = path
        self.budget = budget
        self._sharing = sharing
        self.state: KnownNode | None = None
        self.waiting: set[Exchange] = set()
        self.loop = asyncio.get_running_loop()
        self._readers = poller(self.loop)
        self._members = members
        self._unsent: dict[Exchange, None] = {}  # while nobody listens at the socket
        self._look: asyncio.TimerHandle | None = None
        self._pause = FIRST_LOOK
        members.watch(node, self._changed)

    def composer(self, api: ApiPlan, *, checked: bool) -> Compose:
        """See `Lane`."""
        by_socket, sharing = composer(api, self.node, PEER_BY_SOCKET, checked=checked), self._sharing
        if sharing is None:
            return by_socket
        by_memory = composer(api, self.node, PEER, checked=checked)

        def compose(context: CallContext | None, deadline_ns: int | None, body: bytes) -> bytes:
            return (by_memory if sharing.results else by_socket)(context, deadline_ns, body)

        return compose

    def send(self, exchange: Exchange) -> None:
        """Connect and send at once; the kernel keeps it until a worker is free."""
        if self.state is not None and self.state.hopeless:
            exchange.fail(failed(self.state))
            return
        if self._look is not None:
            self._unsent[exchange] = None
            return
        try:
            sock = socket.socket(socket.AF_UNIX)
        except OSError as exc:
            exchange.fail(no_socket(exc, self.node))
            return
        sock.setblocking(False)
        try:
            sock.connect(self.path)
        except BlockingIOError:
            sock.close()
            exchange.fail(Unavailable(f"the queue of {self.node} is full", node=self.node, full=True))
            return
        except OSError as exc:
            sock.close()
            if exc.errno in GONE:
                self._hold(exchange)
            else:
                exchange.fail(no_socket(exc, self.node))
            return
        self._pause = FIRST_LOOK
        self.waiting.add(exchange)
        exchange.connection = connection = Connection(sock, Connection.close, _nothing, self._readers)
        connection.send(exchange.request, exchange)
        if exchange.upload is not None:
            exchange.feed(connection)

    def forget(self, exchange: Exchange) -> None:
        """Drop an exchange that is over."""
        self.waiting.discard(exchange)
        self._unsent.pop(exchange, None)

    def _hold(self, exchange: Exchange) -> None:
        """Somebody removed the socket's name: the supervisor makes it anew, and says so."""
        self._unsent[exchange] = None
        self._members.lost(self.path)
        self._look = self.loop.call_later(self._pause, self._send_unsent)
        self._pause = min(self._pause * 2, LONGEST_LOOK)

    def _send_unsent(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        unsent = list(self._unsent)
        self._unsent = {}
        for exchange in unsent:
            self.send(exchange)

    def _changed(self, node: KnownNode) -> None:
        self.state = node
        if node.hopeless:  # no worker is left that could have taken any of these
            for exchange in [*self.waiting, *self._unsent]:
                exchange.fail(failed(node))
        self._send_unsent()


class PooledLane:
    """Kept-alive connections to the workers' own sockets, the worker with the fewest calls in flight first.

    Args:
        members: what is known about the node.
        node: the node's name.
        queue: calls that may wait while no worker is ready.
        keep_alive: seconds that an idle connection is kept; shorter than the worker keeps it.
        budget: of calls to the node that may run again.
        sharing: what is known of sharing memory with the node; None if none is shared.
    """

    def __init__(
        self, members: Membership, node: str, queue: int, keep_alive: float, budget: RetryBudget,
        sharing: Sharing | None = None,
    ) -> None:  # fmt: skip
        self._sharing = sharing
        self.node = node
        self.queue = queue
        self.keep_alive = keep_alive
        self.budget = budget
        self.loop = asyncio.get_running_loop()
        self._members = members
        self.state: KnownNode | None = None
        self.endpoints: dict[str, Endpoint] = {}
        self.waiting: dict[Exchange, None] = {}
        self._last = False  # whether the node stops
        self._pause: asyncio.TimerHandle | None = None  # while the accept queue of the least busy worker is full
        members.watch(node, self._changed)

    def composer(self, api: ApiPlan, *, checked: bool) -> Compose:
        """See `Lane`."""
        return composer(api, self.node, checked=checked)

    def send(self, exchange: Exchange) -> None:
        """Send to the worker with the least in flight; wait if none is ready."""
        while True:
            endpoint = self._least(exchange.endpoint)
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
                    exchange.fail(no_socket(exc, self.node))
                    return
                endpoint.miss()  # gone, or somebody removed its name: the supervisor will say so
                self._members.lost(endpoint.address)

    def forget(self, exchange: Exchange) -> None:
        """Drop an exchange that is over."""
        self.waiting.pop(exchange, None)

    def _least(self, lost_at: Endpoint | None) -> Endpoint | None:
        best = None
        for endpoint in self.endpoints.values():
            if endpoint.resting or endpoint is lost_at:
                continue
            if best is None or endpoint.in_flight < best.in_flight:
                best = endpoint
        if best is None and lost_at is not None:  # there is no other
            return self._least(None)
        return best

    def _wait(self, exchange: Exchange) -> None:
        if self.state is not None and self.state.hopeless:
            exchange.fail(failed(self.state))
        elif len(self.waiting) >= self.queue:
            exchange.fail(Unavailable(f"the queue of {self.node} is full", node=self.node, full=True))
        else:
            self.waiting[exchange] = None

    def _changed(self, node: KnownNode) -> None:
        self.state = node
        # A node that stops for good has none but draining workers; they take what is passed on to them to the end.
        last = self._last
        self._last = node.state == "draining"
        takes = {worker.address for worker in node.workers if worker.state == "ready" or self._last}
        for address in self.endpoints.keys() - (takes if last == self._last else set()):
            self.endpoints.pop(address).retire()
        for address in takes - self.endpoints.keys():
            self.endpoints[address] = self._endpoint(address, node)
        for endpoint in self.endpoints.values():
            if endpoint.unreachable:  # the news may be that it listens again
                endpoint.resting = endpoint.unreachable = False
        self._take_waiting()

    def _endpoint(self, address: str, node: KnownNode) -> Endpoint:
        endpoint = Endpoint(address, self.loop, self.keep_alive, self._failing, self._take_waiting)
        if self._sharing is not None:
            endpoint.reads_memory = all(readable(each.pid) for each in node.workers if each.address == address)
        return endpoint

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


def failed(node: KnownNode) -> Unavailable:
    """What a caller of a failed node gets."""
    return Unavailable(str(node), node=node.name, retry_after=node.retry_after)


def no_socket(exc: OSError, node: str) -> Unavailable:
    """What a caller gets when no connection to a node can be made."""
    return Unavailable(f"no connection to {node}: {exc.strerror or exc}", node=node)


def _nothing(connection: Connection) -> None:
    pass
