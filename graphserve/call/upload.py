"""What a caller streams into an API, piece by piece. Runs in workers, and in programs that make calls.

What goes wrong while the pieces are made is the caller's own error: its call ends with it, and the API only sees that
nobody is there any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from graphserve.errors import CallError

if TYPE_CHECKING:
    from graphserve.call.connection import Connection
    from graphserve.call.exchange import Exchange

LEFT = "the client went away before the body was complete"


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
            await connection.sent()
    except ConnectionError:
        return
    connection.send_more(b"0\r\n\r\n")
