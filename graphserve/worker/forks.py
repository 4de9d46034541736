"""What a process that user code forks off a worker must not keep: our sockets and our signal
handlers. Runs in workers.

A copy of a socket in a forked child keeps a port open that we closed, and a peer waiting for an end
that never comes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import threading
from pathlib import Path

from graphserve.system.inherited import do_nothing


class Forks:
    """Takes the sockets that bear our names from each forked child;
    those of user code are left alone.

    Args:
        run: the run folder: each of its sockets, and each connection to one, has a name in it at
            one end.
    """

    def __init__(self, run: Path) -> None:
        self._folder = f"{run}/"
        self._public: str | int | None = None  # its path or its port
        self._masks = threading.local()  # more than one thread may fork

    def install(self) -> None:
        """Do so from now on, for as long as this process lives."""
        os.register_at_fork(
            before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child
        )

    def add_public(self, sock: socket.socket) -> None:
        """Take the public socket too, and what it accepts: that has its path, or its port."""
        self._public = _path_or_port(sock)

    def _before(self) -> None:
        # A signal to the child must not come while it has our handlers: they write to a socket that
        # the parent reads, so that SIGTERM to the child would drain the worker.
        self._masks.old = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def _in_parent(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.old)

    def _in_child(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is do_nothing:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._give_up_sockets()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.old)

    def _give_up_sockets(self) -> None:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for entry in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if self._is_ours(int(entry)):
                    # Not closed: objects in this process would close the number again, when it is
                    # another's.
                    os.dup2(null, int(entry), inheritable=False)
        os.close(null)

    def _is_ours(self, descriptor: int) -> bool:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        sock = socket.socket(fileno=descriptor)
        try:
            return (
                str(sock.getsockname()).startswith(self._folder)
                or self._is_connected_below(sock)
                or (self._public is not None and _path_or_port(sock) == self._public)
            )
        finally:
            sock.detach()

    def _is_connected_below(self, sock: socket.socket) -> bool:
        with contextlib.suppress(OSError):  # it is not connected
            return str(sock.getpeername()).startswith(self._folder)
        return False


def _path_or_port(sock: socket.socket) -> str | int | None:
    """Return the path of a Unix socket, the port of a TCP one; None of any other.

    A socket that listens on all addresses accepts on each of them: the port is what both have.
    Addresses of other families are pairs too, with something else in place of the port.
    """
    address: object = sock.getsockname()
    if isinstance(address, tuple):
        is_tcp = (
            sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
        )
        return int(address[1]) if is_tcp else None
    return address if isinstance(address, str) else None
