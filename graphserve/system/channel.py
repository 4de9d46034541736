"""The control connection: JSON messages and descriptors between a worker and its supervisor, over a
Unix socket.

One message a line (`system/messages.py` has them all). One that carries descriptors says how many
in `fds`; they come with its bytes (SCM_RIGHTS, unix(7)), so a worker gets exactly the listening
sockets it is meant to have. Used in both processes.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from graphserve.system.messages import ControlMessage, MalformedMessage, decode, encode

MAX_FDS = 253  # of one message: the kernel takes no more (SCM_MAX_FD, unix(7))


class Channel:
    """One end of a control connection, on the running event loop.

    Args:
        sock: the connected socket; owned by the channel from now on.
        on_message: called with each message and the descriptors that came with it.
        on_close: called once when the other side is gone.
        on_no_room: called before `on_close` when descriptors came that this process has no room
            for: they are lost, and so is the connection.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[ControlMessage, list[int]], None],
        on_close: Callable[[], None],
        on_no_room: Callable[[], None] | None = None,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.on_message = on_message
        self.on_close = on_close
        self.on_no_room = on_no_room
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self._incoming = bytearray()
        self._descriptors: deque[int] = deque()
        self._outgoing: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self.loop.add_reader(sock.fileno(), self._readable)

    @property
    def taken(self) -> bool:
        """Return whether the other side has taken all that was sent."""
        return not self._outgoing

    def send(self, message: ControlMessage, fds: Sequence[int] = ()) -> None:
        """Send a message; it waits here while the other side is slow.

        Descriptors are duplicated at once.
        """
        if self.closed:
            return
        idle = not self._outgoing
        self._outgoing.append((encode(message, len(fds)), tuple(os.dup(fd) for fd in fds)))
        if idle:
            self._flush()

    def drain(self) -> None:
        """Take in what the other side sent before it went."""
        while not self.closed and self._readable():
            pass

    def close(self) -> None:
        """Close this end; nothing is called any more."""
        if self.closed:
            return
        self.closed = True
        self.loop.remove_reader(self.sock.fileno())
        self.loop.remove_writer(self.sock.fileno())
        # A forked child of user code may hold a copy: shut down, or the other side never sees the
        # end.
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        for _, fds in self._outgoing:
            _close_all(fds)
        _close_all(self._descriptors)
        self._outgoing.clear()

    def _flush(self) -> None:
        while self._outgoing:
            data, fds = self._outgoing[0]
            try:
                rights = (
                    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
                )
                sent = self.sock.sendmsg([data], rights)
            except BlockingIOError:
                self.loop.add_writer(self.sock.fileno(), self._flush)
                return
            except OSError:
                return  # the reader sees the end and reports it
            _close_all(fds)
            if sent < len(data):
                self._outgoing[0] = (data[sent:], ())
            else:
                self._outgoing.popleft()
        self.loop.remove_writer(self.sock.fileno())

    def _readable(self) -> bool:
        try:
            data, fds, flags, _ = socket.recv_fds(self.sock, 65536, MAX_FDS)
        except BlockingIOError:
            return False
        except OSError:
            data, fds, flags = b"", [], 0
        for fd in fds:
            os.set_inheritable(fd, False)
        if flags & socket.MSG_CTRUNC:
            _close_all(fds)
            if self.on_no_room is not None:
                self.on_no_room()
            self.close()
            self.on_close()
            return False
        self._descriptors.extend(fds)
        if not data:
            self.close()
            self.on_close()
            return False
        self._incoming += data
        while (end := self._incoming.find(b"\n")) >= 0 and not self.closed:
            line = bytes(self._incoming[:end])
            del self._incoming[: end + 1]
            try:
                message, count = decode(line)
                if count > len(self._descriptors):
                    raise MalformedMessage(
                        f"with {count} descriptors that did not come: {line[:200]!r}"
                    )
            # user code may write to the connection: it ends nothing
            except MalformedMessage as exc:
                words = f"a message on the control connection cannot be read: {exc}"
                self.loop.call_exception_handler({"message": words})
                continue
            descriptors = [self._descriptors.popleft() for _ in range(count)]
            try:
                self.on_message(message, descriptors)
            # a bug of ours: it costs neither the messages that follow, nor what `drain` is part of
            except Exception as exc:
                words = f"an error in what is done about the message {type(message).__name__}"
                self.loop.call_exception_handler({"message": words, "exception": exc})
        return True


def _close_all(fds: Sequence[int] | deque[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
