"""The headers of a hop: their names, and what travels with every call. Used by the caller's and the callee's side."""

from __future__ import annotations

# Said by run-folder sockets only; a public listener drops them (DESIGN.md, promise 1).
DEADLINE = b"x-graphserve-deadline"  # absolute CLOCK_MONOTONIC, nanoseconds
KIND = b"x-graphserve-error"  # which CallError the body of an answer is
UNTAKEN = b"x-graphserve-untaken"  # the arguments could not be taken: the API was not called
INTERNAL_PREFIX = b"x-graphserve-"

TIMEOUT = b"x-request-timeout"  # relative, seconds
REQUEST_ID = b"x-request-id"
TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"

JSON = b"application/json"
MSGPACK = b"application/msgpack"
PROBLEM = b"application/problem+json"
