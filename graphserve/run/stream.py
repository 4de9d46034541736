"""Streams of a local graph: items go to their consumer through the wire's types. Runs where `local()` was called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphserve.call.exchange import Exchange
from graphserve.wire import frames
from graphserve.wire.codec import Format
from graphserve.worker.execute import BoundApi


class LocalSink:
    """Gives the items of a stream to the exchange that waits for them.

    Args:
        exchange: the caller's.
        api: the API.
        failed: called with what the API raised.
    """

    def __init__(self, exchange: Exchange, api: BoundApi, failed: Callable[[BaseException], None]) -> None:
        self.exchange, self.api, self._failed = exchange, api, failed
        self.begun = False

    def encode(self, item: Any) -> bytes:
        """See `Sink`."""
        return frames.pack(frames.ITEM, self.api.result.encode(item, Format.MSGPACK))

    def write(self, data: bytes) -> None:
        """See `Sink`."""
        if not self.begun:
            self.begun = True
            self.exchange.head()
        self.exchange.chunk(data)

    @property
    def blocked(self) -> bool:
        """See `Sink`."""
        return self.exchange.full

    async def drained(self) -> None:
        """See `Sink`."""
        await self.exchange.room()

    def end(self) -> None:
        """See `Sink`."""
        self.exchange.chunk(frames.pack(frames.END))
        self.exchange.answered(200, [], b"")

    def fail(self, error: BaseException) -> None:
        """See `Sink`."""
        self._failed(error)
