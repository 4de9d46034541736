"""What the decorators leave on a class and its methods, and how it is read back.

Knows no process.
"""

from __future__ import annotations

import sys
from typing import NoReturn, TypeVar

from graphserve.declare.mounts import Mount
from graphserve.declare.options import Batch, ServiceOptions, SocketLimits
from graphserve.declare.routes import HttpMethod
from graphserve.errors import DeclarationError
from graphserve.system.frozen import dataclass

API = "__graphserve_api__"
SERVICE = "__graphserve_service__"
SOCKET = "__graphserve_socket__"
WARM_UP = "__warm_up__"  # the method that needs no `@service(warm_up=…)`
T = TypeVar("T")
SourceLine = tuple[str, int]  # the source file and the line, counted from 1


@dataclass(frozen=True)
class ApiDeclaration:
    """What `@api` was told about a method; `route` is its path at the port."""

    name: str
    route: str
    methods: tuple[HttpMethod, ...]
    batch: Batch | None
    idempotent: bool
    timeout: float | None
    file: str
    line: int


@dataclass(frozen=True)
class SocketDeclaration:
    """What `@websocket` was told about a method; `route` is its path at the port.

    Args:
        name: of the method.
        route: its path at the port.
        limits: what a client may do there.
        file: the source file.
        line: in it, counted from 1.
    """

    name: str
    route: str
    limits: SocketLimits
    file: str
    line: int


@dataclass(frozen=True)
class ServiceDeclaration:
    """What `@service` was told about a class."""

    name: str
    options: ServiceOptions
    file: str
    line: int
    warm_up: str | None = None  # the name of a method
    mounts: tuple[Mount, ...] = ()  # the longest path first
    middleware: tuple[object, ...] = ()  # as Starlette's `Middleware`, the outermost first


def declaration(cls: object) -> ServiceDeclaration | None:
    """Return what `@service` was told about `cls` itself (a plain subclass of a service is no
    service), or None.
    """
    found = vars(cls).get(SERVICE) if isinstance(cls, type) else None
    return found if isinstance(found, ServiceDeclaration) else None


def warm_up_of(cls: type) -> str | None:
    """Return the name of the method that warms an instance up, or None."""
    declared = declaration(cls)
    if declared is not None and declared.warm_up is not None:
        return declared.warm_up
    return WARM_UP if hasattr(cls, WARM_UP) else None


def apis(cls: type) -> dict[str, ApiDeclaration]:
    """Return the APIs of a service by method name, inherited ones included, in the order of their
    definition.
    """
    return _declared(cls, API, ApiDeclaration)


def sockets(cls: type) -> dict[str, SocketDeclaration]:
    """Return the WebSockets of a service by method name, inherited ones included, in the order of
    their definition.
    """
    return _declared(cls, SOCKET, SocketDeclaration)


def _declared(cls: type, mark: str, kind: type[T]) -> dict[str, T]:
    found: dict[str, T] = {}
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            spec = getattr(member, mark, None)
            if isinstance(spec, kind):
                found[name] = spec
            else:
                found.pop(name, None)
    return found


def refuse(message: str, place: SourceLine) -> NoReturn:
    """Raise the error for a declaration that is written wrongly."""
    raise DeclarationError(message, *place) from None


def caller() -> SourceLine:
    """Return where the function that calls this one was called: the place of the declaration."""
    frame = sys._getframe(2)
    return frame.f_code.co_filename, frame.f_lineno
