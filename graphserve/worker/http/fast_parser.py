"""Requests whose first bytes are known, so that they are read without a parser. Runs in workers.

Our own callers prepare theirs, and `FastParser` knows them. A client that keeps its connection open
sends one head for each of its calls, in which nothing changes but the length of the body: what the
parser and the checks have made of the first of them is a `RepeatedHead`, and is taken for the next
one if that has every byte the same, the digits of its Content-Length apart. Only what came whole
and in exactly these words is read here; all else goes to the parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from graphserve.call.context import CallContext
from graphserve.call.request import prepared
from graphserve.call.request_head import NOBODY, Address, RequestHead
from graphserve.declare.options import NAME
from graphserve.wire import headers
from graphserve.wire.formats import content_format
from graphserve.wire.headers import MOST_DIGITS
from graphserve.wire.trust import PEER, PEER_BY_SOCKET, Trust
from graphserve.worker.dispatch.executor import BoundApi

ID = headers.REQUEST_ID + b": "
DEADLINE = headers.DEADLINE + b": "
SENT = headers.SENT + b": "
PARENT = headers.TRACEPARENT + b": "
STATE = headers.TRACESTATE + b": "
BAGGAGE = headers.BAGGAGE + b": "
FORWARDED = headers.FORWARDED + b": "
PRINCIPAL = headers.PRINCIPAL + b": "
CALLER = headers.CALLER + b": "
LENGTH = headers.CONTENT_LENGTH + b": "

# heads that are learned on one connection: where the next one is always another, it is in vain
LESSONS = 4
MOST_CALLERS = 256  # names of callers and ways of calling, that are known at once
MOST_LENGTH_DIGITS = 8  # of a body that came in one read with its head
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"
# Most of them are of one call, and say what travels with it.
_SPECIAL = frozenset({headers.REQUEST_ID, headers.TRACEPARENT, headers.BAGGAGE, headers.TIMEOUT})

# whether it is to be checked; the last is the body
PreparedRequest = tuple[BoundApi, Trust, bool, CallContext, bytes]
_Start = tuple[BoundApi, Trust, bool]


class FastParser:
    """Knows the requests that the callers of one node make.

    Args:
        node: the node's name.
        apis: its APIs.
    """

    def __init__(self, node: str, apis: Iterable[BoundApi]) -> None:
        apis = list(apis)
        ways = [(api, checked) for api in apis for checked in (False, True)]
        self._apis: dict[bytes, _Start] = {
            prepared(api.plan, node, checked=checked): (api, PEER, checked) for api, checked in ways
        }
        self._opened: dict[bytes, _Start] = {
            prepared(api.plan, node, trust, checked=checked): (api, trust, checked)
            for api, checked in ways for trust in (PEER, PEER_BY_SOCKET)
        }  # fmt: skip
        # with the name of the caller behind them, as they come; learned from the first of each
        self._known: dict[bytes, tuple[_Start, RequestHead]] = {}
        self._known_opened: dict[bytes, tuple[_Start, RequestHead]] = {}

    def read(self, data: bytes, *, opens: bool = False) -> PreparedRequest | None:
        """Return what is known of a request of a peer.

        Args:
            data: what came.
            opens: whether the connection begins with it; then it begins with a peer's opening.
                Otherwise a peer has opened the connection.

        Returns:
            None if `data` is not one whole request of this kind.
        """
        at = data.find(ID)
        known = (self._known_opened if opens else self._known).get(data[:at])
        if known is None:
            known = self._learn(data[:at], opens)
            if known is None:
                return None
        found, head = known
        end = data.find(b"\r\n\r\n", at)
        first, *lines = data[at + len(ID) : max(at, end)].split(b"\r\n")
        context = CallContext(first)
        context.head = head
        length = -1
        for line in lines:
            if line.startswith(DEADLINE):
                digits = line[len(DEADLINE) :]
                if not digits.isdigit() or len(digits) > MOST_DIGITS:
                    return None  # no caller of ours says so: the parser has the words for it
                context.deadline_ns = int(digits)
            elif line.startswith(LENGTH):
                digits = line[len(LENGTH) :]
                if not digits.isdigit() or len(digits) > MOST_DIGITS:
                    return None
                length = int(digits)
            elif line.startswith(SENT):
                digits = line[len(SENT) :]
                if not digits.isdigit() or len(digits) > MOST_DIGITS:
                    return None
                context.sent_ns = int(digits)
            elif line.startswith(PARENT):
                context.traceparent = line[len(PARENT) :]
            elif line.startswith(STATE):
                context.tracestate = line[len(STATE) :]
            elif line.startswith(BAGGAGE):
                context.baggage = line[len(BAGGAGE) :]
            elif line.startswith(FORWARDED):
                context.forwarded = line[len(FORWARDED) :]
            elif line.startswith(PRINCIPAL):
                context.principal = line[len(PRINCIPAL) :].decode("latin-1")
            else:
                return None
        if length < 0 or len(data) != end + 4 + length:
            return None
        return *found, context, data[end + 4 :]

    def _learn(self, start: bytes, opens: bool) -> tuple[_Start, RequestHead] | None:
        """Return what the first bytes of a request say, and know them from now on."""
        bare, says, rest = start.partition(CALLER)
        found = (self._opened if opens else self._apis).get(bare)
        caller = rest.removesuffix(b"\r\n").decode("latin-1")
        if found is None or (says and not (rest.endswith(b"\r\n") and NAME.match(caller))):
            return None
        head = RequestHead(b"POST", found[0].plan.route.encode(), [], NOBODY, caller or None)
        known = self._known_opened if opens else self._known
        if len(known) < MOST_CALLERS:
            known[start] = (found, head)
        return found, head


class LearnedRequest(Protocol):
    """A request as the next one knows it, if that has the same head."""

    @property
    def api(self) -> BoundApi:
        """Return the API that it is for."""
        ...

    @property
    def client(self) -> Address | None:
        """Return who sent it."""
        ...

    @property
    def context(self) -> CallContext:
        """Return what travels with it."""
        ...

    @property
    def may_come_again(self) -> bool:
        """Return whether nothing was wrong with its head, and its body is no stream."""
        ...


class RepeatedHead:
    """Remembers a head, and what it says.

    Args:
        start: its bytes up to the digits of its Content-Length.
        rest: those behind them.
        said: its headers.
        apis: the APIs of the listener that took it: others may come (a reload of a port that is
            still held).
        request: the request that it was the head of.
    """

    __slots__ = (
        "_rest",
        "_size",
        "_start",
        "accept",
        "accepts",
        "api",
        "apis",
        "client",
        "format",
        "forwarded",
        "head",
        "principal",
    )

    def __init__(
        self,
        start: bytes,
        rest: bytes,
        said: dict[bytes, bytes],
        apis: dict[bytes, BoundApi],
        request: LearnedRequest,
    ) -> None:
        self._start = start
        self._size = len(start)
        self._rest = rest
        self.apis = apis
        self.api = request.api
        self.format = content_format(said[headers.CONTENT_TYPE])
        self.accepts = said.get(headers.ACCEPT, b"")
        self.accept = request.api.accepts(self.accepts)
        self.client = request.client
        self.head = request.context.head
        self.forwarded = request.context.forwarded
        self.principal = request.context.principal

    @classmethod
    def of(
        cls,
        data: bytes,
        said: dict[bytes, bytes],
        apis: dict[bytes, BoundApi],
        request: LearnedRequest,
    ) -> RepeatedHead | None:
        """Return what can be known of the next head by this one; None if nothing can.

        Args:
            data: what came in one read, which the parser has taken at its word and the strict
                checks found plain.
            said: its headers, of which none is there twice.
            apis: see above.
            request: the last request in there.
        """
        if (
            not data.startswith(b"POST ")
            or not said.get(headers.CONTENT_TYPE, b"").strip()
            or not request.may_come_again
        ):
            return None
        end = data.find(_END) + len(_END)
        found = _LENGTH.search(data, 0, end)
        if found is None or not _SPECIAL.isdisjoint(said):
            return None
        if (
            found[1] != said[headers.CONTENT_LENGTH]
            or len(data) != end + int(found[1])
            or len(found[1]) > MOST_LENGTH_DIGITS
        ):
            return None  # `data` is not this one request and nothing else
        return cls(data[: found.start(1)], data[found.end(1) : end], said, apis, request)

    def body(self, data: bytes) -> bytes | None:
        """Return the body of a whole request with this head; None if `data` is not one, byte for
        byte.
        """
        size = self._size
        if not data.startswith(self._start):
            return None
        rest = self._rest
        at = data.find(rest, size, size + MOST_LENGTH_DIGITS + len(rest))
        if at < 0:
            return None
        digits = data[size:at]
        begin = at + len(rest)
        if not digits.isdigit() or int(digits) != len(data) - begin:
            return None
        return data[begin:]
