"""What a request starts and what outlives it: tasks, threads and timers, and calls that are
shielded.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import graphserve
from graphserve import Batch, DeadlineExceeded, api, depends, service

LIMIT = 0.3  # seconds that the requests have which start something


@service
class Leaf:
    def __init__(self) -> None:
        self.alive = self.cancelled = self.done = 0
        self.released = asyncio.Event()

    @api
    async def quick(self) -> list[Any]:
        return [graphserve.deadline() is None, graphserve.trace_context()["x-request-id"]]

    @api
    async def hold(self) -> int:
        self.alive += 1
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.alive -= 1
        self.done += 1
        return 1

    @api
    async def counts(self) -> list[int]:
        return [self.alive, self.cancelled, self.done]

    @api
    async def release(self) -> None:
        self.released.set()
        self.released = asyncio.Event()


@service(concurrency=8)
class Top:
    leaf = depends(Leaf)

    def __init__(self) -> None:
        self.go = threading.Event()
        self.found: list[Any] = []
        self.kept: set[Any] = set()

    # --- what goes on ---

    async def after(self) -> None:
        while not self.go.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.002)  # between two looks at the condition
        for _ in range(2):
            try:
                self.found.append(await self.leaf.quick())
            except DeadlineExceeded as exc:
                self.found.append(str(exc))
        self.found.append(graphserve.deadline())

    def after_in_thread(self) -> None:
        self.go.wait()
        try:
            self.found.append(self.leaf.quick().result())
        except BaseException as exc:
            self.found.append(repr(exc))

    def start(self, how: str) -> None:
        loop = asyncio.get_running_loop()
        if how == "task":
            self.kept.add(asyncio.create_task(self.after()))
        elif how == "timer":
            loop.call_later(0.001, lambda: self.kept.add(asyncio.ensure_future(self.after())))
        elif how == "to_thread":
            self.kept.add(asyncio.create_task(asyncio.to_thread(self.after_in_thread)))
        else:
            self.start_thread(self.after_in_thread)

    def start_thread(self, work: Callable[[], None]) -> None:
        carried = contextvars.copy_context()
        threading.Thread(target=lambda: carried.run(work), daemon=True).start()

    @api(timeout=LIMIT)
    async def begin(self, how: str) -> str:
        self.start(how)
        return graphserve.trace_context()["x-request-id"]

    @api(timeout=LIMIT)
    async def begin_and_hang(self, how: str) -> str:
        self.start(how)
        await asyncio.Event().wait()
        return ""

    @api(timeout=LIMIT)
    def begin_in_thread(self) -> str:
        self.start_thread(self.after_in_thread)
        return graphserve.trace_context()["x-request-id"]

    @api(timeout=LIMIT)
    async def begin_in_stream(self) -> AsyncIterator[str]:
        self.start("task")
        yield graphserve.trace_context()["x-request-id"]

    @api(timeout=LIMIT, batch=Batch(max_size=1, max_wait=0.001))
    async def begin_in_batch(self, xs: list[int]) -> list[str]:
        self.start("task")
        return [graphserve.trace_context()["x-request-id"] for _ in xs]

    @api
    async def results(self, go: bool) -> list[Any]:
        if go:
            self.go.set()
        return self.found

    @api
    async def clear(self) -> None:
        self.go, self.found = threading.Event(), []

    # --- what is shielded ---

    async def save(self) -> int:
        return await self.leaf.hold()

    async def save_in_group(self) -> int:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.save())
        return task.result()

    async def save_together(self) -> int:
        return sum(await asyncio.gather(self.leaf.hold(), self.leaf.hold())) // 2

    async def save_both(self) -> int:
        first = asyncio.create_task(self.save())
        return sum(await asyncio.gather(self.save_in_group(), self.await_(first))) // 2

    async def await_(self, task: asyncio.Task[int]) -> int:
        return await task

    @api
    async def hold(self, how: str) -> int:
        """One call of `Leaf.hold`, or two."""
        if how == "call":
            return await asyncio.shield(self.leaf.hold())
        if how == "coroutine":
            return await asyncio.shield(self.save())
        if how == "group":
            return await asyncio.shield(self.save_in_group())
        if how == "together":
            return await asyncio.shield(self.save_together())
        if how == "both":
            return await asyncio.shield(self.save_both())
        if how == "gathered":
            return sum(await asyncio.shield(asyncio.gather(self.leaf.hold(), self.save()))) // 2
        if how == "task":
            task = asyncio.create_task(self.save())
            while (await self.leaf.counts())[0] == 0:
                pass
            return sum(await asyncio.gather(asyncio.shield(task), asyncio.shield(self.leaf.hold())))
        if how in ("late", "late coroutine"):
            inner = self.leaf.hold() if how == "late" else self.save()
            try:
                await asyncio.wait_for(asyncio.shield(inner), 0.02)
            except TimeoutError:
                await asyncio.Event().wait()
        if how == "beside":
            return sum(await asyncio.gather(asyncio.shield(self.leaf.hold()), self.leaf.hold()))
        return await self.save()

    @api
    async def cancelled_call(self) -> list[bool]:
        """A caller that gives up, of a call that is shielded and of one that is not."""
        given_up = []
        for inner in (asyncio.shield(self.leaf.hold()), asyncio.ensure_future(self.leaf.hold())):
            with_limit = asyncio.ensure_future(asyncio.wait_for(inner, 0.05))
            await asyncio.wait([with_limit])
            given_up.append(isinstance(with_limit.exception(), TimeoutError))
        return given_up

    @api
    async def counts(self) -> list[int]:
        return await self.leaf.counts()

    @api
    async def release(self) -> None:
        await self.leaf.release()
