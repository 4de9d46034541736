"""Connections of the public port while the graph is still being resolved.

Runs in the fallback server.

Nobody knows yet which APIs there are, so a request is neither taken nor refused: health is
answered, all else stays the bytes that came, with reading paused, and is parsed when the Plan is
there. What waits too long, or waits for a graph that will not be, is parsed then, for its answer.
"""

from __future__ import annotations

import asyncio
import re

from graphserve.errors import CallError, DeadlineExceeded, Unavailable
from graphserve.worker.http.limits import HEAD_BYTES, PORTION
from graphserve.worker.http.listener import Listener
from graphserve.worker.http.public.connection import PublicConnection
from graphserve.worker.http.public.timeouts import HEALTH, Timeouts
from graphserve.worker.http.request import HttpRequest
from graphserve.worker.http.strict import RequestRefused
from graphserve.worker.websockets.door import SocketDoor

# of a head; what ends otherwise is taken for incomplete, and parsed when its time is over
_END = b"\r\n\r\n"
_PROBE = re.compile(rb"[\r\n]*(?:GET|HEAD) (/\S*) HTTP/1\.[01]\r\n")
_TIMEOUT = re.compile(rb"\r\nx-request-timeout:[ \t]*([0-9.]{1,20})[ \t]*\r\n", re.IGNORECASE)


class Beginning:
    """Says whether requests wait, to all connections of a port, until the graph is resolved.

    Args:
        node: what the entry may be called.
        timeout: seconds that a call may take, if its client does not say less.
    """

    def __init__(self, node: str, timeout: float) -> None:
        self.node = node
        self.timeout = timeout
        self.over = False  # whether there is a Plan
        self.leaving = False  # whether there will be none

    def end(self) -> None:
        """Hold requests no more: there is a Plan."""
        self.over = True

    def leave(self) -> None:
        """Hold requests no more: there will be no Plan, since the port closes."""
        self.leaving = True

    @property
    def holds(self) -> bool:
        """Return whether requests wait."""
        return not (self.over or self.leaving)

    def refusal(self, *, late: bool) -> CallError:
        """Return the answer to a request that can wait no longer.

        Args:
            late: whether its time is over.
        """
        if late and not self.leaving:
            words = (
                f"{self.node} did not answer before the deadline: its modules are still imported"
            )
            return DeadlineExceeded(words, node=self.node)
        how = "does not start" if self.leaving else "is being resolved: its modules are imported"
        return Unavailable(f"{self.node} {how}", node=self.node)


class EarlyConnection(PublicConnection):
    """A public connection that holds its requests until there is a Plan.

    Args:
        listener: where it was accepted.
        timeouts: end it when it is too slow, or idle too long.
        beginning: says when the graph is resolved.
        door: as of `PublicConnection`.
    """

    def __init__(
        self,
        listener: Listener,
        timeouts: Timeouts,
        beginning: Beginning,
        door: SocketDoor | None = None,
    ) -> None:
        super().__init__(listener, timeouts, door)
        self._beginning = beginning
        self._timer: asyncio.TimerHandle | None = None  # of the request that waits
        self._waits_since = 0.0  # on the loop's clock
        self._deadline = 0.0  # likewise
        self._is_late = False  # whether its timer said so: that may come a moment early
        self._released = False  # what comes is parsed, whatever it is

    # --- asyncio ---

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting for the Plan (asyncio)."""
        self._stop_timer()
        super().connection_lost(exc)

    # A head that has come before is parsed again here: whether its request is taken depends on the
    # Plan too.
    repeats = False

    def data_received(self, data: bytes) -> None:
        """Hold what comes, unless it can be parsed already (asyncio)."""
        begun = self.receiving and not self._held
        if self._parses or self.discarding or begun:
            super().data_received(data)
            return
        self._held = memoryview(bytes(self._held) + data)
        self._take_held()

    # --- parser ---

    def begin_request(self, *, http_1_0: bool | None = None) -> None:
        """Begin it, if there is a Plan, or if it asks for health."""
        waited = self.loop.time() - self._waits_since if self._waits_since else 0.0
        if not self._beginning.over and self.listener.path(self.url) not in HEALTH:
            late = self._is_late or (bool(self._deadline) and self.loop.time() >= self._deadline)
            raise RequestRefused(self._beginning.refusal(late=late))
        super().begin_request(http_1_0=http_1_0)
        self._waits_since = 0.0
        request = self.request
        if waited and type(request) is HttpRequest:
            request.began_earlier(waited)

    # --- ours ---

    def release(self) -> None:
        """Answer what waits: there is a Plan, or will be none, or its time is over."""
        self._stop_timer()
        self._released = True
        self._go_on_soon()

    def _time_out(self) -> None:
        self._is_late = True
        self.release()

    @property
    def _parses(self) -> bool:
        return self._released or self.spare or not self._beginning.holds

    def _take_held(self) -> None:
        if self._parses:
            super()._take_held()
            return
        while self._held and not (self.discarding or self.pipeline or self.flow.write_paused):
            size = self._next_size()
            if not size:
                self._wait()
                return
            self._stop_timer()
            self._waits_since = 0.0  # what is behind a probe waits from now on
            portion = bytes(self._held[:size])
            self._held = self._held[size:]
            self._feed(portion)
        if self._held and not self.discarding:
            self.flow.pause_reading()  # on with it when there is room for answers
            self.flow.watch_end(self.listener.readers)

    def _next_size(self) -> int:
        """Return the bytes of what is held that can be parsed:
        a probe, or what is left of its body.
        """
        if self.receiving:
            return max(1, self._length() - self.body_seen) if self._length() else PORTION
        text = bytes(self._held)
        probe = _PROBE.match(text)
        if probe is None or self.listener.path(probe[1]) not in HEALTH:
            return 0
        end = text.find(_END, probe.end() - 2)
        return end + len(_END) if end >= 0 else 0

    def _wait(self) -> None:
        text, now = bytes(self._held), self.loop.time()
        if self._timer is None:
            self._waits_since = now
        self._stop_timer()
        end = text.find(_END)
        if end >= 0 or len(text) > HEAD_BYTES:
            self._deadline = due = self._waits_since + self._time(text[: end + 2])
            ended = self._time_out
            self.flow.pause_reading()
            self.flow.watch_end(self.listener.readers)
        else:
            due = self._waits_since + self.timeouts.limits.patience
            ended = self.release
            self.flow.resume_reading()
        self._timer = self.loop.call_later(max(0.0, due - now), ended)

    def _time(self, head: bytes) -> float:
        """Return the seconds that a request has."""
        said = _TIMEOUT.search(head)
        try:
            return min(self._beginning.timeout, float(said[1])) if said else self._beginning.timeout
        except ValueError:  # it is refused when it is parsed
            return self._beginning.timeout

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
