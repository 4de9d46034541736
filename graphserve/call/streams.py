"""The caller's side of a stream: items as they come, held back while the consumer is slow.

Runs in workers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from graphserve.call.exchange import Headers, Lane, RequestT, TypedExchange
from graphserve.call.misuse import NotAResult
from graphserve.declare.typed import Stream
from graphserve.errors import CallError, DeadlineExceeded, RemoteError
from graphserve.wire import problem
from graphserve.wire.formats import END, ERROR, FrameReader
from graphserve.wire.memory import Ticket

if TYPE_CHECKING:
    from graphserve.loop.loop_thread import LoopThread

# what waits for a slow consumer at most, before the connection is held back
HIGH_ITEMS, HIGH_BYTES = 64, 256 * 1024
LOW_ITEMS = 16


class StreamExchange(TypedExchange[RequestT]):
    """A call whose answer is a stream: the exchange goes on until the last item.

    Args:
        decode: the payload of an item to the item.
        item_timeout: seconds until the first item, and between items.
    """

    __slots__ = (
        "decode",
        "error",
        "finished",
        "held",
        "item_timeout",
        "item_waiter",
        "items",
        "last",
        "reader",
        "room_waiter",
        "size",
    )
    streams = True
    repeatable = False

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lane: Lane[RequestT],
        node: str,
        request: RequestT,
        deadline_ns: int | None,
        slack: float,
        idempotent: bool,
        read: Callable[[int, Headers, bytes], Any],
        upload: AsyncIterator[bytes] | None,
        tickets: list[Ticket] | None,
        inline: Callable[[], RequestT] | None,
        *,
        decode: Callable[[bytes], Any],
        item_timeout: float | None,
    ) -> None:
        super().__init__(
            loop, lane, node, request, deadline_ns, slack, idempotent, read, upload, tickets, inline
        )
        self.decode = decode
        self.item_timeout = item_timeout
        # what has come
        self.reader = FrameReader()
        self.items: deque[bytes] = deque()
        self.size = 0
        self.last = 0.0
        self.held = False
        # how it ended
        self.finished = False
        self.error: BaseException | None = None
        # who waits
        self.item_waiter: asyncio.Future[None] | None = None  # a consumer that waits for an item
        # a producer in this process that waits for room
        self.room_waiter: asyncio.Future[None] | None = None
        self.reply.add_done_callback(self._over)

    def head(self, headers: Headers) -> None:
        """Receiver: the answer has begun; from here on it cannot be sent again."""
        self.last = self.loop.time()
        if self.timer is not None:
            self.timer.cancel()
            assert self.item_timeout is not None
            self.timer = self.loop.call_later(self.item_timeout + self.slack, self._check)

    def chunk(self, data: bytes) -> None:
        """Receiver: a part of the answer."""
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
            self.hold(True)
        self._wake()

    def answered(self, status: int, headers: Headers, body: bytes) -> None:
        """Receiver: the answer is complete."""
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
        """Receiver: the connection ended early."""
        if self.last and not self.over:  # items were given out: it cannot run again
            self.connection = None
            if not self._kills():
                self.fail(
                    RemoteError(f"the stream of {self.node} was cut ({reason})", node=self.node)
                )
        else:
            super().lost(reason, unread)

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for an item just now."""
        return self.item_waiter is not None and not self.item_waiter.done()

    def caller_left(self) -> None:
        """End it with its caller; a thread that waits for an item is told, and does not take it for
        the end.
        """
        self.error = concurrent.futures.CancelledError()
        self.abandon()

    def hold(self, on: bool) -> None:
        """Hold the producer back, or let it go on."""
        if on != self.held and self.connection is not None:
            self.held = on
            self.connection.pause() if on else self.connection.resume()

    @property
    def full(self) -> bool:  # type: ignore[override]
        """Whether the consumer has enough to do; for a producer in this process."""
        return len(self.items) >= HIGH_ITEMS

    async def room(self) -> None:
        """Wait until the consumer has taken enough; for a producer in this process."""
        if self.full and not self.over:
            self.room_waiter = self.loop.create_future()
            await self.room_waiter

    def take(self) -> Any:
        """The next item that is here."""
        payload = self.items.popleft()
        self.size -= len(payload)
        if len(self.items) <= LOW_ITEMS:
            if self.held:
                self.last = self.loop.time()
                self.hold(False)
            if self.room_waiter is not None and not self.room_waiter.done():
                self.room_waiter.set_result(None)
        return self.decode(payload)

    def _check(self) -> None:
        assert self.item_timeout is not None
        waited = self.loop.time() - self.last
        if self.held or self.items or waited < self.item_timeout:
            rest = self.item_timeout if self.held or self.items else self.item_timeout - waited
            self.timer = self.loop.call_later(rest + self.slack, self._check)
        else:
            self.fail(
                DeadlineExceeded(f"{self.node} made no item before the deadline", node=self.node)
            )

    def _over(self, reply: asyncio.Future[Any]) -> None:
        self.finished = True
        if self.room_waiter is not None and not self.room_waiter.done():
            self.room_waiter.set_result(None)
        if not reply.cancelled() and self.error is None:
            self.error = reply.exception()
        elif not reply.cancelled():
            reply.exception()
        self._wake()

    def _wake(self) -> None:
        if self.item_waiter is not None and not self.item_waiter.done():
            self.item_waiter.set_result(None)


class RemoteStream(NotAResult, Stream[Any]):
    """The items of one streaming call; it is sent when the first one is asked for.

    Args:
        loop_thread: the loop that it runs on.
        exchange: the call.
        name: the API, for messages.
    """

    __slots__ = ("__weakref__", "_ahead", "_exchange", "_loop_thread", "_name", "_started")

    def __init__(
        self,
        loop_thread: LoopThread,
        exchange: StreamExchange[Any],
        name: str,
        misfit: CallError | None,
    ) -> None:
        self._loop_thread = loop_thread
        self._exchange = exchange
        self._name = name
        self._started = False
        self._ahead: deque[Any] = deque()  # fetched together for a thread
        if misfit is not None:
            exchange.finished = True
            exchange.error = misfit
            self._started = True

    async def __anext__(self) -> Any:
        if threading.get_ident() != self._loop_thread.thread:
            return await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(self._next(), self._loop_thread.loop)
            )
        return await self._next()

    def __next__(self) -> Any:
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

    def __iter__(self) -> RemoteStream:
        return self

    async def aclose(self) -> None:
        """Take no more items: what makes them is cancelled."""
        self._abandon()

    if not TYPE_CHECKING:  # checkers know from `Stream` that it has none
        __await__ = NotAResult._refuse

    def _fix(self) -> str:
        method = self._name.rpartition(".")[2]
        return (
            f"{self._name}(...) is a stream of items, not one result: write"
            f" `async for item in self.….{method}(...)`, or `for` in a plain `def`"
        )

    async def _next(self) -> Any:
        if not await self._here():
            raise StopAsyncIteration
        return self._exchange.take()

    async def _several(self) -> list[Any]:
        found = []
        if await self._here(threaded=True):
            while self._exchange.items:
                found.append(self._exchange.take())
        return found

    async def _here(self, threaded: bool = False) -> bool:
        """Wait for an item; False at the end."""
        exchange = self._exchange
        if not self._started:
            self._started = True
            exchange.start(threaded)
        while not exchange.items:
            if exchange.error is not None:
                error = exchange.error
                exchange.error = None
                raise error
            if exchange.finished:
                return False
            exchange.item_waiter = exchange.loop.create_future()
            try:
                await exchange.item_waiter
            except asyncio.CancelledError:
                exchange.abandon()
                raise
        return True

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
