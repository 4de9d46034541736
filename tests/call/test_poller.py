"""The readers of a loop go with it."""

from __future__ import annotations

import asyncio
import gc
import os

from graphserve.call.poller import poller


async def watch() -> None:
    """Make the readers of this loop."""
    poller(asyncio.get_running_loop())


def test_a_loop_that_ended_holds_no_descriptor() -> None:
    asyncio.run(watch())
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        asyncio.run(watch())
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_forked_child_watches_nothing() -> None:
    async def fork() -> int:
        readers = poller(asyncio.get_running_loop())
        child = os.fork()
        if child == 0:
            os._exit(0 if readers._epoll.closed else 1)
        assert not readers._epoll.closed
        return child

    assert os.waitstatus_to_exitcode(os.waitpid(asyncio.run(fork()), 0)[1]) == 0
