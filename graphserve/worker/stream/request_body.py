"""Streams into an API: the body comes as chunks (`AsyncIterator[bytes]`), as fast as the API takes
them.

Runs in workers.

The other parameters are in the query of the URL, since the body is the stream: as everybody writes
a query (`?name=scan&pages=3`), or from a service of the graph as JSON (`?name="scan"&pages=3`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Protocol

from graphserve.call.upload import LEFT
from graphserve.wire.codec import Format
from graphserve.wire.costs.bounds import SMALL_CHUNK
from graphserve.wire.url_arguments import as_object

if TYPE_CHECKING:
    from graphserve.worker.dispatch.executor import BoundApi

HIGH_BYTES = 256 * 1024  # what waits for a slow API at most, before the connection is held back
# seconds between two looks whether a client whose connection is held back is still there
LOOK_AGAIN = 0.03


class Flow(Protocol):
    """Holds a connection back, so that what comes waits in the kernel."""

    def pause_reading(self) -> None:
        """Read no more."""

    def resume_reading(self) -> None:
        """Read again."""


class RequestBody:
    """A request body that is still coming.

    Args:
        flow: holds the connection back.
        left: returns whether the client has closed its end; nobody reads a connection that is held
            back.
        abort: ends the connection.
    """

    def __init__(self, flow: Flow, left: Callable[[], bool], abort: Callable[[], None]) -> None:
        self._flow = flow
        self._left = left
        self._abort = abort
        self._chunks: deque[bytes | bytearray] = deque()
        self._size = 0
        self._ended = False
        self._failed = False
        self._held = False
        self._waiter: asyncio.Future[None] | None = None

    def push(self, chunk: bytes) -> None:
        """Add a chunk; the connection is held back if the API is slow."""
        hold(self._chunks, bytes(chunk))
        self._size += len(chunk)
        if self._size > HIGH_BYTES:
            if not self._held:
                asyncio.get_running_loop().call_later(LOOK_AGAIN, self._look)
            self._held = True
            self._flow.pause_reading()
        self._wake()

    def end(self) -> None:
        """Say that the body is complete."""
        self._ended = True
        self._wake()

    def fail(self) -> None:
        """End it before it is complete: the client went away, or was refused."""
        self._failed = not self._ended
        self._wake()

    def _look(self) -> None:
        if not self._held or self._failed:
            return
        if self._left():
            self._abort()
        else:
            asyncio.get_running_loop().call_later(LOOK_AGAIN, self._look)

    def __aiter__(self) -> RequestBody:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._failed:
                raise ConnectionError(LEFT)
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        chunk = bytes(self._chunks.popleft())
        self._size -= len(chunk)
        if self._held and self._size <= HIGH_BYTES // 4:
            self._held = False
            self._flow.resume_reading()
        return chunk

    async def pieces(self) -> list[bytes]:
        """Wait for more, and return all that has come since; nothing at the end."""
        found = []
        if (first := await anext(self, None)) is not None:
            found.append(first)
            while self._chunks:
                found.append(await anext(self))
        return found

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class BlockingBody:
    """A body that is still coming, for a method in a thread: an `Iterator`.

    Made on the loop that the chunks come by.

    Args:
        chunks: as they come.
    """

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._loop = asyncio.get_running_loop()

    def __iter__(self) -> BlockingBody:
        return self

    def __next__(self) -> bytes:
        # (a StopAsyncIteration would be an error of the task)
        chunk = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
        if chunk is None:
            raise StopIteration
        return chunk

    async def _next(self) -> bytes | None:
        return await anext(self._chunks, None)


def hold(chunks: list[bytes | bytearray] | deque[bytes | bytearray], chunk: bytes) -> None:
    """Add a chunk to those that wait; small ones are held as one, since each by itself takes many
    times its bytes.
    """
    last = chunks[-1] if chunks else None
    if last is None or len(last) >= SMALL_CHUNK or len(chunk) >= SMALL_CHUNK:
        chunks.append(chunk)
    elif type(last) is bytearray:
        last += chunk
    else:
        chunks[-1] = bytearray(last) + chunk


def from_query(
    api: BoundApi, query: bytes, stream: AsyncIterator[bytes], *, is_hop: bool
) -> dict[str, object]:
    """Return the arguments of a call whose body is a stream: what the query says, and the stream.

    Args:
        api: the API.
        query: of the URL.
        stream: the body.
        is_hop: whether a service of the graph has written the query: each argument as JSON.

    Raises:
        InvalidArguments: the query does not fit the signature.
    """
    if is_hop:
        arguments = api.arguments.decode(as_object(query), Format.JSON)
    else:
        arguments = api.arguments.decode_beside_stream(query)
    return with_stream(api, arguments, stream)


def with_stream(
    api: BoundApi, arguments: dict[str, object], stream: AsyncIterator[bytes]
) -> dict[str, object]:
    """Return arguments with the stream, as the method takes it."""
    name = api.signature.input_stream
    assert name is not None
    return {**arguments, name: BlockingBody(stream) if api.signature.blocking_input else stream}
