"""One node of a local graph: its instance, its slots and its queue.

Runs in the process that called `local()`.

To its callers it is a lane, so calls, deadlines and cancellation are those of real processes; only
the socket is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import warnings
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from graphserve.call.clients import Clients
from graphserve.call.exchange import Compose, Exchange
from graphserve.errors import (
    CallError,
    ConfigurationError,
    InvalidArguments,
    StartupError,
    Unavailable,
)
from graphserve.graph.plan import ApiPlan, NodePlan
from graphserve.logs.tracebacks import trim
from graphserve.run.local_transport import (
    AnyExchange,
    BodySink,
    LocalCall,
    LocalRequest,
    LocalSink,
    composer,
)
from graphserve.system import stack
from graphserve.wire import problem
from graphserve.wire.codec import Format
from graphserve.wire.exceptions import BeyondMsgpack
from graphserve.wire.extensions import no_memory
from graphserve.wire.formats import last_event
from graphserve.wire.headers import CONTENT_TYPE
from graphserve.wire.media.received import CallFolder, call_folder
from graphserve.wire.trust import PEER
from graphserve.worker.batch.batcher import Batcher
from graphserve.worker.dispatch.decoding import arguments_beside, read_arguments
from graphserve.worker.dispatch.encoding import EncodedResult, encode_result, encoding
from graphserve.worker.dispatch.executor import BoundApi, Executor, bind
from graphserve.worker.dispatch.opened import OpenedFile
from graphserve.worker.instance import InstanceThreads, ServiceInstance
from graphserve.worker.stream.producer import StreamExecution

if TYPE_CHECKING:
    from graphserve.call.answer import Answer


class LocalExecution(Protocol):
    """What executes a call, be it one of a batch, or a stream."""

    def cancel(self) -> None:
        """Stop what can be stopped: nobody waits any more."""


class LocalNode:
    """Runs a node here: one worker, whatever `workers` says, since there is one instance.

    Args:
        plan: the node.
        declared: the class that has the signatures.
        override: what is made and called: that class, another one, or a ready object.
        clients: the clients of its dependencies.
    """

    retry_budget = None  # there is no connection that could be lost

    def __init__(
        self, plan: NodePlan, declared: type, override: object, clients: Clients[LocalRequest]
    ) -> None:
        self.plan = plan
        self.declared = declared
        self.override = override
        self.clients = clients
        self.apis: dict[str, BoundApi] = {}
        self._loop = asyncio.get_running_loop()
        self._threads = InstanceThreads(plan.limit, f"local-{plan.name}")
        self.executor = Executor(plan, self._threads, clients.plan.depth(plan.name))
        self._free = plan.limit
        self._waiting: dict[AnyExchange, LocalCall] = {}  # the oldest first
        # WebSockets that wait for a slot: each is called with one
        self.sockets: deque[Callable[[], None]] = deque()
        # None: it is just being begun
        self._executing: dict[AnyExchange, LocalExecution | None] = {}
        self._batchers: dict[str, Batcher] = {}
        # a callee sees nothing of its caller's context variables
        self._base = contextvars.copy_context()
        self._quiet = asyncio.Event()
        self._life: ServiceInstance | None = None
        self._instance: object = None
        self._stopped = False
        self._failed = False  # it did not start
        self._advancing = False

    async def start(self) -> None:
        """Make the instance and enter it.

        Raises:
            StartupError: `__init__`, `__aenter__` or the warm-up raised, or did not end in time.
            ConfigurationError: the override lacks an API.
        """
        instance = self.override
        if isinstance(instance, type):
            instance = await self._live(instance)
        names = [api.name for api in self.plan.apis]
        names += [socket.name for socket in self.plan.sockets]
        for name in names:
            if not callable(getattr(instance, name, None)):
                kind = type(instance).__name__
                text = f"{kind} overrides {self.declared.__name__}, but has no method {name!r}"
                raise ConfigurationError(text)
        self._instance = instance
        self.apis = bind(self.plan, instance, self.declared)
        self._batchers = {
            name: Batcher(api, self.executor, self, self._next)
            for name, api in self.apis.items() if api.plan.batch is not None
        }  # fmt: skip

    def fail_start(self, error: StartupError) -> None:
        """Refuse every call: it has not started, and the graph lives without it."""
        self._failed = True
        self._stopped = True
        words = f"{error}; the graph starts without it, since it is optional"
        warnings.warn(words, RuntimeWarning, stacklevel=2)

    async def stop(self, *, now: bool = False) -> None:
        """Answer what was accepted, then leave the instance; each has `graceful_timeout`.

        Args:
            now: cancel what waits and executes instead.
        """
        patience = self.plan.options.graceful_timeout
        if not now:
            await self._until_quiet(patience)
        self._stopped = True
        for exchange in [*self._waiting, *self._executing]:
            exchange.fail(self._gone())
        quiet = await self._until_quiet(patience)
        try:
            if not quiet:
                text = (
                    f"{self.plan.name} still executes a call {patience:g} s after it was cancelled:"
                    " it was left so"
                )
                warnings.warn(text, RuntimeWarning, stacklevel=2)
            elif self._life is not None:
                quiet = await leave(self._life, patience)
        finally:
            await self.clients.close()
            self._threads.shutdown(wait=quiet and self._life is not None)

    def method(self, name: str) -> Callable[..., object]:
        """Return a method of the instance, which is started."""
        found: Callable[..., object] = getattr(self._instance, name)
        return found

    def composer(self, api: ApiPlan, *, checked: bool, caller: str) -> Compose[LocalRequest]:
        """Return a function that makes requests to one API, in the form that this lane sends."""
        return composer(api, checked=checked, caller=caller)

    def send(self, exchange: Exchange[LocalRequest]) -> None:
        """Execute the call when there is room for it."""
        upload = None if exchange.upload is None else exchange.upload_pieces()
        self.submit(LocalCall(exchange.request, exchange, upload))

    def submit(self, call: LocalCall) -> None:
        """Execute a call of whatever kind when there is room for it."""
        if self._stopped:
            call.exchange.fail(self._gone())
        elif self._can_take(call):
            self._execute(call)
        elif len(self._waiting) >= self.plan.options.queue:
            call.exchange.fail(
                Unavailable(
                    f"the queue of {self.plan.name} is full", node=self.plan.name, full=True
                )
            )
        else:
            self._waiting[call.exchange] = call

    def forget(self, exchange: AnyExchange) -> None:
        """Cancel the execution of an exchange that is over, or let it wait no more."""
        execution = self._executing.pop(exchange, None)
        if execution is not None:
            execution.cancel()
        self._waiting.pop(exchange, None)

    def take(self) -> bool:
        """Take a slot for a batch; False if none is free."""
        if not self._free:
            return False
        self._free -= 1
        return True

    def release(self) -> None:
        """Take back the slot of a batch."""
        self._loop.call_soon(self._freed, True)

    def _can_take(self, call: LocalCall) -> bool:
        api = self.apis[call.request.api]
        if api.plan.batch is not None:
            return self._batchers[api.plan.name].can_take()
        return api.plan.lane == "pooled" or self._free > 0

    def _execute(self, call: LocalCall) -> None:
        api = self.apis[call.request.api]
        # a batch has taken its slot itself
        limited = api.plan.lane == "queue" and api.plan.batch is None
        self._free -= limited
        folder = self.executor.call_folder() if api.signature.spools else None
        try:
            arguments = self._arguments(call, api, folder)
        except Exception as exc:
            if folder is not None:
                folder.remove()
            if api.plan.batch is not None:
                self._batchers[api.plan.name].drop_if_empty()
            self._loop.call_soon(self._refused, call, exc, limited)
            return

        accept, is_client = call.request.accept, not call.request.trust.values
        writes_slowly = api.writes_slowly and is_client and not api.signature.stream

        def ended(result: object, error: BaseException | None) -> None:
            if writes_slowly and error is None and api.plan.batch is not None:
                answer = context.answer
                written = self._loop.run_in_executor(
                    self.executor.decoders, encode_result, api.result, result, accept, answer
                )
                written.add_done_callback(partial(self._written, call, api))
            else:
                self._ended(call, api, result, error)

        def free() -> None:
            if folder is not None:
                self._loop.call_soon(folder.remove)  # (the answer is made first)
            self._loop.call_soon(self._freed, limited)

        self._executing[call.exchange] = None
        base, context = self._base.copy(), call.request.context
        execution: LocalExecution
        if api.plan.batch is not None:
            try:
                execution = base.run(
                    self._batchers[api.plan.name].join, arguments, context, ended, expected=False
                )
            except Exception as exc:
                self._executing.pop(call.exchange)
                self._loop.call_soon(self._refused, call, exc, False)
                return
        elif api.signature.stream:
            sink = self._sink(call, api, last_event(arguments))
            execution = StreamExecution(self.executor, api, context, sink, free)
            base.run(execution.start, arguments)
        else:
            executed = api
            if writes_slowly:
                write = partial(encode_result, api.result, format=accept)
                executed = encoding(api, write, self.executor, _never)
            execution = base.run(self.executor.start, executed, arguments, context, ended, free)
        if call.exchange in self._executing:  # it may be over: its deadline had passed
            self._executing[call.exchange] = execution

    def _arguments(
        self, call: LocalCall, api: BoundApi, folder: CallFolder | None
    ) -> dict[str, object]:
        request = call.request
        token = call_folder.set(folder)
        try:
            return self._read_arguments(call, request, api)
        finally:
            call_folder.reset(token)

    @staticmethod
    def _read_arguments(call: LocalCall, request: LocalRequest, api: BoundApi) -> dict[str, object]:
        if call.upload is not None:
            return arguments_beside(api, request.body, call.upload, is_hop=request.trust.values)
        fetch = no_memory if request.trust.values else None
        return read_arguments(
            api, request.query, request.body, request.format, None, fetch, request.media_type
        )

    def _written(
        self,
        call: LocalCall,
        api: BoundApi,
        written: asyncio.Future[EncodedResult | OpenedFile],
    ) -> None:
        error = written.exception()
        self._ended(call, api, None if error is not None else written.result(), error)

    def _ended(
        self, call: LocalCall, api: BoundApi, result: object, error: BaseException | None
    ) -> None:
        self._executing.pop(call.exchange, None)
        if error is None and isinstance(result, (EncodedResult, OpenedFile)):
            self._answer_encoded(call, result)
            return
        if error is None:
            accept = call.request.accept
            answer = call.request.context.answer
            try:
                if answer is not None and call.request.trust is not PEER:
                    self._answer_as_said(call, answer, result, api)
                    return
                try:
                    body = api.result.encode(result, accept, paths=True)
                except BeyondMsgpack:
                    accept = Format.JSON
                    body = api.result.encode(result, accept, paths=True)
            except Exception as exc:
                error = exc
            else:
                call.exchange.answered(200, [(CONTENT_TYPE, accept.content_type)], body)
                return
        self._raised(call, api, error)

    def _answer_encoded(self, call: LocalCall, result: EncodedResult | OpenedFile) -> None:
        """Answer an httpx client with a result that a thread has written, or a file."""
        if isinstance(result, OpenedFile):
            body, content_type = result.file.readall(), result.content_type
        else:
            body, content_type = result.body, result.format.content_type
        answer = call.request.context.answer
        if answer is None:
            call.exchange.answered(200, [(CONTENT_TYPE, content_type)], body)
            return
        answer.close()
        if answer.bodiless:
            call.exchange.answered(answer.status, answer.fields(), b"")
        else:
            fields = [(CONTENT_TYPE, content_type), *answer.fields()]
            call.exchange.answered(answer.status, fields, body)

    def _answer_as_said(
        self, call: LocalCall, answer: Answer, result: object, api: BoundApi
    ) -> None:
        """Answer an httpx client as user code has said."""
        try:
            body, content_type = answer.body(result, call.request.accept, api.result.encode)
        except BeyondMsgpack:
            body, content_type = answer.body(result, Format.JSON, api.result.encode)
        answer.close()
        fields = answer.fields()
        if answer.bodiless:
            call.exchange.answered(answer.status, fields, b"")
        else:
            fields = [(CONTENT_TYPE, content_type), *fields]
            call.exchange.answered(answer.status, fields, body)

    def _sink(self, call: LocalCall, api: BoundApi, last_event: int) -> LocalSink | BodySink:
        format = call.request.stream
        failed = partial(self._raised, call, api)
        if format is None:
            return LocalSink(call.exchange, api, call.request.accept, failed)
        note = partial(self._note, call, api)
        return BodySink(call, api, format, call.request.accept, note, failed, last_event)

    def _raised(self, call: LocalCall, api: BoundApi, raised: BaseException) -> None:
        self._answer(call, self._note(call, api, raised), raised)

    def _note(self, call: LocalCall, api: BoundApi, raised: BaseException) -> CallError:
        error = problem.as_call_error(raised, self.plan.name)
        if error is not problem.carried_error(raised):
            request_id = call.request.context.request_id.decode("latin-1")
            # A line only: its caller is here, and gets the exception with its traceback.
            problem.log(f"{self.plan.name}.{api.plan.name}", error, None, request_id)
        return error

    def _refused(self, call: LocalCall, exc: Exception, limited: bool) -> None:
        refusal = (
            exc if isinstance(exc, InvalidArguments) else problem.as_call_error(exc, self.plan.name)
        )
        self._answer(call, refusal, exc)
        self._freed(limited)

    def _answer(self, call: LocalCall, error: CallError, cause: BaseException) -> None:
        request_id = call.request.context.request_id.decode("latin-1")
        call.exchange.answered(
            *problem.encode(error, node=self.plan.name, request_id=request_id, with_details=True)
        )
        reply = call.exchange.reply
        if reply.done() and not reply.cancelled() and (failure := reply.exception()) is not None:
            if trim(cause):
                # where processes have only a log, a debugger here finds the user's own frame
                failure.__cause__ = cause
            for note in getattr(cause, "__notes__", ()) if cause is error else ():
                failure.add_note(note)

    def _freed(self, limited: bool) -> None:
        self._free += limited
        self._next()
        if self._idle:
            self._quiet.set()

    def _next(self) -> None:
        """Execute what waited, the oldest first, as far as there is room."""
        if self._advancing:  # a batch that opens for what waits tells us so
            return
        self._advancing = True
        try:
            while self._waiting:
                call = next(iter(self._waiting.values()))
                if not call.exchange.over and not self._can_take(call):
                    break
                del self._waiting[call.exchange]
                if not call.exchange.over:
                    self._execute(call)
            while self.sockets and self.take():
                self.sockets.popleft()()
        finally:
            self._advancing = False

    async def _live(self, cls: type) -> object:
        lone = cls is not self.declared  # not made with the service's `init`, and given no clients
        plan = dataclasses.replace(self.plan, init={}) if lone else self.plan
        self._life = await begin(
            plan, cls, self._threads, _nothing if lone else self.clients.inject
        )
        return self._life.instance

    @property
    def _idle(self) -> bool:
        return not self.executor.executing and not self._waiting and self._free == self.plan.limit

    async def _until_quiet(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._idle:
                    self._quiet.clear()
                    await self._quiet.wait()
        return self._idle

    def _gone(self) -> Unavailable:
        how = "is failed: it does not start" if self._failed else "has stopped"
        return Unavailable(f"{self.plan.name} {how}", node=self.plan.name)


def _nothing(instance: object) -> None:
    pass


_RUNS_ON = "its thread goes on, and the interpreter waits for it when it ends"


async def begin(
    plan: NodePlan, cls: type, threads: InstanceThreads, inject: Callable[[object], None]
) -> ServiceInstance:
    """Make an instance, enter it and warm it up.

    Args:
        plan: the node; its `startup_timeout` counts.
        cls: what is made.
        threads: where sync code runs.
        inject: gives the instance its clients.

    Raises:
        StartupError: it raised, or did not end in time.
    """
    life = ServiceInstance(plan, cls, threads, inject)
    seconds = plan.options.startup_timeout
    try:
        async with asyncio.timeout(seconds):
            await life.start()
    except TimeoutError as exc:
        text = f"{plan.name} was not ready {seconds:g} s after it began to start (startup_timeout)"
        where = stack.of_error(exc.__cause__) or stack.of_threads(threads.started)
        raise StartupError(text, plan.name, where) from None
    return life


async def leave(life: ServiceInstance, seconds: float) -> bool:
    """Leave an instance; return whether it ended in time."""
    try:
        # in this task, as what was entered in it may ask for
        async with asyncio.timeout(seconds) as limit:
            await life.stop()
    except TimeoutError:
        if not limit.expired():
            raise  # its own
        method, end = (
            ("__aexit__", "cancelled") if hasattr(life.cls, "__aexit__") else ("__exit__", _RUNS_ON)
        )
        text = f"{life.node.name} had not left ({method}) after {seconds:g} s: {end}"
        warnings.warn(text, RuntimeWarning, stacklevel=3)
        return False
    return True


def _never(value: object) -> bool:
    """Tell that a result takes time to write, whatever it is."""
    return False
