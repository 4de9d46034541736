"""Executing a call: the user's method runs on the loop or in a thread, until it ends or nobody
waits.

A `BoundApi` is one API of the instance, with its codecs. The `Executor` of a worker starts an
`Execution` for each call, keeps those that run, and answers with `DeadlineExceeded` in place of one
that is late. `AbandonedCalls` are those whose caller has left: the ones that run on are counted.

Runs in workers and in `local()`; it knows no sockets.
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
from typing import Any, NoReturn, Protocol

from graphserve.call.context import CallContext, current
from graphserve.errors import DeadlineExceeded
from graphserve.graph.plan import ApiPlan, NodePlan
from graphserve.isolation import forked
from graphserve.loop.eager import Eager
from graphserve.loop.timers import Timer, timers_of
from graphserve.metrics.layout import ABANDONED, QUARANTINED, QUEUE, SHED
from graphserve.metrics.recorder import CounterSeries, HistogramSeries, Recorder
from graphserve.system.worker_pages import DEADLINE, EXECUTING
from graphserve.wire.codec import ArgumentsCodec, ResultCodec, accept_format
from graphserve.wire.costs.bounds import LARGE_BODY
from graphserve.wire.formats import stream_format
from graphserve.wire.media.answers import Accepts, Streams, accepts_of, streams_of
from graphserve.wire.media.bodies import BodyReader
from graphserve.wire.media.files import is_slow
from graphserve.wire.media.received import CallFolder
from graphserve.wire.signature import Signature
from graphserve.worker.dispatch import endings
from graphserve.worker.dispatch.load import LatencyEstimate, LoopLagLimit

# seconds past the deadline at which we answer ourselves: a call below speaks first, it knows more
GUARD = 0.003
LEVEL_GUARD = 0.006  # more for each level below
THREAD_GUARD = 0.015  # more for an API in a thread, which takes longer to hear of a failure below
DECODERS = 2  # threads; one body after the other would do, but for one that is slow
TURNS = 4  # of the loop, that a failure below which is already here takes to arrive
# seconds after its caller was gone from which a call that still runs counts as one that ran on
RUN_ON = 0.1
# of the loop, which was late, in which the end of a call may be among what comes next
LATE_TURNS = 4

OnEnd = Callable[[object, BaseException | None], None]  # is told the result, or what was raised


class Running(Protocol):
    """A call that is being executed, with one answer (`Execution`) or many (`StreamExecution`)."""

    context: CallContext

    @property
    def in_thread(self) -> bool:
        """Return whether it runs in a thread, where nothing can interrupt it."""
        ...


@dataclass(frozen=True, eq=False)
class BoundApi:
    """One API of the instance, ready to be executed."""

    plan: ApiPlan
    signature: Signature
    arguments: ArgumentsCodec
    result: ResultCodec
    method: Callable[..., object]
    is_async: bool
    timeout: float | None
    # How long a call holds its slot; of unlimited APIs, how long it takes while the loop is late.
    # Streams have none.
    latency: LatencyEstimate | None
    # What is neither JSON nor msgpack; a process that only passes calls on knows no types.
    bodies: BodyReader
    accepts: Accepts = accept_format
    streams: Streams = stream_format
    large_from: int = LARGE_BODY  # bytes of a client's body, from which a thread reads it
    writes_slowly: bool = False  # whether a client's result is written in a thread
    receives_forms: bool = False  # whether a large form is taken apart as it comes
    index: int = 0  # among the APIs of its node


def bind(node: NodePlan, instance: object, declared: type | None = None) -> dict[str, BoundApi]:
    """Return the APIs of an instance by method name.

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
            api,
            signature,
            ArgumentsCodec(signature),
            ResultCodec(
                signature.item if signature.stream else signature.result,
                f"{node.name}.{api.name}",
                signature.media,
            ),
            method,
            _is_async(method) or _is_async(inspect.unwrap(method)),
            min(given, default=None),
            None if api.stream else LatencyEstimate(),
            BodyReader(signature),
            accept_format if signature.stream else accepts_of(signature.result, signature.media),
            streams_of(signature.item, signature.media) if signature.stream else stream_format,
            0 if any(is_slow(each.type) for each in signature.parameters) else LARGE_BODY,
            is_slow(signature.item if signature.stream else signature.result),
            signature.receives and api.batch is None,
            index,
        )
    return bound


def _is_async(function: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


class Executor:
    """Runs the calls of one worker, and knows which are running.

    Args:
        node: the node.
        threads: the pool that sync APIs run in.
        depth: of the node (`Plan.depth`); default: its level.
        shared: what the supervisor reads (`system/worker_pages.py`): the latest deadline of what
            is executed (never too early, exact when nothing is), and how many calls are.
        files: the folder for files that are received; default: the temporary one.
        recorder: counts what becomes of them; None: nothing does.
    """

    def __init__(
        self, node: NodePlan, threads: ThreadPoolExecutor, depth: int | None = None,
        shared: memoryview[int] | None = None, files: str = "", recorder: Recorder | None = None,
    ) -> None:  # fmt: skip
        self.recorder = recorder
        self._queues: dict[int, HistogramSeries] = {}  # by the number of the API
        self.refused = 0  # calls that were not begun, since there were too many
        self.node = node
        self._files = files
        self.threads = threads
        self.shared: memoryview[int] | list[int] = [0, 0] if shared is None else shared
        self.loop = asyncio.get_running_loop()
        self.timers = timers_of(self.loop)
        self._decoders: ThreadPoolExecutor | None = None
        self.guard = GUARD + LEVEL_GUARD * (node.level if depth is None else depth)
        self.executing: set[Running] = set()
        self.lag_limit = LoopLagLimit(self.loop, lambda: len(self.executing))
        self.executed = 0
        self.eager = Eager(self.loop)
        counter = None if recorder is None else recorder.counter(ABANDONED)
        self.abandoned = AbandonedCalls(self.loop, self.executing, counter)

    @property
    def decoders(self) -> ThreadPoolExecutor:
        """Return the threads in which large bodies are read; there are none before the first of
        these.
        """
        if self._decoders is None:
            self._decoders = ThreadPoolExecutor(
                DECODERS, thread_name_prefix=f"{self.node.name}-bodies"
            )
        return self._decoders

    def call_folder(self) -> CallFolder:
        """Return the folder for the files of one call; it is made with the first of them."""
        import tempfile

        return CallFolder(self._files or tempfile.gettempdir())

    def shed(self, reason: int) -> None:
        """Count a call that is not begun, and why."""
        if reason != QUARANTINED:
            self.refused += 1
        if self.recorder is not None:
            self.recorder.counter(SHED, reason).add()

    def taken(self, api: int, sent_ns: int) -> None:
        """Count how long a call was in the node's queue that this worker takes now.

        Args:
            api: its number.
            sent_ns: when it was sent, by CLOCK_MONOTONIC.
        """
        if self.recorder is None:
            return
        series = self._queues.get(api)
        if series is None:
            series = self.recorder.histogram(QUEUE, api)
            self._queues[api] = series
        series.observe(max(0, time.monotonic_ns() - sent_ns))

    def register(self, execution: Running) -> None:
        """Count a call as executed from now on."""
        self.executing.add(execution)
        self.shared[EXECUTING] += 1
        deadline = execution.context.deadline_ns
        if deadline is not None and deadline > self.shared[DEADLINE]:
            self.shared[DEADLINE] = deadline
        if not self.lag_limit.beating:
            self.lag_limit.begin()

    def unregister(self, execution: Running) -> None:
        """Forget a call of which nothing runs any more."""
        self.executing.discard(execution)
        self.executed += 1
        if not self.executing:
            self.shared[DEADLINE] = 0
            self.shared[EXECUTING] = 0
        else:
            self.shared[EXECUTING] -= 1

    def add_calls(self, calls: int = 1) -> None:
        """Count calls that share an execution, or wait for its end: none is alone until nothing is
        executed.
        """
        self.shared[EXECUTING] += calls

    def refresh_deadline(self) -> None:
        """Forget the latest deadline of calls that have ended."""
        self.shared[DEADLINE] = max(
            (execution.context.deadline_ns or 0 for execution in self.executing), default=0
        )

    def overdue(self) -> float:
        """Return the seconds by which the most overdue call is late; 0.0 if none is."""
        lefts = [
            left
            for execution in self.executing
            if (left := execution.context.seconds_left()) is not None
        ]
        return max(0.0, -min(lefts, default=0.0))

    def start(
        self, api: BoundApi, arguments: dict[str, object], context: CallContext,
        on_end: OnEnd, on_free: Callable[[], None], *, at_once: bool = False,
    ) -> Execution:  # fmt: skip
        """Execute a call.

        Args:
            api: which API.
            arguments: decoded and checked.
            context: what travels with the call.
            on_end: called once with the result, or with what was raised, or with
                `DeadlineExceeded`.
            on_free: called once when nothing of it runs any more; never before `on_end`, except
                after `cancel`.
            at_once: run the first step of an async API before this returns: it may have ended then.
        """
        execution = Execution(self, context, on_end, on_free)
        self.register(execution)
        execution.start(api, arguments, at_once)
        return execution


class TimingExecutor(Executor):
    """An executor that notes when each call began, for the access log."""

    def register(self, execution: Running) -> None:
        """Count a call as executed from now on."""
        now = time.perf_counter()
        context = execution.context
        context.begun = now
        for own, _ in context.callers or ():  # of a batch
            own.begun = now
        super().register(execution)


class Execution:
    """One call that is being executed."""

    __slots__ = (
        "_began",
        "_executor",
        "_latency",
        "_on_end",
        "_on_free",
        "_running",
        "_timer",
        "context",
    )

    def __init__(
        self, executor: Executor, context: CallContext, on_end: OnEnd, on_free: Callable[[], None]
    ) -> None:
        self._executor = executor
        self.context = context
        self._on_end: OnEnd | None = on_end
        self._on_free = on_free
        self._running: asyncio.Task[object] | Future[object] | None = None
        self._timer: Timer | asyncio.TimerHandle | None = None
        self._latency: LatencyEstimate | None = None
        self._began = 0.0

    def start(self, api: BoundApi, arguments: dict[str, object], at_once: bool) -> None:
        """Begin, unless the deadline has passed."""
        executor, context = self._executor, self.context
        deadline_ns = context.deadline_ns
        left = None if deadline_ns is None else (deadline_ns - time.monotonic_ns()) / 1e9
        if left is not None and left <= 0:
            try:
                self._time_out()
            finally:
                self._free()
            return
        if api.latency is not None and (api.plan.lane == "queue" or executor.lag_limit.late):
            self._latency = api.latency
            self._began = time.monotonic()
        if api.is_async:
            work = call_async(api.method, arguments, context)
            task = executor.eager.begin(work) if at_once else executor.loop.create_task(work)
            if task.done():
                self._task_ended(task)
                return
            task.add_done_callback(self._task_ended)
            self._running = task
        if left is not None:
            patience = executor.guard if api.is_async else executor.guard + THREAD_GUARD
            self._timer = executor.timers.set(left + patience, self._time_out_soon)
        if not api.is_async:
            carried = contextvars.copy_context()
            future = executor.threads.submit(
                carried.run, _call_sync, api.method, arguments, context
            )
            self._running = future
            future.add_done_callback(self._thread_ended)

    def cancel(self) -> None:
        """Stop what can be stopped: the caller went away, and `on_end` is not called any more."""
        self._on_end = None
        self._stop()

    @property
    def in_thread(self) -> bool:
        """Return whether it runs in a thread, where nothing can interrupt it."""
        return isinstance(self._running, Future)

    def _task_ended(self, task: asyncio.Task[object]) -> None:
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

    def _thread_ended(self, future: Future[object]) -> None:
        if not self._executor.loop.is_closed():
            self._executor.loop.call_soon_threadsafe(self._thread_over, future)

    def _thread_over(self, future: Future[object]) -> None:
        try:
            if not future.cancelled():
                error = future.exception()
                self._end(None if error is not None else future.result(), error)
            else:
                self._latency = None
        finally:
            self._free()

    def _time_out_soon(self, turns: int = TURNS) -> None:
        # On a loaded machine our timer and one below may fire in the same turn; what it found out
        # comes first.
        if self._on_end is None:
            return
        if turns:
            self._timer = None
            self._executor.loop.call_soon(self._time_out_soon, turns - 1)
        else:
            self._time_out()

    def _time_out(self) -> None:
        # A call below that has not been answered either is what holds this one: its word is on its
        # way, and late.
        name = self.context.waits_for() or self._executor.node.name
        self._end(None, DeadlineExceeded(f"{name} did not answer before the deadline", node=name))
        self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._running is not None:
            # a thread that runs is left alone: it holds its slot until it returns
            self._running.cancel()
            self._executor.abandoned.add(self)
        self.context.leave()

    def _end(self, result: object, error: BaseException | None) -> None:
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
        self._executor.unregister(self)
        self._on_free()


async def call_async(
    method: Callable[..., object], arguments: dict[str, object], context: CallContext
) -> object:
    """Run a method in this task, as the call of this context; what it raises concerns that call
    alone.
    """
    current.set(context)
    born = forked.forks
    try:
        result: Any = method(**arguments)
        # the first is quick, and nearly always true
        if hasattr(result, "__await__") or inspect.isawaitable(result):
            result = await result
    except BaseException as exc:
        raise_contained(exc, born, method, on_loop=True)
    if forked.forks != born:
        forked.leave(name_of(method), None)
    return result


def _call_sync(
    method: Callable[..., object], arguments: dict[str, object], context: CallContext
) -> object:
    current.set(context)
    born = forked.forks
    try:
        result = method(**arguments)
    except BaseException as exc:
        raise_contained(exc, born, method, on_loop=False)
    if forked.forks != born:
        forked.leave(name_of(method), None)
    return result


def raise_contained(
    exc: BaseException, born: int, method: Callable[..., object], *, on_loop: bool
) -> NoReturn:
    """Raise what an API raised as something that concerns its call alone: the loop and the other
    calls go on.

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
        raise RuntimeError(f"the API raised {exc!r}") from exc
    raise exc


def was_cancelled() -> bool:
    """Return whether somebody has cancelled the task that runs; else its own code raised the
    CancelledError.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def name_of(method: Callable[..., object]) -> str:
    """Return the name of an API, for messages."""
    return f"the API {getattr(method, '__qualname__', method)}"


class AbandonedCalls:
    """The calls of one worker whose callers have left, and the number of those that ran on all the
    same.

    A thousand clients may leave at once: one timer looks at all of their calls.

    Args:
        loop: the loop that they run on.
        executing: what is executed; a call that has ended is not in there any more.
        counter: counts those that ran on; None: nothing does.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        executing: Collection[Running],
        counter: CounterSeries | None = None,
    ) -> None:
        self._counter = counter
        self._loop = loop
        self._executing = executing
        # when it is looked at, and the call
        self._calls: deque[tuple[float, Running]] = deque()
        self.ran_on_async = 0
        self.ran_on_sync = 0

    def add(self, execution: Running) -> None:
        """Count this call, for which nobody waits any more, if it does not end soon."""
        if not self._calls:  # (else the timer runs)
            self._loop.call_later(RUN_ON, self._look)
        self._calls.append((self._loop.time() + RUN_ON, execution))

    @property
    def waiting(self) -> int:
        """Return the number of calls that were not looked at yet."""
        return len(self._calls)

    def _look(self) -> None:
        now = self._loop.time()
        calls = self._calls
        while calls and calls[0][0] <= now:
            self._count_if_running(calls.popleft()[1], LATE_TURNS)
        if calls:
            self._loop.call_later(calls[0][0] - now, self._look)

    def _count_if_running(self, execution: Running, turns: int) -> None:
        if execution not in self._executing:
            return
        if turns:
            self._loop.call_soon(self._count_if_running, execution, turns - 1)
            return
        if self._counter is not None:
            self._counter.add()
        if execution.in_thread:
            self.ran_on_sync += 1
        else:
            self.ran_on_async += 1
