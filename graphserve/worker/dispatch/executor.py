"""Executing a call: the user's method on the loop or in a thread, until it ends or nobody waits. Runs in workers.

Knows no sockets: the HTTP protocol and `local()` both execute through here.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from graphserve.call.context import CallContext, current
from graphserve.errors import DeadlineExceeded
from graphserve.graph.plan import ApiPlan, NodePlan
from graphserve.isolation import forked
from graphserve.loop.eager import Eager
from graphserve.loop.timers import Timer, alarm
from graphserve.system.shared_memory import DEADLINE, EXECUTING
from graphserve.wire.codec import ArgumentsCodec, ResultCodec
from graphserve.wire.signature import Signature
from graphserve.worker.dispatch import endings
from graphserve.worker.dispatch.load import LatencyEstimate, LoopLagLimit

GUARD = 0.003  # seconds past the deadline at which we answer ourselves: a call below speaks first, it knows more
LEVEL_GUARD = 0.006  # more for each level below
THREAD_GUARD = 0.015  # more for an API in a thread, which takes longer to hear of a failure below
DECODERS = 2  # threads; one body after the other would do, but for one that is slow
TURNS = 4  # of the loop, that a failure below which is already here takes to arrive


@dataclass(frozen=True, eq=False)
class BoundApi:
    """One API of the instance, ready to be executed."""

    plan: ApiPlan
    signature: Signature
    arguments: ArgumentsCodec
    result: ResultCodec
    method: Callable[..., Any]
    is_async: bool
    timeout: float | None
    # How long a call holds its slot; of unlimited APIs, how long it takes while the loop is late. Streams have none.
    latency: LatencyEstimate | None
    index: int = 0  # among the APIs of its node


def bind(node: NodePlan, instance: object, declared: type | None = None) -> dict[str, BoundApi]:
    """The APIs of an instance by method name.

    Args:
        node: the node.
        instance: the object whose methods are called.
        declared: the class that has the signatures; default: the object's own.
    """
    bound = {}
    for index, api in enumerate(node.apis):
        signature = Signature.of(declared or type(instance), api.name)
        method = getattr(instance, api.name)
        given = [timeout for timeout in (api.timeout, node.options.timeout) if timeout is not None]
        bound[api.name] = BoundApi(
            api, signature, ArgumentsCodec(signature),
            ResultCodec(signature.item if signature.stream else signature.result, f"{node.name}.{api.name}"),
            method, _is_async(method) or _is_async(inspect.unwrap(method)), min(given, default=None),
            None if api.stream else LatencyEstimate(), index,
        )  # fmt: skip
    return bound


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


class Executor:
    """Runs the calls of one worker.

    Args:
        node: the node.
        threads: the pool that sync APIs run in.
        depth: of the node (`Plan.depth`); default: its level.
        latest: what the supervisor reads (`system/shared_memory.py`): the latest deadline of what is executed
            (never too early, exact when nothing is), and how many calls are.
    """

    def __init__(
        self, node: NodePlan, threads: ThreadPoolExecutor, depth: int | None = None,
        latest: memoryview[int] | None = None,
    ) -> None:  # fmt: skip
        self.node = node
        self.threads = threads
        self.latest: memoryview[int] | list[int] = [0, 0] if latest is None else latest
        self.loop = asyncio.get_running_loop()
        self._decoders: ThreadPoolExecutor | None = None
        self.guard = GUARD + LEVEL_GUARD * (node.level if depth is None else depth)
        self.executing: set[Any] = set()  # Execution and StreamExecution
        self.lag_limit = LoopLagLimit(self.loop, lambda: len(self.executing))
        self.executed = 0
        self.eager = Eager(self.loop)
        self.orphans = Orphans(self.loop, self.executing)

    @property
    def decoders(self) -> ThreadPoolExecutor:
        """The threads in which large bodies are read; there are none before the first of these."""
        if self._decoders is None:
            self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix=f"{self.node.name}-bodies")
        return self._decoders

    def begun(self, execution: Any) -> None:
        """A call is executed from now on."""
        self.executing.add(execution)
        self.latest[EXECUTING] += 1
        deadline = execution.context.deadline_ns
        if deadline is not None and deadline > self.latest[DEADLINE]:
            self.latest[DEADLINE] = deadline
        if not self.lag_limit.beating:
            self.lag_limit.begin()

    def ended(self, execution: Any) -> None:
        """Nothing of this call runs any more."""
        self.executing.discard(execution)
        self.executed += 1
        if not self.executing:
            self.latest[DEADLINE] = 0
            self.latest[EXECUTING] = 0
        else:
            self.latest[EXECUTING] -= 1

    def joined(self, calls: int = 1) -> None:
        """So many more calls are in an execution, or wait for its end: none is alone until nothing is executed."""
        self.latest[EXECUTING] += calls

    def lower(self) -> None:
        """Forget the latest deadline of calls that have ended."""
        self.latest[DEADLINE] = max((execution.context.deadline_ns or 0 for execution in self.executing), default=0)

    def overdue(self) -> float:
        """Seconds that the latest call has gone on past its deadline; 0.0 if none has."""
        lefts = [left for execution in self.executing if (left := execution.context.seconds_left()) is not None]
        return max(0.0, -min(lefts, default=0.0))

    def start(
        self, api: BoundApi, arguments: dict[str, Any], context: CallContext,
        on_end: Callable[[Any, BaseException | None], None], on_free: Callable[[], None], *, at_once: bool = False,
    ) -> Execution:  # fmt: skip
        """Execute a call.

        Args:
            api: which API.
            arguments: decoded and checked.
            context: what travels with the call.
            on_end: called once with the result, or with what was raised, or with `DeadlineExceeded`.
            on_free: called once when nothing of it runs any more; never before `on_end`, except after `cancel`.
            at_once: run the first step of an async API before this returns: it may have ended then.
        """
        execution = Execution(self, context, on_end, on_free)
        self.begun(execution)
        execution.start(api, arguments, at_once)
        return execution


class Execution:
    """One call that is being executed."""

    __slots__ = ("_began", "_executor", "_latency", "_on_end", "_on_free", "_running", "_timer", "context")

    def __init__(
        self, executor: Executor, context: CallContext,
        on_end: Callable[[Any, BaseException | None], None] | None, on_free: Callable[[], None],
    ) -> None:  # fmt: skip
        self._executor = executor
        self.context = context
        self._on_end = on_end
        self._on_free = on_free
        self._running: asyncio.Task[Any] | Future[Any] | None = None
        self._timer: Timer | asyncio.TimerHandle | None = None
        self._latency: LatencyEstimate | None = None

    def start(self, api: BoundApi, arguments: dict[str, Any], at_once: bool) -> None:
        """Begin, unless the deadline has passed."""
        executor, context = self._executor, self.context
        deadline_ns = context.deadline_ns
        left = None if deadline_ns is None else (deadline_ns - time.monotonic_ns()) / 1e9
        if left is not None and left <= 0:
            try:
                self._late()
            finally:
                self._free()
            return
        if api.latency is not None and (api.plan.lane == "queue" or executor.lag_limit.late):
            self._latency = api.latency
            self._began = time.monotonic()
        if api.is_async:
            work = _run(api.method, arguments, context)
            task = executor.eager.begin(work) if at_once else executor.loop.create_task(work)
            if task.done():
                self._task_ended(task)
                return
            task.add_done_callback(self._task_ended)
            self._running = task
        if left is not None:
            patience = executor.guard if api.is_async else executor.guard + THREAD_GUARD
            self._timer = alarm(executor.loop, left + patience, self._late_soon)
        if not api.is_async:
            carried = contextvars.copy_context()
            future = executor.threads.submit(carried.run, _run_sync, api.method, arguments, context)
            self._running = future
            future.add_done_callback(self._thread_ended)

    def cancel(self) -> None:
        """The caller went away: stop what can be stopped; `on_end` is not called any more."""
        self._on_end = None
        self._stop()

    @property
    def in_thread(self) -> bool:
        """Whether it runs in a thread, where nothing can interrupt it."""
        return isinstance(self._running, Future)

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        try:
            if task.cancelled():
                self._latency = None  # it might have taken longer
                self._end(None, asyncio.CancelledError())
            elif (error := task.exception()) is not None:
                self._end(None, error)
            else:
                self._end(task.result(), None)
        finally:  # whatever comes of the answer, the slot is free
            self._free()

    def _thread_ended(self, future: Future[Any]) -> None:
        if not self._executor.loop.is_closed():
            self._executor.loop.call_soon_threadsafe(self._thread_over, future)

    def _thread_over(self, future: Future[Any]) -> None:
        try:
            if not future.cancelled():
                error = future.exception()
                self._end(None if error is not None else future.result(), error)
            else:
                self._latency = None
        finally:
            self._free()

    def _late_soon(self, turns: int = TURNS) -> None:
        # On a loaded machine our timer and one below may fire in the same turn; what it found out comes first.
        if self._on_end is None:
            return
        if turns:
            self._timer = None
            self._executor.loop.call_soon(self._late_soon, turns - 1)
        else:
            self._late()

    def _late(self) -> None:
        # A call below that has not been answered either is what holds this one: its word is on its way, and late.
        name = self.context.held_by() or self._executor.node.name
        self._end(None, DeadlineExceeded(f"{name} did not answer before the deadline", node=name))
        self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._running is not None:
            self._running.cancel()  # a thread that runs is left alone: it holds its slot until it returns
            self._executor.orphans.add(self)
        self.context.leave()

    def _end(self, result: Any, error: BaseException | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        on_end = self._on_end
        self._on_end = None
        if on_end is not None:
            on_end(result, error)

    def _free(self) -> None:
        if self._latency is not None:
            self._latency.add(time.monotonic() - self._began)
        self._running = None
        self.context.end()
        self._executor.ended(self)
        self._on_free()


async def _run(method: Callable[..., Any], arguments: dict[str, Any], context: CallContext) -> Any:
    current.set(context)
    born = forked.forks
    try:
        result = method(**arguments)
        if hasattr(result, "__await__") or inspect.isawaitable(result):  # the first is quick, and nearly always true
            result = await result
    except BaseException as exc:
        if (error := contained(exc, born, method, on_loop=True)) is exc:
            raise
        raise error from exc
    if forked.forks != born:
        forked.leave(name_of(method), None)
    return result


def _run_sync(method: Callable[..., Any], arguments: dict[str, Any], context: CallContext) -> Any:
    current.set(context)
    born = forked.forks
    try:
        result = method(**arguments)
    except BaseException as exc:
        if (error := contained(exc, born, method, on_loop=False)) is exc:
            raise
        raise error from exc
    if forked.forks != born:
        forked.leave(name_of(method), None)
    return result


def contained(exc: BaseException, born: int, method: Callable[..., Any], *, on_loop: bool) -> BaseException:
    """What an API raised, as something that concerns its call alone: the loop and the other calls go on.

    Args:
        exc: what it raised.
        born: how often this process had been forked when the call began.
        method: the API.
        on_loop: whether it runs in a task, which somebody may have cancelled.
    """
    if forked.forks != born:
        forked.leave(name_of(method), exc)
    ends_loop = isinstance(exc, (SystemExit, KeyboardInterrupt))
    if ends_loop:
        endings.claim(exc)
    if ends_loop or (on_loop and isinstance(exc, asyncio.CancelledError) and not was_cancelled()):
        return RuntimeError(f"the API raised {exc!r}")
    return exc


def was_cancelled() -> bool:
    """Whether somebody has cancelled the task that runs; else a CancelledError is what its own code raised."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def name_of(method: Callable[..., Any]) -> str:
    """An API, in words."""
    return f"the API {getattr(method, '__qualname__', method)}"


# --- Calls whose caller has left, and those among them that run on all the same ---
# A thousand clients may leave at once: one timer looks at all of their calls.


RUN_ON = 0.1  # seconds after its caller was gone from which a call that still runs counts as one that ran on
LATE_TURNS = 4  # of the loop, which was late, in which the end of a call may be among what comes next


class Orphans:
    """Those of one worker.

    Args:
        loop: the loop that they run on.
        executing: what is executed; a call that has ended is not in there any more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, executing: Collection[Any]) -> None:
        self._loop = loop
        self._executing = executing
        self._left: deque[tuple[float, Any]] = deque()  # when it is looked at, and the call
        self.ran_on_async = self.ran_on_sync = 0

    def add(self, execution: Any) -> None:
        """Nobody waits for this call any more: it is counted if it does not end soon."""
        if not self._left:  # (else the timer runs)
            self._loop.call_later(RUN_ON, self._look)
        self._left.append((self._loop.time() + RUN_ON, execution))

    @property
    def waiting(self) -> int:
        """Calls that were not looked at yet."""
        return len(self._left)

    def _look(self) -> None:
        now, left = self._loop.time(), self._left
        while left and left[0][0] <= now:
            self._judge(left.popleft()[1], LATE_TURNS)
        if left:
            self._loop.call_later(left[0][0] - now, self._look)

    def _judge(self, execution: Any, turns: int) -> None:
        if execution not in self._executing:
            return
        if turns:
            self._loop.call_soon(self._judge, execution, turns - 1)
        elif execution.in_thread:
            self.ran_on_sync += 1
        else:
            self.ran_on_async += 1
