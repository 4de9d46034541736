"""What makes two calls the same one:
API and arguments, as a few numbers. Pure; used in every process.

Not secret and not secure: two calls that are alike by chance are one in 2^32.
"""

from __future__ import annotations

from zlib import crc32

# bytes up to which all of a body counts; of a longer one, its ends do, and its length
WHOLE = 64 * 1024
_END = WHOLE // 2
_UPLOAD = "#upload"


def check(body: bytes) -> int:
    """Return a check of the arguments' bytes, of 32 bits."""
    if len(body) <= WHOLE:
        return crc32(body)
    return crc32(body[-_END:], crc32(body[:_END]))


def name(route: str, length: int, checked: int) -> str:
    """Return the call in a word, for tables and logs."""
    return f"{route}#{length:x}.{checked:08x}"


def of(route: str, body: bytes) -> str:
    """Return the call with these arguments."""
    return name(route, len(body), check(body))


def upload(route: str) -> str:
    """Return the word for all calls of this API whose body is a stream: nobody has its bytes."""
    return f"{route}{_UPLOAD}"


def route(call: str) -> str:
    """Return the path of the API that a call is of."""
    return call.partition("#")[0]


def is_upload(call: str) -> bool:
    """Return whether this is what `upload` gives."""
    return call.endswith(_UPLOAD)


def of_request(request: bytes, *, streamed: bool = False) -> str:
    """Return the call that one of our own requests makes.

    Args:
        request: its bytes.
        streamed: whether its body is a stream, and not in there.
    """
    first, second, _ = request.split(b"\r\n", 2)
    # the first may say who opens the connection
    line = first if first.endswith(b" HTTP/1.1") else second
    route = line.split(b" ")[1].partition(b"?")[0]
    if streamed:
        return upload(route.decode("latin-1"))
    return of(route.decode("latin-1"), request[request.index(b"\r\n\r\n") + 4 :])
