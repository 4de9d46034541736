"""Edges of the graph as a class declares them: `depends(...)` and `depends.each(...)`. Checks what
it can see, and imports nothing.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, TypeVar, overload

from graphserve.declare.addresses import credentials, url_fault, without_credentials
from graphserve.declare.declaration import API, SourceLine, caller, declaration, refuse
from graphserve.declare.options import NAME, ServiceOptions, is_int, is_number
from graphserve.errors import ConfigurationError, UnknownOptionError

T = TypeVar("T")
KeyFile = str | os.PathLike[str]
Client = Literal["typed", "httpx.AsyncClient", "httpx.Client"]
_ARGUMENTS = ("name", "init", "timeout", "client", "url", "attempts", "optional", "api_key_file")
_ARGUMENTS_OF_EACH = ("name", "timeout", "client", "url", "attempts", "optional", "api_key_file")
_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")  # the end of a node's name


class Dependency:
    """What `depends(...)` leaves on the class; the worker puts the client beside it on the
    instance: made by `call/clients.py`, its methods are `RemoteApi` of `call/remote.py`.

    Args:
        target: the service; None for an address without a class.
        inits: keyword arguments of `__init__` by key of the mapping that `depends.each(...)` stands
            for, one node each; `depends(...)` has one, and its key is None.
        name: of the node, or what comes before the key in the names of the nodes; None: the
            service's own.
        timeout: seconds that one call may take.
        client: what is injected.
        urls: the addresses of services that run elsewhere, by the same keys; none of services of
            this graph.
        key_files: where the API keys for these addresses are, by the same keys.
        attempts: how often a call may run at most; None: no limit of the dependency.
        optional: whether the calling service starts and is ready without it.
        place: where it was written.
    """

    def __init__(
        self,
        target: type | str | None,
        inits: Mapping[str | None, Mapping[str, object]],
        *,
        name: str | None,
        timeout: float | None,
        client: Client,
        urls: Mapping[str | None, str],
        key_files: Mapping[str | None, str],
        attempts: int | None,
        optional: bool,
        place: SourceLine,
    ) -> None:
        self.target = target
        self.inits = {key: dict(init) for key, init in inits.items()}
        self.name = name
        self.timeout = timeout
        self.client: Client = client
        self.urls = dict(urls)
        self.key_files = dict(key_files)
        self.attempts = attempts
        self.optional = optional
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
        if self._several:
            written, called = "depends.each(Service, {…})", f"self.dep[key].{name}(...)"
        else:
            written, called = "depends(Service)", f"self.dep.{name}(...)"
        raise AttributeError(
            f"{file}:{line}: depends(...) has no {name!r}: it stands in the body of a @service"
            f" class (`dep = {written}`), and a running instance calls it (`{called}`)"
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
            f" {self.called}`",
            self.place,
        )

    @property
    def _several(self) -> bool:
        return None not in self.__dict__.get("inits", {None: {}})

    @property
    def called(self) -> str:
        """Return how it is called."""
        return "self.dep[key].method(...)" if self._several else "self.dep.method(...)"

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
        return f"depends.each({shown}, {{…}})" if self._several else f"depends({shown})"


made: weakref.WeakSet[Dependency] = weakref.WeakSet()  # every one of this process


class Depends:
    """Declares the edges of the graph: there is one of it, `depends`."""

    def __init__(self) -> None:
        self.__doc__ = type(self).__call__.__doc__

    @overload
    def __call__(
        self,
        target: type[T],
        *,
        name: str | None = ...,
        init: Mapping[str, object] | None = ...,
        timeout: float | None = ...,
        attempts: int | None = ...,
        optional: bool = ...,
        url: str | None = ...,
        api_key_file: KeyFile | None = ...,
    ) -> type[T]: ...
    @overload
    def __call__(
        self,
        target: str,
        *,
        name: str | None = ...,
        init: Mapping[str, object] | None = ...,
        timeout: float | None = ...,
        attempts: int | None = ...,
        optional: bool = ...,
        url: str | None = ...,
        api_key_file: KeyFile | None = ...,
    ) -> Any: ...
    @overload
    def __call__(
        self,
        target: type | str | None = ...,
        *,
        client: type[T],
        name: str | None = ...,
        init: Mapping[str, object] | None = ...,
        timeout: float | None = ...,
        attempts: int | None = ...,
        optional: bool = ...,
        url: str | None = ...,
        api_key_file: KeyFile | None = ...,
    ) -> T: ...
    def __call__(self, target: object = None, *rest: object, **options: object) -> object:
        """Declare which other service this one calls: `recognizer = depends(Recognizer)`.

        It stands in the body of a `@service` class. `self.recognizer.read(...)` is then a call to a
        worker of that service: it is sent at once; await it, or wait in a thread with `.result()`.
        `depends.each` declares several nodes of one class.

        Args:
            target: a service class, or its import string `"module:Class"` (the caller then never
                imports it).
            name: the name of the node, for a second node of the same class; default: the service's
                own name.
            init: keyword arguments of its `__init__`; JSON values.
            timeout: seconds that one call through this attribute may take.
            client: `httpx.AsyncClient` or `httpx.Client`: a real client whose `base_url` is the
                node, in place of typed calls.
            url: the http(s) address of a service that runs elsewhere, without query; graphserve
                then starts no node for it.
            attempts: how often one call may run at most, where its API is idempotent and its worker
                dies; 1: never a second time. Default: the retry budget bounds it.
            optional: True: this service starts and is ready without that one; calls raise
                `Unavailable` until it is there.
            api_key_file: a file with the API key that the service at `url` wants, and nothing else;
                it is read at the start and with each reload. None: it wants none.

        Raises:
            DeclarationError: the target is not a service, an argument is unknown or has a value
                that cannot work.

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
        _check_options(options, _ARGUMENTS, "depends(...)", place)
        name, init, timeout, client, url, attempts, optional, key_file = (
            options.get(option) for option in _ARGUMENTS
        )
        kind = _client_kind(client, place)
        address = _checked_url(url, init, place)
        urls: dict[str | None, str] = {} if address is None else {None: address}
        return Dependency(
            _checked_target(target, url, kind, place),
            {None: _checked_init(init, place)},
            name=_checked_name(name, place),
            timeout=_checked_timeout(timeout, place),
            client=kind,
            urls=urls,
            key_files=_checked_key_files({None: key_file}, urls, kind, place),
            attempts=_checked_attempts(attempts, url, place),
            optional=_checked_optional(optional, url, place),
            place=place,
        )

    @overload
    def each(
        self,
        target: type[T],
        inits: Mapping[str, Mapping[str, object]],
        /,
        *,
        name: str | None = ...,
        timeout: float | None = ...,
        attempts: int | None = ...,
        optional: bool = ...,
    ) -> Mapping[str, type[T]]: ...
    @overload
    def each(
        self,
        target: str,
        inits: Mapping[str, Mapping[str, object]],
        /,
        *,
        name: str | None = ...,
        timeout: float | None = ...,
        attempts: int | None = ...,
        optional: bool = ...,
    ) -> Mapping[str, Any]: ...
    @overload
    def each(
        self,
        target: type | str,
        inits: Mapping[str, Mapping[str, object]],
        /,
        *,
        client: type[T],
        name: str | None = ...,
        timeout: float | None = ...,
        attempts: int | None = ...,
        optional: bool = ...,
    ) -> Mapping[str, T]: ...
    @overload
    def each(
        self,
        target: type[T],
        /,
        *,
        url: Mapping[str, str],
        api_key_file: KeyFile | Mapping[str, KeyFile] | None = ...,
        name: str | None = ...,
        timeout: float | None = ...,
    ) -> Mapping[str, type[T]]: ...
    @overload
    def each(
        self,
        target: str,
        /,
        *,
        url: Mapping[str, str],
        api_key_file: KeyFile | Mapping[str, KeyFile] | None = ...,
        name: str | None = ...,
        timeout: float | None = ...,
    ) -> Mapping[str, Any]: ...
    @overload
    def each(
        self,
        target: type | str | None = ...,
        /,
        *,
        client: type[T],
        url: Mapping[str, str],
        api_key_file: KeyFile | Mapping[str, KeyFile] | None = ...,
        name: str | None = ...,
        timeout: float | None = ...,
    ) -> Mapping[str, T]: ...
    def each(self, target: object = None, *rest: object, **options: object) -> object:
        """Declare several nodes of one class, of which a call chooses one by its key.

        `readers = depends.each(Reader, {"en": {"lang": "en"}, "ja": {"lang": "ja"}})` makes the
        nodes `Reader-en` and `Reader-ja`, each with workers of its own. On a running instance it is
        a mapping: `self.readers[language].read(...)`; a key that it does not have raises KeyError,
        whose message lists those that it has.

        Args:
            target: a service class, or its import string `"module:Class"`.
            *rest: one mapping: by key, the keyword arguments of its `__init__`, JSON values; `{}`
                where there are none. A key has letters, digits, `_` and `-`, and ends the name of
                its node.
            **options: by name:
                name: what comes before the key in the names of the nodes. Default: the service's
                    own name.
                timeout: seconds that one call may take.
                attempts: how often one call may run at most.
                optional: whether this service starts and is ready without these nodes.
                client: `httpx.AsyncClient` or `httpx.Client`: real clients in place of typed calls.
                url: in place of the mapping above: by key, the http(s) address of a service that
                    runs elsewhere.
                api_key_file: a file with the API key that all of these want, or by key one each.

        Raises:
            DeclarationError: the target is not a service, a key or a value cannot be one, or an
                argument is unknown.

        Example:
            >>> @service
            ... class Gateway:
            ...     echoes = depends.each(Echo, {"a": {}, "b": {}})
            ...
            ...     @api
            ...     async def ask(self, which: str, text: str) -> str:
            ...         return await self.echoes[which].echo(text)
        """
        place = caller()
        if "init" in options:
            refuse(
                "depends.each(...) takes no init=: the mapping has for each key what __init__ gets",
                place,
            )
        _check_options(options, _ARGUMENTS_OF_EACH, "depends.each(...)", place)
        name, timeout, client, url, attempts, optional, key_file = (
            options.get(option) for option in _ARGUMENTS_OF_EACH
        )
        if len(rest) + ("url" in options) != 1:
            refuse(
                "depends.each(...) takes one service and one mapping, by key what its __init__"
                ' gets: depends.each(Service, {"a": {…}, "b": {…}}); or where each runs, if that is'
                ' elsewhere: depends.each(Service, url={"a": "https://…", "b": "https://…"})',
                place,
            )
        kind = _client_kind(client, place)
        if target is None and url is None:
            refuse("depends.each() needs a service class, or its import string", place)
        urls = _checked_urls(url, place) if "url" in options else {}
        inits = _checked_inits(rest[0], place) if rest else {key: {} for key in urls}
        key_files = key_file if isinstance(key_file, Mapping) else dict.fromkeys(urls, key_file)
        if key_file is not None and not urls:
            key_files = {None: key_file}
        return Dependency(
            _checked_target(target, url, kind, place),
            inits,
            name=_checked_name(name, place),
            timeout=_checked_timeout(timeout, place),
            client=kind,
            urls=urls,
            key_files=_checked_key_files(key_files, urls, kind, place),
            attempts=_checked_attempts(attempts, url, place),
            optional=_checked_optional(optional, url, place),
            place=place,
        )


depends = Depends()


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


def _check_options(
    options: Mapping[str, object], known: tuple[str, ...], where: str, place: SourceLine
) -> None:
    for option in options:
        if option not in known and option in ServiceOptions.__dataclass_fields__:
            refuse(
                f"{where} takes no {option!r}: it is an option of the service,"
                f" @service({option}=…)",
                place,
            )
        if option not in known:
            refuse(str(UnknownOptionError(option, known, where)), place)


def _checked_target(
    target: object, url: object, client: Client, place: SourceLine
) -> type | str | None:
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


def _check_import_string(target: str, place: SourceLine) -> None:
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


def _refuse_target(target: object, place: SourceLine) -> NoReturn:
    if isinstance(target, type):
        refuse(
            f"depends({target.__name__}): {target.__name__} is not a service; decorate it with"
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


def _checked_name(name: object, place: SourceLine) -> str | None:
    if name is None or (isinstance(name, str) and NAME.match(name)):
        return name
    refuse(
        f"depends(name={name!r}): a node's name is a letter, then letters, digits, '_' or '-'",
        place,
    )


def _checked_timeout(timeout: object, place: SourceLine) -> float | None:
    if timeout is None or (is_number(timeout) and timeout > 0):
        return timeout
    refuse(f"depends(timeout={timeout!r}): timeout is a number of seconds above 0", place)


def _checked_attempts(attempts: object, url: object, place: SourceLine) -> int | None:
    if attempts is None:
        return None
    if not is_int(attempts) or attempts < 1:
        refuse(f"depends(attempts={attempts!r}): attempts is a whole number from 1", place)
    if url is not None:
        refuse(
            "depends(url=…, attempts=…): a call to a service that runs elsewhere never runs again;"
            " drop attempts",
            place,
        )
    return attempts


def _checked_optional(optional: object, url: object, place: SourceLine) -> bool:
    if optional is None:
        return False
    if not isinstance(optional, bool):
        refuse(f"depends(optional={optional!r}): optional is True or False", place)
    if optional and url is not None:
        refuse(
            "depends(url=…, optional=True): nobody waits for a service that runs elsewhere; drop"
            " optional",
            place,
        )
    return optional


def _checked_init(init: object, place: SourceLine) -> Mapping[str, object]:
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


def _checked_inits(inits: object, place: SourceLine) -> dict[str | None, Mapping[str, object]]:
    if not isinstance(inits, Mapping) or not inits:
        refuse(
            f"depends.each(…, {inits!r}): write a mapping with a key for each node, and by key what"
            ' its __init__ gets, {} where that is nothing: {"a": {…}, "b": {…}}',
            place,
        )
    checked: dict[str | None, Mapping[str, object]] = {}
    for key, init in inits.items():
        _check_key(key, place)
        if not isinstance(init, Mapping):
            refuse(
                f"depends.each(…): {key!r} has {init!r}, where a dict of the keyword arguments of"
                " __init__ belongs ({} if it takes none)",
                place,
            )
        checked[key] = _checked_init(init, place)
    return checked


def _checked_urls(urls: object, place: SourceLine) -> dict[str | None, str]:
    if not isinstance(urls, Mapping) or not urls:
        refuse(
            f"depends.each(…, url={urls!r}): write a mapping with a key for each service, by key"
            ' its address: url={"a": "https://…", "b": "https://…"}',
            place,
        )
    checked: dict[str | None, str] = {}
    for key, url in urls.items():
        _check_key(key, place)
        address = _checked_url(url, None, place)
        if address is None:
            refuse(f"depends.each(…): {key!r} has no address", place)
        checked[key] = address
    return checked


def _check_key(key: object, place: SourceLine) -> None:
    if not isinstance(key, str) or not _KEY.match(key):
        refuse(
            f"depends.each(…): the key {key!r} cannot end the name of a node: write letters,"
            " digits, '_' or '-'",
            place,
        )


def _checked_url(url: object, init: object, place: SourceLine) -> str | None:
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


def _checked_key_files(
    files: Mapping[str | None, object],
    urls: Mapping[str | None, str],
    client: Client,
    place: SourceLine,
) -> dict[str | None, str]:
    checked: dict[str | None, str] = {}
    for key, file in files.items():
        if file is None:
            continue
        if not isinstance(file, (str, os.PathLike)) or not os.fspath(file):
            refuse(
                "depends(api_key_file=…): write the path of a file that holds the API key, not a"
                f" value of type {type(file).__name__}",
                place,
            )
        if not urls:
            refuse(
                "depends(api_key_file=…) without url=: only a service that runs elsewhere asks for"
                " an API key; drop api_key_file",
                place,
            )
        if key not in urls:
            refuse(f"depends.each(api_key_file=…): there is no url with the key {key!r}", place)
        if client != "typed" and credentials(urls[key])[1] is not None:
            refuse(
                "depends(client=…, api_key_file=…): the address has a user and a password, which"
                " are sent as the header Authorization, as the key is; leave one of them out",
                place,
            )
        checked[key] = os.path.abspath(os.fsdecode(file))
    return checked


def _client_kind(client: object, place: SourceLine) -> Client:
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
