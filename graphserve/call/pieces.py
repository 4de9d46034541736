"""An exchange whose answer comes in pieces: held back while who reads it is slow, and late when
nothing comes while somebody waits.

Runs in workers. What the pieces are is for its two kinds: items of a typed stream (`streams`), or
the bytes of a response (`httpx_transport`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable

from graphserve.call.exchange import Exchange, Lane, RequestT
from graphserve.errors import DeadlineExceeded
from graphserve.metrics.recorder import CallSeries
from graphserve.wire.headers import Headers
from graphserve.wire.shared_buffers import Ticket


class PiecewiseExchange(Exchange[RequestT]):
    """A request whose answer goes on after its head.

    Args:
        piece_timeout: seconds until the first piece, and between pieces.
    """

    __slots__ = ("error", "last", "paused", "piece_timeout", "piece_waiter", "room_waiter", "size")
    streams = True

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lane: Lane[RequestT],
        node: str,
        request: RequestT,
        deadline_ns: int | None,
        slack: float,
        runs: int,
        read: Callable[[int, Headers, bytes], object],
        upload: AsyncIterator[bytes] | None,
        tickets: list[Ticket] | None = None,
        inline: Callable[[], RequestT] | None = None,
        series: CallSeries | None = None,
        *,
        piece_timeout: float | None,
    ) -> None:
        super().__init__(
            loop, lane, node, request, deadline_ns, slack, runs, read, upload, tickets, inline,
            series,
        )  # fmt: skip
        self.piece_timeout = piece_timeout
        # what has come
        self.size = 0  # bytes that nobody has taken yet
        self.last = 0.0  # when something came, on the loop's clock
        self.paused = False
        self.error: BaseException | None = None  # how it ended, for who reads
        # who waits
        self.piece_waiter: asyncio.Future[None] | None = None  # a reader that waits for a piece
        # a producer in this process that waits for room
        self.room_waiter: asyncio.Future[None] | None = None

    def head(self, headers: Headers, status: int = 200) -> None:
        """Begin the answer; from here on it cannot be sent again."""
        self.last = self.loop.time()
        if self.timer is not None:
            self.timer.cancel()
            assert self.piece_timeout is not None
            self.timer = self.loop.call_later(self.piece_timeout + self.slack, self._check)

    def caller_left(self) -> None:
        """End it with its caller; a thread that waits for a piece is told, and does not take it for
        the end.
        """
        self.error = concurrent.futures.CancelledError()
        self.abandon()

    async def room(self) -> None:
        """Wait until who reads has taken enough; for a producer in this process."""
        if self.full and not self.over:
            self.room_waiter = self.loop.create_future()
            await self.room_waiter

    def _outcome(self, error: BaseException | None, result: object) -> int:
        return super()._outcome(error or self.error, result)

    def _holds(self) -> bool:
        """Return whether something is here that nobody has taken yet."""
        raise NotImplementedError

    def _late(self) -> str:
        """Return what to say when nothing has come in time."""
        raise NotImplementedError

    def _check(self) -> None:
        """Fail it if somebody has waited for too long, or else look again."""
        assert self.piece_timeout is not None
        waited = self.loop.time() - self.last
        untaken = self.paused or self._holds()
        if untaken or waited < self.piece_timeout:
            rest = self.piece_timeout if untaken else self.piece_timeout - waited
            self.timer = self.loop.call_later(rest + self.slack, self._check)
        else:
            self.fail(DeadlineExceeded(self._late(), node=self.node))

    def _pause(self) -> None:
        """Read no more: who reads is slow, and so the producer shall wait."""
        if self.connection is not None and not self.paused:
            self.paused = True
            self.connection.pause()

    def _resume(self) -> None:
        """Read on: enough was taken."""
        if self.connection is not None and self.paused:
            self.paused = False
            self.connection.resume()


def wake(waiter: asyncio.Future[None] | None) -> None:
    """Let who waits look again."""
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
