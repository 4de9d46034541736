"""Where this process is at this moment, for who asks with `graphserve stack`. Runs in workers.

The supervisor asks by a signal. Its handler is Python code of the main thread, which runs between
two steps of whatever that executes, so it answers although the event loop is stuck. Where the main
thread is in C and does not come back, there is a second signal: at that one C code of the
interpreter writes the stacks of all threads, at any moment, but it knows no tasks and no calls.

Both write into memory that the supervisor finds among the descriptors of this process
(`supervise/control/stacks.py`). System calls that the signals interrupt are continued.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import os
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType

from graphserve.call.context import CallContext, current
from graphserve.system.own_json import dumps
from graphserve.system.stack import (
    ASK,
    ASK_IN_C,
    MEMORY_NAME,
    Frame,
    awaited_frames,
    described_frame,
)

MOST = 200  # threads, and likewise tasks, that are told of
DEEPEST = 60  # frames of one that are told of: half of them the outermost, half the innermost
_OURS = str(Path(__file__).parents[1]) + os.sep


def answer_signals() -> None:
    """Have this process write where it is whenever it is asked. Call it on the main thread."""
    descriptor = _open_memory()
    if descriptor < 0:
        return

    def tell(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(Exception):
            _write(descriptor, dumps(_described(frame)) + "\n")

    signal.signal(ASK, tell)
    signal.siginterrupt(ASK, False)
    faulthandler.register(ASK_IN_C, file=descriptor, all_threads=True)


def _open_memory() -> int:
    """Return a descriptor of memory whose name says that number; -1 where there is none."""
    try:
        number = os.dup(0)  # the lowest one that is free: nobody else opens anything yet
        os.close(number)
        descriptor = os.memfd_create(f"{MEMORY_NAME}{number}")
        if descriptor != number:
            os.close(descriptor)
            return -1
        # The supervisor empties it: what is written then begins at its start.
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    except (OSError, AttributeError):
        return -1
    return descriptor


def _write(descriptor: int, text: str) -> None:
    data = text.encode()
    while data:
        data = data[os.write(descriptor, data) :]


def _described(interrupted: FrameType | None) -> dict[str, object]:
    """Return the threads and tasks of this process, each with the call that it serves.

    Args:
        interrupted: where the main thread was.
    """
    tasks: list[asyncio.Task[object]] = []
    with contextlib.suppress(RuntimeError):  # there is no loop yet
        tasks = list(asyncio.all_tasks())
    frames = sys._current_frames()
    if interrupted is not None:
        frames[threading.get_ident()] = interrupted
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        "threads": [
            {"name": names.get(ident, f"{ident:#x}")} | _stack(list(_callers(frame)))
            for ident, frame in list(frames.items())[:MOST]
        ],
        "tasks": [_task(task) for task in tasks[:MOST] if not task.done()],
        "left_out": max(0, len(frames) - MOST) + max(0, len(tasks) - MOST),
    }


def _callers(frame: FrameType | None) -> Iterable[FrameType]:
    """Return the frames of a thread, the outermost first."""
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return reversed(found)


def _task(task: asyncio.Task[object]) -> dict[str, object]:
    described = {"name": task.get_name()} | _stack(list(awaited_frames(task.get_coro())))
    if not described["requests"] and sys.version_info >= (3, 12):
        # one that user code has made, inside of a call
        described |= _call(task.get_context().get(current))
    return described


def _stack(frames: Sequence[FrameType]) -> dict[str, object]:
    """Return some frames, the outermost first, and the call that they are of."""
    told = [described_frame(frame) for frame in frames]
    if len(told) > DEEPEST:
        half = DEEPEST // 2
        omitted: Frame = ("…", 0, f"… {len(told) - DEEPEST} frames are left out")
        told = [*told[:half], omitted, *told[-half:]]
    context = next(filter(None, map(_context, frames)), None)
    return {"frames": told} | _call(context)


def _context(frame: FrameType) -> CallContext | None:
    """Return the call that a frame of ours is of; any other frame is not looked into."""
    if not frame.f_code.co_filename.startswith(_OURS):
        return None
    known = frame.f_locals
    for found in (known.get("context"), getattr(known.get("self"), "context", None)):
        if isinstance(found, CallContext):
            return found
    return None


def _call(context: CallContext | None) -> dict[str, object]:
    """Return the requests that a call serves, several in a batch, and what it waits for."""
    if context is None or context.over:
        return {"requests": [], "waits_for": None, "left": None}
    served = [caller for caller, _ in context.callers or ()] or [context]
    left = context.seconds_left()
    return {
        "requests": [each.request_id.decode("latin-1") for each in served][:MOST],
        "waits_for": context.waits_for(),
        "left": None if left is None else round(left, 3),
    }
