"""Requests of our own callers: their first bytes are prepared and known, so they are read without a parser.

Only what came whole and in exactly these words is read here; all else goes to the parser. Runs in workers.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphserve.call.context import CallContext
from graphserve.call.request import prepared
from graphserve.wire import headers
from graphserve.wire.headers import MOST_DIGITS
from graphserve.wire.trust import PEER, PEER_BY_SOCKET, Trust
from graphserve.worker.dispatch.executor import BoundApi

ID = headers.REQUEST_ID + b": "
DEADLINE = headers.DEADLINE + b": "
PARENT = headers.TRACEPARENT + b": "
STATE = headers.TRACESTATE + b": "
BAGGAGE = headers.BAGGAGE + b": "
LENGTH = headers.CONTENT_LENGTH + b": "

Request = tuple[BoundApi, Trust, bool, CallContext, bytes]  # whether it is to be checked; the last is the body


class FastParser:
    """The requests that the callers of one node make.

    Args:
        node: the node's name.
        apis: its APIs.
    """

    def __init__(self, node: str, apis: Iterable[BoundApi]) -> None:
        apis = list(apis)
        ways = [(api, checked) for api in apis for checked in (False, True)]
        self._apis = {prepared(api.plan, node, checked=checked): (api, PEER, checked) for api, checked in ways}
        self._opened = {
            prepared(api.plan, node, trust, checked=checked): (api, trust, checked)
            for api, checked in ways for trust in (PEER, PEER_BY_SOCKET)
        }  # fmt: skip

    def read(self, data: bytes, *, opens: bool = False) -> Request | None:
        """What is known of a request of a peer.

        Args:
            data: what came.
            opens: whether the connection begins with it; then it begins with a peer's opening. Otherwise a peer has
                opened the connection.

        Returns:
            None if `data` is not one whole request of this kind.
        """
        at = data.find(ID)
        found = (self._opened if opens else self._apis).get(data[:at])
        if found is None:
            return None
        end = data.find(b"\r\n\r\n", at)
        first, *lines = data[at + len(ID) : max(at, end)].split(b"\r\n")
        context = CallContext(first)
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
            elif line.startswith(PARENT):
                context.traceparent = line[len(PARENT) :]
            elif line.startswith(STATE):
                context.tracestate = line[len(STATE) :]
            elif line.startswith(BAGGAGE):
                context.baggage = line[len(BAGGAGE) :]
            else:
                return None
        if length < 0 or len(data) != end + 4 + length:
            return None
        return *found, context, data[end + 4 :]
