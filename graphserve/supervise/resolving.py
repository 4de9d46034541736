"""Resolving: what the supervisor does while the resolver works: shows its output, and limits its
time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from graphserve.declare.options import ENTRY_TIMEOUT, ServiceOptions
from graphserve.errors import StartupError
from graphserve.graph.plan import NodePlan, Plan, Resolution, Settings
from graphserve.graph.resolver import Resolver
from graphserve.supervise.events import LogRecord
from graphserve.supervise.process.output import Pipe
from graphserve.system import stack


async def resolution(
    child: Resolver, limit: float, emit: Callable[[LogRecord], None]
) -> Resolution:
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
    # it need not matter any more
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
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


def outline(settings: Settings) -> Plan:
    """What is known of a graph before its modules are imported: where it listens, and what its
    entry may be called.

    The entry has no APIs in it, and the event loop is one that is installed: whether the one that
    was asked for is, the resolver finds out.
    """
    name = settings.target.rpartition(":")[2]
    timeout = ENTRY_TIMEOUT if settings.timeout is None else settings.timeout
    entry = NodePlan(name, "n", settings.target, 0, 1, 1, ServiceOptions(timeout=timeout))
    return Plan(
        name,
        (entry,),
        listen=settings.listen,
        loop="auto" if settings.loop == "uvloop" else settings.loop,
        access_log=settings.access_log,
        log_level=settings.log_level,
        debug=settings.debug,
    )


async def _done(answer: asyncio.Future[Resolution], seconds: float) -> bool:
    await asyncio.wait([answer], timeout=seconds)
    return answer.done()
