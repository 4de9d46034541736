"""Names the headers of requests and responses, and checks what one may hold (RFC 9110, RFC 9112).

Whoever turns text into the bytes of a head asks here first: a line end in a value would begin a
header, or a request, that nobody meant. What a parser has read was checked there. Stdlib only:
errors and users' imports need it too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

# of a request or a response: names in lower case, and values
Headers = list[tuple[bytes, bytes]]

# Names of headers, as a parser gives them: in lower case.
ACCEPT = b"accept"
ALLOW = b"allow"
API_KEY = b"x-api-key"
AUTHORIZATION = b"authorization"
CACHE_CONTROL = b"cache-control"
CONNECTION = b"connection"
CONTENT_DISPOSITION = b"content-disposition"
CONTENT_ENCODING = b"content-encoding"
CONTENT_LENGTH = b"content-length"
CONTENT_TYPE = b"content-type"
EXPECT = b"expect"
FORWARDED_HOST = b"x-forwarded-host"
FORWARDED_PROTO = b"x-forwarded-proto"
HOST = b"host"
ORIGIN = b"origin"
RETRY_AFTER = b"retry-after"
SEC_FETCH_SITE = b"sec-fetch-site"
TRANSFER_ENCODING = b"transfer-encoding"
UPGRADE = b"upgrade"
WWW_AUTHENTICATE = b"www-authenticate"

TIMEOUT = b"x-request-timeout"  # relative, seconds
REQUEST_ID = b"x-request-id"
TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
BAGGAGE = b"baggage"

# Only processes of the graph send these to each other; a public listener drops them.
INTERNAL_PREFIX = b"x-graphserve-"
DEADLINE = b"x-graphserve-deadline"  # absolute CLOCK_MONOTONIC, nanoseconds
# when it was sent, CLOCK_MONOTONIC in nanoseconds: of a call that may wait in the node's queue
SENT = b"x-graphserve-sent"
ERROR_KIND = b"x-graphserve-error"  # which CallError the body of a response is
# how a client is answered whose call was passed on to this worker
ANSWER = b"x-graphserve-answer"
# where the file is, of a worker that was passed the call on, which is the body of the answer
FILE = b"x-graphserve-file"
# the folder of a call whose files the caller takes over with the answer
FILES = b"x-graphserve-files"
CALLER = b"x-graphserve-caller"  # the node that calls
HEAD = b"x-graphserve-head"  # that of a client's request, which is passed on to a sibling
FORWARDED = b"x-graphserve-forwarded"  # headers of the entry's request that travel down
PRINCIPAL = b"x-graphserve-principal"  # whose API key the entry's request came with
QUARANTINED = b"x-graphserve-quarantined"  # the call was refused because it killed workers
QUEUE_FULL = b"x-graphserve-full"  # the node's queue had no place for the call
# why the arguments could not be read: the API was not called
ARGUMENTS_UNREAD = b"x-graphserve-arguments-unread"

# Of one connection and of the framing (RFC 9110, 7.6.1): each hop says these itself.
HOP_BY_HOP = frozenset(
    (
        CONTENT_LENGTH,
        TRANSFER_ENCODING,
        CONNECTION,
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        UPGRADE,
    )
)

# statuses whose answers have no body (RFC 9110, 6.4.1)
BODILESS = frozenset({204, 205, 304})

# of this request alone, or travelling anyway
_NOT_FORWARDED = HOP_BY_HOP | {
    ACCEPT,
    BAGGAGE,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    EXPECT,
    HOST,
    REQUEST_ID,
    TIMEOUT,
    TRACEPARENT,
    TRACESTATE,
}

# Lines that our own callers and workers write in exactly these bytes, and read without a parser.
STATUS_OK = b"HTTP/1.1 200 OK\r\n"
CLOSE = CONNECTION + b": close\r\n"
CHUNKED = TRANSFER_ENCODING + b": chunked\r\n"

# What a head may hold.
# digits of a number: what a signed 64-bit integer has, and every reader can hold
MOST_DIGITS = 19
# bytes of a tracestate or a baggage, as W3C Baggage has it; longer ones do not travel
LONGEST_TRAVELLER = 8192
# of the trace and of the span, and the flags
_IDS = rb"(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
# A later version than this one, 00, may say more.
_PARENT = re.compile(rb"00-%b|(?!00|ff)[0-9a-f]{2}-%b(?:-[\x21-\x7e]{0,200})?" % (_IDS, _IDS))
_LIST = re.compile(rb"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")
_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"[\x21-\x7e]+")
# Visible characters and bytes above ASCII; spaces and tabs between them, not around them; no
# control character.
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")


def is_token(text: bytes) -> bool:
    """Return whether it is a method, or the name of a header."""
    return _TOKEN.fullmatch(text) is not None


def is_target(text: bytes) -> bool:
    """Return whether it can be the target of a request: visible ASCII, no space."""
    return _TARGET.fullmatch(text) is not None


def is_value(text: bytes) -> bool:
    """Return whether it can be the value of a header."""
    return _VALUE.fullmatch(text) is not None


def may_be_forwarded(name: bytes) -> bool:
    """Return whether a header can travel down with each call (`forward_headers`); names in lower
    case.
    """
    return is_token(name) and name not in _NOT_FORWARDED and not name.startswith(INTERNAL_PREFIX)


def head_fault(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return why a request cannot be written, in the words of h11, which people search for; None if
    it can.
    """
    if not is_token(method):
        return f"Illegal method characters: {method!r}"
    if not is_target(target):
        return f"Illegal target characters: {target!r}"
    for name, value in headers:
        if not is_token(name):
            return f"Illegal header name {name!r}"
        if not is_value(value):
            return f"Illegal header value {value!r}"
    return None


def is_request_id(value: bytes) -> bool:
    """Return whether it can be a request id, which is written into logs and responses."""
    return _ID.fullmatch(value) is not None


def is_traceparent(value: bytes) -> bool:
    """Return whether it is a `traceparent`; what is none does not travel (W3C Trace Context,
    4.3).
    """
    return _PARENT.fullmatch(value) is not None


def traveller(lines: list[bytes] | None) -> bytes | None:
    """Join a list that may come in several header lines; return None if there is none, or it cannot
    travel.
    """
    whole = b",".join(filter(None, lines or ()))
    return whole if may_travel(whole) else None


def may_travel(value: bytes) -> bool:
    """Return whether it can be a `tracestate` or a `baggage`: ASCII, and not too long."""
    return len(value) <= LONGEST_TRAVELLER and _LIST.fullmatch(value) is not None


def http_date(seconds: float | None = None) -> bytes:
    """Return a moment as a header says it (RFC 9110, 5.6.7), in English whatever the locale is.

    Args:
        seconds: since 1970; None: now.
    """
    # (`email.utils` has this too, and brings 350 kB along into every worker)
    at = time.gmtime(seconds)
    text = time.asctime(at)  # Sun Nov  6 08:49:37 1994
    return f"{text[:3]}, {at.tm_mday:02d} {text[4:7]} {at.tm_year:04d} {text[11:19]} GMT".encode()
