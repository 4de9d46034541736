"""By what two calls are known as the same one: API and arguments, as a few numbers. Pure; used in every process.

Not secret and not secure: two calls that are alike by chance are one in 2^64.
"""

from __future__ import annotations

import zlib

WHOLE = 64 * 1024  # bytes up to which all of a body counts; of a longer one, its ends do, and its length
_END = WHOLE // 2


def check(body: bytes) -> int:
    """A check of the arguments' bytes that fits into a signed number of 64 bits."""
    if len(body) <= WHOLE:
        total = zlib.crc32(body) << 32 | zlib.adler32(body)
    else:
        first, last = body[:_END], body[-_END:]
        total = zlib.crc32(last, zlib.crc32(first)) << 32 | zlib.adler32(last, zlib.adler32(first))
    return total - (1 << 63)


def name(route: str, length: int, checked: int) -> str:
    """The call in a word, for tables and logs."""
    return f"{route}#{length:x}.{checked + (1 << 63):016x}"


def of(route: str, body: bytes) -> str:
    """The call with these arguments."""
    return name(route, len(body), check(body))


def of_request(request: bytes) -> str:
    """The call that one of our own requests makes."""
    first, second, _ = request.split(b"\r\n", 2)
    line = first if first.endswith(b" HTTP/1.1") else second  # the first may say who opens the connection
    route = line.split(b" ")[1].partition(b"?")[0]
    return of(route.decode("latin-1"), request[request.index(b"\r\n\r\n") + 4 :])
