"""The control connections: the socket that workers connect to, and who is at the other end.

Runs in the supervisor.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from graphserve.isolation.restore import CLOSED
from graphserve.supervise.process import sockets
from graphserve.supervise.process.worker_process import WorkerProcess
from graphserve.supervise.states import WorkerState
from graphserve.system import os_errors
from graphserve.system.channel import Channel
from graphserve.system.messages import ControlMessage, Ready
from graphserve.system.rundir.paths import workers_socket

BACKLOG = 1024
NO_ROOM_PAUSE = 0.5  # seconds until a worker that found no descriptor here is let in
LAST_WORDS = 0.5  # seconds between the end of a connection and that of its worker


class ControlConnections:
    """Accepts workers.

    Args:
        run: the run folder.
        find: gives the worker of a pid, if it is one of ours.
        on_message: called with each message of a worker.
    """

    def __init__(
        self, run: Path, find: Callable[[int], WorkerProcess | None],
        on_message: Callable[[WorkerProcess, ControlMessage], None],
    ) -> None:  # fmt: skip
        self._find = find
        self._on_message = on_message
        self._named = sockets.NamedSocket(workers_socket(run), BACKLOG)
        self._sock = self._named.sock
        self._listen()

    def restore(self) -> list[str]:
        """Make the socket anew if others have removed it; returns its name then.

        Workers that are connected stay so.

        Raises:
            OSError: it cannot be made.
        """
        if not self._named.lost or self._sock.fileno() < 0:
            return []
        named = sockets.NamedSocket(self._named.path, BACKLOG)
        while self._accept():
            pass
        self.close()
        self._named = named
        self._sock = named.sock
        self._listen()
        return [os.path.basename(named.path)]

    def close(self) -> None:
        """Accept no more."""
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()

    def _listen(self) -> None:
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def _accept(self) -> bool:
        try:
            sock, _ = self._sock.accept()
        except BlockingIOError:
            return False
        # no descriptor is left: it waits, and this socket would be ready to be read all the while
        except OSError:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._sock)
            loop.call_later(NO_ROOM_PAUSE, self._listen)
            return False
        pid, _uid, _gid = struct.unpack(
            "3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
        worker = self._find(pid)
        if worker is None:  # nobody of ours: the kernel says who it is
            sock.close()
            return True
        channel = Channel(
            sock,
            lambda message, fds: self._hear(worker, message, fds),
            lambda: self._hung_up(worker),
        )
        worker.connected(channel)
        return True

    def _hear(self, worker: WorkerProcess, message: ControlMessage, fds: list[int]) -> None:
        if fds and isinstance(message, Ready):
            worker.share_memory(fds.pop())
        for descriptor in fds:
            os.close(descriptor)
        try:
            self._on_message(worker, message)
        except OSError as exc:  # no descriptors for what it was to be sent
            worker.ends_for(
                f"a worker of {worker.node} could not be told what to do: {os_errors.explain(exc)}"
            )
            worker.kill()

    def _hung_up(self, worker: WorkerProcess) -> None:
        # A worker that lives on without its connection cannot be steered. Its death usually comes
        # first.
        if worker.state not in (WorkerState.GONE, WorkerState.DRAINING):
            asyncio.get_running_loop().call_later(LAST_WORDS, _end_cut_off, worker)


def _end_cut_off(worker: WorkerProcess) -> None:
    if worker.state is WorkerState.GONE:
        return
    if worker.state is WorkerState.SPAWNED and not worker.message:
        worker.ends_for(f"a worker of {worker.node}, while it imported its modules, {CLOSED}")
    worker.kill()
