"""Steps that run in the turn they belong to: eager tasks, and who waits for an answer; timers; the
lease of a batch.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from graphserve.loop.eager import Eager
from graphserve.loop.reply import Reply
from graphserve.loop.timers import FAR, Timers, set_timer
from graphserve.worker.batch.batcher import BatchLease
from graphserve.worker.dispatch.slots import GatedListener, Slots

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [
    asyncio.new_event_loop,
    uvloop.new_event_loop,
]


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Any:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


def from_a_callback(
    loop: asyncio.AbstractEventLoop, call: Callable[[], Any]
) -> asyncio.Future[Any]:
    """What `call` returns, called by the loop and not in a task."""
    result: asyncio.Future[Any] = loop.create_future()
    loop.call_soon(lambda: result.set_result(call()))
    return result


def test_a_task_that_waits_for_nothing_is_over_at_once(runner: asyncio.Runner) -> None:
    async def work() -> str:
        async with asyncio.timeout(5):  # noqa: ASYNC100 (it needs a current task, which is what is tested)
            return asyncio.current_task().get_name()  # type: ignore[union-attr]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = await from_a_callback(
            loop, lambda: (task := Eager(loop).begin(work()), task.done())[:2]
        )
        assert task[1], "it ran when it was begun"
        assert await task[0] == task[0].get_name()
        assert "call_soon" not in vars(loop)

    runner.run(main())


def test_a_task_that_waits_goes_on_as_every_task(runner: asyncio.Runner) -> None:
    steps: list[str] = []

    async def work() -> None:
        steps.append("first")
        await asyncio.sleep(0)
        steps.append("second")
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        raise KeyError("its own")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = await from_a_callback(
            loop, lambda: (Eager(loop).begin(work()), steps.append("begun"))[0]
        )
        with pytest.raises(KeyError, match="its own"):
            await task
        assert steps == ["first", "begun", "second"]
        # under 3.11 not at once, but it runs
        inside = Eager(loop).begin(asyncio.sleep(0, "in a task"))
        assert await inside == "in a task"

    runner.run(main())


def test_who_waits_for_an_answer_goes_on_in_the_same_turn(runner: asyncio.Runner) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reply, got = Reply(loop=loop), []

        async def wait() -> None:
            got.append(await reply)

        task = loop.create_task(wait())
        await asyncio.sleep(0)

        def answer() -> list[Any]:
            reply.set_result(1)
            reply.wake(at_once=True)
            return list(got)

        assert await from_a_callback(loop, answer) == [1]
        await task

    runner.run(main())


@pytest.mark.parametrize("how", ["gather", "wait_for", "shield", "wait", "group"])
def test_answers_are_waited_for_in_every_way(runner: asyncio.Runner, how: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        replies = [Reply(loop=loop) for _ in range(3)]
        ways: dict[str, Callable[[], Any]] = {
            "gather": lambda: asyncio.gather(*replies),
            "wait_for": lambda: asyncio.gather(*(asyncio.wait_for(reply, 5) for reply in replies)),
            "shield": lambda: asyncio.gather(*(asyncio.shield(reply) for reply in replies)),
            "wait": lambda: asyncio.wait(replies),
            "group": lambda: group(replies),
        }
        waiting = asyncio.ensure_future(ways[how]())
        await asyncio.sleep(0.01)
        for number, reply in enumerate(replies):
            loop.call_soon(
                lambda reply=reply, number=number: (
                    reply.set_result(number),
                    reply.wake(at_once=True),
                )
            )
        await asyncio.wait_for(waiting, 10)
        assert [await reply for reply in replies] == [0, 1, 2]

    async def group(replies: list[Reply]) -> None:
        async def one(reply: Reply) -> None:
            await reply

        async with asyncio.TaskGroup() as tasks:
            for reply in replies:
                tasks.create_task(one(reply))

    runner.run(main())


def test_a_reply_that_is_cancelled_wakes_who_waits(runner: asyncio.Runner) -> None:
    async def main() -> None:
        reply = Reply(loop=asyncio.get_running_loop())
        task = asyncio.ensure_future(asyncio.wait_for(asyncio.shield(reply), 10))
        await asyncio.sleep(0.01)
        reply.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    runner.run(main())


@pytest.mark.parametrize("delay", [0.05, FAR + 0.3])
def test_a_timer_fires_when_it_is_set_for(delay: float) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        came: asyncio.Future[float] = loop.create_future()
        began = time.monotonic()
        set_timer(loop, delay, lambda: came.set_result(time.monotonic() - began))
        off = set_timer(loop, delay, lambda: came.set_exception(AssertionError("it was cancelled")))
        off.cancel()
        assert await asyncio.wait_for(came, 30) >= delay - 0.001

    asyncio.run(main())


def test_timers_that_are_cancelled_leave_nothing() -> None:
    async def main() -> None:
        timers = Timers(asyncio.get_running_loop())
        for made in [timers.set(1000.0, asyncio.get_running_loop().stop) for _ in range(1000)]:
            made.cancel()
        assert not any(timers._seconds.values())

    asyncio.run(main())


def test_one_worker_has_the_lease_and_its_death_ends_it(tmp_path: Path) -> None:
    sock = str(tmp_path / "b0.sock")
    code = (
        "import sys; from graphserve.worker.batch.batcher import BatchLease\n"
        "lease = BatchLease(sys.argv[1]); print(lease.take(), flush=True); input()"
    )
    command = [sys.executable, "-c", code, sock]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        ours = BatchLease(sock)
        assert not ours.take()
        os.kill(other.pid, signal.SIGKILL)
        other.wait(30)
        assert ours.take() and ours.take()
        third = BatchLease(sock)
        assert not third.take()
        ours.leave()
        assert third.take()
    finally:
        other.kill()
        other.communicate()


def test_who_waits_in_the_queue_goes_before_who_comes_by_the_port(tmp_path: Path) -> None:
    async def main() -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "q.sock"))
        listener.listen(8)
        listener.setblocking(False)
        slots, taken = Slots(1), list[socket.socket]()
        slots.open([GatedListener(listener, taken.append, slots.take)])
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(tmp_path / "q.sock"))
            assert not slots.take_after_queue()
            assert len(taken) == 1
            slots.release()
            assert slots.take_after_queue()
        taken[0].close()
        slots.close()

    asyncio.run(main())
