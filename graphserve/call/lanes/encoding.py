"""The way of a call whose arguments take long to write, such as a picture: a thread writes them, so
that the loop goes on meanwhile, and then they go by the lane of their node.

Runs in workers, and where `local()` was called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Generic

from graphserve.call.exchange import Exchange, Lane, RequestT
from graphserve.errors import CallError
from graphserve.wire.shared_buffers import Ticket, done

THREADS = 2  # as many as copy pixels side by side; more would wait for memory


@dataclass(frozen=True, slots=True)
class EncodedCall(Generic[RequestT]):
    """Holds what a lane sends, once it has been written.

    Args:
        request: it.
        tickets: the memory that it refers to.
        inline: as of `Exchange`.
    """

    request: RequestT
    tickets: list[Ticket] | None
    inline: Callable[[], RequestT] | None


class EncodingLane(Generic[RequestT]):
    """Has the arguments of one call written in a thread, and sends it then.

    Args:
        lane: the lane of its node.
        encode: writes them; raises what the call ends with.
    """

    # (until it is sent, nothing of it can be lost)
    retry_budget = None

    def __init__(self, lane: Lane[RequestT], encode: Callable[[], EncodedCall[RequestT]]) -> None:
        self._lane = lane
        self._encode = encode

    def send(self, exchange: Exchange[RequestT]) -> None:
        """Begin to write its arguments."""
        future = _threads().submit(self._encode)

        def ended(future: Future[EncodedCall[RequestT]]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                exchange.loop.call_soon_threadsafe(self._encoded, exchange, future)

        future.add_done_callback(ended)

    def forget(self, exchange: Exchange[RequestT]) -> None:
        """Do nothing: what a thread writes is dropped when it is written."""

    def _encoded(self, exchange: Exchange[RequestT], future: Future[EncodedCall[RequestT]]) -> None:
        error = future.exception()
        if error is not None:
            exchange.fail(error if isinstance(error, CallError) else error.with_traceback(None))
            return
        call = future.result()
        if exchange.over:
            done(call.tickets or [])
        else:
            exchange.take_request(self._lane, call.request, call.tickets, call.inline)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="graphserve-arguments")
