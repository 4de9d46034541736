"""The readers of a loop go with it."""

from __future__ import annotations

import asyncio
import gc
import os
import socket

from graphserve.loop.poller import poller


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


def test_a_number_that_is_another_sockets_by_now() -> None:
    async def run() -> None:
        readers, said = poller(asyncio.get_running_loop()), asyncio.Queue[str]()
        gone, other = socket.socketpair()
        number = gone.fileno()
        ended = lambda: said.put_nowait("the end of the old one")  # noqa: E731
        readers.watch_end(number, ended)
        gone.close()
        other.close()
        new, peer = socket.socketpair()
        assert number in (new.fileno(), peer.fileno()), "the kernel gives the lowest free number"
        new, peer = (new, peer) if new.fileno() == number else (peer, new)
        readers.add_reader(new, lambda: said.put_nowait(new.recv(9).decode()))
        readers.forget_end(number, ended)
        peer.send(b"hello")
        assert await asyncio.wait_for(said.get(), 10) == "hello"
        assert readers.remove_reader(new)
        new.close()
        peer.close()

    asyncio.run(run())
