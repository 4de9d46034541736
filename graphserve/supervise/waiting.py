"""Waiting for several things at once, none of which outlives the wait. Runs in the supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TypeVar

T = TypeVar("T")


async def first(*works: Callable[[], Awaitable[object]]) -> None:
    """Wait until one of these is done; the others are cancelled.

    It takes functions, not coroutines: where it is cancelled before it begins, nobody would await
    those.
    """
    tasks = [asyncio.ensure_future(work()) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def together(works: Iterable[Awaitable[None]]) -> None:
    """Do things side by side; the first that fails ends the others,
    and is raised when they have ended.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        for task in asyncio.as_completed(tasks):
            await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def unless(event: asyncio.Event, work: Awaitable[T]) -> T | None:
    """Return what `work` comes to; None, and cancel it, if the event comes first."""
    task = asyncio.ensure_future(work)
    happened = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([task, happened], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
    finally:
        happened.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    return None


async def cancel(tasks: Collection[asyncio.Task[object]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(set(tasks))
