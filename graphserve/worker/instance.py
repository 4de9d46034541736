"""The life of the user's object in a worker: made, entered, warmed up, left.

Runs in workers, and in `local()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeGuard, TypeVar

from graphserve.declare.declaration import warm_up_of
from graphserve.errors import StartupError
from graphserve.graph.plan import NodePlan
from graphserve.isolation import forked
from graphserve.logs.exception_text import described
from graphserve.logs.tracebacks import formatted
from graphserve.system import stack
from graphserve.wire.init_arguments import converted

T = TypeVar("T")


class InstanceThreads(ThreadPoolExecutor):
    """The threads that an instance is made in and its sync APIs run in; it knows which they are.

    Args:
        size: the most threads.
        name: begins their names.
    """

    def __init__(self, size: int, name: str) -> None:
        started: list[threading.Thread] = []
        self.started = started
        # (not a method: the threads would keep this alive, which ends them when nobody needs it)
        super().__init__(
            size,
            thread_name_prefix=name,
            initializer=lambda: started.append(threading.current_thread()),
        )


class ServiceInstance:
    """One instance of a service.

    Args:
        node: what to make, with which `init`.
        cls: its class.
        threads: the pool that `__init__`, `__enter__` and sync APIs run in; with one thread, all in
            the same.
        inject: puts the clients on the instance, before `__init__`.
        on_warm_up: called before it is warmed up.
    """

    def __init__(
        self,
        node: NodePlan,
        cls: type,
        threads: ThreadPoolExecutor,
        inject: Callable[[object], None],
        on_warm_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.node = node
        self.cls = cls
        self.threads = threads
        self.inject = inject
        self.on_warm_up = on_warm_up
        self.instance: object = None
        self._arguments: dict[str, object] = {}

    async def start(self) -> None:
        """Run `__new__` and `__init__` in a thread, then `__aenter__` on the loop or `__enter__` in
        a thread, then warm it up.

        Raises:
            StartupError: one of them raised; `.log` is the traceback.
        """
        if self.node.init:
            self._arguments = await self._step("__init__", self._in_thread(self._converted))
        self.instance = await self._step("__new__", self._in_thread(self._bare))
        self.inject(self.instance)
        await self._step("__init__", self._in_thread(self._initialise))
        if hasattr(self.cls, "__aenter__"):
            await self._step("__aenter__", self._awaited(self._method("__aenter__"), "__aenter__"))
        elif hasattr(self.cls, "__enter__"):
            await self._step("__enter__", self._in_thread(self._method("__enter__")))
        if (name := warm_up_of(self.cls)) is not None:
            await self._warm_up(name)

    async def _warm_up(self, name: str) -> None:
        """Run the method that warms up, on the loop if it is async and in a thread if not; what was
        entered is left if it raises.
        """
        self.on_warm_up()
        method = self._method(name)
        try:
            if inspect.iscoroutinefunction(method):
                await self._step(name, self._awaited(method, name))
            else:
                returned = await self._step(name, self._in_thread(method))
                if _is_awaitable(returned):  # a decorator made a plain function of an async one
                    await self._step(name, self._awaited(lambda: returned, name))
        except StartupError:
            # (what the way out raises is of no interest beside it)
            with contextlib.suppress(Exception):
                await self.stop()
            raise

    async def stop(self) -> None:
        """Run `__aexit__` on the loop or `__exit__` in a thread; what they raise is raised, as an
        Exception.
        """
        born = forked.forks
        try:
            if hasattr(self.cls, "__aexit__"):
                leave = self._method("__aexit__")
                await _awaitable(leave(None, None, None), "__aexit__")
            elif hasattr(self.cls, "__exit__"):
                await self._in_thread(partial(self._method("__exit__"), None, None, None))
        except BaseException as exc:
            if forked.forks != born:
                forked.leave(f"{self.cls.__qualname__}.__aexit__", exc)
            if isinstance(exc, Exception) or _is_cancelled(exc):
                raise
            raise RuntimeError(f"it raised {exc!r}") from exc

    async def _awaited(self, method: Callable[..., object], name: str) -> None:
        running = _awaitable(method(), name)
        with stack.awaiting(running):
            await running

    def _bare(self) -> object:
        make: Callable[..., object] = self.cls.__new__
        return make(self.cls) if make is object.__new__ else make(self.cls, **self._arguments)

    def _initialise(self) -> None:
        self._method("__init__")(**self._arguments)

    def _method(self, name: str) -> Callable[..., object]:
        """Return a method of the instance that Python itself would call, as user code has it."""
        method: Callable[..., object] = getattr(self.instance, name)
        return method

    def _converted(self) -> dict[str, object]:
        return converted(self.cls, self.node.init)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self.threads, _without_stop_iteration, call
        )

    async def _step(self, name: str, step: Awaitable[T]) -> T:
        born = forked.forks
        try:
            made = await step
        except BaseException as exc:
            if forked.forks != born:
                forked.leave(f"{self.cls.__qualname__}.{name}", exc)
            if _is_cancelled(exc):
                raise
            exc = exc.__cause__ if isinstance(exc.__cause__, StopIteration) else exc
            raise StartupError(self.words(name, exc), self.node.name, formatted(exc)) from exc
        if forked.forks != born:
            forked.leave(f"{self.cls.__qualname__}.{name}", None)
        return made

    def words(self, name: str, exc: BaseException) -> str:
        """Return what a method of the class raised, as a sentence."""
        node = self.node.name
        cls = self.cls.__qualname__
        where = f"{cls}.{name}" if cls == node else f"{node}: {cls}.{name}"
        return f"{where} raised {described(exc)}"


def _awaitable(returned: object, name: str) -> Awaitable[object]:
    if not _is_awaitable(returned):
        sync = name.replace("__a", "__")
        raise TypeError(
            f"it is awaited, and returned {returned!r}: write `async def {name}`, or `def {sync}`"
            " for a thread"
        )
    return returned


def _is_awaitable(value: object) -> TypeGuard[Awaitable[object]]:
    return inspect.isawaitable(value)


def _without_stop_iteration(call: Callable[[], T]) -> T:
    born = forked.forks
    try:
        made = call()
    except BaseException as exc:
        if forked.forks != born:
            forked.leave("the life of a service", exc)
        # a forgotten default of next(…); no future takes it, so nobody would hear
        if isinstance(exc, StopIteration):
            raise RuntimeError(f"it raised {exc!r}") from exc
        raise
    if forked.forks != born:
        forked.leave("the life of a service", None)
    return made


def _is_cancelled(exc: BaseException) -> bool:
    """Return whether somebody cancelled us; else user code raised the CancelledError by itself."""
    task = asyncio.current_task()
    return isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling() > 0
