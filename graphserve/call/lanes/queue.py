"""The queue lane: one connection a call on the node's shared socket. Runs in workers.

For APIs that are limited. The kernel's accept queue is one queue for all callers and all workers.
"""

from __future__ import annotations

import asyncio
import socket

from graphserve.call.connection import Connection
from graphserve.call.context import CallContext
from graphserve.call.exchange import Compose, Exchange
from graphserve.call.lanes.base import GONE, NodeLane
from graphserve.call.membership import KnownNode, Membership
from graphserve.call.memory_sharing import Sharing
from graphserve.call.request import composer
from graphserve.call.retry_budget import RetryBudget
from graphserve.graph.plan import ApiPlan
from graphserve.loop.poller import poller
from graphserve.wire.trust import PEER, PEER_BY_SOCKET

# seconds after which a shared socket is tried again where nobody listened; doubles up to …
FIRST_RETRY_PAUSE = 0.005
LONGEST_RETRY_PAUSE = 0.2


class QueueLane(NodeLane):
    """Connects to the node's shared socket for each call: the free worker takes the oldest one.

    Args:
        membership: what is known about the nodes.
        node: the node's name.
        path: its shared socket.
        retry_budget: of calls to the node that may run again.
        sharing: what is known of sharing memory with the node; None if none is shared.
    """

    def __init__(
        self,
        membership: Membership,
        node: str,
        path: str,
        retry_budget: RetryBudget,
        sharing: Sharing | None = None,
        *,
        timed: bool = False,
    ) -> None:
        super().__init__(membership, node, retry_budget, sharing)
        self._timed = timed
        self.path = path
        self.waiting: set[Exchange[bytes]] = set()
        self._readers = poller(self.loop)
        # while nobody listens at the socket
        self._socketless: dict[Exchange[bytes], None] = {}
        self._retry_timer: asyncio.TimerHandle | None = None
        self._retry_pause = FIRST_RETRY_PAUSE
        membership.watch(node, self._changed)

    def composer(self, api: ApiPlan, *, checked: bool, caller: str) -> Compose[bytes]:
        """Return a function that makes requests to one API, in the form that this lane sends."""
        sharing = self._sharing
        by_socket = composer(
            api, self.node, PEER_BY_SOCKET, checked=checked, caller=caller, timed=self._timed
        )
        if sharing is None:
            return by_socket
        by_memory = composer(
            api, self.node, PEER, checked=checked, caller=caller, timed=self._timed
        )

        def compose(context: CallContext | None, deadline_ns: int | None, body: bytes) -> bytes:
            return (by_memory if sharing.can_read_results else by_socket)(
                context, deadline_ns, body
            )

        return compose

    def send(self, exchange: Exchange[bytes]) -> None:
        """Connect and send at once; the kernel keeps it until a worker is free.

        At the other end of the socket, `GatedListener` of `worker/dispatch/slots.py` accepts it
        when its worker has a free slot, and `WorkerServer` gives it a connection.
        """
        if self.state is not None and self.state.hopeless:
            exchange.fail(self.failed(self.state))
            return
        if self._retry_timer is not None:
            self._socketless[exchange] = None
            return
        try:
            sock = socket.socket(socket.AF_UNIX)
        except OSError as exc:
            exchange.fail(self.no_socket(exc))
            return
        sock.setblocking(False)
        try:
            sock.connect(self.path)
        except BlockingIOError:
            sock.close()
            exchange.fail(self.full())
            return
        except OSError as exc:
            sock.close()
            if exc.errno in GONE:
                self._wait_for_socket(exchange)
            else:
                exchange.fail(self.no_socket(exc))
            return
        self._retry_pause = FIRST_RETRY_PAUSE
        self.waiting.add(exchange)
        exchange.send_on(
            Connection(sock, Connection.close, _nothing, self._readers), exchange.request
        )

    def forget(self, exchange: Exchange[bytes]) -> None:
        """Drop an exchange that is over."""
        self.waiting.discard(exchange)
        self._socketless.pop(exchange, None)

    def _wait_for_socket(self, exchange: Exchange[bytes]) -> None:
        """Keep it until the supervisor has made the socket anew, whose name somebody removed."""
        self._socketless[exchange] = None
        self._membership.lost(self.path)
        self._retry_timer = self.loop.call_later(self._retry_pause, self._send_socketless)
        self._retry_pause = min(self._retry_pause * 2, LONGEST_RETRY_PAUSE)

    def _send_socketless(self) -> None:
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
        waiting = list(self._socketless)
        self._socketless = {}
        for exchange in waiting:
            self.send(exchange)

    def _changed(self, node: KnownNode) -> None:
        self.state = node
        if node.hopeless:  # no worker is left that could have taken any of these
            for exchange in [*self.waiting, *self._socketless]:
                exchange.fail(self.failed(node))
        self._send_socketless()


def _nothing(connection: Connection) -> None:
    pass
