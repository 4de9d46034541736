"""The listening sockets that the supervisor binds: the nodes' shared ones and the public one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from graphserve.errors import StartupError
from graphserve.graph.plan import ListenPlan, NodePlan
from graphserve.system import listening
from graphserve.system.rundir.paths import batch_sockets, file_identity, queue_socket

PRIVATE = 0o177  # umask of every Unix socket: mode 0600
# seconds that a start waits for another one that is about to bind in the same folder
FOLDER_PATIENCE = 1.0
STEP = 0.01  # seconds between two tries meanwhile


@contextlib.contextmanager
def private_umask() -> Iterator[None]:
    """Sockets bound in here have mode 0600."""
    before = os.umask(PRIVATE)
    try:
        yield
    finally:
        os.umask(before)


class NamedSocket:
    """A listening Unix socket of mode 0600 and its name in the run folder, which others may remove.

    Args:
        path: its name; what has it already is replaced.
        backlog: connections that may wait.
    """

    def __init__(self, path: str, backlog: int) -> None:
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            if os.path.lexists(path):
                os.unlink(path)
            with private_umask():
                self.sock.bind(path)
            self.sock.listen(backlog)
            self.sock.setblocking(False)
            self._identity = file_identity(path)
        except OSError:
            self.sock.close()
            raise

    @property
    def lost(self) -> bool:
        """Return whether the name is gone, or is another file's: nobody can connect any more."""
        return file_identity(self.path) != self._identity

    def fileno(self) -> int:
        """Return its descriptor."""
        return self.sock.fileno()

    def listen(self, backlog: int) -> None:
        """Let so many connections wait."""
        self.sock.listen(backlog)

    def close(self) -> None:
        """Close it, and remove its name."""
        self.sock.close()
        if not self.lost:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def shared(run: Path, node: NodePlan) -> dict[str, NamedSocket]:
    """Bind a node's shared sockets, in a folder of its own; they listen at once, so calls wait
    while workers start.

    Returns:
        The sockets by API name; `""` is the one of all APIs that are not batched.
    """
    folder = run / node.id
    folder.mkdir(mode=0o700, exist_ok=True)
    paths = {
        "": queue_socket(run, node.id),
        **batch_sockets(run, node.id, node.batched),
    }
    return {name: NamedSocket(path, node.options.queue) for name, path in paths.items()}


def refuses(path: str) -> bool:
    """Return whether nobody listens at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except OSError:
            pass  # its queue is full: somebody has it
    return False


class InUse(StartupError):
    """Raised when something else listens at the public address."""


class PublicSocket:
    """The one socket that clients reach.

    It listens before anything is started, so that the port is nobody else's.

    A TCP port that is only bound is not taken: with SO_REUSEADDR, which a restart needs, another
    process may bind it too, and the first of the two that listens has it (socket(7)). Clients that
    come early wait in the accept queue.

    Args:
        listen: where.

    Raises:
        StartupError: the address cannot be bound, or another process listens there.
    """

    def __init__(self, listen: ListenPlan) -> None:
        self.listen_plan = listen
        self.path = os.path.abspath(listen.uds) if listen.uds else None
        self._identity: tuple[int, int] | None = None
        try:
            self.sock = self._bind_unix(self.path) if self.path else self._bind_tcp()
        except OSError as exc:
            kind = InUse if exc.errno == errno.EADDRINUSE else StartupError
            raise kind(listening.explain(exc, listen.host, listen.port, listen.uds)) from None

    @property
    def url(self) -> str:
        """Return where the graph answers; for a Unix socket, its path."""
        if self.path:
            return f"unix:{self.path}"
        host, port = self.sock.getsockname()[:2]
        scheme = "https" if self.listen_plan.tls else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def close(self) -> None:
        """Close our copy; workers have theirs."""
        self.sock.close()

    @property
    def closed(self) -> bool:
        """Whether our copy is closed: the graph stops, and workers that drain may still accept."""
        return self.sock.fileno() < 0

    @property
    def lost(self) -> bool:
        """Return whether the name of a Unix socket that is open was removed:
        no client can connect any more.
        """
        return (
            self.path is not None
            and self.sock.fileno() >= 0
            and file_identity(self.path) != self._identity
        )

    def renew(self) -> socket.socket:
        """Make a Unix socket anew whose name was removed; returns the one before, which may have
        clients that wait.

        Raises:
            OSError: it cannot be made, or something else has that name by now.
        """
        assert self.path is not None
        before = self.sock
        try:
            self.sock = self._bind_unix(self.path)
        except StartupError as exc:
            raise OSError(errno.EADDRINUSE, str(exc), self.path) from None
        return before

    def remove(self) -> None:
        """Remove the name of a Unix socket, if it is still ours."""
        if self.path:
            with contextlib.suppress(OSError):
                now = os.stat(self.path)
                if (now.st_dev, now.st_ino) == self._identity:
                    os.unlink(self.path)

    def _bind_tcp(self) -> socket.socket:
        host, port = self.listen_plan.host, self.listen_plan.port
        try:
            found = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except (socket.gaierror, UnicodeError) as exc:
            raise StartupError(listening.explain_unknown_host(exc, host)) from None
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(self.listen_plan.backlog)
        except OSError:
            sock.close()
            raise
        return sock

    def _bind_unix(self, path: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            with _alone_in(os.path.dirname(path)):
                self._remove_stale(path)
                with private_umask():
                    sock.bind(path)
                sock.listen(self.listen_plan.backlog)
        except (OSError, StartupError):
            sock.close()
            raise
        held = os.stat(path)
        self._identity = (held.st_dev, held.st_ino)
        return sock

    def _remove_stale(self, path: str) -> None:
        if words := listening.obstacle(path):
            raise StartupError(words)
        if not os.path.lexists(path):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)  # left by a process that was killed
            else:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


@contextlib.contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Let no other start bind in this folder meanwhile:
    it would take our socket for one that was left behind.

    Between bind and listen a socket refuses connections, as one does whose process was killed.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        # a folder that may be entered and not be read; what is wrong with it is said when the
        # socket is bound
        yield
        return
    try:
        end = time.monotonic() + FOLDER_PATIENCE
        # others may lock it for reasons of their own: they do not hold us up for long
        while time.monotonic() < end:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(STEP)
        yield
    finally:
        os.close(descriptor)
