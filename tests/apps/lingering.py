"""Workers that do not want to go, each in its own way."""

import asyncio
import os
import socket
import time

from graphserve import api, depends, service


@service(graceful_timeout=1.0)
class Lingering:
    """Never done with its `__aexit__`."""

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *exc: object) -> None:
        print("lingering", flush=True)
        await asyncio.Event().wait()

    @api
    async def pid(self) -> int:
        return os.getpid()


@service(graceful_timeout=1.0)
class Busy:
    """Blocks its loop: it hears neither its supervisor nor SIGTERM."""

    @api
    async def block(self, file: str) -> int:
        open(file, "w").close()  # noqa: ASYNC230
        time.sleep(600)  # noqa: ASYNC251
        return 1

    @api
    async def cut(self) -> None:
        """Ends the connection to its supervisor, without hearing of it."""
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            try:
                with socket.socket(fileno=os.dup(descriptor)) as sock:
                    if str(sock.getpeername()).endswith("/workers.sock"):
                        sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # no socket, or not connected
        time.sleep(600)  # noqa: ASYNC251

    @api
    async def pid(self) -> int:
        return os.getpid()


@service(graceful_timeout=1.0)
class Staying:
    """An API in a thread that does not return."""

    @api
    def stay(self, file: str) -> int:
        open(file, "w").close()
        time.sleep(600)
        return 1


@service(workers=2)
class Pool:
    """Two workers, one call each."""

    @api(timeout=0.3)
    def hang(self, file: str) -> int:
        open(file, "w").close()
        time.sleep(600)
        return 1

    @api
    def pid(self) -> int:
        return os.getpid()


@service
class Caller:
    pool = depends(Pool)

    @api
    async def hang(self, file: str) -> int:
        return await self.pool.hang(file)

    @api
    async def pid(self) -> int:
        return await self.pool.pid()
