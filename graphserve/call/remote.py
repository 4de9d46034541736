"""Typed calls: `self.dep.method(...)` becomes a request, and its answer the result.

Runs in workers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import os
import reprlib
import threading
import time
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NoReturn

from graphserve.call import misuse
from graphserve.call.context import CallContext, current, earliest
from graphserve.call.exchange import (
    ANY_RUNS,
    Exchange,
    RequestT,
    ResultLost,
    TypedExchange,
    TypedLane,
    error_of,
)
from graphserve.call.lanes.encoding import EncodedCall, EncodingLane
from graphserve.call.memory_sharing import Sharing
from graphserve.call.misuse import NotAResult
from graphserve.call.streams import RemoteStream, StreamExchange
from graphserve.call.upload import Upload, in_threads
from graphserve.declare.typed import Call
from graphserve.errors import CallError, InvalidArguments, RemoteError, Unavailable, closest
from graphserve.graph.plan import ApiPlan
from graphserve.logs.exception_text import described
from graphserve.loop.loop_thread import LoopThread
from graphserve.loop.reply import Reply
from graphserve.loop.shield import shielded
from graphserve.metrics.recorder import CallSeries
from graphserve.system.frozen import dataclass
from graphserve.wire.exceptions import ErrorDetail, Unsendable
from graphserve.wire.headers import FILES, Headers
from graphserve.wire.media.kinds import packs_quickly
from graphserve.wire.shared_buffers import UnreadableMemory, done
from graphserve.wire.validation_errors import error_detail

if TYPE_CHECKING:
    from graphserve.call.fetched import FetchedFiles

EncodeArguments = Callable[[dict[str, object]], bytes]  # the arguments of a call, by name
DecodeResult = Callable[[bytes], object]  # its result, or an item of its stream

# what is raised where arguments cannot be written
_UNWRITABLE = (
    InvalidArguments,
    Unsendable,
    TypeError,
    ValueError,
    OverflowError,
    RecursionError,
    MemoryError,
)
_PLAIN = frozenset({type(None), bool, int, float, str})


def _is_quick(value: object) -> bool:
    return type(value) in _PLAIN or packs_quickly(value)


@dataclass(frozen=True)
class DependencyApi(Generic[RequestT]):
    """Describes one API of a dependency, ready to be called.

    Args:
        plan: what the Plan says of it.
        node: the node's name.
        lane: the way to it.
        encode: arguments to bytes.
        decode: the body of an answer to the result.
        timeout: seconds, the shortest of the edge's, the API's and the node's.
        slack: seconds after the deadline that we wait for the node's own word.
        sharing: the shared memory that large arguments pass by, if any does.
        caller: the node that calls; empty for a program that is no node.
        typed: whether `decode` holds the result to its annotation; else the service does.
        client: how user code writes the client whose API it is, for messages.
        attempts: how often a call may run at most, if the API is idempotent; None: no limit here.
        slow: whether its arguments may take long to write, as pictures and tables do.
        files: where files are put that it answers with, if it does.
        series: counts its calls; None: nothing does.
    """

    plan: ApiPlan
    node: str
    lane: TypedLane[RequestT]
    encode: EncodeArguments
    decode: DecodeResult
    timeout: float | None
    slack: float
    sharing: Sharing | None = None
    caller: str = ""
    typed: bool = True
    client: str = "self.…"
    attempts: int | None = None
    slow: bool = False
    files: FetchedFiles | None = None
    series: CallSeries | None = None

    @property
    def runs(self) -> int:
        """Return how often a call may run: 0 where it must not run a second time."""
        return (self.attempts or ANY_RUNS) if self.plan.idempotent else 0


class RemoteApi(Generic[RequestT]):
    """Is called by user code in place of the method: one for each API and edge."""

    __slots__ = (
        "_api",
        "_compose",
        "_files",
        "_loop_thread",
        "_name",
        "_never_sent",
        "_parameters",
        "_runs",
        "_sender",
        "_series",
        "_slow",
        "_written",
    )

    def __init__(self, loop_thread: LoopThread, api: DependencyApi[RequestT]) -> None:
        self._loop_thread = loop_thread
        self._api = api
        self._name = f"{api.node}.{api.plan.name}"
        self._written = f"{api.client}.{api.plan.name}"  # in user code
        self._parameters = api.plan.parameters[: api.plan.positional]
        self._compose = api.lane.composer(api.plan, checked=not api.typed, caller=api.caller)
        self._sender = api.sharing.memory.sender if api.sharing is not None else None
        self._runs = api.runs
        self._files = api.files
        self._series = api.series
        self._slow = api.slow and not api.plan.stream and api.plan.input_stream is None
        self._never_sent = self._compose(None, None, b"")  # the request of a call that misfits

    def __call__(
        self, *args: object, **kwargs: object
    ) -> RemoteCall[RequestT] | RemoteStream[RequestT]:
        """Send the call; what goes wrong with its arguments is raised when it is awaited."""
        loop_thread = self._loop_thread
        if self._slow and threading.get_ident() == loop_thread.thread:
            arguments = self._slow_arguments(args, kwargs)
            if arguments is not None:
                return self._call_slowly(arguments)
        api = self._api
        context = current.get()
        deadline_ns = earliest(context.deadline_ns if context is not None else None, api.timeout)
        request = self._never_sent
        upload = None
        body = b""
        read = self._read
        if self._files is not None:
            read = partial(self._read_files, self._files, context)
        misfit: CallError | None = None
        sender = self._sender
        placed = sender.placed if sender is not None else 0
        try:
            arguments = self._bind(args, kwargs) if args else kwargs
            if api.plan.input_stream is not None:
                upload = self._upload(arguments)
            body = api.encode(arguments)
            request = self._compose(context, deadline_ns, body)
        except _UNWRITABLE as exc:
            misfit = self._unwritable(exc)
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
                self._runs,
                read,
                upload,
                tickets,
                inline,
                self._series,
                decode=self._item,
                item_timeout=left,
            )
            return RemoteStream(loop_thread, stream, self._name, self._written, misfit)
        exchange = TypedExchange(
            loop_thread.loop,
            api.lane,
            api.node,
            request,
            deadline_ns,
            api.slack,
            self._runs,
            read,
            upload,
            tickets,
            inline,
            self._series,
        )
        start = exchange.start if misfit is None else partial(exchange.refuse, misfit)
        if threading.get_ident() == loop_thread.thread:
            start()
        elif loop_thread.loop.is_closed():
            raise Unavailable(f"{api.node} has stopped", node=api.node)
        else:
            loop_thread.loop.call_soon_threadsafe(start, True)
        # Made last: an error's traceback may keep this frame, and the call is to be freed where it
        # is dropped.
        return RemoteCall(loop_thread, exchange, self._name, self._written)

    def _slow_arguments(
        self, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> dict[str, object] | None:
        """Return the arguments of a call on the loop if a thread is to write them; None: it takes
        no time, or they do not fit.
        """
        if all(map(_is_quick, args)) and all(map(_is_quick, kwargs.values())):
            return None
        try:
            return self._bind(args, kwargs) if args else kwargs
        except InvalidArguments:
            return None

    def _call_slowly(self, arguments: dict[str, object]) -> RemoteCall[RequestT]:
        """Send a call when a thread has written its arguments, so that the loop goes on
        meanwhile.
        """
        api = self._api
        context = current.get()
        deadline_ns = earliest(context.deadline_ns if context is not None else None, api.timeout)
        carried = contextvars.copy_context()
        write = partial(carried.run, self._write_slowly, context, deadline_ns, arguments)
        read = self._read
        if self._files is not None:
            read = partial(self._read_files, self._files, context)
        exchange = TypedExchange(
            self._loop_thread.loop,
            EncodingLane(api.lane, write),
            api.node,
            self._never_sent,
            deadline_ns,
            api.slack,
            self._runs,
            read,
            series=self._series,
        )
        exchange.start()
        return RemoteCall(self._loop_thread, exchange, self._name, self._written)

    def _write_slowly(
        self,
        context: CallContext | None,
        deadline_ns: int | None,
        arguments: dict[str, object],
    ) -> EncodedCall[RequestT]:
        sender = self._sender
        try:
            body = self._api.encode(arguments)
            request = self._compose(context, deadline_ns, body)
        except _UNWRITABLE as exc:
            if sender is not None:
                done(sender.collect())
            raise self._unwritable(exc) from None
        tickets = sender.collect() if sender is not None else None
        inline = partial(self._inlined, context, deadline_ns, body) if tickets else None
        return EncodedCall(request, tickets or None, inline)

    def _unwritable(self, exc: BaseException) -> CallError:
        """Return what a call ends with whose arguments cannot be written."""
        if isinstance(exc, InvalidArguments):
            return exc
        if isinstance(exc, Unsendable):
            return self._misfit(f": {exc.said}", exc.errors)
        if isinstance(exc, MemoryError):
            return self._no_room("write the arguments", described(exc))
        return self._misfit(f": {exc}", [error_detail([], str(exc), "encoding")])

    def _inlined(
        self, context: CallContext | None, deadline_ns: int | None, body: bytes
    ) -> RequestT:
        assert self._api.sharing is not None
        return self._compose(context, deadline_ns, self._api.sharing.inlined(body))

    def _upload(self, arguments: dict[str, object]) -> Upload:
        name = self._api.plan.input_stream
        assert name is not None
        found = arguments.pop(name, None)
        if isinstance(found, Iterable) and not isinstance(found, (str, bytes, bytearray, Mapping)):
            found = in_threads(iter(found))
        if not isinstance(found, AsyncIterable):
            text = f"{name!r} is an iterator of bytes, not {found!r}"
            raise self._misfit(f": {text}", [error_detail([name], text, "type_error")])
        return Upload(found.__aiter__(), self._loop_thread.loop, self._no_bytes)

    def _no_bytes(self, piece: object) -> InvalidArguments:
        name = str(self._api.plan.input_stream)
        text = f"{name!r} is an iterator of bytes; one piece was {reprlib.repr(piece)}"
        return self._misfit(f": {text}", [error_detail([name], text, "type_error")])

    def _item(self, payload: bytes) -> object:
        try:
            return self._api.decode(payload)
        except ValueError as exc:
            raise RemoteError(
                f"{self._api.node}, an item of its stream: {exc}", node=self._api.node
            ) from None
        except (UnreadableMemory, MemoryError) as exc:
            raise self._result_lost("an item", exc, "") from None

    def _bind(self, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]:
        names = self._parameters
        if len(args) > len(names):
            positional = "" if len(names) == len(self._api.plan.parameters) else "positional "
            text = (
                f"takes {len(names)} {positional}argument{'' if len(names) == 1 else 's'}, got"
                f" {len(args)}"
            )
            raise self._misfit(text, [error_detail([], text, "unexpected_argument")])
        arguments = dict(zip(names, args, strict=False))
        for name in kwargs:
            if name in arguments:
                text = f"got {name!r} twice"
                raise self._misfit(text, [error_detail([name], text, "unexpected_argument")])
        arguments.update(kwargs)
        return arguments

    def _misfit(self, text: str, errors: list[ErrorDetail]) -> InvalidArguments:
        name = f"{self._api.node}.{self._api.plan.name}"
        said = name + text if text.startswith(":") else f"{name} {text}"
        return InvalidArguments(said, errors=errors, node=self._api.node)

    def _read(self, status: int, headers: Headers, body: bytes) -> object:
        if status == 200:
            try:
                return self._api.decode(body)
            except ValueError as exc:
                raise RemoteError(f"{self._api.node}: {exc}", node=self._api.node) from None
            except (UnreadableMemory, MemoryError) as exc:
                raise ResultLost(partial(self._result_lost, "the result", exc)) from None
        raise error_of(status, headers, body, self._api.node)

    def _read_files(
        self,
        files: FetchedFiles,
        context: CallContext | None,
        status: int,
        headers: Headers,
        body: bytes,
    ) -> object:
        """Read an answer that may have files in it, which the call gets that asks for them."""
        from graphserve.call.fetched import FULL, WrittenFile

        if isinstance(body, WrittenFile):  # (nobody else makes one)
            return Path(os.fsdecode(body))
        try:
            with files.reading(context, dict(headers).get(FILES) if status == 200 else None):
                return self._read(status, headers, body)
        except OSError as exc:
            node = self._api.node
            if exc.errno in FULL:
                raise self._no_room(
                    f"take the result of {node}.{self._api.plan.name}", str(exc.strerror)
                ) from None
            raise RemoteError(
                f"{node} answered, but its files cannot be taken: {exc.strerror}", node=node
            ) from None

    def _result_lost(
        self, what: str, exc: UnreadableMemory | MemoryError, why_no_retry: str
    ) -> CallError:
        node = self._api.node
        said = f"{described(exc) if isinstance(exc, MemoryError) else exc}{why_no_retry}"
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


class TypedClient:
    """Has the APIs of a dependency as attributes."""

    def __init__(self, node: str, apis: Mapping[str, RemoteApi[RequestT]]) -> None:
        self.__dict__.update(apis)
        self.__dict__["_graphserve_node"] = node

    def __getattr__(self, name: str) -> NoReturn:
        node = self.__dict__.get("_graphserve_node", "?")
        names = [key for key in self.__dict__ if not key.startswith("_graphserve_")]
        guess = closest(name, names)
        hint = f"did you mean {guess!r}?" if guess else f"its APIs are {', '.join(names)}"
        raise AttributeError(f"{node} has no API {name!r}; {hint}")

    def __repr__(self) -> str:
        return f"<client of {self.__dict__['_graphserve_node']}>"


class RemoteCall(NotAResult, Call[object], Generic[RequestT]):
    """Is a call under way: what `Call` promises.

    Args:
        loop_thread: the loop that it runs on.
        exchange: the call.
        name: the API, for messages.
        written: how user code writes the API, as in `self.counter.count`.
    """

    __slots__ = (
        "__weakref__",
        "_coroutine",
        "_exchange",
        "_loop_thread",
        "_misused",
        "_name",
        "_used",
        "_written",
    )

    def __init__(
        self, loop_thread: LoopThread, exchange: Exchange[RequestT], name: str, written: str
    ) -> None:
        self._loop_thread = loop_thread
        self._exchange = exchange
        self._name = name
        self._written = written
        self._used = False
        self._misused = False  # an error has told its user already
        self._coroutine: Generator[object, None, object] | None = None

    def __await__(self) -> Generator[object, None, object]:
        self._used = True
        if threading.get_ident() == self._loop_thread.thread:
            return self._exchange.reply.__await__()
        waiter = self._waiter()
        # who awaits it gave up
        waiter.add_done_callback(self._cancel_with)
        return asyncio.wrap_future(waiter).__await__()

    def result(self, timeout: float | None = None) -> object:
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

    def send(self, value: None) -> object:
        """Take a step, as a coroutine: `TaskGroup.create_task(call)` drives the call with it."""
        if self._coroutine is None:
            self._coroutine = iter(self.__await__())
            if shielded(asyncio.current_task()):
                self._exchange.shield()
        return self._coroutine.send(value)

    def throw(self, *args: Any) -> object:
        """Raise an exception where it stands, as a coroutine."""
        if self._coroutine is None:
            self._coroutine = iter(self.__await__())
        return self._coroutine.throw(*args)

    def close(self) -> None:
        """Give the call up, as a coroutine that is closed."""
        self.cancel()

    def _advice(self) -> str:
        return (
            f"{self._name}(...) is a call under way, not its result: write"
            f" `await {self._written}(...)`, or `.result()` behind it in a plain `def`"
        )

    def _note_misuse(self) -> None:
        self._misused = True

    def _cancel_with(self, waiter: concurrent.futures.Future[object]) -> None:
        if waiter.cancelled():
            self.cancel()

    def _waiter(self) -> concurrent.futures.Future[object]:
        waiter: concurrent.futures.Future[object] = concurrent.futures.Future()

        def copy(reply: Reply) -> None:
            if reply.cancelled():
                waiter.cancel()
            elif waiter.set_running_or_notify_cancel():
                error = reply.exception()
                if error is not None:
                    waiter.set_exception(error)
                else:
                    waiter.set_result(reply.result())

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
            if not self._misused:
                misuse.warn(f"a call to {self._name} was dropped without being awaited: cancelled")
            self.cancel()
        elif not (self._misused or reply.cancelled()) and reply.exception() is not None:
            misuse.warn(f"a call to {self._name} failed and nobody looked: {reply.exception()}")
