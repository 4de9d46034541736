"""The caller's side of a stream: items as they come, held back while the consumer is slow.

Runs in workers.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Generic

from graphserve.call.exchange import Lane, RequestT
from graphserve.call.misuse import NotAResult
from graphserve.call.pieces import PiecewiseExchange, wake
from graphserve.declare.typed import Stream
from graphserve.errors import CallError, RemoteError
from graphserve.metrics.recorder import CallSeries
from graphserve.wire import problem
from graphserve.wire.formats import END, ERROR, FrameReader
from graphserve.wire.headers import Headers
from graphserve.wire.shared_buffers import Ticket
from graphserve.wire.trust import PEER

if TYPE_CHECKING:
    from graphserve.loop.loop_thread import LoopThread

# what waits for a slow consumer at most, before the connection is held back
HIGH_ITEMS = 64
HIGH_BYTES = 256 * 1024
LOW_ITEMS = 16


class StreamExchange(PiecewiseExchange[RequestT]):
    """A typed call whose answer is a stream: the exchange goes on until the last item.

    Args:
        decode: the payload of an item to the item.
        item_timeout: seconds until the first item, and between items.
    """

    __slots__ = ("decode", "finished", "items", "reader")
    trust = PEER
    repeatable = False

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
        tickets: list[Ticket] | None,
        inline: Callable[[], RequestT] | None,
        series: CallSeries | None = None,
        *,
        decode: Callable[[bytes], object],
        item_timeout: float | None,
    ) -> None:
        super().__init__(
            loop, lane, node, request, deadline_ns, slack, runs, read, upload, tickets, inline,
            series, piece_timeout=item_timeout,
        )  # fmt: skip
        self.decode = decode
        # what has come
        self.reader = FrameReader()
        self.items: deque[bytes] = deque()
        self.finished = False
        self.reply.add_done_callback(self._over)

    def chunk(self, data: bytes) -> None:
        """Keep the items of a part of the answer for the consumer."""
        self.last = self.loop.time()
        for kind, payload in self.reader.feed(data):
            if kind == END:
                self.finished = True
            elif kind == ERROR:
                self.error = problem.from_frame(payload, self.node)
            else:
                self.items.append(payload)
                self.size += len(payload)
        if len(self.items) >= HIGH_ITEMS or self.size >= HIGH_BYTES:
            self._pause()
        if self.piece_waiter is not None:
            wake(self.piece_waiter)

    def answered(self, status: int, headers: Headers, body: bytes) -> None:
        """End the answer, which is complete."""
        self.connection = None
        if self.over:
            return
        if status != 200:
            super().answered(status, headers, body)
        elif self.finished or self.error is not None:
            self._finish(None)
        else:
            self._finish(RemoteError(f"the stream of {self.node} was cut", node=self.node))

    def lost(self, reason: str, unread: bool) -> None:
        """End the answer early, or send the call again: the connection ended."""
        if self.last and not self.over:  # items were given out: it cannot run again
            self.connection = None
            if not self._note_kill():
                self.fail(
                    RemoteError(f"the stream of {self.node} was cut ({reason})", node=self.node)
                )
        else:
            super().lost(reason, unread)

    @property
    def waiting(self) -> bool:
        """Return whether somebody waits for an item just now."""
        return self.piece_waiter is not None and not self.piece_waiter.done()

    @property
    def full(self) -> bool:  # type: ignore[override]
        """Return whether the consumer has enough to do; for a producer in this process."""
        return len(self.items) >= HIGH_ITEMS

    def fail_at_first_item(self, error: CallError) -> None:
        """End it with this error when its first item is asked for: its arguments cannot be sent."""
        if self.series is not None:
            self.series.begin()
            self.series.end(self._outcome(error, None), 0)
        self.finished = True
        self.error = error

    async def item(self) -> bool:
        """Wait for an item; False at the end.

        Raises:
            CallError: it ended so; the next time there is nothing more.
        """
        while not self.items:
            if self.error is not None:
                error = self.error
                self.error = None
                raise error
            if self.finished:
                return False
            self.piece_waiter = self.loop.create_future()
            try:
                await self.piece_waiter
            except asyncio.CancelledError:
                self.abandon()
                raise
        return True

    def take(self) -> object:
        """Return the next item that is here."""
        payload = self.items.popleft()
        self.size -= len(payload)
        if len(self.items) <= LOW_ITEMS:
            if self.paused:
                self.last = self.loop.time()
                self._resume()
            if self.room_waiter is not None:
                wake(self.room_waiter)
        return self.decode(payload)

    def _holds(self) -> bool:
        return bool(self.items)

    def _late(self) -> str:
        return f"{self.node} made no item before the deadline"

    def _over(self, reply: asyncio.Future[object]) -> None:
        self.finished = True
        wake(self.room_waiter)
        if not reply.cancelled() and self.error is None:
            self.error = reply.exception()
        elif not reply.cancelled():
            reply.exception()
        wake(self.piece_waiter)


class RemoteStream(NotAResult, Stream[object], Generic[RequestT]):
    """Gives the items of one streaming call, which is sent when the first one is asked for.

    Args:
        loop_thread: the loop that it runs on.
        exchange: the call.
        name: the API, for messages.
        written: how user code writes the API, as in `self.counter.count`.
        misfit: what is wrong with its arguments, if something is.
    """

    __slots__ = (
        "__weakref__",
        "_ahead",
        "_exchange",
        "_loop_thread",
        "_name",
        "_started",
        "_written",
    )

    def __init__(
        self,
        loop_thread: LoopThread,
        exchange: StreamExchange[RequestT],
        name: str,
        written: str,
        misfit: CallError | None,
    ) -> None:
        self._loop_thread = loop_thread
        self._exchange = exchange
        self._name = name
        self._written = written
        self._started = misfit is not None
        self._ahead: deque[object] = deque()  # fetched together for a thread
        if misfit is not None:
            exchange.fail_at_first_item(misfit)

    async def __anext__(self) -> object:
        if threading.get_ident() != self._loop_thread.thread:
            return await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(self._next(), self._loop_thread.loop)
            )
        return await self._next()

    def __next__(self) -> object:
        if self._ahead:
            return self._ahead.popleft()
        if self._loop_thread.instead() is not None:
            raise RuntimeError(
                f"`for` over {self._name}(...) would block the event loop: write `async for`"
            )
        self._ahead.extend(
            asyncio.run_coroutine_threadsafe(self._several(), self._loop_thread.loop).result()
        )
        if not self._ahead:
            raise StopIteration
        return self._ahead.popleft()

    def __iter__(self) -> RemoteStream[RequestT]:
        return self

    async def aclose(self) -> None:
        """Take no more items: what makes them is cancelled."""
        self._abandon()

    if not TYPE_CHECKING:  # checkers know from `Stream` that it has none
        __await__ = NotAResult._refuse

    def _advice(self) -> str:
        return (
            f"{self._name}(...) is a stream of items, not one result: write"
            f" `async for item in {self._written}(...)`, or `for` in a plain `def`"
        )

    async def _next(self) -> object:
        if not await self._here():
            raise StopAsyncIteration
        return self._exchange.take()

    async def _several(self) -> list[object]:
        found: list[object] = []
        if await self._here(threaded=True):
            while self._exchange.items:
                found.append(self._exchange.take())
        return found

    async def _here(self, threaded: bool = False) -> bool:
        """Wait for an item, which the first of these asks for; False at the end."""
        if not self._started:
            self._started = True
            self._exchange.start(threaded)
        return bool(self._exchange.items) or await self._exchange.item()

    def _abandon(self) -> None:
        if threading.get_ident() == self._loop_thread.thread:
            self._exchange.abandon()
        else:
            self._loop_thread.loop.call_soon_threadsafe(self._exchange.abandon)

    def __del__(self) -> None:
        if (
            getattr(self, "_started", False)
            and not self._exchange.over
            and not self._loop_thread.loop.is_closed()
        ):
            self._abandon()  # the loop over it was left early
