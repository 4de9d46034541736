"""The bytes of a request: what is known once, and what travels with every call. Runs in workers."""

from __future__ import annotations

import binascii
import itertools
import os
import time
from collections.abc import Callable, Collection

from graphserve.call.context import CallContext, traced, travellers
from graphserve.call.request_head import unpack_fields
from graphserve.graph.plan import ApiPlan
from graphserve.wire.formats import CHECKED_FRAMES, Format, StreamFormat
from graphserve.wire.headers import (
    BAGGAGE,
    CALLER,
    CHUNKED,
    CLOSE,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    DEADLINE,
    FORWARDED,
    PRINCIPAL,
    REQUEST_ID,
    SENT,
    TRACEPARENT,
    TRACESTATE,
)
from graphserve.wire.trust import Trust

# Header lines; a fast connection reads exactly these without a parser.
_CALLER_LINE = CALLER + b": %s\r\n"
_CONTENT_TYPE_LINE = CONTENT_TYPE + b": %s\r\n"
_REQUEST_ID_LINE = REQUEST_ID + b": %s\r\n"
_DEADLINE_LINE = DEADLINE + b": %d\r\n"
_SENT_LINE = SENT + b": %d\r\n"
_TRACEPARENT_LINE = TRACEPARENT + b": %s\r\n"
_TRACESTATE_LINE = TRACESTATE + b": %s\r\n"
_BAGGAGE_LINE = BAGGAGE + b": %s\r\n"
_FORWARDED_LINE = FORWARDED + b": %s\r\n"
_PRINCIPAL_LINE = PRINCIPAL + b": %s\r\n"
_END = b"%s" + CONTENT_LENGTH + b": %d\r\n\r\n%b"


def composer(
    api: ApiPlan,
    node: str,
    trust: Trust | None = None,
    *,
    checked: bool = False,
    caller: str = "",
    timed: bool = False,
) -> Callable[[CallContext | None, int | None, bytes], bytes]:
    """Return a function that makes whole requests to one API; the head is prepared here, once.

    Args:
        api: the API.
        node: the node's name, for `Host`.
        trust: what the connection opens as that is made for each request; None if it is there, and
            stays open.
        checked: whether the service checks the result, since the caller cannot.
        caller: the node that calls; empty for a program that is no node.
        timed: whether requests say when they were made, since they may wait in a queue.
    """
    line = _line(api, trust)
    rest = _rest(api, node, trust is None, checked)
    said = b"" if not caller else _CALLER_LINE % caller.encode()
    head = prepared(api, node, trust, checked=checked) + said
    chunked = rest + said + _CONTENT_TYPE_LINE % Format.RAW.value + CHUNKED

    def compose(context: CallContext | None, deadline_ns: int | None, body: bytes) -> bytes:
        return head + trail(context, deadline_ns, body, timed=timed)

    def compose_upload(context: CallContext | None, deadline_ns: int | None, query: bytes) -> bytes:
        return line + b"?" + query + chunked + travels(context, deadline_ns) + b"\r\n"

    return compose if api.input_stream is None else compose_upload


def prepared(
    api: ApiPlan, node: str, trust: Trust | None = None, *, checked: bool = False
) -> bytes:
    """Return what every request to one API begins with; the node's workers know these bytes, and
    read on without a parser.
    """
    return (
        _line(api, trust)
        + _rest(api, node, trust is None, checked)
        + _CONTENT_TYPE_LINE % Format.TYPED.value
    )


def _line(api: ApiPlan, trust: Trust | None) -> bytes:
    return (b"" if trust is None else trust.opening) + b"POST " + api.route.encode()


def accepted(api: ApiPlan, *, checked: bool) -> bytes:
    """Return what a typed caller of an API accepts; `composer` describes `checked`."""
    if api.stream:
        return CHECKED_FRAMES if checked else StreamFormat.FRAMES.value
    return Format.CHECKED.value if checked else Format.TYPED.value


def _rest(api: ApiPlan, node: str, keep: bool, checked: bool) -> bytes:
    accept = accepted(api, checked=checked)
    close = b"" if keep else CLOSE
    return b" HTTP/1.1\r\nhost: %s\r\naccept: %s\r\n%s" % (node.encode(), accept, close)


def trail(
    context: CallContext | None, deadline_ns: int | None, body: bytes, *, timed: bool = False
) -> bytes:
    """Return the end of a request: what travels with every call, the length, the body."""
    head = travels(context, deadline_ns)
    if timed:
        head += _SENT_LINE % time.monotonic_ns()
    return _END % (head, len(body), body)


def travels(context: CallContext | None, deadline_ns: int | None) -> bytes:
    """Return the headers that travel with every call between nodes."""
    head = _REQUEST_ID_LINE % (
        context.request_id if context is not None and context.request_id else new_request_id()
    )
    if deadline_ns is not None:
        head += _DEADLINE_LINE % deadline_ns
    if context is None:
        return head
    if context.forwarded is not None:
        head += _FORWARDED_LINE % context.forwarded
    if context.principal is not None:
        head += _PRINCIPAL_LINE % context.principal.encode("latin-1")
    if context.retraced:
        context = traced(context)
    if context.traceparent is not None:
        head += _TRACEPARENT_LINE % context.traceparent
        if context.tracestate is not None:
            head += _TRACESTATE_LINE % context.tracestate
    if context.baggage is not None:
        head += _BAGGAGE_LINE % context.baggage
    return head


def with_travellers(
    context: CallContext | None, headers: Collection[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request, and what travels with it beside them.

    What the request says itself wins: a `traceparent` of its own is of another span, of which our
    `tracestate` says nothing.
    """
    named = {name.lower() for name, _ in headers}
    if TRACEPARENT in named:
        named.add(TRACESTATE)
    ours = travellers(context or CallContext())
    found = [
        (name, new_request_id() if name == REQUEST_ID and value is None else value)
        for name, value in ours
    ]
    return [
        *headers,
        *((name, value) for name, value in found if value is not None and name not in named),
    ]


def with_forwarded(
    context: CallContext | None, headers: Collection[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request to a service elsewhere, and what travels with it beside them,
    `forward_headers` of the entry included; what the request says itself wins.
    """
    found = with_travellers(context, headers)
    if context is None or context.forwarded is None:
        return found
    named = {name.lower() for name, _ in headers}
    return found + [field for field in unpack_fields(context.forwarded) if field[0] not in named]


# of this process; a system call for each id costs more than the id
_FIRST = binascii.hexlify(os.urandom(5))
_NEXT = itertools.count(int.from_bytes(os.urandom(2), "big"))


def new_request_id() -> bytes:
    """Return a fresh request id: at least 16 hexadecimal digits, ten of the process and a running
    number.
    """
    return b"%s%06x" % (_FIRST, next(_NEXT))
