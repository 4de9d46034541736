"""The context of the call that is being executed: its deadline, its ids, whether it was given up. Runs in workers."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class CallContext:
    """What travels with a call.

    Args:
        request_id: the id under which all logs speak of the call.
        deadline_ns: absolute CLOCK_MONOTONIC in nanoseconds, or None.
        traceparent: W3C trace context, as it came.
        tracestate: likewise.
        gone: True once the caller went away or the deadline passed.
        calls: the calls to dependencies that are under way for it (`Exchange`); made by the first.
    """

    request_id: bytes = b""
    deadline_ns: int | None = None
    traceparent: bytes | None = None
    tracestate: bytes | None = None
    gone: bool = False
    calls: set[Any] | None = None

    def seconds_left(self) -> float | None:
        """Seconds until the deadline, negative when it has passed; None without one."""
        return None if self.deadline_ns is None else (self.deadline_ns - time.monotonic_ns()) / 1e9

    def leave(self) -> None:
        """Nobody waits for the call any more: cancel what it called, wherever its own code stands."""
        self.gone = True
        calls, self.calls = self.calls, None
        for call in calls or ():
            call.orphan()


current: ContextVar[CallContext | None] = ContextVar("graphserve_call", default=None)


def deadline() -> float | None:
    """Seconds left for the call that is being executed, never below 0; None outside a call or without a deadline."""
    context = current.get()
    left = context.seconds_left() if context else None
    return None if left is None else max(0.0, left)


def cancelled() -> bool:
    """Whether nobody waits any more for the call that is being executed: its caller left, or its deadline passed.

    For sync APIs, which cannot be interrupted: ask between steps, and return early.
    """
    context = current.get()
    if context is None:
        return False
    left = context.seconds_left()
    return context.gone or (left is not None and left <= 0)


def earliest(inherited_ns: int | None, timeouts: tuple[float | None, ...]) -> int | None:
    """The deadline of a call: the earliest of what the caller inherited and now + each timeout (seconds)."""
    shortest = None
    for timeout in timeouts:
        if timeout is not None and (shortest is None or timeout < shortest):
            shortest = timeout
    if shortest is None:
        return inherited_ns
    own = time.monotonic_ns() + int(shortest * 1e9)
    return own if inherited_ns is None or own < inherited_ns else inherited_ns
