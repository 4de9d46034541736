"""The life of an instance of a local graph: made and entered, and left, each in its time."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from graphserve.errors import StartupError
from graphserve.graph.plan import NodePlan
from graphserve.system import stack
from graphserve.worker.instance import Life

_GOES_ON = "its thread goes on, and the interpreter waits for it when it ends"


async def begin(plan: NodePlan, cls: type, threads: ThreadPoolExecutor, inject: Callable[[object], None]) -> Life:
    """Make an instance and enter it.

    Args:
        plan: the node; its `startup_timeout` counts.
        cls: what is made.
        threads: where sync code runs.
        inject: gives the instance its clients.

    Raises:
        StartupError: it raised, or did not end in time.
    """
    life, seconds = Life(plan, cls, threads, inject), plan.options.startup_timeout
    try:
        async with asyncio.timeout(seconds):
            await life.start()
    except TimeoutError as exc:
        text = f"{plan.name} was not ready {seconds:g} s after it began to start (startup_timeout)"
        where = stack.of_error(exc.__cause__) or stack.of_threads(threads._threads)
        raise StartupError(text, plan.name, where) from None
    return life


async def leave(life: Life, seconds: float) -> bool:
    """Leave an instance; False: it did not end in time."""
    try:
        async with asyncio.timeout(seconds) as limit:  # in this task, as what was entered in it may ask for
            await life.stop()
    except TimeoutError:
        if not limit.expired():
            raise  # its own
        method, end = ("__aexit__", "cancelled") if hasattr(life.cls, "__aexit__") else ("__exit__", _GOES_ON)
        text = f"{life.node.name} had not left ({method}) after {seconds:g} s: {end}"
        warnings.warn(text, RuntimeWarning, stacklevel=3)
        return False
    return True
