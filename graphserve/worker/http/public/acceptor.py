"""The public socket in a process that answers there: accepts connections, never more than it can
hold, and closes without a loss.

Runs in entry workers and fallback servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl

from graphserve.worker.dispatch.slots import NO_DESCRIPTORS_PAUSE, drain_backlog, has_sent
from graphserve.worker.http.limits import Limits
from graphserve.worker.http.listener import Listener
from graphserve.worker.http.public.connection import PublicConnection
from graphserve.worker.http.public.early import Beginning, EarlyConnection
from graphserve.worker.http.public.timeouts import Timeouts
from graphserve.worker.http.public.tls import FailedHandshakes
from graphserve.worker.websockets.door import SocketDoor

# seconds that a client whose connection still waited when the port closed has for TLS
LAST_HANDSHAKE = 5.0
# handshakes at once beyond the limit: of probes, and of those who are told that there is no room
BEYOND = 8
# seconds that a handshake has while others wait for its place: of a client in earnest it takes a
# part
LONGEST_HANDSHAKE = 1.0
SHORTEST_HANDSHAKE = 0.02  # seconds likewise, where one after the other stays unfinished
# connections that are accepted in one turn of the loop; a sibling may have time for the others
AT_ONCE = 16


class Acceptor:
    """Accepts the connections of one public socket.

    Args:
        listener: what its connections share.
        limits: what they may do.
        tls: the TLS context, if it is a TLS port.
        beginning: for a port that is open before the graph is resolved.
        door: takes clients that ask for a WebSocket; None where there are none.
    """

    def __init__(
        self,
        listener: Listener,
        limits: Limits,
        tls: ssl.SSLContext | None,
        beginning: Beginning | None = None,
        door: SocketDoor | None = None,
    ) -> None:
        self._beginning = beginning
        self._door = door
        self.listener = listener
        self.limits = limits
        self.tls = tls
        self.loop = asyncio.get_running_loop()
        self.timeouts = Timeouts(listener, limits)
        self._failed = FailedHandshakes()
        self._attaching: set[asyncio.Task[object]] = set()
        # Handshakes that nobody has ended, the oldest first: each socket, and when it was accepted
        # on the loop's clock.
        self._handshakes: dict[asyncio.Task[object], tuple[socket.socket, float]] = {}
        self._patience = LONGEST_HANDSHAKE
        self._pause: asyncio.TimerHandle | None = None  # in which nobody is accepted
        self._server: asyncio.Server | None = None
        self._sock: socket.socket | None = None

    async def open(self, sock: socket.socket, backlog: int) -> None:
        """Begin to accept.

        With TLS that is our own doing, since the loop would begin any number of handshakes.
        """
        # the server closes the one it has; what waits there then is taken from this one
        self._copy = sock.dup()
        self._copy.setblocking(False)
        if self.tls is None:
            self._server = await self.loop.create_server(self._protocol, sock=sock, backlog=backlog)
        else:
            sock.setblocking(False)
            sock.listen(backlog)
            self._sock = sock
            self.loop.add_reader(sock, self._accept)

    async def succeed(self, sock: socket.socket, backlog: int) -> None:
        """Accept from another socket, since the name of the one before was removed;
        who waits there is served.
        """
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
        """Return whether there are connections whose handshake is under way."""
        return bool(self._attaching)

    def _protocol(self) -> PublicConnection:
        if self._beginning is not None and not self._beginning.over:
            return EarlyConnection(self.listener, self.timeouts, self._beginning, self._door)
        return PublicConnection(self.listener, self.timeouts, self._door)

    def _accept(self) -> None:
        assert self._sock is not None
        for _ in range(AT_ONCE):
            # nobody waits there: a place is made for who does, and for nobody else
            if not has_sent(self._sock):
                return
            if not self._has_place():
                return
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no descriptors
                self._rest(NO_DESCRIPTORS_PAUSE)
                return
            connection.setblocking(False)
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._attach(connection, self.limits.patience)

    def _has_place(self) -> bool:
        """Return whether one more client may shake hands now; if not, the next ones wait until a
        handshake is over.

        Who is beyond the limit is told so, which takes a handshake too. Of those only a few are
        under way at once, and none may keep its place: one that is slow ends for who waits. If one
        after the other is slow, that is a flood, and each has less time, so that who is in earnest
        does not wait behind all of them.
        """
        if self.timeouts.excess(len(self._handshakes) + 1) <= BEYOND or not self._handshakes:
            return True
        oldest = next(iter(self._handshakes))
        connection, since = self._handshakes[oldest]
        left = since + self._patience - self.loop.time()
        if left > 0:
            self._rest(left)
            return False
        del self._handshakes[oldest]
        self._patience = max(SHORTEST_HANDSHAKE, self._patience / 2)
        self._failed.dropped(_peer(connection))
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # the loop sees its end, and closes it
        return True

    def _rest(self, seconds: float) -> None:
        """Accept nobody for so long; they wait in the kernel."""
        assert self._sock is not None
        self.loop.remove_reader(self._sock)
        self._pause = self.loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
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
        self._handshakes[task] = (connection, self.loop.time())
        task.add_done_callback(
            functools.partial(self._attached, _peer(connection) if self.tls is not None else "")
        )

    def _attached(self, peer: str, task: asyncio.Task[object]) -> None:
        self._attaching.discard(task)
        held = self._handshakes.pop(task, None)
        if task.cancelled():
            return
        exc = task.exception()
        if exc is None:
            self._patience = min(LONGEST_HANDSHAKE, self._patience * 2)
        self._go_on()
        if held is not None:  # (else we have ended it)
            self._failed.note(exc, peer)  # it is the client's; the loop has closed the socket


def _peer(connection: socket.socket) -> str:
    """Return who a client is, in words; those of a Unix socket have no address."""
    if connection.family == socket.AF_UNIX:
        return "a client of the Unix socket"
    try:
        return str(connection.getpeername()[0])
    except OSError:
        return "a client that has left"
