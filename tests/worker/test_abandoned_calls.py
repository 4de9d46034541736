"""Executions whose callers left: batches end with their last caller, and what runs on all the same
is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import graphserve
from graphserve import Batch, DeadlineExceeded, api, service
from graphserve.call.context import CallContext
from graphserve.graph.builder import resolve_here
from graphserve.worker.dispatch.executor import RUN_ON, Executor, bind
from graphserve.worker.stream.producer import StreamExecution


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def turns() -> None:
    """Let what is under way in this process, and waits for nothing, happen."""
    for _ in range(20):
        await asyncio.sleep(0)


# --- what is counted ---


@service(concurrency=8)
class Stubborn:
    def __init__(self) -> None:
        self.enough = threading.Event()

    @api
    async def good(self) -> int:
        await asyncio.Event().wait()
        return 1

    @api
    async def tidies_up(self) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(RUN_ON / 10)
        return 1

    @api
    async def swallows(self) -> int:
        while not self.enough.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass
        return 1

    @api
    async def swallows_in_a_stream(self) -> AsyncIterator[int]:
        yield await self.swallows()

    @api
    def thread(self) -> int:
        self.enough.wait()
        return 1

    @api
    def good_thread(self) -> int:
        while not graphserve.cancelled():
            time.sleep(0.001)
        return 1

    @api
    def stream_in_a_thread(self) -> Iterator[int]:
        self.enough.wait()
        yield 1


@contextlib.contextmanager
def released(stubborn: Stubborn) -> Iterator[None]:
    """What does not listen ends with the test all the same, or the loop could not be closed."""
    try:
        yield
    finally:
        stubborn.enough.set()


class Nowhere:
    """A sink."""

    blocked = False

    def encode(self, item: Any) -> bytes:
        return b""

    def write(self, data: bytes) -> None: ...
    async def drained(self) -> None: ...
    def end(self) -> None: ...
    def fail(self, error: BaseException) -> None: ...


@pytest.mark.parametrize("late", [False, True], ids=["cancelled", "late"])
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("good", (0, 0)), ("tidies_up", (0, 0)), ("swallows", (1, 0)), ("swallows_in_a_stream", (1, 0)),
        ("thread", (0, 1)), ("good_thread", (0, 0)), ("stream_in_a_thread", (0, 1)),
    ],
)  # fmt: skip
async def test_calls_that_run_on_are_counted(
    name: str, counts: tuple[int, int], late: bool
) -> None:
    plan = resolve_here(Stubborn, {})[0].node("Stubborn")
    stubborn = Stubborn()
    apis = bind(plan, stubborn)
    with ThreadPoolExecutor(8) as threads, released(stubborn):
        executor = Executor(plan, threads)
        freed = asyncio.Event()
        context = CallContext(b"1", time.monotonic_ns() + (10**7 if late else 10**11))
        if apis[name].signature.stream:
            execution: Any = StreamExecution(executor, apis[name], context, Nowhere(), freed.set)
            executor.executing.add(execution)
            execution.start({})
        else:
            execution = executor.start(
                apis[name], {}, context, lambda result, error: None, freed.set
            )
        await turns()
        if not late:
            execution.cancel()
        if sum(counts):
            await until(lambda: executor.abandoned.ran_on_async + executor.abandoned.ran_on_sync)
            assert not freed.is_set(), "it holds its slot all the same"
        stubborn.enough.set()
        await asyncio.wait_for(freed.wait(), 20)
        await until(lambda: not executor.abandoned.waiting)
        await turns()
        assert (executor.abandoned.ran_on_async, executor.abandoned.ran_on_sync) == counts


# --- batches ---


class Record:
    def __init__(self) -> None:
        self.begun: list[list[int]] = []
        self.cancelled = 0
        self.go = asyncio.Event()


record: Record


@service(concurrency=1)
class Joined:
    @api(batch=Batch(max_size=2, max_wait=0.01))
    async def pair(self, xs: list[int]) -> list[int]:
        record.begun.append(xs)
        try:
            await record.go.wait()
        except asyncio.CancelledError:
            record.cancelled += 1
            raise
        return xs

    @api(batch=Batch(max_size=8, max_wait=30), timeout=0.1)
    async def slow_to_close(self, xs: list[int]) -> list[int]:
        record.begun.append(xs)
        return xs

    @api(batch=Batch(max_size=2, max_wait=60))
    async def patient(self, xs: list[int]) -> list[int]:
        return xs


@pytest.fixture(autouse=True)
async def _record() -> None:
    global record
    record = Record()


async def test_a_batch_ends_with_its_last_caller() -> None:
    async with graphserve.local(Joined) as joined:
        first, second = (asyncio.ensure_future(joined.pair([x])) for x in (1, 2))
        await until(lambda: record.begun == [[1, 2]])
        first.cancel()
        await turns()
        assert record.cancelled == 0, "one still waits"
        second.cancel()
        await until(lambda: record.cancelled == 1)
        record.go.set()
        assert await joined.pair([3]) == [3], "and its slot is free"


async def test_those_who_stay_get_their_result() -> None:
    async with graphserve.local(Joined) as joined:
        first, second = (asyncio.ensure_future(joined.pair([x])) for x in (1, 2))
        await until(lambda: record.begun == [[1, 2]])
        first.cancel()
        record.go.set()
        assert await second == [2]
        assert record.cancelled == 0


async def test_a_call_that_is_late_before_its_batch_is_closed() -> None:
    async with graphserve.local(Joined) as joined:
        with pytest.raises(DeadlineExceeded, match="Joined"):
            await joined.slow_to_close([1])
        record.go.set()
        assert await joined.pair([2]) == [2]
        assert record.begun == [[2]]


async def test_who_leaves_a_batch_makes_room_in_it() -> None:
    async with graphserve.local(Joined) as joined:
        leaves = asyncio.ensure_future(joined.patient([1]))
        await turns()
        leaves.cancel()
        await turns()
        assert await asyncio.gather(joined.patient([2]), joined.patient([3])) == [[2], [3]]
        last = asyncio.ensure_future(joined.patient([4]))
        await turns()
        last.cancel()
        record.go.set()
        assert await joined.pair([5]) == [5], "a batch that everyone left holds no slot"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio
