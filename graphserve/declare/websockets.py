"""WebSockets of the entry as users declare them: `@websocket`. It checks what it can see, and
starts nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, overload

from graphserve.declare.declaration import SOCKET, SocketDeclaration, SourceLine, caller, refuse
from graphserve.declare.options import SocketLimits
from graphserve.declare.service import check_method, checked_route
from graphserve.errors import ConfigurationError, UnknownOptionError

P = ParamSpec("P")
Talk = Callable[Concatenate[Any, P], Coroutine[Any, Any, None]]  # the first parameter is self

_OPTIONS = ("route", *SocketLimits.__dataclass_fields__)
_SIGNATURE = "async def {}(self, socket: WebSocket) -> None"


class OnlyAtThePort:
    """The type of a WebSocket as others have it, who cannot call it: checkers print its name."""

    __slots__ = ()


class SocketMethod(Generic[P]):
    """A WebSocket as an attribute of its class: a method on an instance, and no call there."""

    if TYPE_CHECKING:

        @overload
        def __get__(self, obj: None, owner: object) -> OnlyAtThePort: ...
        @overload
        def __get__(self, obj: object, owner: object) -> Callable[P, Coroutine[Any, Any, None]]: ...
        def __get__(self, obj: object, owner: object) -> object: ...


class SocketDecorator(Protocol):
    """The type of `@websocket(...)` with options."""

    def __call__(self, fn: Talk[P], /) -> SocketMethod[P]: ...


@overload
def websocket(fn: Talk[P], /) -> SocketMethod[P]: ...
@overload
def websocket(
    *,
    route: str | None = ...,
    max_size: int = ...,
    ping: float | None = ...,
    idle: float | None = ...,
    timeout: float | None = ...,
    compress: bool = ...,
) -> SocketDecorator: ...
def websocket(*functions: object, **options: object) -> object:
    """Declare a method as a WebSocket of the entry: it runs for as long as a client is connected.

    The method gets Starlette's `WebSocket`: it accepts, receives and sends, and calls dependencies
    meanwhile. It is cancelled when the client is gone. Further parameters are in the path and in
    the query, as those of an API with GET. It needs the extra `ws`.

    Args:
        *functions: the method, when used bare (`@websocket`).
        **options: by name, in `@websocket(...)`:
            route: the path at the entry's port; `{name}` in it is the parameter of that name.
                Default: `/` and the name of the method.
            max_size: bytes of one message of a client, unpacked; a longer one ends the connection
                with 1009. Default: 1 MiB.
            ping: seconds from one ping to the next; a client that sends nothing from one to the
                next is gone. None: none is sent. Default: 20.
            idle: seconds without a message either way, after which it is closed with 1001.
                Default: None, no limit.
            timeout: seconds after which it is closed with 1001; calls that it makes end by then.
                Default: None, no limit.
            compress: whether messages are compressed where the client can. Default: True.

    Raises:
        DeclarationError: an option is unknown or out of range, the method is not `async def`, or
            its parameters are not what a WebSocket has.

    Example:
        >>> from starlette.websockets import WebSocket
        >>> @service
        ... class Room:
        ...     @websocket(route="/rooms/{room}", idle=600)
        ...     async def talk(self, socket: WebSocket, room: str) -> None:
        ...         await socket.accept()
        ...         async for text in socket.iter_text():
        ...             await socket.send_text(f"{room}: {text}")
    """
    place = caller()
    if not functions:
        return lambda decorated: _declare(decorated, options, place)
    fn, *rest = functions
    if rest or isinstance(fn, str):
        hint = f"; did you mean @websocket(route={fn!r})?" if isinstance(fn, str) else ""
        refuse(f"@websocket decorates a method and takes options by name, not {fn!r}{hint}", place)
    return _declare(fn, options, place)


def _declare(fn: object, options: dict[str, object], place: SourceLine) -> object:
    if not inspect.isfunction(fn):
        refuse(
            f"@websocket decorates a method written with async def, not {fn!r}; put @websocket"
            " innermost",
            place,
        )
    written = inspect.unwrap(fn).__code__
    place = (written.co_filename, written.co_firstlineno)
    where = f"@websocket on {fn.__qualname__}"
    for option in options:
        if option not in _OPTIONS:
            refuse(str(UnknownOptionError(option, _OPTIONS, where)), place)
    check_method(fn, place, "@websocket")
    signature = _SIGNATURE.format(fn.__name__)
    if not inspect.iscoroutinefunction(fn):
        refuse(f"{where}: a WebSocket is `{signature}`, which awaits and returns nothing", place)
    parameters = list(inspect.signature(fn).parameters.values())[1:]
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        refuse(f"{where}: its first parameter is the socket: write `{signature}`", place)
    for each in parameters:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            refuse(f"{where} takes {each}: name every parameter, the URL has them by name", place)
        if each.annotation is each.empty:
            refuse(f"{where}: parameter {each.name!r} has no annotation: `{signature}`", place)
    route = checked_route(options.get("route"), fn, where, place)
    limits = {name: value for name, value in options.items() if name != "route"}
    try:
        # (checked there: they come from users)
        declared = SocketLimits(**limits)  # type: ignore[arg-type]
    except ConfigurationError as exc:
        refuse(f"{where}: {exc}", place)
    setattr(fn, SOCKET, SocketDeclaration(fn.__name__, route, declared, *place))
    return fn
