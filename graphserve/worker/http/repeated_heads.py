"""A head that a client sends again on its connection, with the same bytes: it says what it said. Runs in entry workers.

A client that keeps its connection open sends one head for each of its calls, in which nothing changes but the length of
the body. What the parser, the grammar and the headers have made of the first of them is kept, and taken for the next
one if that has every byte the same, the digits of its Content-Length apart. All else goes to the parser.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from graphserve.wire.formats import accept_format, content_format
from graphserve.wire.headers import ACCEPT, BAGGAGE, CONTENT_LENGTH, CONTENT_TYPE, REQUEST_ID, TIMEOUT, TRACEPARENT

if TYPE_CHECKING:
    from graphserve.worker.dispatch.executor import BoundApi
    from graphserve.worker.http.request import HttpRequest

LESSONS = 4  # heads that are learned on one connection: where the next one is always another, it is in vain
MOST_DIGITS = 8  # of the length of a body that came in one read with its head
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"
_SPECIAL = frozenset({REQUEST_ID, TRACEPARENT, BAGGAGE, TIMEOUT})  # most of them are of one call, and say what travels


class Repeated:
    """A head, and what it says.

    Args:
        start: its bytes up to the digits of its Content-Length.
        rest: those behind them.
        said: its headers.
        apis: the APIs of the listener that took it: others may come (a reload of a port that is still held).
        request: the request that it was the head of.
    """

    __slots__ = ("_rest", "_size", "_start", "accept", "accepts", "api", "apis", "client", "format")

    def __init__(
        self, start: bytes, rest: bytes, said: dict[bytes, bytes], apis: dict[bytes, BoundApi], request: HttpRequest
    ) -> None:
        self._start = start
        self._size = len(start)
        self._rest = rest
        self.apis = apis
        self.api = request.api
        self.format = content_format(said[CONTENT_TYPE])
        self.accepts = said.get(ACCEPT, b"")
        self.accept = accept_format(self.accepts)
        self.client: Any = getattr(request, "client", None)

    @classmethod
    def of(
        cls, data: bytes, said: dict[bytes, bytes], apis: dict[bytes, BoundApi], request: HttpRequest
    ) -> Repeated | None:
        """What can be known of the next head by this one; None if nothing can.

        Args:
            data: what came in one read, which the parser has taken at its word and the grammar found plain.
            said: its headers, of which none is there twice.
            apis: see above.
            request: the last request in there.
        """
        if not data.startswith(b"POST ") or not said.get(CONTENT_TYPE, b"").strip() or not request.may_come_again:
            return None
        end = data.find(_END) + len(_END)
        found = _LENGTH.search(data, 0, end)
        if found is None or not _SPECIAL.isdisjoint(said):
            return None
        if found[1] != said[CONTENT_LENGTH] or len(data) != end + int(found[1]) or len(found[1]) > MOST_DIGITS:
            return None  # `data` is not this one request and nothing else
        return cls(data[: found.start(1)], data[found.end(1) : end], said, apis, request)

    def body(self, data: bytes) -> bytes | None:
        """The body of a whole request with this head; None if `data` is not one, byte for byte."""
        size = self._size
        if not data.startswith(self._start):
            return None
        rest = self._rest
        at = data.find(rest, size, size + MOST_DIGITS + len(rest))
        if at < 0:
            return None
        digits = data[size:at]
        begin = at + len(rest)
        if not digits.isdigit() or int(digits) != len(data) - begin:
            return None
        return data[begin:]
