"""The two lanes to a node: kept-alive connections to each worker, or one connection a call on the shared socket.

Which one an API takes is declared (DESIGN.md, the two lanes). Both follow the pushed membership. Runs in workers.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque

from graphserve.call.connection import Connection
from graphserve.call.exchange import Exchange
from graphserve.call.members import Members, Node
from graphserve.call.poller import poller
from graphserve.call.request import Compose, composer
from graphserve.errors import Unavailable
from graphserve.plan import ApiPlan

CONNECT_PAUSE = 0.002  # seconds until a full accept queue of one worker is tried again


class QueueLane:
    """A connection a call to the node's shared socket: the free worker takes the oldest call.

    Args:
        members: what is known about the node.
        node: the node's name.
        path: its shared socket.
    """

    def __init__(self, members: Members, node: str, path: str) -> None:
        self.node, self.path = node, path
        self.state: Node | None = None
        self.waiting: set[Exchange] = set()
        self._readers = poller(asyncio.get_running_loop())
        members.watch(node, self._changed)

    def composer(self, api: ApiPlan) -> Compose:
        """See `Lane`."""
        return composer(api, self.node, keep=False)

    def send(self, exchange: Exchange) -> None:
        """Connect and send at once; the kernel keeps it until a worker is free."""
        if self.state is not None and self.state.state == "failed":
            exchange.fail(failed(self.state))
            return
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(self.path)
        except BlockingIOError:
            sock.close()
            exchange.fail(Unavailable(f"the queue of {self.node} is full", node=self.node))
            return
        except OSError as exc:
            sock.close()
            exchange.fail(no_socket(exc, self.node))
            return
        self.waiting.add(exchange)
        exchange.connection = connection = Connection(sock, Connection.close, _nothing, self._readers)
        connection.send(exchange.request, exchange)
        if exchange.upload is not None:
            exchange.feed(connection)

    def forget(self, exchange: Exchange) -> None:
        """Drop an exchange that is over."""
        self.waiting.discard(exchange)

    def _changed(self, node: Node) -> None:
        self.state = node
        if node.state == "failed":  # no worker is left that could have taken any of these
            for exchange in list(self.waiting):
                exchange.fail(failed(node))


class PooledLane:
    """Kept-alive connections to the workers' own sockets, the worker with the fewest calls in flight first.

    Args:
        members: what is known about the node.
        node: the node's name.
        queue: calls that may wait while no worker is ready.
        keep_alive: seconds that an idle connection is kept; shorter than the worker keeps it.
    """

    def __init__(self, members: Members, node: str, queue: int, keep_alive: float) -> None:
        self.node, self.queue, self.keep_alive = node, queue, keep_alive
        self.loop = asyncio.get_running_loop()
        self.state: Node | None = None
        self.endpoints: dict[str, Endpoint] = {}
        self.waiting: dict[Exchange, None] = {}
        members.watch(node, self._changed)

    def composer(self, api: ApiPlan) -> Compose:
        """See `Lane`."""
        return composer(api, self.node, keep=True)

    def send(self, exchange: Exchange) -> None:
        """Send to the worker with the least in flight; wait if none is ready."""
        while True:
            endpoint = self._least()
            if endpoint is None:
                self._wait(exchange)
                return
            try:
                endpoint.send(exchange)
                return
            except BlockingIOError:
                self.loop.call_later(CONNECT_PAUSE, self._again, exchange)
                return
            except OSError:
                endpoint.refused = True  # gone, or about to be; the supervisor will say so

    def forget(self, exchange: Exchange) -> None:
        """Drop an exchange that is over."""
        self.waiting.pop(exchange, None)

    def _again(self, exchange: Exchange) -> None:
        if not exchange.over:
            self.send(exchange)

    def _least(self) -> Endpoint | None:
        best = None
        for endpoint in self.endpoints.values():
            if not endpoint.refused and (best is None or endpoint.in_flight < best.in_flight):
                best = endpoint
        return best

    def _wait(self, exchange: Exchange) -> None:
        if self.state is not None and self.state.state == "failed":
            exchange.fail(failed(self.state))
        elif len(self.waiting) >= self.queue:
            exchange.fail(Unavailable(f"the queue of {self.node} is full", node=self.node))
        else:
            self.waiting[exchange] = None

    def _changed(self, node: Node) -> None:
        self.state = node
        ready = {worker.address for worker in node.workers if worker.state == "ready"}
        for address in self.endpoints.keys() - ready:
            self.endpoints.pop(address).retire()
        for address in ready - self.endpoints.keys():
            self.endpoints[address] = Endpoint(address, self.loop, self.keep_alive)
        waiting, self.waiting = list(self.waiting), {}
        for exchange in waiting:
            self.send(exchange)


class Endpoint:
    """The connections to one worker."""

    def __init__(self, address: str, loop: asyncio.AbstractEventLoop, keep_alive: float) -> None:
        self.address, self.loop, self.keep_alive = address, loop, keep_alive
        self.idle: deque[Connection] = deque()  # the latest used at the right
        self.in_flight = 0
        self.refused = False
        self.retired = False
        self._sweep: asyncio.TimerHandle | None = None

    def send(self, exchange: Exchange) -> None:
        """Send on an idle connection, or on a new one; OSError if the worker cannot be reached."""
        connection = self.idle.pop() if self.idle else self._connect()
        self.in_flight += 1
        exchange.connection = connection
        connection.send(exchange.request, exchange)
        if exchange.upload is not None:
            exchange.feed(connection)

    def retire(self) -> None:
        """The worker drains or is gone: close what is idle, and the rest after its answer."""
        self.retired = True
        while self.idle:
            self._drop(self.idle.pop())
        if self._sweep is not None:
            self._sweep.cancel()

    def _connect(self) -> Connection:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(self.address)
        except OSError:
            sock.close()
            raise
        return Connection(sock, self._idle, self._closed)

    def _idle(self, connection: Connection) -> None:
        self.in_flight -= 1
        if self.retired:
            self._drop(connection)
            return
        self.idle.append(connection)
        if self._sweep is None:
            self._sweep = self.loop.call_later(self.keep_alive, self._expire)

    def _closed(self, connection: Connection) -> None:
        try:
            self.idle.remove(connection)
        except ValueError:
            self.in_flight -= 1

    def _drop(self, connection: Connection) -> None:
        self.in_flight += 1  # `_closed` takes it off again
        connection.close()

    def _expire(self) -> None:
        self._sweep = None
        now = self.loop.time()
        while self.idle and now - self.idle[0].idle_since >= self.keep_alive:
            self._drop(self.idle.popleft())
        if self.idle:
            rest = self.idle[0].idle_since + self.keep_alive - now
            self._sweep = self.loop.call_later(max(rest, 0.001), self._expire)


def failed(node: Node) -> Unavailable:
    """What a caller of a failed node gets."""
    return Unavailable(f"{node.name} is failed" + (f": {node.reason}" if node.reason else ""), node=node.name)


def no_socket(exc: OSError, node: str) -> Unavailable:
    """What a caller gets when a node's shared socket cannot be used, or no socket can be made."""
    if exc.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return Unavailable(f"{node} has stopped", node=node)
    return Unavailable(f"no connection to {node}: {exc.strerror or exc}", node=node)


def _nothing(connection: Connection) -> None:
    pass
