"""Whether the client of a connection that nobody reads for now is still there. Runs in entry workers.

What is held back (requests that were sent ahead, more bytes than can be worked on) stands before the end of the
connection, so the loop does not see that end. The kernel knows it all the same.
"""

from __future__ import annotations

from typing import Any

from graphserve.loop.poller import Poller
from graphserve.worker.dispatch.slots import has_hung_up


class Presence:
    """Ends a connection when its client has left while it is held back.

    Args:
        readers: of the loop.
        transport: the connection's.
        flow: says whether it is held back.
    """

    __slots__ = ("_descriptor", "_flow", "_readers", "_transport")

    def __init__(self, readers: Poller, transport: Any, flow: Any) -> None:
        self._readers = readers
        self._transport = transport
        self._flow = flow
        self._descriptor = -1

    def watch(self) -> None:
        """The connection is held back from now on."""
        if self._descriptor < 0:  # it stays watched from the first time on: who sends ahead does so again and again
            self._descriptor = self._transport.get_extra_info("socket").fileno()
            self._readers.watch_end(self._descriptor, self._ended)

    def forget(self) -> None:
        """The connection is lost."""
        if self._descriptor >= 0:
            self._readers.forget_end(self._descriptor, self._ended)
            self._descriptor = -1

    def _ended(self) -> None:
        if not has_hung_up(self._transport.get_extra_info("socket")):
            return  # it was said of a socket that had this number before
        self.forget()
        if self._flow.read_paused:  # otherwise the loop sees it, behind what is still to be read
            self._transport.abort()
