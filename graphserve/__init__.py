"""graphserve: Python classes in, a supervised service graph out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphserve.call.context import cancelled as cancelled
    from graphserve.call.context import deadline as deadline
    from graphserve.errors import (
        DeadlineExceeded as DeadlineExceeded,
        GraphServeError as GraphServeError,
        InvalidArguments as InvalidArguments,
        Problem as Problem,
        RemoteError as RemoteError,
        Unavailable as Unavailable,
    )
    from graphserve.options import Batch as Batch
    from graphserve.run import local as local
    from graphserve.run import serve as serve
    from graphserve.service import api as api
    from graphserve.service import depends as depends
    from graphserve.service import service as service
    from graphserve.wire.tensors import Array as Array

_HOMES = {
    "api": "service",
    "depends": "service",
    "service": "service",
    "Batch": "options",
    "Array": "wire.tensors",
    "GraphServeError": "errors",
    "Problem": "errors",
    "RemoteError": "errors",
    "Unavailable": "errors",
    "DeadlineExceeded": "errors",
    "InvalidArguments": "errors",
    "deadline": "call.context",
    "cancelled": "call.context",
    "serve": "run",
    "local": "run",
}

__all__ = ["api", "depends", "service", "Batch", "Array", "GraphServeError", "Problem", "RemoteError", "Unavailable",
           "DeadlineExceeded", "InvalidArguments", "deadline", "cancelled", "serve", "local"]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Lazy: `import graphserve` costs a worker nothing that it does not use.
    if name not in _HOMES:
        raise AttributeError(f"module 'graphserve' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"graphserve.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
