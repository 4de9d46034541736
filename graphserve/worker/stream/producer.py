"""Executing a streaming API: items go out as they are made, and the generator waits while the
consumer is slow.

Runs in workers and in `local()`; it knows no sockets: a `Sink` takes the items, over HTTP or in
memory.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from graphserve.call.context import CallContext, current
from graphserve.declare.typed import Stream
from graphserve.errors import DeadlineExceeded
from graphserve.isolation import forked
from graphserve.metrics.layout import STREAM_ITEMS
from graphserve.worker.dispatch.executor import BoundApi, Executor, name_of, raise_contained

LONGEST_TURN = 0.0005  # seconds that a generator may yield items without letting the loop send them
BUFFERED_ITEMS = 64  # items of a generator in a thread that may wait for the loop


class Sink(Protocol):
    """Takes the items of a stream."""

    def encode(self, item: object) -> bytes:
        """Return an item in the format of the stream. Called in the thread that made it."""
        ...

    def write(self, data: bytes) -> None:
        """Send an item on its way; the first one begins the answer."""

    @property
    def slow(self) -> bool:
        """Return whether `encode` takes so long that a thread does it."""
        ...

    @property
    def blocked(self) -> bool:
        """Return whether the consumer is slow: no more items are to be made until `drained`."""
        ...

    async def drained(self) -> None:
        """Wait until the consumer has taken enough."""

    def end(self) -> None:
        """End the stream: there are no more items."""

    def fail(self, error: BaseException) -> None:
        """End the stream with an error; items may have been sent."""


class StreamExecution:
    """One streaming call that is being executed.

    Args:
        executor: of the worker.
        api: which API.
        context: what travels with the call; its deadline moves on with each item.
        sink: where the items go.
        on_free: called once when nothing of it runs any more.
    """

    def __init__(
        self,
        executor: Executor,
        api: BoundApi,
        context: CallContext,
        sink: Sink,
        on_free: Callable[[], None],
    ) -> None:
        self._executor = executor
        self._api = api
        self.context = context
        self._on_free = on_free
        self._sink: Sink | None = sink
        self._running: asyncio.Task[None] | Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # seconds to the first item, and from one to the next
        self._patience = context.seconds_left()
        self._items: deque[bytes] = deque()  # of a generator in a thread
        self._room = threading.Semaphore(BUFFERED_ITEMS)
        self._wanted = False
        # what counts its items, if something does
        recorder = executor.recorder
        self._made = None if recorder is None else recorder.counter(STREAM_ITEMS, api.index)
        self._born = 0  # how often this process had been forked when the API began

    def start(self, arguments: dict[str, object]) -> None:
        """Begin, unless the deadline has passed."""
        executor = self._executor
        executor.register(self)
        if self._patience is not None:
            if self._patience <= 0:
                try:
                    self._time_out()
                finally:
                    self._free()
                return
            self._timer = executor.loop.call_later(
                self._patience + executor.guard, self._check_deadline
            )
        if self._api.is_async:
            task = executor.loop.create_task(self._run_on_loop(arguments))
            task.add_done_callback(self._task_ended)
            self._running = task
        else:
            carried = contextvars.copy_context()
            future = executor.threads.submit(carried.run, self._run_in_thread, arguments)
            self._running = future
            future.add_done_callback(self._thread_ended)

    def cancel(self) -> None:
        """End the generator, its `finally` included: the consumer went away."""
        self._sink = None
        self._stop()

    @property
    def in_thread(self) -> bool:
        """Return whether it runs in a thread, where nothing can interrupt it."""
        return isinstance(self._running, Future)

    # --- a generator on the loop ---

    async def _run_on_loop(self, arguments: dict[str, object]) -> None:
        current.set(self.context)
        self._born = forked.forks
        try:
            await self._send_items(arguments)
        except BaseException as exc:
            raise_contained(exc, self._born, self._api.method, on_loop=True)
        self._leave_if_forked()

    async def _send_items(self, arguments: dict[str, object]) -> None:
        iterator: Any = self._api.method(**arguments)
        if inspect.isawaitable(iterator) and not isinstance(iterator, Stream):
            iterator = await iterator
        turn = time.perf_counter()
        try:
            async for item in iterator:
                self._leave_if_forked()
                sink = self._sink
                if sink is None:
                    return
                if sink.slow:
                    encoded = await self._executor.loop.run_in_executor(
                        self._executor.decoders, sink.encode, item
                    )
                    sink.write(encoded)
                else:
                    sink.write(sink.encode(item))
                self._extend_deadline()
                if sink.blocked:
                    await sink.drained()
                if time.perf_counter() - turn > LONGEST_TURN:
                    await asyncio.sleep(0)
                    turn = time.perf_counter()
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        try:
            self._end(error)
        finally:  # whatever comes of the answer, the slot is free
            self._free()

    # --- a generator in a thread ---

    def _run_in_thread(self, arguments: dict[str, object]) -> None:
        current.set(self.context)
        self._born = forked.forks
        try:
            self._take_items(arguments)
        except BaseException as exc:
            raise_contained(exc, self._born, self._api.method, on_loop=False)
        self._leave_if_forked()

    def _take_items(self, arguments: dict[str, object]) -> None:
        items: Any = self._api.method(**arguments)
        iterator = iter(items)
        try:
            for item in iterator:
                self._leave_if_forked()
                sink = self._sink
                if sink is None:
                    return
                self._items.append(sink.encode(item))
                if not self._wanted:
                    self._wanted = True
                    self._executor.loop.call_soon_threadsafe(self._deliver)
                self._room.acquire()
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def _deliver(self) -> None:
        self._wanted = False
        sink = self._sink
        while self._items and sink is not None and not sink.blocked:
            sink.write(self._items.popleft())
            self._room.release()
            self._extend_deadline()
        if self._items and sink is not None:
            self._wanted = True  # the thread need not call while we wait
            waiting = self._executor.loop.create_task(sink.drained())
            waiting.add_done_callback(lambda _: self._deliver())

    def _thread_ended(self, future: Future[None]) -> None:
        if not self._executor.loop.is_closed():
            self._executor.loop.call_soon_threadsafe(self._thread_over, future)

    def _thread_over(self, future: Future[None]) -> None:
        if self._items and self._sink is not None:  # a slow consumer still has some to take
            self._deliver()
            if self._items:
                self._executor.loop.call_later(0.005, self._thread_over, future)
                return
        try:
            self._end(None if future.cancelled() else future.exception())
        finally:
            self._free()

    # --- the end ---

    def _leave_if_forked(self) -> None:
        """End here if user code forked this process: the stream is its parent's."""
        if forked.forks != self._born:
            forked.leave(name_of(self._api.method), None)

    def _extend_deadline(self) -> None:
        """Have as much time for the next item as the first one had; this one is counted."""
        if self._made is not None:
            self._made.add()
        if self._patience is not None:
            self.context.deadline_ns = time.monotonic_ns() + int(self._patience * 1e9)

    def _check_deadline(self) -> None:
        left = self.context.seconds_left() or 0.0
        if self._sink is not None and self._sink.blocked:
            left = self._patience or 0.0  # the consumer is slow, not we
        if left > 0:
            self._timer = self._executor.loop.call_later(
                left + self._executor.guard, self._check_deadline
            )
        else:
            self._time_out()

    def _time_out(self) -> None:
        holder, name = self.context.waits_for(), self._executor.node.name
        if holder is None:
            self._end(DeadlineExceeded(f"{name} made no item before the deadline", node=name))
        else:  # its word is on its way, and late
            self._end(DeadlineExceeded(f"{holder} did not answer before the deadline", node=holder))
        self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._running is not None:
            self._running.cancel()
            self._executor.abandoned.add(self)
        self.context.leave()
        self._items.clear()
        self._room.release(BUFFERED_ITEMS)  # a thread that waits for room looks up

    def _end(self, error: BaseException | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        sink = self._sink
        self._sink = None
        if sink is None:
            return
        if error is None:
            sink.end()
        else:
            sink.fail(error)

    def _free(self) -> None:
        self._running = None
        self.context.end()
        self._executor.unregister(self)
        self._on_free()
