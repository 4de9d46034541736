"""What a connection knows of its transport: who is at its two ends, whether either side holds it
back, and how much of what was written is still on its way.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from typing import Protocol

from graphserve.call.request_head import Address
from graphserve.loop.poller import Poller
from graphserve.worker.dispatch.slots import has_hung_up


class Writer(Protocol):
    """Where an answer is written: a transport of the loop, or a connection that is its own."""

    def write(self, data: bytes) -> None:
        """Send these bytes."""

    def close(self) -> None:
        """Close the connection when all is sent."""


class FlowControl:
    """Holds back what comes, and tells whether what goes out is held back.

    Args:
        transport: the connection's.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._writable = asyncio.Event()
        self._writable.set()
        self.read_paused = False
        self.write_paused = False
        self._readers: Poller | None = None  # watch its end
        self._watched = -1  # the descriptor, meanwhile

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written."""
        await self._writable.wait()

    def pause_reading(self) -> None:
        """Read no more from the client."""
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read from the client again."""
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    # What is held back stands before the end of the connection, so the loop does not see that end.
    # The kernel knows it all the same.

    def watch_end(self, readers: Poller) -> None:
        """Watch whether the client leaves while it is held back, and drop the connection then; it
        stays watched until `forget_end`.
        """
        if self._watched < 0 and not self._transport.is_closing():
            self._readers = readers
            self._watched = self._transport.get_extra_info("socket").fileno()
            readers.watch_end(self._watched, self._client_ended)

    def forget_end(self) -> None:
        """Watch no more: the connection has ended, or somebody else has it."""
        if self._readers is not None:
            self._readers.forget_end(self._watched, self._client_ended)
            self._readers = None
            self._watched = -1

    def _client_ended(self) -> None:
        if not has_hung_up(self._transport.get_extra_info("socket")):
            return  # it was said of a socket that had this number before
        self.forget_end()
        if self.read_paused:  # otherwise the loop sees it, behind what is still to be read
            self._transport.abort()

    def pause_writing(self) -> None:
        """Note that the transport holds as much as it should: the client is slow."""
        if not self.write_paused:
            self.write_paused = True
            self._writable.clear()

    def resume_writing(self) -> None:
        """Note that the client has taken enough, or is gone."""
        if self.write_paused:
            self.write_paused = False
            self._writable.set()


def remote_address(transport: asyncio.Transport) -> Address | None:
    """Return the client's address and port;
    None at a Unix socket, and of a client that has left.
    """
    sock: socket.socket = transport.get_extra_info("socket")
    try:
        address = sock.getpeername()
    except OSError:
        return None
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None


def local_address(transport: asyncio.Transport) -> tuple[str, int | None] | None:
    """Return our own address and port; of a Unix socket its path, without a port."""
    sock: socket.socket = transport.get_extra_info("socket")
    address = sock.getsockname()
    if isinstance(address, tuple):
        return (str(address[0]), int(address[1]))
    return (address, None) if isinstance(address, str) else None


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Return how many bytes were written that the other side has not taken yet."""
    # What is with us, and what is with the kernel (SIOCOUTQ, which is TIOCOUTQ): that may be
    # megabytes, and it asks for more only when a third of them has gone.
    sock = transport.get_extra_info("socket")
    queued = 0
    if sock is not None and sock.fileno() >= 0:
        (queued,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    return transport.get_write_buffer_size() + int(queued)
