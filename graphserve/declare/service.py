"""Nodes of the graph as users declare them: `@service` and `@api`. They check what they can see,
and start nothing.
"""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

from graphserve.declare.declaration import (
    API,
    SERVICE,
    SOCKET,
    WARM_UP,
    ApiDeclaration,
    ServiceDeclaration,
    SourceLine,
    apis,
    caller,
    refuse,
    sockets,
)
from graphserve.declare.dependency import Dependency, dependencies
from graphserve.declare.misplaced import misplaced, misplaced_in_function
from graphserve.declare.mounts import Mount, MountProblem, conflict as mount_conflict, read_mounts
from graphserve.declare.options import NAME, RESERVED_ROUTES, Batch, ServiceOptions, is_number
from graphserve.declare.routes import (
    CALLS,
    METHODS,
    HttpMethod,
    conflict,
    methods_of,
    names_in,
    route_problem,
)
from graphserve.declare.typed import AsyncApi, AsyncStreamApi, OnlyAny, SyncApi, SyncStreamApi
from graphserve.errors import ConfigurationError, UnknownOptionError, closest

P = ParamSpec("P")
R = TypeVar("R")
Y = TypeVar("Y")
T = TypeVar("T")
Method = Callable[Concatenate[Any, P], R]  # what `@api` decorates; the first parameter is self

_OWN_OPTIONS = ("name", "warm_up", "mount", "middleware")  # that cannot be set from outside
_SERVICE_OPTIONS = (*_OWN_OPTIONS, *ServiceOptions.__dataclass_fields__)
_API_OPTIONS = ("method", "route", "batch", "idempotent", "timeout")


class ServiceDecorator(Protocol):
    """The type of `@service(...)` with options: the class stays what it is."""

    def __call__(self, cls: type[T], /) -> type[T]: ...


class ApiDecorator(Protocol):
    """The type of `@api(...)` with options."""

    @overload
    def __call__(self, fn: Method[P, OnlyAny], /) -> SyncApi[P, Any]: ...
    @overload
    def __call__(self, fn: Method[P, AsyncIterator[Y]], /) -> AsyncStreamApi[P, Y]: ...  # type: ignore[overload-overlap]  # pyright: ignore
    @overload
    def __call__(self, fn: Method[P, Iterator[Y]], /) -> SyncStreamApi[P, Y]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Method[P, Coroutine[Any, Any, R]], /) -> AsyncApi[P, R]: ...
    @overload
    def __call__(self, fn: Method[P, R], /) -> SyncApi[P, R]: ...


@overload
def service(cls: type[T], /) -> type[T]: ...
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
    version: str | None = ...,
    forward_headers: Sequence[str] = ...,
    cors: Sequence[str] = ...,
    warm_up: str | None = ...,
    mount: Mapping[str, object] = ...,
    middleware: Sequence[object] = ...,
) -> ServiceDecorator: ...
def service(*classes: object, **options: object) -> object:
    """Declare a class as a service: one node of the graph, with its own pool of workers.

    Each worker makes one instance: load what is expensive in `__init__`. It is entered
    (`__aenter__` or `__enter__`) and warmed up (`__warm_up__`) before the worker takes calls, and
    left when it stops.

    Args:
        *classes: the class, when used bare (`@service`).
        **options: by name, in `@service(...)`:
            name: of the node: a letter, then letters, digits, `_` or `-`. Default: the class's
                name.
            workers: how many processes, or `"cpus"`: one for each CPU. Default: 1.
            concurrency: calls that one worker executes at once, all APIs together. Default: sync
                and batched APIs 1 at a time in a node without dependencies and 16 in one with,
                async APIs without limit.
            queue: calls that may wait for the node; more are refused. Default: 1024.
            timeout: seconds that a call may take. Default: no limit of its own (the entry: 60).
            startup_timeout: seconds to import, and then again to initialise. Default: 300.
            graceful_timeout: seconds to end what is executed when a worker stops. Default: 30.
            watchdog: seconds after a call's deadline until a worker that still executes it is
                replaced, or after which a stuck event loop is; None: never. Default: 60.
            max_requests: calls after which a worker is replaced. Default: None.
            max_memory: bytes of resident memory above which a worker is replaced. Default: None.
            gpus: GPUs for each worker; a fraction shares one. Default: 0.
            env: environment variables of the workers, a dict of strings.
            forward_headers: of the entry: names of headers of its requests that travel down with
                each call. Default: none.
            cors: of the entry: origins whose pages may call it from browsers, such as
                `["https://app.example.com"]`, or `["*"]`: those of every page. Default: its own.
            version: of its APIs, for `/openapi.json` of the entry. Default: `0`.
            mount: of the entry: by path, such as `{"/ui": app, "/static": "folder"}`, what its port
                serves besides: ASGI and WSGI applications, import strings of such, folders of
                files. Default: none.
            middleware: of the entry: Starlette's `Middleware(...)` around everything at its port,
                the outermost first. Default: none.
            warm_up: the name of a method that runs once in each worker before it takes calls.
                Default: `__warm_up__`, where the class has one.

    Raises:
        DeclarationError: an option is unknown or out of range, or the class cannot be a service.

    Example:
        >>> @service(workers=2, concurrency=1)
        ... class Echo:
        ...     @api
        ...     async def echo(self, text: str) -> str:
        ...         return text
    """
    place = caller()
    if not classes:
        return lambda decorated: _declare_service(decorated, options, place)
    cls, *rest = classes
    if rest or not isinstance(cls, type):
        hint = f"; did you mean @service(name={cls!r})?" if isinstance(cls, str) else ""
        refuse(f"@service decorates a class and takes options by name, not {cls!r}{hint}", place)
    return _declare_service(cls, options, place)


@overload
def api(fn: Method[P, OnlyAny], /) -> SyncApi[P, Any]: ...
@overload
def api(fn: Method[P, AsyncIterator[Y]], /) -> AsyncStreamApi[P, Y]: ...  # type: ignore[overload-overlap]  # pyright: ignore
@overload
def api(fn: Method[P, Iterator[Y]], /) -> SyncStreamApi[P, Y]: ...  # type: ignore[overload-overlap]
@overload
def api(fn: Method[P, Coroutine[Any, Any, R]], /) -> AsyncApi[P, R]: ...
@overload
def api(fn: Method[P, R], /) -> SyncApi[P, R]: ...
@overload
def api(
    *,
    method: HttpMethod | Sequence[HttpMethod] = ...,
    route: str | None = ...,
    batch: Batch | None = ...,
    idempotent: bool = ...,
    timeout: float | None = ...,
) -> ApiDecorator: ...
def api(*functions: object, **options: object) -> object:
    """Declare a method as an API of its service: callers reach it over a socket, and the entry's
    over HTTP.

    Every parameter and the result carry an annotation: they decide what crosses the socket. A sync
    method runs in the worker's threads, an async one on its event loop. One that yields, and is
    annotated with `Iterator` or `AsyncIterator`, answers with a stream.

    Args:
        *functions: the method, when used bare (`@api`).
        **options: by name, in `@api(...)`:
            method: of HTTP, by which the entry's port takes it: `"GET"`, `"POST"`, `"PUT"`,
                `"PATCH"`, `"DELETE"`, or a list of some. With GET and DELETE the arguments are in
                the query. Default: `"POST"`, with the arguments in the body.
            route: the path at the entry's port; `{name}` in it is the parameter of that name.
                Default: `/` and the name of the method.
            batch: a `Batch`: callers pass lists, executions join them. Default: none.
            idempotent: whether a call may run again when its worker died. Default: False.
            timeout: seconds that a call may take. Default: no limit of its own.

    Raises:
        DeclarationError: an option is unknown or has a value that cannot work, an annotation is
            missing, or the route belongs to the HTTP contract.

    Example:
        >>> @service
        ... class Embedder:
        ...     @api(batch=Batch(max_size=64), idempotent=True)
        ...     def embed(self, texts: list[str]) -> list[list[float]]:
        ...         return [[float(len(text))] for text in texts]
    """
    place = caller()
    if not functions:
        return lambda decorated: _declare_api(decorated, options, place)
    fn, *rest = functions
    if rest or isinstance(fn, str):
        hint = f"; did you mean @api(route={fn!r})?" if isinstance(fn, str) else ""
        refuse(f"@api decorates a method and takes options by name, not {fn!r}{hint}", place)
    return _declare_api(fn, options, place)


def _declare_service(cls: object, options: dict[str, object], place: SourceLine) -> type:
    if not isinstance(cls, type):
        refuse(f"@service decorates a class, not {cls!r}", place)
    where = f"@service on {cls.__name__}"
    for option in options:
        if option not in _SERVICE_OPTIONS:
            refuse(str(UnknownOptionError(option, _SERVICE_OPTIONS, where)), place)
    settings = {option: value for option, value in options.items() if option not in _OWN_OPTIONS}
    name = options.get("name")
    name = cls.__name__ if name is None else name
    if not isinstance(name, str) or not NAME.match(name):
        refuse(
            f"{where}: a name is a letter, then letters, digits, '_' or '-', not {name!r}; give"
            " name='…'",
            place,
        )
    try:
        checked = ServiceOptions().merged(settings, where)
    except ConfigurationError as exc:
        refuse(str(exc), place)
    _check_class(cls, place)
    warm_up = _checked_warm_up(cls, options.get("warm_up"), where, place)
    mounts = _checked_mounts(cls, options.get("mount", {}), where, place)
    middleware = _checked_middleware(options.get("middleware", ()), where, place)
    setattr(cls, SERVICE, ServiceDeclaration(name, checked, *place, warm_up, mounts, middleware))
    return cls


def _checked_middleware(given: object, where: str, place: SourceLine) -> tuple[object, ...]:
    if not isinstance(given, (list, tuple)):
        refuse(
            f"{where}: middleware is a list of starlette.middleware.Middleware(...), not {given!r}",
            place,
        )
    for each in given:
        if (
            callable(getattr(each, "cls", None))
            and hasattr(each, "args")
            and hasattr(each, "kwargs")
        ):
            continue
        name = getattr(each, "__name__", None)
        hint = f": write Middleware({name}, …)" if isinstance(each, type) else f", not {each!r}"
        refuse(f"{where}: middleware has starlette.middleware.Middleware(...) in it{hint}", place)
    return tuple(given)


def _checked_mounts(cls: type, given: object, where: str, place: SourceLine) -> tuple[Mount, ...]:
    try:
        mounts = read_mounts(given, os.path.dirname(place[0]))
    except MountProblem as exc:
        refuse(f"{where}: {exc}", place)
    routes = {name: each.route for name, each in apis(cls).items()}
    routes |= {name: each.route for name, each in sockets(cls).items()}
    for method, route in routes.items():
        if (why := mount_conflict(mounts, f"{cls.__name__}.{method}", route)) is not None:
            refuse(why, place)
    return mounts


def _checked_warm_up(cls: type, given: object, where: str, place: SourceLine) -> str | None:
    if given is not None and not isinstance(given, str):
        refuse(
            f"{where}: warm_up is the name of a method, such as warm_up='prime', not {given!r}",
            place,
        )
    name = WARM_UP if given is None else given
    method = inspect.getattr_static(cls, name, None)
    if given is None and method is None:
        return None
    if not inspect.isfunction(method):
        methods = [each for each, found in vars(cls).items() if inspect.isfunction(found)]
        guess = closest(name, methods)
        hint = f"; did you mean {guess!r}?" if guess else ": write `async def " + name + "(self)`"
        refuse(f"{where}: {cls.__name__} has no method {name!r} to warm it up{hint}", place)
    if given is not None and name != WARM_UP and hasattr(cls, WARM_UP):
        refuse(f"{where}: warm_up={given!r}, and there is a {WARM_UP} too: keep one", place)
    if inspect.isasyncgenfunction(method) or inspect.isgeneratorfunction(method):
        refuse(f"{where}: {cls.__name__}.{name} warms up, and nobody takes what it yields", place)
    parameters = list(inspect.signature(method).parameters.values())
    needed = [
        each.name
        for each in parameters[1:]
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if not parameters or needed:
        refuse(
            f"{where}: {cls.__name__}.{name} warms up, and gets nothing but self: write `async def"
            f" {name}(self)`, and call what takes {', '.join(needed) or 'more'} from there",
            place,
        )
    return given


def _check_class(cls: type, place: SourceLine) -> None:
    for method, member in vars(cls).items():
        if not isinstance(member, (staticmethod, classmethod)):
            continue
        for mark, what in ((API, "an API"), (SOCKET, "a WebSocket")):
            if hasattr(member.__func__, mark):
                refuse(
                    f"{cls.__name__}.{method}: {what} is a method with 'self', no static or class"
                    " method",
                    place,
                )
    found = apis(cls)
    if not (found or sockets(cls)):
        refuse(f"service {cls.__name__} has no API: decorate at least one method with @api", place)
    _check_routes(cls, found)
    _check_socket_routes(cls)
    _check_life(cls, place)
    for attribute, member in vars(cls).items():
        inner = member.values() if isinstance(member, dict) else member
        holds = isinstance(member, (list, tuple, set, dict)) and attribute != "__annotations__"
        if holds and any(isinstance(item, Dependency) for item in inner):
            refuse(
                f"{cls.__name__}.{attribute} holds several depends(...): give each an attribute of"
                " its own, or write depends.each(Service, {key: init, …}) for several nodes of one"
                " class",
                place,
            )
    for where, dependency in misplaced(cls):
        _refuse_misplaced(where, dependency, place)
    if dependencies(cls) and cls.__dictoffset__ == 0:
        refuse(
            f"{cls.__name__} has __slots__ and no __dict__, where its clients would go: add"
            " '__dict__'",
            place,
        )


def _check_routes(cls: type, found: Mapping[str, ApiDeclaration]) -> None:
    for (other, first), (method, second) in itertools.combinations(found.items(), 2):
        shared = [each for each in second.methods if each in first.methods]
        if not shared or (why := conflict(first.route, second.route)) is None:
            continue
        both = f"{cls.__name__}.{other} and {cls.__name__}.{method}"
        by = "" if shared == ["POST"] else f" for {', '.join(shared)}"
        refuse(f"{both} {why}{by}; give one route='…'", (second.file, second.line))


def _check_socket_routes(cls: type) -> None:
    for (other, first), (method, second) in itertools.combinations(sockets(cls).items(), 2):
        if (why := conflict(first.route, second.route)) is not None:
            both = f"{cls.__name__}.{other} and {cls.__name__}.{method}"
            refuse(f"{both} {why}; give one route='…'", (second.file, second.line))


def _refuse_misplaced(where: str, dependency: Dependency | None, place: SourceLine) -> None:
    written, called = "depends(Service)", "self.dep.method(...)"
    if dependency is not None:
        written, called = dependency.written, dependency.called
    refuse(
        f"depends(...) in {where}: nothing connects it there. Write `dep = {written}` in the body"
        f" of the class, an attribute for each, and call `{called}`",
        dependency.place if dependency is not None else place,
    )


def _check_life(cls: type, place: SourceLine) -> None:
    if inspect.iscoroutinefunction(inspect.getattr_static(cls, "__init__")):
        refuse(
            f"{cls.__name__}.__init__ cannot be async: do what awaits in `async def"
            " __aenter__(self)`",
            place,
        )
    for sync, awaited, parameters in (
        ("__enter__", "__aenter__", "self"),
        ("__exit__", "__aexit__", "self, *exc"),
    ):
        if inspect.iscoroutinefunction(inspect.getattr_static(cls, sync, None)):
            refuse(
                f"{cls.__name__}.{sync} cannot be async: write `async def {awaited}({parameters})`",
                place,
            )


def _declare_api(fn: object, options: dict[str, object], place: SourceLine) -> object:
    if not inspect.isfunction(fn):
        refuse(
            f"@api decorates a method written with def or async def, not {fn!r}; put @api"
            " innermost",
            place,
        )
    written = inspect.unwrap(fn).__code__
    place = (written.co_filename, written.co_firstlineno)
    where = f"@api on {fn.__qualname__}"
    for option in options:
        if option not in _API_OPTIONS:
            refuse(str(UnknownOptionError(option, _API_OPTIONS, where)), place)
    check_method(fn, place)
    _check_signature(fn, place)
    route = checked_route(options.get("route"), fn, where, place)
    methods = _checked_methods(options.get("method", "POST"), where, place)
    batch = _checked_batch(fn, options.get("batch"), where, place)
    idempotent = options.get("idempotent", False)
    timeout = options.get("timeout")
    if not isinstance(idempotent, bool):
        refuse(f"{where}: idempotent is True or False, not {idempotent!r}", place)
    if timeout is not None and not (is_number(timeout) and timeout > 0):
        refuse(f"{where}: timeout is a number of seconds above 0, not {timeout!r}", place)
    declared = ApiDeclaration(fn.__name__, route, methods, batch, idempotent, timeout, *place)
    setattr(fn, API, declared)
    return fn


def check_method(fn: FunctionType, place: SourceLine, decorator: str = "@api") -> None:
    """Refuse to decorate what is no method of a class."""
    outer = fn.__qualname__.rpartition(".")[0]
    if not outer or outer.endswith("<locals>"):
        hint = ""
        if outer:
            hint = f" (a decorator between {decorator} and the method needs functools.wraps)"
        refuse(
            f"{decorator} on {fn.__name__}: this is a function; write it as a method of a @service"
            f" class{hint}",
            place,
        )
    if fn.__name__.startswith("__") and fn.__name__.endswith("__"):
        refuse(
            f"{decorator} on {fn.__qualname__}: Python itself calls methods of such names; choose"
            " another name",
            place,
        )
    parameters = list(inspect.signature(fn).parameters.values())
    named = parameters and parameters[0].kind in (
        parameters[0].POSITIONAL_ONLY,
        parameters[0].POSITIONAL_OR_KEYWORD,
    )
    if not named or (
        parameters[0].name != "self" and parameters[0].annotation is not parameters[0].empty
    ):
        refuse(f"{fn.__qualname__} has no 'self': write 'def {fn.__name__}(self, …)'", place)


def _check_signature(fn: FunctionType, place: SourceLine) -> None:
    for where, dependency in misplaced_in_function(fn):
        _refuse_misplaced(where, dependency, place)
    for parameter in list(inspect.signature(fn).parameters.values())[1:]:
        where, name = f"{fn.__qualname__}: parameter {parameter.name!r}", parameter.name
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            refuse(
                f"{fn.__qualname__} takes {parameter}: name every parameter, callers send them by"
                " name",
                place,
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            refuse(
                f"{where} is positional-only; callers send parameters by name: drop the '/'", place
            )
        if parameter.annotation is parameter.empty:
            refuse(f"{where} has no annotation; write e.g. '{name}: str'", place)
    if "return" not in fn.__annotations__:
        refuse(
            f"{fn.__qualname__} has no return annotation; write '-> <type>:' ('-> None' if it"
            " returns nothing)",
            place,
        )


def checked_route(given: object, fn: FunctionType, where: str, place: SourceLine) -> str:
    """Return the path that a method has at the port, or refuse it."""
    route = f"/{fn.__name__}" if given is None else given
    if (problem := route_problem(route)) is not None:
        refuse(f"{where}: {problem}", place)
    assert isinstance(route, str)
    if route in RESERVED_ROUTES or route.startswith((CALLS, "/docs/")):
        refuse(
            f"{where}: {route!r} belongs to the HTTP contract of every service; choose another name"
            " or route",
            place,
        )
    known = list(inspect.signature(fn).parameters)[1:]
    for name in names_in(route):
        if name not in known:
            refuse(
                f"{where}: {{{name}}} in its route is no parameter of it: write"
                f" 'def {fn.__name__}(self, {name}: str, …)'",
                place,
            )
    return route


def _checked_methods(given: object, where: str, place: SourceLine) -> tuple[HttpMethod, ...]:
    methods = methods_of(given)
    if methods is None:
        upper = methods_of(given.upper()) if isinstance(given, str) else None
        hint = f"; did you mean {upper[0]!r}?" if upper else ""
        refuse(
            f"{where}: method is one of {', '.join(METHODS)}, or a list of some of them, not"
            f" {given!r}{hint}",
            place,
        )
    return methods


def _checked_batch(fn: FunctionType, batch: object, where: str, place: SourceLine) -> Batch | None:
    if batch is None:
        return None
    if not isinstance(batch, Batch):
        refuse(f"{where}: batch is a Batch(max_size=…, max_wait=…), not {batch!r}", place)
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        refuse(f"{where}: a stream cannot be batched; drop batch=, or return a list", place)
    if len(inspect.signature(fn).parameters) < 2:
        refuse(
            f"{where}: a batched API takes a list, e.g. 'items: list[str]'; this one has no"
            " parameter",
            place,
        )
    return batch
