"""What the public port knows of WebSockets: which path is one, and who takes its clients.

A module of its own, since a port without them needs nothing else of this room. Runs in workers, and
in the fallback server, which has nobody to take them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from graphserve.call.request_head import RequestHead
from graphserve.errors import Unavailable
from graphserve.worker.http.listener import Listener
from graphserve.worker.http.public.timeouts import Timeouts
from graphserve.worker.http.strict import RequestRefused
from graphserve.worker.http.transport import FlowControl
from graphserve.worker.websockets.routes import RoutedSocket, SocketRoutes

Begin = Callable[[bytes], None]  # goes on as a WebSocket; gets what came behind the handshake


class UpgradedConnection(Protocol):
    """A public connection whose client asks for a WebSocket."""

    listener: Listener
    timeouts: Timeouts
    transport: asyncio.Transport
    flow: FlowControl
    principal: str | None


class SocketDoor(Protocol):
    """Takes the clients that ask for a WebSocket."""

    def find(self, target: bytes) -> RoutedSocket | None:
        """Return the WebSocket of the service that a target is of, whoever asks for it."""
        ...

    def find_mounted(self, target: bytes) -> RoutedSocket | None:
        """Return what a target is of where a client asks for a WebSocket of an application that is
        mounted.
        """
        ...

    def open(self, connection: UpgradedConnection, found: RoutedSocket, head: RequestHead) -> Begin:
        """Check a handshake, and return what takes the connection over.

        Args:
            connection: what it came by.
            found: the WebSocket that it is for.
            head: of the request.

        Raises:
            RequestRefused: it is no handshake, or there is nobody who takes it.
        """
        ...


class ClosedDoor:
    """Refuses every client, in a process that executes nothing.

    Args:
        node: the entry.
        routes: its WebSockets.
    """

    def __init__(self, node: str, routes: SocketRoutes) -> None:
        self.serve(node, routes)

    def serve(self, node: str, routes: SocketRoutes) -> None:
        """Know this entry and its WebSockets from now on."""
        self.node = node
        self._routes = routes

    def find(self, target: bytes) -> RoutedSocket | None:
        """Return the WebSocket of the service that a target is of."""
        return self._routes.find(target)

    def find_mounted(self, target: bytes) -> RoutedSocket | None:
        """Return None: nothing is mounted here."""
        return None

    def open(self, connection: UpgradedConnection, found: RoutedSocket, head: RequestHead) -> Begin:
        """Refuse it.

        Raises:
            RequestRefused: always.
        """
        text = f"{found.plan.path} is for {self.node}, which takes no calls now"
        raise RequestRefused(Unavailable(text, node=self.node))
