"""The headers of a hop: their names, and what travels with every call. Used by the caller's and the callee's side."""

from __future__ import annotations

import re

# Said by run-folder sockets only; a public listener drops them (DESIGN.md, promise 1).
DEADLINE = b"x-graphserve-deadline"  # absolute CLOCK_MONOTONIC, nanoseconds
KIND = b"x-graphserve-error"  # which CallError the body of an answer is
UNTAKEN = b"x-graphserve-untaken"  # the arguments could not be taken: the API was not called
INTERNAL_PREFIX = b"x-graphserve-"

TIMEOUT = b"x-request-timeout"  # relative, seconds
REQUEST_ID = b"x-request-id"
TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
BAGGAGE = b"baggage"

JSON = b"application/json"
MSGPACK = b"application/msgpack"
PROBLEM = b"application/problem+json"

LONGEST_TRAVELLER = 8192  # bytes of a tracestate or a baggage, as W3C Baggage has it; longer ones do not travel
_IDS = rb"(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"  # of the trace and of the span, and the flags
# A later version than this one, 00, may say more.
_PARENT = re.compile(rb"00-%b|(?!00|ff)[0-9a-f]{2}-%b(?:-[\x21-\x7e]{0,200})?" % (_IDS, _IDS))
_LIST = re.compile(rb"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")
_ID = re.compile(rb"[\x21-\x7e]{1,128}")


def is_request_id(value: bytes) -> bool:
    """Whether it can be a request id: it stands in logs and in answers."""
    return _ID.fullmatch(value) is not None


def is_traceparent(value: bytes) -> bool:
    """Whether it is a `traceparent`; what is none does not travel (W3C Trace Context, 4.3)."""
    return _PARENT.fullmatch(value) is not None


def traveller(lines: list[bytes] | None) -> bytes | None:
    """A list that may stand in several header lines, as one; None if there is none, or it cannot travel."""
    whole = b",".join(filter(None, lines or ()))
    return whole if may_travel(whole) else None


def may_travel(value: bytes) -> bool:
    """Whether it can be a `tracestate` or a `baggage`: ASCII, and not too long."""
    return len(value) <= LONGEST_TRAVELLER and _LIST.fullmatch(value) is not None
