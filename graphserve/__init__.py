"""graphserve: Python classes in, a supervised service graph out.

Declarations and errors are here at once (they need only the standard library); the rest is imported when it is used,
so a worker pays for nothing that it does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphserve.errors import (
    DeadlineExceeded,
    GraphServeError,
    InvalidArguments,
    Problem,
    RemoteError,
    Unavailable,
)
from graphserve.options import Batch

# At once, and so named: the module of the same name would otherwise stand in the function's place.
from graphserve.service import api, depends, service

if TYPE_CHECKING:
    from graphserve.call.context import cancelled, deadline
    from graphserve.run import local, serve
    from graphserve.wire.tensors import Array

__all__ = [
    "Array", "Batch", "DeadlineExceeded", "GraphServeError", "InvalidArguments", "Problem", "RemoteError",
    "Unavailable", "api", "cancelled", "deadline", "depends", "local", "serve", "service",
]  # fmt: skip

_LATER = {
    "Array": "wire.tensors",
    "cancelled": "call.context",
    "deadline": "call.context",
    "local": "run",
    "serve": "run",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'graphserve' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"graphserve.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
