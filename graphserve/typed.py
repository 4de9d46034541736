"""The static types of services: what mypy and pyright see of an API, and the two things a call may return.

Reading an API from a class gives the remote callable, reading it from an instance the plain method. Since
`depends(T)` is typed as `type[T]`, `self.dep.method(...)` checks its arguments and its awaited result with no
plugin. Only `Call` and `Stream` exist at run time, as the abstract bases of what `call/` and `run.py` return.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

P = ParamSpec("P")
R = TypeVar("R")
Y = TypeVar("Y")


class Call(Coroutine[Any, Any, R]):
    """A call to a dependency that is under way: it was sent when it was made.

    Await it, hand it to `asyncio.gather` or `TaskGroup.create_task`, or wait for it in a thread with
    `.result()`. A call that is dropped without any of these is cancelled, with a warning.
    """

    __slots__ = ()

    @abstractmethod
    def result(self, timeout: float | None = None) -> R:
        """Wait in a thread for the answer.

        Args:
            timeout: seconds to wait at most; None waits until the deadline of the call.

        Raises:
            CallError: the call failed.
            TimeoutError: `timeout` passed first; the call is cancelled.
            RuntimeError: this is the event loop's own thread, where waiting would never end.
        """

    @abstractmethod
    def cancel(self) -> bool:
        """Cancel the call and everything below it; False when it has already ended."""

    @abstractmethod
    def __await__(self) -> Generator[Any, Any, R]: ...


class Stream(AsyncIterator[Y], Iterator[Y]):
    """The items of a streaming API, in the order they are made: `async for`, or `for` in a thread."""

    __slots__ = ()

    @abstractmethod
    async def aclose(self) -> None:
        """End the stream early; the generator behind it is closed."""


class Remote(Protocol[P, R]):
    """An API as a caller of the service sees it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]: ...


class RemoteStream(Protocol[P, Y]):
    """A streaming API as a caller of the service sees it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Stream[Y]: ...


class SyncApi(Generic[P, R]):
    """The type of an API that is a plain method."""

    @overload
    def __get__(self, obj: None, owner: Any) -> Remote[P, R]: ...
    @overload
    def __get__(self, obj: object, owner: Any) -> Callable[P, R]: ...
    def __get__(self, obj: Any, owner: Any) -> Any:
        raise NotImplementedError


class AsyncApi(Generic[P, R]):
    """The type of an API that is a coroutine method."""

    @overload
    def __get__(self, obj: None, owner: Any) -> Remote[P, R]: ...
    @overload
    def __get__(self, obj: object, owner: Any) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, obj: Any, owner: Any) -> Any:
        raise NotImplementedError


class AsyncStreamApi(Generic[P, Y]):
    """The type of an API that is an asynchronous generator."""

    @overload
    def __get__(self, obj: None, owner: Any) -> RemoteStream[P, Y]: ...
    @overload
    def __get__(self, obj: object, owner: Any) -> Callable[P, AsyncIterator[Y]]: ...
    def __get__(self, obj: Any, owner: Any) -> Any:
        raise NotImplementedError


class SyncStreamApi(Generic[P, Y]):
    """The type of an API that is a generator."""

    @overload
    def __get__(self, obj: None, owner: Any) -> RemoteStream[P, Y]: ...
    @overload
    def __get__(self, obj: object, owner: Any) -> Callable[P, Iterator[Y]]: ...
    def __get__(self, obj: Any, owner: Any) -> Any:
        raise NotImplementedError
