"""The bytes of a request: what is known once, and what travels with every call. Runs in workers."""

from __future__ import annotations

import binascii
import os
from collections.abc import Callable

from graphserve.call.context import CallContext
from graphserve.plan import ApiPlan

Compose = Callable[[CallContext | None, int | None, bytes], bytes]


def composer(api: ApiPlan, node: str, *, keep: bool) -> Compose:
    """A function that makes whole requests to one API; the head is prepared here, once.

    Args:
        api: the API.
        node: the node's name, for `Host`.
        keep: whether the connection stays open after the answer.
    """
    close = "" if keep else "connection: close\r\n"
    head = (
        f"POST {api.route} HTTP/1.1\r\nhost: {node}\r\ncontent-type: application/msgpack\r\n"
        f"accept: application/msgpack\r\n{close}"
    ).encode()

    def compose(context: CallContext | None, deadline_ns: int | None, body: bytes) -> bytes:
        return head + trail(context, deadline_ns, body)

    return compose


def trail(context: CallContext | None, deadline_ns: int | None, body: bytes) -> bytes:
    """The end of a request: what travels with every call, and the body."""
    head = b"content-length: %d\r\nx-request-id: %s\r\n" % (
        len(body), context.request_id if context is not None and context.request_id else new_request_id(),
    )  # fmt: skip
    if deadline_ns is not None:
        head += b"x-graphserve-deadline: %d\r\n" % deadline_ns
    if context is not None and context.traceparent is not None:
        head += b"traceparent: %s\r\n" % context.traceparent
        if context.tracestate is not None:
            head += b"tracestate: %s\r\n" % context.tracestate
    return head + b"\r\n" + body


def new_request_id() -> bytes:
    """A fresh request id: 16 hexadecimal digits."""
    return binascii.hexlify(os.urandom(8))
