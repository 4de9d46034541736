"""What a public request must be beyond what the parser demands: nothing that two readers could read
in two ways.

llhttp refuses most of it: both Content-Length and Transfer-Encoding, bare line feeds, folded lines,
control characters, chunk sizes that are none. What it lets pass is refused here. Pure; runs in
entry workers and fallback servers.
"""

from __future__ import annotations

import re
from functools import lru_cache

from graphserve.errors import CallError
from graphserve.wire.headers import (
    EXPECT,
    HOST,
    MOST_DIGITS,
    ORIGIN,
    SEC_FETCH_SITE,
    TRANSFER_ENCODING,
    UPGRADE,
    Headers,
)
from graphserve.wire.problem import HttpProblem
from graphserve.worker.http.limits import head_problem

# Those of HTTP and of its extensions, as far as the parser knows them; not CONNECT, nor what other
# protocols have.
METHODS = frozenset(
    b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE QUERY ACL BIND CHECKOUT COPY LINK LOCK M-SEARCH"
    b" MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY PROPFIND PROPPATCH PURGE REBIND REPORT SEARCH"
    b" SUBSCRIBE UNBIND UNLINK UNLOCK UNSUBSCRIBE".split()
)
# Headers that change how a request is read, or say that a browser sends it; a request without them
# needs a closer look only if a name stands twice.
RARE = frozenset({TRANSFER_ENCODING, EXPECT, UPGRADE, ORIGIN, SEC_FETCH_SITE})
_RTSP = re.compile(rb"[A-Z_-] +([^ \r\n]+) +RTSP/")
_FIRST_LINE = re.compile(rb"[A-Z_-](?: [^\r\n]*)?\r?\Z")  # from the last letter of its method on
# RFC 3986, 3.2.2
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?\Z")
_ABSOLUTE = re.compile(rb"https?://([^/?#]++)([^#]*+)\Z", re.IGNORECASE)


class RequestRefused(Exception):
    """Raised in a callback of the parser, to stop it."""

    def __init__(self, problem: CallError) -> None:
        super().__init__(problem.detail)
        self.problem = problem


@lru_cache(maxsize=256)
def host_is_valid(host: bytes | None) -> bool:
    """Return whether it is a host, with a port or without."""
    return host is not None and _HOST.match(host) is not None


def fault(method: bytes, version: str, target: bytes, headers: Headers) -> HttpProblem | None:
    """Return what is wrong with a request that the parser has taken; None if nothing is.

    Args:
        method: the method.
        version: `1.1` and the like.
        target: the request target as it came.
        headers: names in lower case.
    """
    if version not in ("1.1", "1.0"):
        return HttpProblem(400, "this port speaks HTTP/1.1 and HTTP/1.0")
    if method not in METHODS:
        return HttpProblem(400, f"there is no {method.decode()} at this port")
    return (
        head_problem(target, headers)
        or _of_target(method, target, headers)
        or _of_framing(version, headers)
    )


def rtsp_targets(data: bytes) -> list[tuple[int, int]]:
    """Return where the targets of requests in RTSP are, if they are no text of something else."""
    return [found.span(1) for found in _RTSP.finditer(data)] if b"RTSP/" in data else []


def first_line_begun(data: bytes) -> bytes:
    """Return what a part of a connection ends with, if that may be an incomplete first line of a
    request.
    """
    # (it may stand right behind a body that ends without a line end)
    line = data[data.rfind(b"\n") + 1 :]
    found = _FIRST_LINE.search(line)
    return b"" if found is None else found[0]


def in_origin_form(target: bytes) -> tuple[bytes, list[bytes]]:
    """Return a target that has no fault, without its scheme and host (RFC 9112, 3.2.2), and the
    host, if it had one.
    """
    found = _ABSOLUTE.match(target)
    return (target, []) if found is None else (b"/" + found[2].removeprefix(b"/"), [found[1]])


def number(name: str, value: bytes) -> int:
    """Return the whole number that is the value of a header.

    Raises:
        RequestRefused: it is none, or one of more digits than anybody means. (Python converts none
            of more than 4,300.)
    """
    digits = value.strip(b" \t")
    if not digits.isdigit() or len(digits) > MOST_DIGITS:
        raise RequestRefused(
            HttpProblem(400, f"{name} is a whole number of at most {MOST_DIGITS} digits")
        )
    return int(digits)


def _of_target(method: bytes, target: bytes, headers: Headers) -> HttpProblem | None:
    if (target[:1] == b"/" and b"#" not in target) or (target == b"*" and method == b"OPTIONS"):
        return None
    if (found := _ABSOLUTE.match(target)) is None:
        return HttpProblem(400, "the request target is a path that begins with /")
    # A client has to name the host in both places (RFC 9112, 3.2); one reader goes by this one,
    # another by the other.
    if any(name == HOST and value.lower() != found[1].lower() for name, value in headers):
        return HttpProblem(400, "the Host header is not the host of the request target")
    return (
        None
        if host_is_valid(found[1])
        else HttpProblem(400, "the host of the request target is not valid")
    )


def _of_framing(version: str, headers: Headers) -> HttpProblem | None:
    hosts = [value for name, value in headers if name == HOST]
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        return HttpProblem(400, "a request has exactly one Host header")
    if hosts and not host_is_valid(hosts[0]):
        return HttpProblem(400, "the Host header is not a valid host")
    codings = [value.lower() for name, value in headers if name == TRANSFER_ENCODING]
    if codings and (version == "1.0" or codings != [b"chunked"]):
        return HttpProblem(
            400, "Transfer-Encoding is chunked and nothing else, and HTTP/1.0 has none"
        )
    expected = [value.lower() for name, value in headers if name == EXPECT]
    if version == "1.1" and any(value != b"100-continue" for value in expected):
        return HttpProblem(417, "Expect can only be 100-continue")
    return None


# --- The paths of requests: which spellings are one path ---


# What a path may have unescaped (RFC 3986, 3.3), and so all that a route is made of. A slash that
# is escaped is none.
_SEGMENT = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@"
)
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def plain(path: bytes) -> bytes:
    """Return a path without the escapes that it does not need: the spelling that routes are written
    in.
    """
    return _ESCAPE.sub(_unescaped, path) if b"%" in path else path


def _unescaped(escape: re.Match[bytes]) -> bytes:
    code = int(escape[1], 16)
    return bytes((code,)) if code in _SEGMENT else escape[0].upper()
