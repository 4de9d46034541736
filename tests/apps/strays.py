"""Services that start processes and forget them, each in another way."""

import asyncio
import multiprocessing
import os
import subprocess
import threading
import time

from graphserve import api, depends, service

DETACHED = "setsid sleep 600 >/dev/null 2>&1 & echo $!"


@service
class Leaf:
    def __init__(self) -> None:
        self.pids: list[int] = []
        # no daemon: the interpreter would wait for it
        threading.Thread(target=time.sleep, args=(600,)).start()

    @api
    def start(self) -> list[int]:
        fork, spawn = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")
        processes = [context.Process(target=time.sleep, args=(600,)) for context in (fork, spawn)]
        for process in processes:
            process.start()
        return [
            subprocess.Popen(["sleep", "600"]).pid,
            subprocess.Popen(["sleep", "600"], start_new_session=True).pid,
            int(subprocess.check_output(["sh", "-c", DETACHED])),
            *(process.pid or 0 for process in processes),
        ]

    @api
    def bare(self) -> int:
        """One that cannot be told to be ours: neither its session nor its environment says so."""
        return subprocess.Popen(["/bin/sleep", "600"], env={}, start_new_session=True).pid

    @api
    def short(self) -> list[int]:
        command = "setsid sleep 0.05 >/dev/null 2>&1 & echo $!"
        return [int(subprocess.check_output(["sh", "-c", command])) for _ in range(10)]

    @api
    async def pid(self) -> int:
        return os.getpid()


@service
class Top:
    leaf = depends(Leaf)

    @api
    async def start(self) -> list[int]:
        return await self.leaf.start()

    @api
    async def bare(self) -> int:
        return await self.leaf.bare()

    @api
    async def short(self) -> list[int]:
        return await self.leaf.short()

    @api
    async def pid(self) -> int:
        return await self.leaf.pid()


@service(workers=1)
class Forking:
    """Forks, from the start and in its APIs, on the loop and in a thread."""

    def __init__(self) -> None:
        self.pids = [fork()]

    @api
    def in_thread(self) -> list[int]:
        self.pids.append(fork())
        return self.pids

    @api
    async def on_loop(self) -> list[int]:
        self.pids.append(fork())
        return self.pids

    @api
    async def end_child(self) -> int:
        """Ends a child as multiprocessing does it, with SIGTERM; how it ended."""
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        child.terminate()
        await asyncio.to_thread(child.join)
        return child.exitcode or 0

    @api
    async def pid(self) -> int:
        return os.getpid()

    @api
    async def forked(self) -> list[int]:
        return self.pids


@service
class ForkingTop:
    leaf = depends(Forking)

    def __init__(self) -> None:
        self.pids = [fork()]

    @api
    async def all(self) -> list[int]:
        self.pids.append(fork())
        return self.pids + await self.leaf.in_thread() + await self.leaf.on_loop()


def fork() -> int:
    """A child that lives on and closes nothing."""
    pid = os.fork()
    if not pid:
        os.setsid()
        time.sleep(600)
        os._exit(0)
    return pid
