"""What the log says of failed calls, for the program that made them: the public port keeps it from
everybody.

Runs in programs that call `serve()`, on the loop of their calls.
"""

from __future__ import annotations

import asyncio
import json
import os

from graphserve.wire import problem

KEPT = 256  # errors, the latest
# seconds that an answer waits for its error: it was logged first, and takes another way
PATIENCE = 1.0
READ_SIZE = 64 * 1024


class Words:
    """Reads what the supervisor passes on; see `cli/library.py`.

    Args:
        descriptor: of the pipe; stays its owner's.
        node: the entry. What it logs of a call is what it answers.
    """

    def __init__(self, descriptor: int, node: str) -> None:
        self._descriptor = descriptor
        self._prefix = f"{node}."
        self._loop = asyncio.get_running_loop()
        self._partial = b""
        self._said: dict[str, str] = {}  # by request id
        self._awaited: dict[str, asyncio.Future[str | None]] = {}
        self._open = True
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def close(self) -> None:
        """Read no more."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
        for waiter in self._awaited.values():
            if not waiter.done():
                waiter.set_result(None)

    async def explain(self, body: bytes) -> bytes:
        """A problem with its detail, where it was kept from the public and the log has it."""
        request_id = problem.withheld(body)
        if request_id is None:
            return body
        detail = await self._wait_for(request_id)
        return body if detail is None else problem.with_detail(body, detail)

    async def _wait_for(self, request_id: str) -> str | None:
        if request_id in self._said or not self._open:
            return self._said.pop(request_id, None)
        waiter: asyncio.Future[str | None] = self._loop.create_future()
        self._awaited[request_id] = waiter
        try:
            async with asyncio.timeout(PATIENCE):
                return await waiter
        except TimeoutError:
            return None
        finally:
            self._awaited.pop(request_id, None)
            self._said.pop(request_id, None)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._hear(json.loads(line))

    def _hear(self, said: dict[str, str]) -> None:
        request_id, message = said["request_id"], said["message"]
        if not message.startswith(self._prefix):
            return  # of a node below: its caller says what comes of it
        self._said[request_id] = detail = problem.detail_in_log(message)
        while len(self._said) > KEPT:
            del self._said[next(iter(self._said))]
        waiter = self._awaited.get(request_id)
        if waiter is not None and not waiter.done():
            waiter.set_result(detail)
