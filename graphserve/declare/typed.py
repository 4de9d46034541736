"""The static types of services: what mypy and pyright see of an API, and the two things a call may
return.

Reading an API from a class gives the remote callable, reading it from an instance the plain method.
Since `depends(T)` is typed as `type[T]`, `self.dep.method(...)` checks its arguments and its
awaited result with no plugin. Only `Call` and `Stream` exist at run time, as the abstract bases of
what `call/` and `run.py` return.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
Y_co = TypeVar("Y_co", covariant=True)
Here_co = TypeVar("Here_co", covariant=True)
There_co = TypeVar("There_co", covariant=True)


class WriteAwaitFirst:
    """The type of what a call does not have and its result may: checkers print its name."""

    __slots__ = ()


class WriteAsyncFor:
    """The type of what a stream does not have and a call has: checkers print its name."""

    __slots__ = ()


class Call(Coroutine[Any, Any, R_co]):
    """A call to a dependency that is under way: it was sent when it was made.

    Await it, hand it to `asyncio.gather` or `TaskGroup.create_task`, or wait for it in a thread
    with `.result()`. A call that is dropped without any of these is cancelled, with a warning.

    Example:
        >>> @service
        ... class Gateway:
        ...     echo = depends(Echo)
        ...
        ...     @api
        ...     async def both(self, first: str, second: str) -> str:
        ...         calls = [self.echo.echo(first), self.echo.echo(second)]  # side by side
        ...         return await calls[0] + await calls[1]
        ...
        ...     @api
        ...     def one(self, text: str) -> str:  # runs in a thread, so it may wait
        ...         return self.echo.echo(text).result(timeout=5.0)
    """

    __slots__ = ()

    @abstractmethod
    def result(self, timeout: float | None = None) -> R_co:
        """Wait in a thread for the answer.

        Args:
            timeout: seconds to wait at most; None waits until the deadline of the call.

        Raises:
            CallError: the call failed.
            TimeoutError: `timeout` passed first; the call is cancelled.
            RuntimeError: this is an event loop's own thread, which would stand still, and for ever
                if it is that of the call.
        """

    @abstractmethod
    def cancel(self) -> bool:
        """Cancel the call and everything below it; False when it has already ended."""

    @abstractmethod
    def __await__(self) -> Generator[Any, Any, R_co]: ...

    def _note_misuse(self) -> None:
        """Note that an error has said that it is to be awaited: no warning follows."""

    if TYPE_CHECKING:  # for operators mypy has a note of its own
        __aiter__: WriteAwaitFirst
        __getitem__: WriteAwaitFirst
        __iter__: WriteAwaitFirst
        __len__: WriteAwaitFirst


class Stream(AsyncIterator[Y_co], Iterator[Y_co]):
    """The items of a streaming API, in the order they are made: `async for`, or `for` in a thread.

    Example:
        >>> @service
        ... class Words:
        ...     @api
        ...     async def words(self, text: str) -> AsyncIterator[str]:
        ...         for word in text.split():
        ...             yield word
        >>> @service
        ... class Shouter:
        ...     words = depends(Words)
        ...
        ...     @api
        ...     async def shout(self, text: str) -> str:
        ...         return " ".join([word.upper() async for word in self.words.words(text)])
    """

    __slots__ = ()

    @abstractmethod
    async def aclose(self) -> None:
        """End the stream early; the generator behind it is closed."""

    if TYPE_CHECKING:
        __await__: WriteAsyncFor


class Api(Generic[Here_co, There_co]):
    """An API as an attribute of its class: a method here, on an instance; a call there, across a
    process boundary.
    """

    @overload
    def __get__(self, obj: None, owner: object) -> There_co: ...
    @overload
    def __get__(self, obj: object, owner: object) -> Here_co: ...
    def __get__(self, obj: object, owner: object) -> object:
        raise NotImplementedError


class OnlyAny:
    """A type that no method returns, so that only one with `-> Any` matches it."""

    __slots__ = ()


SyncApi = Api[Callable[P, R_co], Callable[P, Call[R_co]]]
AsyncApi = Api[Callable[P, Coroutine[Any, Any, R_co]], Callable[P, Call[R_co]]]
SyncStreamApi = Api[Callable[P, Iterator[Y_co]], Callable[P, Stream[Y_co]]]
AsyncStreamApi = Api[Callable[P, AsyncIterator[Y_co]], Callable[P, Stream[Y_co]]]
