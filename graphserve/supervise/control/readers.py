"""Answers that a client reads for as long as it likes: what is kept of a ring, and what comes.

Runs in the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from graphserve.supervise.control.http import ControlResponse, HttpError


class Readers:
    """Sends lines to a bounded number of clients at once.

    Args:
        most: clients at once.
        what: they read, for who is one too many.
    """

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self._reading = 0

    async def send(self, chunks: AsyncGenerator[bytes, None], response: ControlResponse) -> None:
        """Send all of it, until its client leaves; at its end that it is done.

        Args:
            chunks: whole lines.
            response: where they go.

        Raises:
            HttpError: too many clients read already.
        """
        if self._reading >= self._most:
            raise HttpError(503, f"{self._most} clients read {self._what} already: end one of them")
        self._reading += 1
        sending = asyncio.ensure_future(_send(chunks, response))
        left = asyncio.ensure_future(response.client_left())
        try:
            await asyncio.wait([sending, left], return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            self._reading -= 1
            sending.cancel()
            left.cancel()


async def _send(chunks: AsyncGenerator[bytes, None], response: ControlResponse) -> None:
    await response.lines(b"")  # that it was understood
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            await response.lines(chunk)
    await response.lines(b'{"done":true}\n')
