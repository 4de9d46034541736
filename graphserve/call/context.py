"""The context of the call that is being executed: its deadline, its ids, whether it was given up.

Runs in workers.
"""

from __future__ import annotations

import asyncio
import reprlib
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from graphserve.loop.shield import shielded
from graphserve.wire.headers import (
    BAGGAGE,
    REQUEST_ID,
    TRACEPARENT,
    TRACESTATE,
    is_traceparent,
    may_travel,
)

if TYPE_CHECKING:
    from graphserve.call.answer import Answer
    from graphserve.call.request_head import RelayedHead, RequestHead
    from graphserve.wire.media.received import CallFolder


class DependencyCall(Protocol):
    """What a call knows of one that it makes to a dependency: an `Exchange`."""

    @property
    def node(self) -> str:
        """Return the node that is called."""

    @property
    def deadline_ns(self) -> int | None:
        """Return its deadline: absolute CLOCK_MONOTONIC in nanoseconds, or None."""

    @property
    def maker(self) -> asyncio.Task[object] | None:
        """Return the task that made it; None if a thread did, or if it is over."""

    @property
    def shielded(self) -> bool:
        """Return whether it is kept when nobody waits for its caller any more."""

    @property
    def waiting(self) -> bool:
        """Return whether its node owes something just now."""

    @property
    def streaming(self) -> bool:
        """Return whether its answer is a stream that is not over."""

    def caller_left(self) -> None:
        """End it: nobody waits for its caller any more."""


@dataclass
class CallContext:
    """What travels with a call.

    Args:
        request_id: the id under which all logs speak of the call.
        deadline_ns: absolute CLOCK_MONOTONIC in nanoseconds, or None.
        traceparent: W3C trace context, as it came.
        tracestate: likewise.
        baggage: W3C Baggage, as it came.
        answer: how it is answered, if its code has said so.
        files: the folder of the files that services have answered it with, if any has.
        gone: True once the caller went away or the deadline passed.
        over: True once its API has ended; what its code left running has this context still.
        retraced: True once its code has set a trace of its own, which is in `retrace`.
        task: the last task of it that made a call and is not shielded.
        url_service: the service at a URL that an httpx client of it waits for.
        calls: the calls to dependencies that are under way for it (`Exchange`); made by the first.
        head: of the request that it came by.
        principal: the name of the API key that the request came with.
        forwarded: the headers of the entry's request that travel down, packed.
        callers: in a batch, each caller's own context, and how many items are its own.
        sent_ns: when it was sent to the queue of the node, by CLOCK_MONOTONIC; 0: it was not.
        begun: when its execution began, by `time.perf_counter`; known only where calls are logged.
        sent: bytes of the body of its answer that were sent before its last ones, if its head was;
            likewise.
    """

    request_id: bytes = b""
    deadline_ns: int | None = None
    traceparent: bytes | None = None
    tracestate: bytes | None = None
    baggage: bytes | None = None
    # Asked for with every answer: what only the class has takes ten times as long to read.
    answer: Answer | None = None
    files: CallFolder | None = None
    # Most calls never set these: until they do, the class has them, and a context is made without
    # them.
    gone: bool = field(default=False, init=False)
    over: bool = field(default=False, init=False)
    retraced: bool = field(default=False, init=False)
    task: asyncio.Task[object] | None = field(default=None, init=False)
    url_service: str | None = field(default=None, init=False)
    calls: set[DependencyCall] | None = field(default=None, init=False)
    head: RequestHead | RelayedHead | None = field(default=None, init=False)
    principal: str | None = field(default=None, init=False)
    forwarded: bytes | None = field(default=None, init=False)
    callers: list[tuple[CallContext, int]] | None = field(default=None, init=False)
    sent_ns: int = field(default=0, init=False)
    begun: float | None = field(default=None, init=False)
    sent: int | None = field(default=None, init=False)

    def seconds_left(self) -> float | None:
        """Return the seconds until the deadline, negative when it has passed; None without one."""
        return None if self.deadline_ns is None else (self.deadline_ns - time.monotonic_ns()) / 1e9

    def waits_for(self) -> str | None:
        """Return the node that a call of it waits for; None if none does.

        Of several, the one whose deadline came first.
        """
        waiting = [
            (call.deadline_ns, call.node)
            for call in tuple(self.calls or ())
            if call.deadline_ns is not None and call.waiting
        ]
        return min(waiting)[1] if waiting else self.url_service

    def leave(self) -> None:
        """Cancel what it called, wherever its own code stands: nobody waits for it any more.

        What is inside of `asyncio.shield` is not cancelled.
        """
        self.gone = True
        calls = self.calls
        self.calls = None
        give_up(calls or ())

    def end(self) -> None:
        """Note that its API has ended.

        What its code left running is no part of the call, and has no deadline from here on.
        """
        self.over = True
        self.deadline_ns = None
        self.task = None
        if self.answer is not None:
            self.answer.close()


def give_up(calls: Iterable[DependencyCall]) -> None:
    """Cancel calls to dependencies, but for those inside of `asyncio.shield`."""
    for call in calls:
        if not (call.shielded or shielded(call.maker)):
            call.caller_left()


current: ContextVar[CallContext | None] = ContextVar("graphserve_call", default=None)


def deadline() -> float | None:
    """Return the seconds left for the call that is being executed, never below 0.

    Returns:
        None outside of a call, and for a call without a deadline.

    Example:
        >>> @service
        ... class Searcher:
        ...     @api
        ...     async def search(self, text: str) -> str:
        ...         left = graphserve.deadline()
        ...         return "a quick look" if left is not None and left < 1.0 else "a thorough one"
    """
    context = current.get()
    left = context.seconds_left() if context else None
    return None if left is None else max(0.0, left)


def cancelled() -> bool:
    """Return whether nobody waits any more for the call that is being executed.

    Its caller left, or its deadline passed. For sync APIs, which cannot be interrupted: ask between
    steps, and return early. Outside of a call it is False.

    Example:
        >>> @service
        ... class Trainer:
        ...     @api
        ...     def train(self, rounds: int) -> int:
        ...         for done in range(rounds):
        ...             if graphserve.cancelled():
        ...                 return done
        ...         return rounds
    """
    context = current.get()
    if context is None:
        return False
    left = context.seconds_left()
    return context.gone or (left is not None and left <= 0)


retrace: ContextVar[CallContext | None] = ContextVar("graphserve_trace", default=None)


def trace_context() -> dict[str, str]:
    """Return what travels with the call that is being executed, as HTTP headers.

    For tracing libraries, and for clients of services elsewhere. `x-request-id` is always there;
    `traceparent`, `tracestate` (W3C Trace Context) and `baggage` (W3C Baggage) are if they came, or
    were set. Outside of a call it is empty.

    Example:
        >>> @service
        ... class Notifier:
        ...     @api
        ...     async def notify(self, url: str) -> int:
        ...         async with httpx.AsyncClient() as client:
        ...             answer = await client.post(url, headers=graphserve.trace_context())
        ...         return answer.status_code
    """
    context = current.get()
    if context is None:
        return {}
    return {
        name.decode(): value.decode("latin-1")
        for name, value in travellers(context)
        if value is not None
    }


def set_trace_context(headers: Mapping[str, str]) -> None:
    """Have what this task calls from here on carry another trace, such as that of a new span.

    Args:
        headers: `traceparent`, with or without `tracestate`, takes the place of both; `baggage`
            that of the baggage. Others are passed over, so it may be what a tracing library
            injects.

    Raises:
        LookupError: no call is being executed here.
        ValueError: a value is not what the W3C's recommendations demand.

    Example:
        >>> @service
        ... class Traced:
        ...     echo = depends(Echo)
        ...
        ...     @api
        ...     async def read(self, text: str) -> str:
        ...         span = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        ...         graphserve.set_trace_context({"traceparent": span})
        ...         return await self.echo.echo(text)  # carries it
    """
    context = current.get()
    if context is None:
        raise LookupError(
            "no call is being executed here: set_trace_context is for the APIs of a service"
        )
    named = {
        name.lower().encode("ascii", "replace"): (name, value) for name, value in headers.items()
    }
    given = {
        name: _field(*named[name]) for name in (TRACEPARENT, TRACESTATE, BAGGAGE) if name in named
    }
    made = traced(context)
    parent, state, baggage = made.traceparent, made.tracestate, given.get(BAGGAGE, made.baggage)
    if TRACEPARENT in given:
        parent, state = given[TRACEPARENT], given.get(TRACESTATE)
        if not is_traceparent(parent):
            raise ValueError(f"this is no traceparent: {reprlib.repr(headers)}")
    retrace.set(CallContext(context.request_id, None, parent, state or None, baggage or None))
    context.retraced = True


def _field(name: str, value: str) -> bytes:
    field = value.strip(" \t").encode("ascii", "replace")
    if not value.isascii() or (value and not may_travel(field)):
        raise ValueError(
            f"this {name} cannot travel: it is too long, or not in ASCII: {reprlib.repr(value)}"
        )
    return field


def traced(context: CallContext) -> CallContext:
    """Return the context whose trace a call that is made now carries: that of the call that is
    executed, or what its code has set.
    """
    return (retrace.get() or context) if context.retraced else context


def travellers(context: CallContext) -> list[tuple[bytes, bytes | None]]:
    """Return the headers that travel with every call to whatever place; None for one that there is
    not.
    """
    made = traced(context)
    return [
        (REQUEST_ID, context.request_id or None),
        (TRACEPARENT, made.traceparent),
        (TRACESTATE, made.tracestate),
        (BAGGAGE, made.baggage),
    ]


def shortest(*timeouts: float | None) -> float | None:
    """Return the shortest of these timeouts (seconds); None if there is none."""
    return min((timeout for timeout in timeouts if timeout is not None), default=None)


def earliest(inherited_ns: int | None, timeout: float | None) -> int | None:
    """Return the deadline of a call: the earlier of what the caller inherited and now + the timeout
    (seconds).
    """
    if timeout is None:
        return inherited_ns
    own = time.monotonic_ns() + int(timeout * 1e9)
    return own if inherited_ns is None or own < inherited_ns else inherited_ns
