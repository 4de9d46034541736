"""What a caller streams into an API, piece by piece. Runs in workers, and in programs that make calls.

What goes wrong while the pieces are made is the caller's own error: its call ends with it, and the API only sees that
nobody is there any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any

from graphserve.errors import CallError, DeadlineExceeded

if TYPE_CHECKING:
    from graphserve.call.connection import Connection
    from graphserve.call.exchange import Exchange

LEFT = "the client went away before the body was complete"


class NotSent(DeadlineExceeded):
    """Raised when a piece was not taken within the time that one piece has (`Exchange.write_timeout`)."""


class Upload:
    """The caller's iterator, asked on the loop that runs where the call was made.

    Args:
        pieces: the iterator.
        home: the loop that calls run on.
        misfit: makes the error for a piece that is no bytes.
    """

    __slots__ = ("_elsewhere", "_misfit", "_pieces")

    def __init__(
        self, pieces: AsyncIterator[Any], home: asyncio.AbstractEventLoop, misfit: Callable[[Any], CallError]
    ) -> None:
        self._pieces, self._misfit = pieces, misfit
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:  # a thread without one
            here = home
        self._elsewhere = here if here is not home else None

    def __aiter__(self) -> Upload:
        return self

    async def __anext__(self) -> bytes:
        if self._elsewhere is None:
            piece = await self._pieces.__anext__()
        else:
            piece = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._next(), self._elsewhere))
        if isinstance(piece, bytes):
            return piece
        if isinstance(piece, (bytearray, memoryview)):
            return bytes(piece)
        raise self._misfit(piece)

    async def _next(self) -> Any:
        return await self._pieces.__anext__()


class Handed:
    """Pieces that a thread hands over, one when the last is taken.

    Args:
        loop: that calls run on.
        exchange: whose body they are; it may end before they do.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, exchange: Exchange) -> None:
        self._loop, self._exchange = loop, exchange
        self._next: deque[bytes | BaseException | None] = deque()  # None: the end
        self._waiter: asyncio.Future[None] | None = None  # who waits for the other side

    def all(self, pieces: Iterable[bytes]) -> None:
        """Hand over all of them, in the thread that makes them; ends early when nobody takes them any more.

        What goes wrong while they are made ends the exchange, and is raised here.
        """
        try:
            for piece in pieces:
                if not self._hand(piece):
                    return
        except BaseException as exc:
            self._hand(exc)
            raise
        self._hand(None)

    def _hand(self, piece: bytes | BaseException | None) -> bool:
        return asyncio.run_coroutine_threadsafe(self._put(piece), self._loop).result()

    async def _put(self, piece: bytes | BaseException | None) -> bool:
        while self._next and not self._exchange.over:
            await self._wait()
        if self._exchange.over:
            return False
        self._next.append(piece)
        self.wake()
        return True

    def __aiter__(self) -> Handed:
        return self

    async def __anext__(self) -> bytes:
        while not self._next:
            await self._wait()
        piece = self._next.popleft()
        self.wake()
        if piece is None:
            raise StopAsyncIteration
        if isinstance(piece, BaseException):
            raise ConnectionError(LEFT) from piece
        return piece

    def wake(self) -> None:
        """Let the other side look again: there is a piece, or room, or the exchange is over."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:  # one side waits at a time: with a piece here only the thread does
        self._waiter = self._loop.create_future()
        await self._waiter


async def pieces(exchange: Exchange) -> AsyncIterator[bytes]:
    """What an exchange uploads, without empty pieces.

    Raises:
        ConnectionError: making them failed; the exchange has ended with what was raised.
    """
    assert exchange.upload is not None
    try:
        async for piece in exchange.upload:
            if piece:
                yield piece
    except Exception as exc:
        exchange.fail(exc)
        raise ConnectionError(LEFT) from None


async def feed(exchange: Exchange, connection: Connection) -> None:
    """Send what an exchange uploads as chunks of its request, as fast as they are taken."""
    try:
        async for piece in pieces(exchange):
            connection.send_more(b"%x\r\n%b\r\n" % (len(piece), piece))
            async with asyncio.timeout(exchange.write_timeout):
                await connection.sent()
    except ConnectionError:
        return
    except TimeoutError:
        exchange.fail(NotSent(f"{exchange.node} did not take the body in time", node=exchange.node))
        return
    connection.send_more(b"0\r\n\r\n")
