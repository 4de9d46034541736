"""Calls that lose their worker: what is sent again, to whom, and how often."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from graphserve.call.context import CallContext, current
from graphserve.call.lanes.pooled import FAILURES, FIRST_REST, PooledLane
from graphserve.call.lanes.queue import QueueLane
from graphserve.call.membership import KnownNode, KnownWorker, Membership
from graphserve.call.remote import DependencyApi, RemoteApi, RemoteCall
from graphserve.call.retry_budget import ALLOWANCE, PER_SECOND, SHARE, WINDOW, RetryBudget
from graphserve.errors import DeadlineExceeded, Problem, RemoteError, Unavailable
from graphserve.graph.plan import ApiPlan
from graphserve.loop.loop_thread import LoopThread

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1"
PROBLEM = b"HTTP/1.1 503 No\r\nx-graphserve-error: problem\r\ncontent-length: 2\r\n\r\n{}"


class Listening:
    """What stands behind a worker's socket.

    It does one of `answer`, `hold` (answer when `go` is set), `lose` (read, then close), `reset`
    (close unread), `refuse`.
    """

    def __init__(self, folder: Path, name: str, mode: str, answer: bytes = ANSWER) -> None:
        self.path, self.mode, self.answer = str(folder / name), mode, answer
        self.requests = self.connections = 0
        self.go = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(self.path)
        if mode == "refuse":
            self.sock.close()
            return
        self.sock.listen(128)
        self.sock.setblocking(False)
        self.accepting = asyncio.create_task(self.accept())

    async def accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self.sock)
            self.connections += 1
            if self.mode == "reset":
                connection.close()
                continue
            task = asyncio.create_task(self.serve(connection))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        with connection:
            while b"\r\n\r\n" in await loop.sock_recv(connection, 1 << 20):
                self.requests += 1
                if self.mode == "lose":
                    return
                if self.mode == "hold":
                    await self.go.wait()
                await loop.sock_sendall(connection, self.answer)


@asynccontextmanager
async def node(
    *modes: str, answer: bytes = ANSWER
) -> AsyncIterator[tuple[PooledLane, list[Listening]]]:
    """A pooled lane to a node of such workers, all of which are said to be ready."""
    with tempfile.TemporaryDirectory(prefix="gs-") as folder:
        workers = [
            Listening(Path(folder), str(index), mode, answer) for index, mode in enumerate(modes)
        ]
        membership = Membership()
        lane = PooledLane(membership, "Model", 100, 30.0, RetryBudget())
        membership.update(
            KnownNode(
                "Model", "ready", tuple(KnownWorker(0, worker.path, "ready") for worker in workers)
            )
        )
        try:
            yield lane, workers
        finally:
            for worker in workers:
                worker.sock.close()
                if worker.mode != "refuse":
                    worker.accepting.cancel()


def call_to(
    lane: PooledLane | QueueLane,
    *,
    idempotent: bool = False,
    stream: bool = False,
    timeout: float = 20.0,
    attempts: int | None = None,
) -> RemoteApi:
    kind = "pooled" if isinstance(lane, PooledLane) else "queue"
    plan = ApiPlan("run", "/run", ("x",), kind, stream=stream, idempotent=idempotent)  # type: ignore[arg-type]
    return RemoteApi(
        LoopThread.here(),
        DependencyApi(
            plan, "Model", lane, lambda it: it.get("x", b""), bytes, timeout, 0.1, attempts=attempts
        ),
    )


async def test_a_worker_that_refuses_gets_no_calls_and_costs_none() -> None:
    async with node("refuse", "answer", "refuse") as (lane, workers):
        call = call_to(lane)
        for _ in range(50):
            assert await asyncio.gather(*(call() for _ in range(4))) == [b"1"] * 4
        assert workers[1].requests == 200


async def test_a_worker_that_closes_unread_connections_loses_nothing() -> None:
    """It was certainly not executed: any API may be sent again, with no budget."""
    async with node("reset", "answer") as (lane, workers):
        lane.retry_budget._left = 0.0
        call = call_to(lane)
        for _ in range(50):
            assert await asyncio.gather(*(call() for _ in range(4))) == [b"1"] * 4
        assert workers[0].connections < 4 * FAILURES, "and soon it is left alone"


async def test_a_worker_that_loses_calls_is_left_alone_until_it_answers() -> None:
    async with node("lose", "answer") as (lane, workers):
        call = call_to(lane, idempotent=True)
        for _ in range(100):
            assert await asyncio.gather(*(call() for _ in range(4))) == [b"1"] * 4
        lost = workers[0].requests
        assert FAILURES <= lost <= FAILURES + 8, (
            "it had none in flight, and would have been given half of the calls"
        )
        workers[0].mode = "answer"
        async with asyncio.timeout(20):
            while workers[0].requests < lost + 5:
                assert await asyncio.gather(*(call() for _ in range(4))) == [b"1"] * 4


@pytest.mark.parametrize("mode", ["lose", "reset"])
async def test_a_call_that_was_lost_goes_to_another_worker(mode: str) -> None:
    """Though the one that lost it has the fewest calls in flight."""
    async with node("hold", mode) as (lane, (holds, loses)):
        assert lane.state is not None
        both = lane.state.workers
        lane._changed(KnownNode("Model", "ready", both[:1]))
        call = call_to(lane, idempotent=True)
        calls = [asyncio.ensure_future(call()) for _ in range(4)]
        await until(lambda: holds.requests == 4)
        lane._changed(KnownNode("Model", "ready", both))
        calls.append(asyncio.ensure_future(call()))
        await until(lambda: holds.requests == 5)
        assert loses.connections == 1
        holds.go.set()
        assert await asyncio.gather(*calls) == [b"1"] * 5


@pytest.mark.parametrize("attempts", [1, 2, None])
async def test_attempts_bound_how_often_a_call_runs(attempts: int | None) -> None:
    async with node("lose", "answer") as (lane, (loses, answers)):
        call = call_to(lane, idempotent=True, attempts=attempts)
        calls = [call(), call()]  # one goes to each
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert (loses.requests, answers.requests) == (1, 1 if attempts == 1 else 2)
    lost = [each for each in found if isinstance(each, BaseException)]
    assert [type(each) for each in lost] == ([RemoteError] if attempts == 1 else [])
    assert all("it has run as often as `attempts`" in str(each) for each in lost)


async def test_attempts_do_not_count_what_was_not_read() -> None:
    async with node("reset", "answer") as (lane, workers):
        call = call_to(lane, idempotent=True, attempts=1)
        assert await asyncio.gather(*(call() for _ in range(4))) == [b"1"] * 4
        assert workers[0].connections


async def test_a_worker_that_stays_bad_is_left_alone_for_longer_each_time() -> None:
    async with node("lose", "answer") as (lane, workers):
        call, bad = call_to(lane, idempotent=True), lane.endpoints[workers[0].path]
        clock = asyncio.get_running_loop().time
        rests: list[float] = []
        async with asyncio.timeout(60):
            while len(rests) < 3:
                while not bad.resting:
                    assert await asyncio.gather(call(), call()) == [b"1"] * 2
                began = clock()
                await until(lambda: not bad.resting)
                rests.append(clock() - began)
        for number, rest in enumerate(rests):
            assert rest > FIRST_REST * 2**number - 0.05, (
                "a timer never comes early, but the clock has its grain"
            )


async def test_a_call_that_is_late_already_is_not_sent() -> None:
    async with node("answer") as (lane, workers):
        call = call_to(lane)
        # of an API that has run too long
        token = current.set(CallContext(b"1", time.monotonic_ns() - 1))
        try:
            with pytest.raises(DeadlineExceeded, match="Model did not answer before the deadline"):
                await call()
        finally:
            current.reset(token)
        assert workers[0].connections == 0
        assert await call() == b"1"


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_not_all_workers_are_left_alone() -> None:
    async with node("lose", "lose", "lose") as (lane, workers):
        call = call_to(lane)
        for _ in range(10 * FAILURES):
            with pytest.raises(
                RemoteError, match="a worker of Model ended while it executed the call"
            ):
                await call()
        assert sum(endpoint.resting for endpoint in lane.endpoints.values()) == 1
        assert sum(worker.requests for worker in workers) == 10 * FAILURES, "each was sent once"
        for worker in workers:
            worker.mode = "answer"
        assert await call() == b"1"


async def test_a_lone_worker_is_never_left_alone() -> None:
    async with node("lose") as (lane, workers):
        call = call_to(lane)
        for _ in range(3 * FAILURES):
            with pytest.raises(RemoteError):
                await call()
        workers[0].mode = "answer"
        assert await call() == b"1"


async def test_the_budget_bounds_what_runs_again() -> None:
    """Each call would run again once; all together they run again no more than the budget
    allows.
    """
    async with node("lose") as (lane, workers):
        call = call_to(lane, idempotent=True, timeout=6.0)
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(call() for _ in range(300)), return_exceptions=True)
        took = asyncio.get_running_loop().time() - began
        refused = [answer for answer in answers if isinstance(answer, RemoteError)]
        spent = [
            answer
            for answer in refused
            if "the retry budget is spent (20% of the calls + 10/s)" in str(answer)
        ]
        twice = [
            answer
            for answer in refused
            if "it does not run again" in str(answer) and answer not in spent
        ]
        most = ALLOWANCE + SHARE * 300 + PER_SECOND * (took + 1)
        # (some found the accept queue of this one worker full)
        assert len(spent) + len(twice) == len(refused)
        assert len(spent) > 20
        assert 20 < len(twice) <= most
        assert workers[0].requests - 300 <= most


@pytest.mark.parametrize(
    ("body", "stream", "says"),
    [
        (b"x" * 70_000, False, r"its request of 70,\d+ bytes is too large to run again"),
        (b"", True, r"answer\)$"),
    ],
)
async def test_large_requests_and_streams_run_once(body: bytes, stream: bool, says: str) -> None:
    async with node("lose") as (lane, workers):
        call: Any = call_to(lane, idempotent=True, stream=stream)(x=body)
        with pytest.raises(RemoteError, match=says):
            await (anext(call) if stream else call)
        assert workers[0].requests == 1


async def test_an_answer_is_never_asked_for_again() -> None:
    async with node("answer", "answer", answer=PROBLEM) as (lane, workers):
        with pytest.raises(Problem):
            await call_to(lane, idempotent=True)()
        assert sum(worker.requests for worker in workers) == 1


async def test_the_queue_lane_sends_unread_calls_again() -> None:
    async with node("reset") as (_, (worker,)):
        lane = QueueLane(Membership(), "Model", worker.path, RetryBudget())
        lane.retry_budget._left = 0.0
        call = asyncio.ensure_future(call_to(lane)())
        async with asyncio.timeout(20):
            while worker.connections < 4:  # noqa: ASYNC110
                await asyncio.sleep(0)
        worker.mode = "answer"
        assert await call == b"1"


async def test_the_queue_lane_has_the_same_budget() -> None:
    async with node("lose") as (_, (worker,)):
        lane = QueueLane(Membership(), "Model", worker.path, RetryBudget())
        lane.retry_budget._left = 5.0
        calls = (call_to(lane, idempotent=True, timeout=1.0)() for _ in range(20))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert "the retry budget is spent" in str(answers[-1])
        assert 25 <= worker.requests <= 20 + 5 + SHARE * 20 + 2 * PER_SECOND


@pytest.mark.usefixtures("few_descriptors")
async def test_without_descriptors_the_worker_is_not_to_blame() -> None:
    async with node("answer") as (lane, workers):
        held = []
        try:
            while True:
                held.append(os.dup(workers[0].sock.fileno()))
        except OSError:
            with pytest.raises(Unavailable, match="no connection to Model: Too many open files"):
                await call_to(lane)()
        finally:
            for fd in held:
                os.close(fd)
        assert await call_to(lane)() == b"1"


def test_a_failed_call_that_nobody_looks_at_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also when its loop has ended."""

    async def failed() -> RemoteCall:
        async with node("lose") as (lane, _):
            call = call_to(lane)()
            over = asyncio.Event()
            call._exchange.reply.add_done_callback(lambda _: over.set())
            await asyncio.wait_for(over.wait(), 20)
            return call

    call = asyncio.run(failed())
    with pytest.warns(
        RuntimeWarning, match=r"a call to Model\.run failed and nobody looked: a worker of Model"
    ):
        del call
        gc.collect()
    assert not caplog.records, "asyncio has nothing to add"


# --- the budget by itself ---


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("calls", "seconds", "most"),
    [
        (0, 0.0, ALLOWANCE),
        (0, 5.0, ALLOWANCE),
        (1000, 5.0, ALLOWANCE + SHARE * 1000),
        (1000, WINDOW, ALLOWANCE + SHARE * 1000),
        (100_000, 100 * WINDOW, ALLOWANCE + SHARE * 1000),
        (0, 1000.0, ALLOWANCE),
    ],
)
def test_what_the_budget_allows_at_once(calls: int, seconds: float, most: float) -> None:
    clock = Clock()
    budget = RetryBudget(clock=clock)
    budget.calls, clock.now = calls, seconds
    assert sum(budget.spend() for _ in range(10_000)) == most


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0, 30), st.integers(0, 300)), max_size=40))
def test_never_more_than_a_share_of_the_calls(steps: list[tuple[int, float, int]]) -> None:
    clock = Clock()
    budget = RetryBudget(clock=clock)
    calls = spent = 0
    for more, seconds, wanted in steps:
        budget.calls += more
        clock.now += seconds
        calls += more
        spent += sum(budget.spend() for _ in range(wanted))
        assert spent <= ALLOWANCE + SHARE * calls + PER_SECOND * clock.now + 1e-6


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """So that running out of them takes no time."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 100, before[1])
    )
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio
