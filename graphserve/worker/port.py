"""The public socket of an entry worker: accepts connections, never more than it can hold, and closes without a loss."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl

from graphserve.worker.early import Beginning, EarlyProtocol
from graphserve.worker.gate import NO_DESCRIPTORS_PAUSE, drain_backlog
from graphserve.worker.handshakes import FailedHandshakes
from graphserve.worker.limits import Limits
from graphserve.worker.listener import Listener
from graphserve.worker.patrol import Patrol
from graphserve.worker.public import PublicProtocol

LAST_HANDSHAKE = 5.0  # seconds that a client whose connection still waited when the port closed has for TLS
PROBES = 8  # connections beyond the limit that may shake hands, and then ask for health
AT_ONCE = 16  # connections that are accepted in one turn of the loop; a sibling may have time for the others


class Port:
    """One public socket.

    Args:
        listener: what its connections share.
        limits: what they may do.
        tls: the TLS context, if it is a TLS port.
        beginning: for a port that is open before the graph is resolved.
    """

    def __init__(
        self, listener: Listener, limits: Limits, tls: ssl.SSLContext | None, beginning: Beginning | None = None
    ) -> None:
        self._beginning = beginning
        self.listener, self.limits, self.tls = listener, limits, tls
        self.loop = asyncio.get_running_loop()
        self.patrol = Patrol(listener, limits)
        self._failed = FailedHandshakes()
        self._attaching: set[asyncio.Task[object]] = set()
        self._handshakes: dict[asyncio.Task[object], socket.socket] = {}  # that nobody has ended, the oldest first
        self._server: asyncio.Server | None = None
        self._sock: socket.socket | None = None

    async def open(self, sock: socket.socket, backlog: int) -> None:
        """Begin to accept. With TLS that is our own doing, since the loop would begin any number of handshakes."""
        self._copy = sock.dup()  # the server closes the one it has; what waits there then is taken from this one
        self._copy.setblocking(False)
        if self.tls is None:
            self._server = await self.loop.create_server(self._protocol, sock=sock, backlog=backlog)
        else:
            sock.setblocking(False)
            sock.listen(backlog)
            self._sock = sock
            self.loop.add_reader(sock, self._accept)

    async def succeed(self, sock: socket.socket, backlog: int) -> None:
        """Accept from another socket, since the name of the one before was removed; who waits there is served."""
        self.close()
        await self.open(sock, backlog)

    def close(self) -> None:
        """Accept no more, but serve what waits to be accepted."""
        if self._server is not None:
            self._server.close()
        if self._sock is not None:
            self.loop.remove_reader(self._sock)
            self._sock.close()
            self._sock = None
        drain_backlog(self._copy, lambda connection: self._attach(connection, LAST_HANDSHAKE))

    @property
    def pending(self) -> bool:
        """Whether there are connections that are no protocol's yet."""
        return bool(self._attaching)

    def _protocol(self) -> PublicProtocol:
        if self._beginning is not None and not self._beginning.over:
            return EarlyProtocol(self.listener, self.patrol, self._beginning)
        return PublicProtocol(self.listener, self.patrol)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                assert self._sock is not None
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no descriptors
                self._pause()
                return
            over = self.patrol.excess(len(self._handshakes) + 1) + self.patrol.spares
            if over > PROBES and not self._end_oldest_handshake():
                connection.close()
                continue
            connection.setblocking(False)
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._attach(connection, self.limits.patience)

    def _end_oldest_handshake(self) -> bool:
        if not self._handshakes:
            return False
        connection = self._handshakes.pop(next(iter(self._handshakes)))
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # the loop sees its end, and closes it
        return True

    def _pause(self) -> None:
        assert self._sock is not None
        self.loop.remove_reader(self._sock)
        self.loop.call_later(NO_DESCRIPTORS_PAUSE, self._resume)

    def _resume(self) -> None:
        if self._sock is not None:
            self.loop.add_reader(self._sock, self._accept)

    def _attach(self, connection: socket.socket, patience: float) -> None:
        timeout = patience if self.tls is not None else None
        task = self.loop.create_task(
            self.loop.connect_accepted_socket(
                self._protocol, connection, ssl=self.tls, ssl_handshake_timeout=timeout
            )
        )  # fmt: skip
        self._attaching.add(task)
        self._handshakes[task] = connection
        task.add_done_callback(functools.partial(self._attached, _peer(connection) if self.tls is not None else ""))

    def _attached(self, peer: str, task: asyncio.Task[object]) -> None:
        self._attaching.discard(task)
        self._handshakes.pop(task, None)
        if not task.cancelled():
            self._failed.note(task.exception(), peer)  # it is the client's; the loop has closed the socket


def _peer(connection: socket.socket) -> str:
    """Who a client is, in words; those of a Unix socket have no address."""
    if connection.family == socket.AF_UNIX:
        return "a client of the Unix socket"
    try:
        return str(connection.getpeername()[0])
    except OSError:
        return "a client that has left"
