"""A call to a node of a local graph, in place of bytes on a socket. Runs where `local()` was called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphserve.call.context import CallContext, traced
from graphserve.call.request import new_request_id
from graphserve.graph.plan import ApiPlan
from graphserve.wire.formats import Format
from graphserve.wire.stream_frames import StreamFormat
from graphserve.wire.trust import PEER, PUBLIC, Trust


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller sends.

    Args:
        api: the API's name.
        context: what travels with the call.
        body: the encoded arguments.
        format: how they are written.
        accept: how the result, or each item of a stream, shall be written.
        stream: how the items of a stream shall be written; None for a typed caller, who takes them one by one.
        trust: who the caller is.
    """

    api: str
    context: CallContext
    body: bytes
    format: Format = Format.TYPED
    accept: Format = Format.TYPED
    stream: StreamFormat | None = None
    trust: Trust = PUBLIC


Compose = Callable[[CallContext | None, int | None, bytes], Request]


def composer(api: ApiPlan, *, checked: bool) -> Compose:
    """A function that makes requests to one API; see `Lane.composer`."""
    accept = Format.CHECKED if checked else Format.TYPED

    def compose(context: CallContext | None, deadline_ns: int | None, body: bytes) -> Request:
        request_id = context.request_id if context is not None and context.request_id else new_request_id()
        if context is None:
            return Request(api.name, CallContext(request_id, deadline_ns), body, accept=accept, trust=PEER)
        context = traced(context)
        trace = (context.traceparent, context.tracestate, context.baggage)
        return Request(api.name, CallContext(request_id, deadline_ns, *trace), body, accept=accept, trust=PEER)

    return compose
