"""What a caller streams into an API, piece by piece: from its own iterator, or from a thread.

Runs in workers.

What goes wrong while the pieces are made is the caller's own error, and ends the exchange that
sends them; the API only sees that nobody is there any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from graphserve.errors import CallError

LEFT = "the client went away before the body was complete"


class Upload:
    """Asks the caller's iterator, on the loop that runs where the call was made.

    Args:
        pieces: the iterator.
        loop: the loop that calls run on.
        misfit: makes the error for a piece that is no bytes.
    """

    __slots__ = ("_misfit", "_other_loop", "_pieces")

    def __init__(
        self,
        pieces: AsyncIterator[object],
        loop: asyncio.AbstractEventLoop,
        misfit: Callable[[object], CallError],
    ) -> None:
        self._pieces = pieces
        self._misfit = misfit
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:  # a thread without one
            here = loop
        self._other_loop = here if here is not loop else None

    def __aiter__(self) -> Upload:
        return self

    async def __anext__(self) -> bytes:
        if self._other_loop is None:
            piece = await self._pieces.__anext__()
        else:
            piece = await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(self._next(), self._other_loop)
            )
        if isinstance(piece, bytes):
            return piece
        if isinstance(piece, (bytearray, memoryview)):
            return bytes(piece)
        raise self._misfit(piece)

    async def _next(self) -> object:
        return await self._pieces.__anext__()


async def in_threads(pieces: Iterator[object]) -> AsyncIterator[object]:
    """Yield what an iterator yields that blocks, which a thread asks."""
    loop = asyncio.get_running_loop()
    end = object()
    while (piece := await loop.run_in_executor(None, next, pieces, end)) is not end:
        yield piece


class ThreadUpload:
    """Hands pieces over from the thread that makes them, one when the last is taken.

    Args:
        loop: that calls run on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._closed = False
        self._next: deque[bytes | BaseException | None] = deque()  # None: the end
        self._waiter: asyncio.Future[None] | None = None  # who waits for the other side

    def hand_over(self, pieces: Iterable[bytes]) -> None:
        """Hand over all of them, in the thread that makes them; ends early when nobody takes them
        any more.

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
        while self._next and not self._closed:
            await self._wait()
        if self._closed:
            return False
        self._next.append(piece)
        self._wake()
        return True

    def __aiter__(self) -> ThreadUpload:
        return self

    async def __anext__(self) -> bytes:
        while not self._next:
            await self._wait()
        piece = self._next.popleft()
        self._wake()
        if piece is None:
            raise StopAsyncIteration
        if isinstance(piece, BaseException):
            raise ConnectionError(LEFT) from piece
        return piece

    def close(self) -> None:
        """Take no more of them: the exchange whose body they are is over."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        """Let the other side look again: there is a piece, or room, or an end."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # one side waits at a time: with a piece here only the thread does
    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter
