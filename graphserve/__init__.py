"""Python classes in, a supervised service graph out.

    from graphserve import api, depends, service

    @service(workers=2)
    class Counter:
        @api
        def count(self, text: str) -> int:
            return len(text.split())

    @service
    class Gateway:
        counter = depends(Counter)

        @api
        async def total(self, texts: list[str]) -> int:
            calls = [self.counter.count(text) for text in texts]  # sent at once, side by side
            return sum([await call for call in calls])

`graphserve serve app.py:Gateway` runs the graph that the classes of app.py form.

    declare it    service, api, depends, Batch, Array, Body, Media, register_type
    run it        serve (processes), local (in this process, for tests)
    in an API     request (who asks, and with which headers), requests (of a batch),
                  Problem (answer with a status), deadline, cancelled, trace_context,
                  set_trace_context
    a call        Call, Stream; it fails with a Problem, RemoteError, Unavailable, DeadlineExceeded
                  or InvalidArguments, each of them a GraphServeError
"""

# Declarations and errors are imported at once (they need only the standard library); the rest when
# it is used, so a worker pays for nothing that it does not need.

from __future__ import annotations

from typing import TYPE_CHECKING

from graphserve.declare.dependency import depends
from graphserve.declare.media import Media
from graphserve.declare.options import Batch
from graphserve.declare.routes import Body
from graphserve.declare.service import api, service
from graphserve.declare.typed import Call, Stream
from graphserve.declare.websockets import websocket
from graphserve.errors import (
    DeadlineExceeded,
    GraphServeError,
    InvalidArguments,
    Problem,
    RemoteError,
    Unavailable,
)

if TYPE_CHECKING:
    from graphserve.call.context import cancelled, deadline, set_trace_context, trace_context
    from graphserve.call.in_hand import BatchedRequest, Request, request, requests
    from graphserve.run import Server, local, serve
    from graphserve.wire.arrays import Array
    from graphserve.wire.media.registered import register_type

__all__ = [
    "Array",
    "Batch",
    "BatchedRequest",
    "Body",
    "Call",
    "DeadlineExceeded",
    "GraphServeError",
    "InvalidArguments",
    "Media",
    "Problem",
    "RemoteError",
    "Request",
    "Server",
    "Stream",
    "Unavailable",
    "api",
    "cancelled",
    "deadline",
    "depends",
    "local",
    "register_type",
    "request",
    "requests",
    "serve",
    "service",
    "set_trace_context",
    "trace_context",
    "websocket",
]

_LATER = {
    "Array": "wire.arrays",
    "BatchedRequest": "call.in_hand",
    "Request": "call.in_hand",
    "Server": "run",
    "cancelled": "call.context",
    "deadline": "call.context",
    "local": "run",
    "register_type": "wire.media.registered",
    "request": "call.in_hand",
    "requests": "call.in_hand",
    "serve": "run",
    "set_trace_context": "call.context",
    "trace_context": "call.context",
}


# a type checker that saw it would take every name for one of ours, wrong ones too
if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in _LATER:
            raise _unknown(name)
        import importlib

        try:
            value = getattr(importlib.import_module(f"graphserve.{_LATER[name]}"), name)
        except KeyboardInterrupt as exc:  # where in there it came is nobody's business
            raise exc.with_traceback(None) from None
        globals()[name] = value
        return value

    def _unknown(name):
        """The error for a name that does not exist, with the one that was probably meant."""
        import dis
        import sys

        from graphserve.errors import closest

        guess = closest(name, __all__)
        hint = f"; did you mean {guess!r}?" if guess else ""
        asking = sys._getframe(2)
        if asking.f_code.co_code[asking.f_lasti] == dis.opmap["IMPORT_FROM"]:
            # `from graphserve import …` puts words of its own in the place of an AttributeError.
            return ImportError(
                f"cannot import name {name!r} from 'graphserve'{hint}", name="graphserve"
            )
        # (With its name, or Python itself would add a guess where it prints this one.)
        return AttributeError(f"module 'graphserve' has no attribute {name!r}{hint}", name=name)


def __dir__() -> list[str]:
    return sorted(__all__)
