"""A connection by a shared socket: one request, one answer, then it ends; without a transport.

Runs in workers.

A caller of ours connects and sends in one go, so the request is there when the connection is
accepted. It is read from the socket, and the answer written to it, for a fifth of what a transport
and a parser cost. What is not such a request (curl, a body that comes in pieces, a stream) goes the
usual way.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from graphserve.call.request_head import Address
from graphserve.loop.timers import Timer, set_timer
from graphserve.wire.trust import PUBLIC
from graphserve.worker.dispatch.slots import Permit, has_hung_up
from graphserve.worker.http.listener import HEADERS_TIMEOUT, Listener
from graphserve.worker.http.request import HttpRequest
from graphserve.worker.http.transport import FlowControl

READ_SIZE = 256 * 1024  # bytes


class FastConnection:
    """A connection that carries one request, read and answered on its socket: to the request it is
    also the transport.

    Args:
        listener: of the shared sockets.
        sock: the connection, non-blocking; owned by this.
        permit: what was taken for it.
        hand_over: takes the connection, and what was read of it, when its request is of another
            kind.
    """

    __slots__ = (
        "_closing",
        "_hand_over",
        "_sock",
        "_timer",
        "_unsent",
        "_watched",
        "listener",
        "permit",
        "request",
        "trust",
    )  # fmt: skip
    client: Address | None = None  # at a Unix socket
    flow: FlowControl | None = None  # its answer is one write, so there is nothing to hold back
    # It never is between requests.
    idle = False
    at_rest = False

    def __init__(
        self, listener: Listener, sock: socket.socket, permit: Permit,
        hand_over: Callable[[socket.socket, Permit, bytes], None],
    ) -> None:  # fmt: skip
        self.listener = listener
        self._sock = sock
        self.permit = permit
        self._hand_over = hand_over
        self.request: HttpRequest | None = None
        self.trust = PUBLIC
        self._timer: Timer | asyncio.TimerHandle | None = None
        self._unsent = b""
        self._watched = False
        self._closing = False
        listener.connections.add(self)

    def begin(self) -> None:
        """Read the request, or wait for it."""
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:  # we were quicker than the caller
            self._timer = set_timer(self.listener.loop, HEADERS_TIMEOUT, self.close)
            self._watch(True)
        except OSError:
            self.close()
        else:
            self._arrived(data)

    # --- what its request needs of a connection ---

    @property
    def transport(self) -> FastConnection:
        """Return what its request writes to: this connection."""
        return self

    def caller_left(self) -> bool:
        """Return whether the other side has closed its end, though its request came whole."""
        return has_hung_up(self._sock)

    def on_response_complete(self) -> None:
        """Do nothing: `close` follows, or has been called."""

    def end(self, *, unread: bool) -> None:
        """Close it: nothing comes behind a whole request."""
        self.close()

    # --- of its listener ---

    def idle_before(self, moment: float) -> bool:
        """Return False: its end is that of its request."""
        return False

    def close_after_answer(self) -> None:
        """Leave it as it is: every answer is the last one."""

    # --- what its request needs of a transport ---

    def write(self, data: bytes) -> None:
        """Send the answer; what the socket does not take follows when it does."""
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # the caller is gone
            self._end()
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self.listener.loop.add_writer(self._sock, self._writable)

    def close(self) -> None:
        """Close it when all is sent."""
        self._closing = True
        if not self._unsent:
            self._end()

    # --- the socket ---

    def _readable(self) -> None:
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if self._closing:
            return
        if self.request is None:
            self._watch(False)
            self._arrived(data)
        elif not data:  # the caller gave up
            self._end()

    def _arrived(self, data: bytes) -> None:
        if self._timer is not None:
            self._timer.cancel()
        parser = self.listener.fast_parser
        known = parser.read(data, opens=True) if parser is not None and data else None
        if known is not None and not known[0].signature.stream:
            api, self.trust, checked, context, body = known
            request = HttpRequest(self, api, False, context)
            self.request = request
            request.execute_prepared(checked, body)
            if not request.response_complete and not self._closing:
                self._watch(True)  # for its end
        elif data:
            self.listener.connections.discard(self)
            self._hand_over(self._sock, self.permit, data)
        else:
            self._end()

    def _writable(self) -> None:
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._unsent = b""
            self._closing = True
        if not self._unsent:
            self.listener.loop.remove_writer(self._sock)
            if self._closing:
                self._end()

    def _watch(self, wanted: bool) -> None:
        if wanted != self._watched:
            self._watched = wanted
            readers = self.listener.readers
            if wanted:
                readers.add_reader(self._sock, self._readable)
            else:
                readers.remove_reader(self._sock)

    def _end(self) -> None:
        if self._sock.fileno() < 0:
            return
        self._closing = True
        self._watch(False)
        if self._unsent:
            self._unsent = b""
            self.listener.loop.remove_writer(self._sock)
        self.listener.connections.discard(self)
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # a forked child may hold a copy
        self._sock.close()
        # no circle: what hangs on the request goes with it
        request = self.request
        self.request = None
        if request is not None:
            request.abandon()
        self.permit.give_back()
