"""Code that raises what ends a program, or forks, in every place where a worker runs it."""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator

from graphserve import Batch, api, depends, service

ENDS: dict[str, type[BaseException]] = {
    "exit": SystemExit,
    "interrupt": KeyboardInterrupt,
    "cancelled": asyncio.CancelledError,
    "closed": GeneratorExit,
}


def end(how: str) -> None:
    raise ENDS[how]("on purpose")


async def end_soon(how: str) -> None:
    await asyncio.sleep(0)
    end(how)


async def leave_slowly() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        for _ in range(50):
            await asyncio.sleep(0)


async def end_in_a_slow_group(how: str, in_body: bool) -> None:
    """What else the group waits for takes 50 turns of the loop to be cancelled."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(end_soon(how))
        if in_body:
            await leave_slowly()
        else:
            tasks.create_task(leave_slowly())


class Deadly:
    """Something whose end is its owner's."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __del__(self) -> None:
        end(self.how)


@service
class Exits:
    def __init__(self) -> None:
        self.go = asyncio.Event()

    @api
    async def pid(self) -> int:
        return os.getpid()

    @api
    async def bystander(self) -> str:
        await self.go.wait()
        return "unharmed"

    @api
    async def release(self) -> None:
        self.go.set()
        self.go = asyncio.Event()

    # The call itself.

    @api
    async def plain(self, how: str) -> int:
        await end_soon(how)
        return 1

    @api
    def sync(self, how: str) -> int:
        end(how)
        return 1

    @api
    async def stream(self, how: str, items: int) -> AsyncIterator[int]:
        for number in range(items):
            yield number
        await end_soon(how)

    @api
    def sync_stream(self, how: str, items: int) -> Iterator[int]:
        yield from range(items)
        end(how)

    @api
    async def closing(self, how: str, items: int) -> AsyncIterator[int]:
        try:
            for number in range(items):
                yield number
        finally:
            await end_soon(how)

    @api(batch=Batch(max_size=4, max_wait=0.001))
    async def batch(self, how: list[str]) -> list[int]:
        end(how[0])
        return [1 for _ in how]

    @api
    async def child(self, how: str) -> int:
        await asyncio.create_task(end_soon(how))
        return 1

    @api
    async def slow_group(self, how: str, in_body: bool) -> int:
        await end_in_a_slow_group(how, in_body)
        return 1

    @api
    async def group(self, how: str) -> int:
        async with asyncio.TaskGroup() as group:
            group.create_task(end_soon(how))
        return 1

    @api
    async def gathered(self, how: str) -> int:
        await asyncio.gather(end_soon(how), asyncio.sleep(0))
        return 1

    # Beside the call.

    @api
    async def forgotten(self, how: str) -> int:
        task = asyncio.create_task(end_soon(how))
        await asyncio.wait([task])
        return 1

    @api
    async def forgotten_group(self, how: str) -> int:
        task = asyncio.create_task(end_in_a_slow_group(how, False))
        await asyncio.wait([task])
        return 1

    @api
    async def soon(self, how: str) -> int:
        asyncio.get_running_loop().call_soon(end, how)
        await asyncio.sleep(0.01)
        return 1

    @api
    async def later(self, how: str) -> int:
        asyncio.get_running_loop().call_later(0.001, end, how)
        await asyncio.sleep(0.01)
        return 1

    @api
    async def done(self, how: str) -> int:
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: end(how))
        future.set_result(None)
        await asyncio.sleep(0.01)
        return 1

    @api
    async def thread(self, how: str) -> int:
        running = threading.Thread(target=end, args=(how,))
        running.start()
        await asyncio.to_thread(running.join)
        return 1

    @api
    async def deleted(self, how: str) -> int:
        Deadly(how)
        return 1

    # Forks: what the child does, and the status that its parent sees.

    @api
    def fork(self, way: str) -> int:
        return forked(way)

    @api
    async def fork_async(self, way: str) -> int:
        return forked(way)

    @api
    async def fork_stream(self, way: str) -> AsyncIterator[int]:
        yield forked(way)

    @api
    def fork_sync_stream(self, way: str) -> Iterator[int]:
        yield forked(way)

    @api
    async def fork_beside_a_client(self, port: int) -> int:
        """Fork in the very turn of the loop in which a client is accepted."""
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
            await asyncio.sleep(0)
            return await self.fork_and_wait()

    @api
    async def fork_and_wait(self) -> int:
        never = asyncio.get_running_loop().create_future()
        child = os.fork()
        if child == 0:
            await never  # back to the copy of the loop
        return await asyncio.to_thread(ended, child)


def forked(way: str) -> int:
    child = os.fork()
    if child:
        return ended(child)
    if way == "exit":
        sys.exit(7)
    if way == "raise":
        raise ValueError("raised in the child")
    return -1


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@service
class Leaving:
    """Its instance ends in the way that a variable says."""

    @api
    async def run(self) -> int:
        return 1

    async def __aexit__(self, *exc: object) -> None:
        end(os.environ["EXITS_HOW"])

    async def __aenter__(self) -> None:
        pass


@service
class Top:
    exits = depends(Exits)

    @api
    async def plain(self, how: str) -> int:
        return await self.exits.plain(how)

    @api
    async def stream(self, how: str, items: int) -> AsyncIterator[int]:
        async for item in self.exits.stream(how, items):
            yield item
