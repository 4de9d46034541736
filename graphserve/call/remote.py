"""Typed calls: `self.dep.method(...)` becomes a request, and its answer the result.

Runs in workers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import reprlib
import threading
import time
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

from graphserve.call.context import CallContext, current, earliest
from graphserve.call.exchange import (
    Exchange,
    Headers,
    RequestT,
    ResultLost,
    TypedExchange,
    TypedLane,
    Upload,
)
from graphserve.call.memory_sharing import Sharing
from graphserve.call.misuse import NotAResult
from graphserve.call.request import query
from graphserve.call.streams import RemoteStream, StreamExchange
from graphserve.declare.typed import Call
from graphserve.errors import CallError, InvalidArguments, RemoteError, Unavailable, closest
from graphserve.graph.plan import ApiPlan
from graphserve.logs.exception_text import described
from graphserve.loop.loop_thread import LoopThread
from graphserve.loop.reply import Reply
from graphserve.loop.shield import shielded
from graphserve.wire import problem
from graphserve.wire.exceptions import ErrorDetail, Unsendable
from graphserve.wire.headers import ERROR_KIND
from graphserve.wire.memory import UnreadableMemory
from graphserve.wire.validation_errors import problem as wrong


@dataclass(frozen=True)
class DependencyApi(Generic[RequestT]):
    """One API of a dependency, ready to be called.

    Args:
        plan: what the Plan says of it.
        node: the node's name.
        lane: the way to it.
        encode: arguments to bytes.
        decode: the body of an answer to the result.
        timeout: seconds, the shortest of the edge's, the API's and the node's.
        slack: see `Exchange`.
        sharing: the shared memory that large arguments pass by, if any does.
        caller: the node that calls; empty for a program that is no node.
        typed: whether `decode` holds the result to its annotation; else the service does.
    """

    plan: ApiPlan
    node: str
    lane: TypedLane[RequestT]
    encode: Callable[[dict[str, Any]], bytes]
    decode: Callable[[bytes], Any]
    timeout: float | None
    slack: float
    sharing: Sharing | None = None
    caller: str = ""
    typed: bool = True


class RemoteApi(Generic[RequestT]):
    """The bound method that user code calls: one per API and edge."""

    __slots__ = ("_api", "_compose", "_loop_thread", "_parameters", "_sender")

    def __init__(self, loop_thread: LoopThread, api: DependencyApi[RequestT]) -> None:
        self._loop_thread = loop_thread
        self._api = api
        self._parameters = api.plan.parameters[: api.plan.positional]
        self._compose = api.lane.composer(api.plan, checked=not api.typed)
        self._sender = api.sharing.memory.sender if api.sharing is not None else None

    def __call__(self, *args: Any, **kwargs: Any) -> RemoteCall | RemoteStream:
        """Send the call; what goes wrong with its arguments is raised when it is awaited."""
        loop_thread, api = self._loop_thread, self._api
        context = current.get()
        deadline_ns = earliest(context.deadline_ns if context is not None else None, api.timeout)
        request: Any = None  # of a call that misfits, which is never sent
        upload = None
        body = b""
        misfit: CallError | None = None
        sender = self._sender
        placed = sender.placed if sender is not None else 0
        try:
            arguments = self._bind(args, kwargs) if args else kwargs
            if api.plan.input_stream is not None:
                upload = self._upload(arguments)
            body = api.encode(arguments) if upload is None else query(arguments)
            request = self._compose(context, deadline_ns, body)
        except InvalidArguments as exc:
            misfit = exc
        except Unsendable as exc:
            misfit = self._misfit(f": {exc.said}", exc.errors)
        except (TypeError, ValueError, OverflowError, RecursionError) as exc:
            misfit = self._misfit(f": {exc}", [wrong([], str(exc), "encoding")])
        except MemoryError as exc:
            misfit = self._no_room("write the arguments", described(exc))
        tickets = sender.collect() if sender is not None and sender.placed != placed else None
        inline = partial(self._inlined, context, deadline_ns, body) if tickets else None
        if api.plan.stream:
            left = (
                None if deadline_ns is None else max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9)
            )
            stream = StreamExchange(
                loop_thread.loop,
                api.lane,
                api.node,
                request,
                deadline_ns,
                api.slack,
                api.plan.idempotent,
                self._read,
                upload,
                tickets,
                inline,
                decode=self._item,
                item_timeout=left,
            )
            return RemoteStream(loop_thread, stream, f"{api.node}.{api.plan.name}", misfit)
        exchange = TypedExchange(
            loop_thread.loop,
            api.lane,
            api.node,
            request,
            deadline_ns,
            api.slack,
            api.plan.idempotent,
            self._read,
            upload,
            tickets,
            inline,
        )
        start = exchange.start if misfit is None else _Fail(exchange, misfit)
        if threading.get_ident() == loop_thread.thread:
            start()
        elif loop_thread.loop.is_closed():
            raise Unavailable(f"{api.node} has stopped", node=api.node)
        else:
            loop_thread.loop.call_soon_threadsafe(start, True)
        # Made last: an error's traceback may keep this frame, and the call is to be freed where it
        # is dropped.
        return RemoteCall(loop_thread, exchange, f"{api.node}.{api.plan.name}")

    def _inlined(
        self, context: CallContext | None, deadline_ns: int | None, body: bytes
    ) -> RequestT:
        assert self._api.sharing is not None
        return self._compose(context, deadline_ns, self._api.sharing.inlined(body))

    def _upload(self, arguments: dict[str, Any]) -> Upload:
        name = self._api.plan.input_stream
        assert name is not None
        found = arguments.pop(name, None)
        if not hasattr(found, "__aiter__"):
            text = f"{name!r} is an asynchronous iterator of bytes, not {found!r}"
            raise self._misfit(f": {text}", [wrong([name], text, "type_error")])
        return Upload(found.__aiter__(), self._loop_thread.loop, self._no_bytes)

    def _no_bytes(self, piece: Any) -> InvalidArguments:
        name = str(self._api.plan.input_stream)
        text = f"{name!r} is an asynchronous iterator of bytes; one piece was {reprlib.repr(piece)}"
        return self._misfit(f": {text}", [wrong([name], text, "type_error")])

    def _item(self, payload: bytes) -> Any:
        try:
            return self._api.decode(payload)
        except ValueError as exc:
            raise RemoteError(
                f"{self._api.node}, an item of its stream: {exc}", node=self._api.node
            ) from None
        except (UnreadableMemory, MemoryError) as exc:
            raise self._result_lost("an item", exc, "") from None

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        names = self._parameters
        if len(args) > len(names):
            positional = "" if len(names) == len(self._api.plan.parameters) else "positional "
            text = (
                f"takes {len(names)} {positional}argument{'' if len(names) == 1 else 's'}, got"
                f" {len(args)}"
            )
            raise self._misfit(text, [wrong([], text, "unexpected_argument")])
        arguments = dict(zip(names, args, strict=False))
        for name in kwargs:
            if name in arguments:
                text = f"got {name!r} twice"
                raise self._misfit(text, [wrong([name], text, "unexpected_argument")])
        arguments.update(kwargs)
        return arguments

    def _misfit(self, text: str, errors: list[ErrorDetail]) -> InvalidArguments:
        name = f"{self._api.node}.{self._api.plan.name}"
        said = name + text if text.startswith(":") else f"{name} {text}"
        return InvalidArguments(said, errors=errors, node=self._api.node)

    def _read(self, status: int, headers: Headers, body: bytes) -> Any:
        if status == 200:
            try:
                return self._api.decode(body)
            except ValueError as exc:
                raise RemoteError(f"{self._api.node}: {exc}", node=self._api.node) from None
            except (UnreadableMemory, MemoryError) as exc:
                raise ResultLost(partial(self._result_lost, "the result", exc)) from None
        raise error_of(status, headers, body, self._api.node)

    def _result_lost(
        self, what: str, exc: UnreadableMemory | MemoryError, why_not_again: str
    ) -> CallError:
        said, node = (
            f"{described(exc) if isinstance(exc, MemoryError) else exc}{why_not_again}",
            self._api.node,
        )
        if isinstance(exc, MemoryError) or exc.short:
            return self._no_room(f"take {what} of {node}.{self._api.plan.name}", said)
        return RemoteError(
            f"a worker of {node} answered, but {what} cannot be taken: {said}", node=node
        )

    def _no_room(self, to_do: str, why: str) -> Unavailable:
        return Unavailable(
            f"{self._api.caller or 'this process'} has no room to {to_do}: {why}",
            node=self._api.caller or None,
        )


class _Fail:
    __slots__ = ("error", "exchange")

    def __init__(self, exchange: Exchange[Any], error: CallError) -> None:
        self.exchange = exchange
        self.error = error

    def __call__(self, threaded: bool = False) -> None:
        self.exchange.fail(self.error)
        if not self.exchange.reply.cancelled():
            self.exchange.reply.exception()  # looked at: a call that nobody looks at says so itself


class TypedClient:
    """The client of a dependency: its APIs as attributes."""

    def __init__(self, node: str, apis: dict[str, Any]) -> None:
        self.__dict__.update(apis)
        self.__dict__["_graphserve_node"] = node

    def __getattr__(self, name: str) -> Any:
        node = self.__dict__.get("_graphserve_node", "?")
        names = [key for key in self.__dict__ if not key.startswith("_graphserve_")]
        guess = closest(name, names)
        hint = f"did you mean {guess!r}?" if guess else f"its APIs are {', '.join(names)}"
        raise AttributeError(f"{node} has no API {name!r}; {hint}")

    def __repr__(self) -> str:
        return f"<client of {self._graphserve_node}>"


class RemoteCall(NotAResult, Call[Any]):
    """A call under way; see `Call`."""

    __slots__ = ("__weakref__", "_coroutine", "_exchange", "_loop_thread", "_name", "_used")

    def __init__(self, loop_thread: LoopThread, exchange: Exchange[Any], name: str) -> None:
        self._loop_thread = loop_thread
        self._exchange = exchange
        self._name = name
        self._used = False
        self._coroutine: Generator[Any, Any, Any] | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        self._used = True
        if threading.get_ident() == self._loop_thread.thread:
            return self._exchange.reply.__await__()
        waiter = self._waiter()
        # who awaits it gave up
        waiter.add_done_callback(lambda _: waiter.cancelled() and self.cancel())
        return asyncio.wrap_future(waiter).__await__()

    def result(self, timeout: float | None = None) -> Any:
        """Wait in this thread for the result."""
        self._used = True
        if (instead := self._loop_thread.instead()) is not None:
            self.cancel()
            whose, else_ = instead
            fix = f"write `await {whose}.{self._name.rpartition('.')[2]}(...)` here, {else_}"
            raise RuntimeError(f"{self._name}(...).result() would block the event loop: {fix}")
        waiter = self._waiter()
        try:
            return waiter.result(timeout)
        except concurrent.futures.CancelledError:
            raise
        except TimeoutError:
            if not waiter.done():
                self.cancel()
            raise
        except KeyboardInterrupt as exc:
            self.cancel()
            raise exc.with_traceback(None) from None

    def cancel(self) -> bool:
        """Give the call up, and cancel what it called; False if it is over."""
        self._used = True
        if self._exchange.over:
            return False
        if threading.get_ident() == self._loop_thread.thread:
            self._exchange.abandon()
        else:
            self._loop_thread.loop.call_soon_threadsafe(self._exchange.abandon)
        return True

    def send(self, value: Any) -> Any:
        """The coroutine protocol: `TaskGroup.create_task(call)` drives the call with it."""
        if self._coroutine is None:
            self._coroutine = iter(self.__await__())
            if shielded(asyncio.current_task()):
                self._exchange.shielded = True
        return self._coroutine.send(value)

    def throw(self, *args: Any) -> Any:
        """The coroutine protocol."""
        if self._coroutine is None:
            self._coroutine = iter(self.__await__())
        return self._coroutine.throw(*args)

    def close(self) -> None:
        """The coroutine protocol: give the call up."""
        self.cancel()

    if not TYPE_CHECKING:  # checkers know from `Call` that it has none of these
        __aiter__ = NotAResult._refuse
        __iter__ = NotAResult._refuse

    def _fix(self) -> str:
        method = self._name.rpartition(".")[2]
        return (
            f"{self._name}(...) is a call under way, not its result: write"
            f" `await self.….{method}(...)`, or `.result()` behind it in a plain `def`"
        )

    def _waiter(self) -> concurrent.futures.Future[Any]:
        waiter: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def copy(reply: Reply) -> None:
            if reply.cancelled():
                waiter.cancel()
            elif waiter.set_running_or_notify_cancel():
                error = reply.exception()
                (
                    waiter.set_exception(error)
                    if error is not None
                    else waiter.set_result(reply.result())
                )

        reply = self._exchange.reply
        if reply.done():  # the loop may be gone
            copy(reply)
        else:
            self._loop_thread.loop.call_soon_threadsafe(reply.add_done_callback, copy)
        return waiter

    def __del__(self) -> None:
        if getattr(self, "_used", True):
            return
        reply = self._exchange.reply
        if not reply.done():
            if self._loop_thread.loop.is_closed():
                return
            warnings.warn(
                f"a call to {self._name} was dropped without being awaited: cancelled",
                RuntimeWarning,
                2,
            )
            self.cancel()
        elif not reply.cancelled() and reply.exception() is not None:
            warnings.warn(
                f"a call to {self._name} failed and nobody looked: {reply.exception()}",
                RuntimeWarning,
                2,
            )


def error_of(status: int, headers: Headers, body: bytes, node: str) -> CallError:
    """The error that an answer of a node stands for."""
    named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    return problem.decode(status, named.get(ERROR_KIND.decode()), body, named, node)
