"""Edges of the graph as a class declares them: `depends(...)`. Checks what it can see, and imports
nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, TypeVar, overload

from graphserve.declare.addresses import url_fault, without_credentials
from graphserve.declare.declaration import API, Place, caller, declaration, refuse
from graphserve.declare.options import NAME, ServiceOptions, is_number
from graphserve.errors import ConfigurationError, UnknownOptionError

T = TypeVar("T")
Client = Literal["typed", "httpx.AsyncClient", "httpx.Client"]
_ARGUMENTS = ("name", "init", "timeout", "client", "url")


class Dependency:
    """What `depends(...)` leaves on the class; the worker puts the client beside it on the
    instance.
    """

    def __init__(
        self,
        target: type | str | None,
        *,
        name: str | None,
        init: Mapping[str, object],
        timeout: float | None,
        client: Client,
        url: str | None,
        place: Place,
    ) -> None:
        self.target = target
        self.name = name
        self.init = dict(init)
        self.timeout = timeout
        self.client: Client = client
        self.url = url
        self.place = place
        # Where it stands, once a class has it.
        self.attribute = ""
        self.owner: type | None = None
        made.add(self)

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = name
        self.owner = owner

    def __get__(self, instance: object | None, owner: type) -> Dependency:
        if instance is None:
            return self
        raise ConfigurationError(
            f"{owner.__name__}.{self.attribute} is not connected: this instance was made by hand."
            f" Use `async with graphserve.local({owner.__name__}) as service:` or"
            f" `graphserve.serve({owner.__name__})`."
        )

    def __getattr__(self, name: str) -> NoReturn:
        file, line = self.__dict__.get("place", ("?", 0))
        raise AttributeError(
            f"{file}:{line}: depends(...) has no {name!r}: it stands in the body of a @service"
            " class (`dep = depends(Service)`), and a running instance calls it"
            f" (`self.dep.{name}(...)`)"
        )

    def __call__(self, *arguments: object, **named: object) -> NoReturn:
        self._refuse_use("called")

    def __await__(self) -> NoReturn:
        self._refuse_use("awaited")

    def __aiter__(self) -> NoReturn:
        self._refuse_use("iterated over")

    def __getitem__(self, key: object) -> NoReturn:
        self._refuse_use("indexed")

    async def __aenter__(self) -> NoReturn:
        self._refuse_use("entered")

    async def __aexit__(self, *exc: object) -> None:
        """Do nothing; `async with` looks for this method before it enters."""

    def _refuse_use(self, how: str) -> NoReturn:
        refuse(
            f"{self.written} is {how}, but it only says which service is called: write `dep ="
            f" {self.written}` in the body of a @service class, and call an API of it: `await"
            " self.dep.method(...)`",
            self.place,
        )

    @property
    def written(self) -> str:
        """Return how it was written, in short."""
        target = self.target
        shown = (
            target.__name__
            if isinstance(target, type)
            else "url=…"
            if target is None
            else repr(target)
        )
        return f"depends({shown})"


made: weakref.WeakSet[Dependency] = weakref.WeakSet()  # every one of this process


@overload
def depends(
    target: type[T],
    *,
    name: str | None = ...,
    init: Mapping[str, object] | None = ...,
    timeout: float | None = ...,
    url: str | None = ...,
) -> type[T]: ...
@overload
def depends(
    target: str,
    *,
    name: str | None = ...,
    init: Mapping[str, object] | None = ...,
    timeout: float | None = ...,
    url: str | None = ...,
) -> Any: ...
@overload
def depends(
    target: type | str | None = ...,
    *,
    client: type[T],
    name: str | None = ...,
    init: Mapping[str, object] | None = ...,
    timeout: float | None = ...,
    url: str | None = ...,
) -> T: ...
def depends(target: object = None, *rest: object, **options: object) -> object:
    """Declare which other service this one calls: `recognizer = depends(Recognizer)`.

    It stands in the body of a `@service` class. `self.recognizer.read(...)` is then a call to a
    worker of that service: it is sent at once; await it, or wait in a thread with `.result()`.

    Args:
        target: a service class, or its import string `"module:Class"` (the caller then never
            imports it).
        name: the name of the node, for a second node of the same class; default: the service's own
            name.
        init: keyword arguments of its `__init__`; JSON values.
        timeout: seconds that one call through this attribute may take.
        client: `httpx.AsyncClient` or `httpx.Client`: a real client whose `base_url` is the node,
            in place of typed calls.
        url: the http(s) address of a service that runs elsewhere, without query; graphserve then
            starts no node for it.

    Raises:
        DeclarationError: the target is no service, an argument is unknown or has a value that
            cannot work.

    Example:
        >>> @service
        ... class Gateway:
        ...     echo = depends(Echo, timeout=2.0)
        ...
        ...     @api
        ...     async def twice(self, text: str) -> str:
        ...         return await self.echo.echo(text + text)
    """
    place = caller()
    if rest:
        refuse(
            "depends(...) takes one service; write what follows it by name:"
            f" {', '.join(_ARGUMENTS)}",
            place,
        )
    for option in options:
        if option not in _ARGUMENTS and option in ServiceOptions.__dataclass_fields__:
            refuse(
                f"depends(...) takes no {option!r}: it is an option of the service,"
                f" @service({option}=…)",
                place,
            )
        if option not in _ARGUMENTS:
            refuse(str(UnknownOptionError(option, _ARGUMENTS, "depends(...)")), place)
    name, init, timeout, client, url = (options.get(option) for option in _ARGUMENTS)
    kind = _client_kind(client, place)
    return Dependency(
        _checked_target(target, url, kind, place),
        name=_checked_name(name, place),
        timeout=_checked_timeout(timeout, place),
        init=_checked_init(init, place),
        client=kind,
        url=_checked_url(url, init, place),
        place=place,
    )


def dependencies(cls: type) -> dict[str, Dependency]:
    """Return the dependencies of a service by attribute name, inherited ones included."""
    found: dict[str, Dependency] = {}
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            if isinstance(member, Dependency):
                if member.owner is None:  # the attribute was set when the class was there already
                    member.__set_name__(base, name)
                found[name] = member
            else:
                found.pop(name, None)
    return found


def _checked_target(target: object, url: object, client: Client, place: Place) -> type | str | None:
    if isinstance(target, str):
        _check_import_string(target, place)
        return target
    if target is None:
        if url is None:
            refuse(
                "depends() needs a service class, its import string 'module:Class', or url= with"
                " client=",
                place,
            )
        if client == "typed":
            refuse(
                "depends(url=…) without a service class has no typed calls: add the class, or"
                " client=httpx.AsyncClient",
                place,
            )
        return None
    if not isinstance(target, type) or declaration(target) is None:
        _refuse_target(target, place)
    return target


def _check_import_string(target: str, place: Place) -> None:
    module, colon, name = target.partition(":")
    if all(part.isidentifier() for part in module.split(".")) and name.isidentifier():
        return
    message = f"depends({target!r}): an import string is 'module:Class'"
    dotted, _, last = target.rpartition(".")
    if target.startswith(("http://", "https://")):
        message = (
            f"depends({target!r}): an address is given by name: depends(Service, url={target!r})"
        )
    elif module.endswith(".py") and colon:
        message += (
            ", the module as `import` names it:"
            f" {module[:-3].strip('./').replace('/', '.') + ':' + name!r}"
        )
    elif not colon and dotted and all(part.isidentifier() for part in target.split(".")):
        message += f"; did you mean {dotted + ':' + last!r}?"
    refuse(message, place)


def _refuse_target(target: object, place: Place) -> NoReturn:
    if isinstance(target, type):
        refuse(
            f"depends({target.__name__}): {target.__name__} is no service; decorate it with"
            " @service",
            place,
        )
    if declaration(type(target)) is not None:
        kind = type(target).__name__
        refuse(
            f"depends({kind}(…)) got an instance: write depends({kind}), with init={{…}} for its"
            " __init__ arguments",
            place,
        )
    if hasattr(target, API):
        written = str(getattr(target, "__qualname__", target))
        owner, _, method = written.rpartition(".")
        refuse(
            f"depends({written}) got an API: write `dep = depends({owner})`, call"
            f" `self.dep.{method}(…)`",
            place,
        )
    refuse(
        f"depends({target!r}) takes a class decorated with @service, or its import string"
        " 'module:Class'",
        place,
    )


def _checked_name(name: object, place: Place) -> str | None:
    if name is None or (isinstance(name, str) and NAME.match(name)):
        return name
    refuse(
        f"depends(name={name!r}): a node's name is a letter, then letters, digits, '_' or '-'",
        place,
    )


def _checked_timeout(timeout: object, place: Place) -> float | None:
    if timeout is None or (is_number(timeout) and timeout > 0):
        return timeout
    refuse(f"depends(timeout={timeout!r}): timeout is a number of seconds above 0", place)


def _checked_init(init: object, place: Place) -> Mapping[str, object]:
    if init is None:
        return {}
    import json

    try:
        same = json.loads(json.dumps(init, allow_nan=False)) == init
    except (TypeError, ValueError):
        same = False
    if not isinstance(init, Mapping) or not same:
        refuse(
            f"depends(init={init!r}): init is a dict of the keyword arguments of __init__, whose"
            " values are JSON (str, int, float, bool, None, list, dict with str keys)",
            place,
        )
    return init


def _checked_url(url: object, init: object, place: Place) -> str | None:
    if url is None:
        return None
    if not isinstance(url, str):
        refuse(
            f"depends(url=…): an address is a str, not a value of type {type(url).__name__}", place
        )
    if not url.startswith(("http://", "https://")):
        refuse(
            f"depends(url={without_credentials(url)!r}): an address starts with http:// or"
            " https://",
            place,
        )
    if (fault := url_fault(url)) is not None:
        refuse(f"depends(url={without_credentials(url)!r}): {fault}", place)
    if init:
        refuse(
            "depends(url=…, init=…): a service that runs elsewhere is initialised there; drop init",
            place,
        )
    return url


def _client_kind(client: object, place: Place) -> Client:
    if client is None:
        return "typed"
    module, name = getattr(client, "__module__", ""), getattr(client, "__qualname__", "")
    if module.partition(".")[0] == "httpx" and name in ("AsyncClient", "Client"):
        return "httpx.AsyncClient" if name == "AsyncClient" else "httpx.Client"
    refuse(
        f"depends(client={client!r}): client is httpx.AsyncClient or httpx.Client (the class, not"
        " an instance); leave it out for typed calls",
        place,
    )
