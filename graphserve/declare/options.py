"""The options of a service and of an API: their names, types, defaults and bounds.

Knows no process.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from graphserve.declare.origins import EXPECTED, are_origins
from graphserve.errors import ConfigurationError, DeclarationError, UnknownOptionError
from graphserve.system.frozen import dataclass
from graphserve.wire.headers import may_be_forwarded

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z")
HIDDEN = "***"  # stands for a secret in descriptions
# seconds that a call may take at the entry, where neither flag nor decorator says otherwise
ENTRY_TIMEOUT = 60.0
OPENAPI_ROUTE = "/openapi.json"
RESERVED_ROUTES = frozenset({"/livez", "/readyz", OPENAPI_ROUTE, "/docs"})


@dataclasses.dataclass(frozen=True)  # (users see its signature)
class Batch:
    """Join the calls of several callers into one execution: `@api(batch=Batch(...))`.

    Callers pass lists (or arrays, which are joined along their first axis), and each gets the
    results of its own items; the method runs once for all of them.

    Args:
        max_size: items that one execution gets at most, from 1; the items of all callers together.
        max_wait: seconds after the first item that an execution waits for more, from 0.

    Raises:
        DeclarationError: a value is out of range.

    Example:
        >>> @service(concurrency=1)
        ... class Embedder:
        ...     @api(batch=Batch(max_size=64, max_wait=0.002))
        ...     def embed(self, texts: list[str]) -> list[int]:
        ...         return [len(text) for text in texts]
    """

    max_size: int = 32
    max_wait: float = 0.005

    if not TYPE_CHECKING:  # type checkers know the fields already

        def __new__(cls, *values: object, **options: object) -> Batch:
            frame = sys._getframe(1)
            place, known = (
                (frame.f_code.co_filename, frame.f_lineno),
                list(cls.__dataclass_fields__),
            )
            if len(values) > len(known):
                raise DeclarationError(
                    f"Batch takes {' and '.join(known)}, not {len(values)} values", *place
                )
            for option in options:
                if option not in known:
                    raise DeclarationError(str(UnknownOptionError(option, known, "Batch")), *place)
            return super().__new__(cls)

    def __post_init__(self) -> None:
        frame = sys._getframe(2)  # who called the generated __init__
        place = (frame.f_code.co_filename, frame.f_lineno)
        if not is_int(self.max_size) or self.max_size < 1:
            raise DeclarationError(
                f"Batch(max_size=…) is a whole number from 1, not {self.max_size!r}", *place
            )
        if not is_number(self.max_wait) or self.max_wait < 0:
            raise DeclarationError(
                f"Batch(max_wait=…) is a number of seconds from 0, not {self.max_wait!r}", *place
            )


@dataclass(frozen=True)
class SocketLimits:
    """What a client of a WebSocket may do: the options of `@websocket`.

    Args:
        max_size: bytes of one message that comes, unpacked.
        ping: seconds from one ping to the next; a client that is silent from one to the next is
            gone. None: none is sent.
        idle: seconds without a message either way, after which it is closed. None: no limit.
        timeout: seconds after which it is closed. None: no limit.
        compress: whether messages are compressed (permessage-deflate) where the client can.

    Raises:
        ConfigurationError: a value is out of range.
    """

    max_size: int = 1024 * 1024
    ping: float | None = 20.0
    idle: float | None = None
    timeout: float | None = None
    compress: bool = True

    def __post_init__(self) -> None:
        if not _count(self.max_size):
            raise ConfigurationError(f"max_size is a number of bytes from 1, not {self.max_size!r}")
        for name in ("ping", "idle", "timeout"):
            value = getattr(self, name)
            if value is not None and not _positive(value):
                raise ConfigurationError(
                    f"{name} is a number of seconds above 0, or None, not {value!r}"
                )
        if not isinstance(self.compress, bool):
            raise ConfigurationError(f"compress is True or False, not {self.compress!r}")


@dataclass(frozen=True)
class ServiceOptions:
    """The options of one node.

    A new option is also written in `_BOUNDS` below, in the signature and docstring of `service()`
    (`declare/service.py`), in docs/reference/options.md, and in `config/values.py` if a file or
    the command line may write it in words, such as a size.

    Args:
        workers: how many processes; `"cpus"` is one for each CPU that this machine lets us use.
        concurrency: calls that one worker executes at once, all APIs together. None: sync and
            batched APIs 1 at a time in a node without dependencies and 16 in one with, async APIs
            without limit.
        queue: calls that may wait for the node, all APIs and workers together.
        timeout: seconds that a call may take. None: no limit of its own (the entry: 60).
        startup_timeout: seconds that a worker may take to import its modules, and then again from
            `__init__` until it is ready.
        graceful_timeout: seconds that a worker may take to end what it executes when it stops.
        watchdog: seconds after a call's deadline after which a worker that still executes it is
            replaced, or one whose event loop is stuck.
        max_requests: calls after which a worker is replaced.
        max_memory: bytes of resident memory above which a worker is replaced.
        gpus: GPUs per worker; a fraction shares one.
        env: environment variables of the worker.
        forward_headers: names of headers of the entry's requests that travel down with each call.
        cors: origins whose pages may call the entry from browsers, such as
            `https://app.example.com`; `*` is every page.
        version: what `/openapi.json` of the entry says as the version of its APIs. None: `0`.
    """

    workers: int | Literal["cpus"] = 1
    concurrency: int | None = None
    queue: int = 1024
    timeout: float | None = None
    startup_timeout: float = 300.0
    graceful_timeout: float = 30.0
    watchdog: float | None = 60.0
    max_requests: int | None = None
    max_memory: int | None = None
    gpus: float = 0
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    version: str | None = None
    forward_headers: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, (accepts, expected) in _BOUNDS.items():
            value = getattr(self, name)
            if not accepts(value):
                said = _described_env(value) if name == "env" else repr(value)
                raise ConfigurationError(f"option {name!r} is {expected}, not {said}")

    def merged(self, changes: Mapping[str, object], where: str) -> ServiceOptions:
        """Return these options with `changes`, checked; variables of `env` are added.

        Args:
            changes: values by option; of any type, since they come from users.
            where: where they were given, for the message of an error.

        Raises:
            UnknownOptionError: there is no option of that name.
            ConfigurationError: a value is out of range.
        """
        known = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise UnknownOptionError(name, known, where)
        values: dict[str, Any] = dict(changes)  # `__post_init__` checks them
        for name in ("forward_headers", "cors"):
            if isinstance(items := changes.get(name), list):
                values[name] = tuple(items)
        if isinstance(env := changes.get("env"), Mapping):
            values["env"] = {**self.env, **env}
        try:
            return dataclasses.replace(self, **values)
        except ConfigurationError as exc:
            raise ConfigurationError(f"{where}: {exc}") from None


def is_int(value: object) -> TypeGuard[int]:
    """Return whether a value is a whole number; True is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a number that can be compared and sent: no bool, no infinity."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value: object) -> bool:
    return is_number(value) and value > 0


def _count(value: object) -> bool:
    return is_int(value) and value >= 1


def _gpus(value: object) -> bool:
    return is_number(value) and value >= 0 and (value <= 1 or value == int(value))


def _env(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(k, str) and isinstance(v, str) and k and "=" not in k and "\0" not in k + v
        for k, v in value.items()
    )


def _forwardable(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(name, str) and name.isascii() and may_be_forwarded(name.lower().encode())
        for name in value
    )


def _origins(value: object) -> bool:
    return isinstance(value, tuple) and are_origins(value)


def _described_env(value: object) -> str:
    """Return what is wrong with variables, without their values, which may be secrets."""
    if not isinstance(value, Mapping):
        return f"a value of type {type(value).__name__}"
    for name, text in value.items():
        if not isinstance(name, str):
            return f"a name of type {type(name).__name__}"
        if not isinstance(text, str):
            return f"a value of type {type(text).__name__} for {name!r}"
    return "names or values with '=' or a NUL character in them, or an empty name"


def _optional(accepts: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or accepts(value)


# By option: whether a value can be one, and what to say of one that cannot.
_BOUNDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "workers": (lambda v: v == "cpus" or _count(v), 'a whole number from 1, or "cpus"'),
    "concurrency": (_optional(_count), "a whole number from 1, or None"),
    "queue": (_count, "a whole number from 1"),
    "timeout": (_optional(_positive), "a number of seconds above 0, or None"),
    "startup_timeout": (_positive, "a number of seconds above 0"),
    "graceful_timeout": (_positive, "a number of seconds above 0"),
    "watchdog": (_optional(_positive), "a number of seconds above 0, or None"),
    "max_requests": (_optional(_count), "a whole number from 1, or None"),
    "max_memory": (_optional(_count), "a number of bytes from 1, or None"),
    "gpus": (_gpus, "a whole number from 0, or a fraction below 1"),
    "version": (
        lambda v: v is None or (isinstance(v, str) and bool(v)),
        "a text such as '1.2.0', or None",
    ),
    "forward_headers": (
        _forwardable,
        'a list of names of headers, e.g. ["x-tenant"], without those of the connection and of the'
        " body, and those that always travel (the request id, the trace, baggage)",
    ),
    "cors": (_origins, f"a list of {EXPECTED}"),
    "env": (_env, "a mapping of names to strings, e.g. {'OMP_NUM_THREADS': '1'}"),
}
