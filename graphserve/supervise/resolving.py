"""Resolving: what the supervisor does while the resolver works: shows its output, and limits its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from graphserve import stack
from graphserve.errors import StartupError
from graphserve.resolution import Resolution
from graphserve.resolver import Resolver
from graphserve.supervise.observer import LogRecord
from graphserve.supervise.output import Pipe


async def resolution(child: Resolver, limit: float, emit: Callable[[LogRecord], None]) -> Resolution:
    """What the resolver says; whatever happens, it has ended then.

    Args:
        child: the resolver; its outputs captured.
        limit: seconds that it may take.
        emit: takes what user modules print meanwhile.

    Raises:
        ConfigurationError: it died.
        StartupError: it took too long; its log says where it hangs.
    """
    pipes = [Pipe(descriptor, stream, emit) for stream, descriptor in child.outputs()]
    answer = asyncio.ensure_future(asyncio.to_thread(child.wait))
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # it need not matter any more
    try:
        if await _done(answer, limit):
            return answer.result()
        pipes[1].stack = stack.Stack()
        child.interrupt()
        await _done(answer, stack.PATIENCE)
    finally:
        answer.cancel()
        child.kill()
        for pipe in pipes:
            pipe.close()
        child.close()
    raise StartupError(child.too_slow(limit), log=str(pipes[1].stack))


async def _done(answer: asyncio.Future[Resolution], seconds: float) -> bool:
    await asyncio.wait([answer], timeout=seconds)
    return answer.done()
