"""Declarations: `@service`, `@api` and `depends`. They describe, check what they can see, and start nothing."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, Literal, NoReturn, ParamSpec, TypeVar, cast, overload

from graphserve.errors import ConfigurationError, DeclarationError, UnknownOptionError
from graphserve.options import NAME, RESERVED_ROUTES, Batch, ServiceOptions, is_number
from graphserve.typed import AsyncApi, AsyncStreamApi, SyncApi, SyncStreamApi

P = ParamSpec("P")
R = TypeVar("R")
Y = TypeVar("Y")
T = TypeVar("T")

API = "__graphserve_api__"
SERVICE = "__graphserve_service__"
_SERVICE_OPTIONS = ("name", *ServiceOptions.__dataclass_fields__)
_API_OPTIONS = ("route", "batch", "idempotent", "timeout")


@dataclass(frozen=True)
class ApiDeclaration:
    """What `@api` was told about a method."""

    name: str
    route: str
    batch: Batch | None
    idempotent: bool
    timeout: float | None
    file: str
    line: int


@dataclass(frozen=True)
class ServiceDeclaration:
    """What `@service` was told about a class."""

    name: str
    options: ServiceOptions
    file: str
    line: int


class Dependency:
    """What `depends(...)` leaves on the class; the worker puts the client beside it on the instance."""

    def __init__(
        self,
        target: type | str | None,
        *,
        name: str | None,
        init: Mapping[str, Any],
        timeout: float | None,
        client: Literal["typed", "httpx.AsyncClient", "httpx.Client"],
        url: str | None,
        place: tuple[str, int],
    ) -> None:
        self.target, self.name, self.init, self.timeout = target, name, dict(init), timeout
        self.client, self.url, self.place = client, url, place
        self.attribute = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = name

    def __get__(self, instance: object | None, owner: type) -> Dependency:
        if instance is None:
            return self
        raise ConfigurationError(
            f"{owner.__name__}.{self.attribute} is not connected: this instance was made by hand. "
            f"Use `async with graphserve.local({owner.__name__}) as service:` or `graphserve.serve({owner.__name__})`."
        )


@overload
def service(cls: type[T]) -> type[T]: ...
@overload
def service(
    *,
    name: str | None = ...,
    workers: int | Literal["cpus"] = ...,
    concurrency: int | None = ...,
    queue: int = ...,
    timeout: float | None = ...,
    startup_timeout: float = ...,
    graceful_timeout: float = ...,
    watchdog: float | None = ...,
    max_requests: int | None = ...,
    max_memory: int | None = ...,
    gpus: float = ...,
    env: Mapping[str, str] = ...,
) -> Callable[[type[T]], type[T]]: ...
def service(cls: Any = None, **options: Any) -> Any:
    """Declare a class as a service: one node of the graph, with its own pool of workers.

    Args:
        cls: the class, when used bare (`@service`).
        **options: `name` (default: the class's name) and the fields of `ServiceOptions`, which explains them.

    Raises:
        DeclarationError: an option is unknown or out of range, or the class cannot be a service.

    Example:
        >>> @service(workers=2, concurrency=1)
        ... class Echo:
        ...     @api
        ...     async def echo(self, text: str) -> str:
        ...         return text
    """
    place = _caller()
    if cls is None:
        return lambda decorated: _declare_service(decorated, options, place)
    if not isinstance(cls, type):
        _refuse(f"@service decorates a class, not {cls!r}", place)
    return _declare_service(cls, options, place)


@overload
def api(fn: Callable[Concatenate[Any, P], AsyncIterator[Y]], /) -> AsyncStreamApi[P, Y]: ...
@overload
def api(fn: Callable[Concatenate[Any, P], Iterator[Y]], /) -> SyncStreamApi[P, Y]: ...
@overload
def api(fn: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> AsyncApi[P, R]: ...
@overload
def api(fn: Callable[Concatenate[Any, P], R], /) -> SyncApi[P, R]: ...
@overload
def api(
    *, route: str | None = ..., batch: Batch | None = ..., idempotent: bool = ..., timeout: float | None = ...
) -> _ApiDecorator: ...
def api(fn: Any = None, **options: Any) -> Any:
    """Declare a method as an API of its service: callers reach it over a socket, and the entry's over HTTP.

    Every parameter and the result carry an annotation: they decide what crosses the socket. A sync method
    runs in the worker's threads.

    Args:
        fn: the method, when used bare (`@api`).
        **options: `route` (default `/<method name>`), `batch` (a `Batch`: callers pass lists, executions join
            them), `idempotent` (True: may run again when a worker died) and `timeout` (seconds).

    Raises:
        DeclarationError: an option is unknown, an annotation is missing, or the route is taken by the HTTP contract.
    """
    place = _caller()
    if fn is None:
        return lambda decorated: _declare_api(decorated, options, place)
    return _declare_api(fn, options, place)


@overload
def depends(
    target: type[T], *, name: str | None = ..., init: Mapping[str, Any] | None = ..., timeout: float | None = ...,
    url: str | None = ...,
) -> type[T]: ...
@overload
def depends(
    target: str, *, name: str | None = ..., init: Mapping[str, Any] | None = ..., timeout: float | None = ...,
    url: str | None = ...,
) -> Any: ...
@overload
def depends(
    target: type | str | None = ..., *, client: type[T], name: str | None = ..., init: Mapping[str, Any] | None = ...,
    timeout: float | None = ..., url: str | None = ...,
) -> T: ...
def depends(
    target: Any = None,
    *,
    name: str | None = None,
    init: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    client: Any = None,
    url: str | None = None,
) -> Any:
    """Name another service that this one calls, as a class attribute: `recognizer = depends(Recognizer)`.

    Args:
        target: a service class, or its import string `"module:Class"` (the caller then never imports it).
        name: the name of the node, for a second node of the same class; default: the service's own name.
        init: keyword arguments of its `__init__`; JSON values.
        timeout: seconds that one call through this attribute may take.
        client: `httpx.AsyncClient` or `httpx.Client`: a real client whose `base_url` is the node, in place of
            typed calls.
        url: the http(s) address of a service that runs elsewhere; graphserve then starts no node for it.

    Raises:
        DeclarationError: the target is no service, or an argument has a value that cannot work.
    """
    place = _caller()
    kind = _client_kind(client, place)
    _check_target(target, url, kind, place)
    _check_dependency(name, init, timeout, url, place)
    return Dependency(target, name=name, init=init or {}, timeout=timeout, client=kind, url=url, place=place)


class _ApiDecorator:
    """The type of `@api(...)` with options; it never exists at run time."""

    @overload
    def __call__(self, fn: Callable[Concatenate[Any, P], AsyncIterator[Y]], /) -> AsyncStreamApi[P, Y]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Any, P], Iterator[Y]], /) -> SyncStreamApi[P, Y]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> AsyncApi[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Any, P], R], /) -> SyncApi[P, R]: ...
    def __call__(self, fn: Any, /) -> Any:
        raise NotImplementedError


def declaration(cls: Any) -> ServiceDeclaration | None:
    """What `@service` was told about `cls` itself (a plain subclass of a service is no service), or None."""
    return cast("ServiceDeclaration | None", vars(cls).get(SERVICE)) if isinstance(cls, type) else None


def apis(cls: type) -> dict[str, ApiDeclaration]:
    """The APIs of a service by method name, inherited ones included, in the order of their definition."""
    found: dict[str, ApiDeclaration] = {}
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            if spec := getattr(member, API, None):
                found[name] = spec
            else:
                found.pop(name, None)
    return found


def dependencies(cls: type) -> dict[str, Dependency]:
    """The dependencies of a service by attribute name, inherited ones included."""
    found: dict[str, Dependency] = {}
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            if isinstance(member, Dependency):
                found[name] = member
            else:
                found.pop(name, None)
    return found


def _declare_service(cls: type, options: dict[str, Any], place: tuple[str, int]) -> type:
    for option in options:
        if option not in _SERVICE_OPTIONS:
            _refuse(str(UnknownOptionError(option, _SERVICE_OPTIONS, f"@service on {cls.__name__}")), place)
    options = dict(options)
    name = options.pop("name", None) or cls.__name__
    if not isinstance(name, str) or not NAME.match(name):
        _refuse(f"a service's name is a letter, then letters, digits, '_' or '-', not {name!r}", place)
    try:
        settings = ServiceOptions().merged(options, f"@service on {cls.__name__}")
    except ConfigurationError as exc:
        _refuse(str(exc), place)
    found = apis(cls)
    if not found:
        _refuse(f"service {cls.__name__} has no API: decorate at least one method with @api", place)
    routes: dict[str, str] = {}
    for method, spec in found.items():
        if other := routes.setdefault(spec.route, method) != method and routes[spec.route]:
            _refuse(f"{cls.__name__}.{method} and .{other} have the same route {spec.route!r}", (spec.file, spec.line))
    if dependencies(cls) and cls.__dictoffset__ == 0:
        _refuse(f"{cls.__name__} has __slots__ and no __dict__, where its clients would go: add '__dict__'", place)
    setattr(cls, SERVICE, ServiceDeclaration(name, settings, *place))
    return cls


def _declare_api(fn: Any, options: dict[str, Any], place: tuple[str, int]) -> Any:
    if not inspect.isfunction(fn):
        _refuse(f"@api decorates a method written with def or async def, not {fn!r}; put @api innermost", place)
    place = (fn.__code__.co_filename, fn.__code__.co_firstlineno)
    where = f"@api on {fn.__qualname__}"
    for option in options:
        if option not in _API_OPTIONS:
            _refuse(str(UnknownOptionError(option, _API_OPTIONS, where)), place)
    _check_signature(fn, place)
    route = options.get("route") or f"/{fn.__name__}"
    if not isinstance(route, str) or not route.startswith("/") or any(c in route for c in "{}?# %") or not route.isascii():
        _refuse(f"{where}: a route is plain ASCII that starts with '/', without '{{', '?', '#', '%' or spaces: {route!r}", place)
    if route in RESERVED_ROUTES:
        _refuse(f"{where}: {route!r} belongs to the HTTP contract of every service; choose another name or route", place)
    batch, idempotent, timeout = options.get("batch"), options.get("idempotent", False), options.get("timeout")
    if batch is not None and not isinstance(batch, Batch):
        _refuse(f"{where}: batch is a Batch(max_size=…, max_wait=…), not {batch!r}", place)
    if not isinstance(idempotent, bool):
        _refuse(f"{where}: idempotent is True or False, not {idempotent!r}", place)
    if timeout is not None and not (is_number(timeout) and timeout > 0):
        _refuse(f"{where}: timeout is a number of seconds above 0, not {timeout!r}", place)
    setattr(fn, API, ApiDeclaration(fn.__name__, route, batch, idempotent, timeout, *place))
    return fn


def _check_signature(fn: Any, place: tuple[str, int]) -> None:
    parameters = list(inspect.signature(fn).parameters.values())
    if not parameters or parameters[0].kind not in (parameters[0].POSITIONAL_ONLY, parameters[0].POSITIONAL_OR_KEYWORD):
        _refuse(f"{fn.__qualname__} has no 'self': @api decorates a method of a service", place)
    for parameter in parameters[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            _refuse(f"{fn.__qualname__} takes {parameter}: name every parameter, callers send them by name", place)
        if parameter.kind is parameter.POSITIONAL_ONLY:
            _refuse(f"{fn.__qualname__}: {parameter.name!r} is positional-only; callers send parameters by name: drop the '/'", place)
        if parameter.annotation is parameter.empty:
            _refuse(f"{fn.__qualname__}: parameter {parameter.name!r} has no annotation; write e.g. '{parameter.name}: str'", place)
    if "return" not in fn.__annotations__:
        _refuse(f"{fn.__qualname__} has no return annotation; write '-> <type>:' ('-> None' if it returns nothing)", place)


def _check_target(target: Any, url: str | None, client: str, place: tuple[str, int]) -> None:
    if isinstance(target, str):
        module, _, name = target.partition(":")
        if not all(part.isidentifier() for part in module.split(".")) or not name.isidentifier():
            _refuse(f"depends({target!r}): an import string is 'module:Class'", place)
    elif target is None:
        if url is None:
            _refuse("depends() needs a service class, its import string, or url= with client=", place)
        if client == "typed":
            _refuse("depends(url=…) without a service class has no typed calls: add the class, or client=httpx.AsyncClient", place)
    elif declaration(target) is None:
        if isinstance(target, type):
            _refuse(f"depends({target.__name__}): {target.__name__} is no service; decorate it with @service", place)
        _refuse(f"depends({target!r}) takes a class decorated with @service, or 'module:Class'", place)


def _check_dependency(
    name: str | None, init: Mapping[str, Any] | None, timeout: float | None, url: str | None, place: tuple[str, int]
) -> None:
    if name is not None and not (isinstance(name, str) and NAME.match(name)):
        _refuse(f"depends(name={name!r}): a node's name is a letter, then letters, digits, '_' or '-'", place)
    if timeout is not None and not (is_number(timeout) and timeout > 0):
        _refuse(f"depends(timeout={timeout!r}): a number of seconds above 0", place)
    if init is not None:
        try:
            same = json.loads(json.dumps(init)) == init
        except (TypeError, ValueError):
            same = False
        if not isinstance(init, Mapping) or not same:
            _refuse(f"depends(init={init!r}): keyword arguments as JSON values (str, int, float, bool, None, list, dict)", place)
    if url is not None:
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            _refuse(f"depends(url={url!r}): an address that starts with http:// or https://", place)
        if init:
            _refuse("depends(url=…, init=…): a service that runs elsewhere is initialised there; drop init", place)


def _client_kind(client: Any, place: tuple[str, int]) -> Literal["typed", "httpx.AsyncClient", "httpx.Client"]:
    if client is None:
        return "typed"
    module, name = getattr(client, "__module__", ""), getattr(client, "__qualname__", "")
    if module.partition(".")[0] == "httpx" and name in ("AsyncClient", "Client"):
        return "httpx.AsyncClient" if name == "AsyncClient" else "httpx.Client"
    _refuse(f"depends(client={client!r}): httpx.AsyncClient or httpx.Client (the class, not an instance)", place)


def _refuse(message: str, place: tuple[str, int]) -> NoReturn:
    raise DeclarationError(message, *place) from None


def _caller() -> tuple[str, int]:
    frame = sys._getframe(2)
    return frame.f_code.co_filename, frame.f_lineno
