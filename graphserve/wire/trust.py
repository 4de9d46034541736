"""Decides who a request is from, and what it may do more than a client:
once, from how its connection opened.

A connection between processes of a graph opens with a line that says what its requests are; HTTP
follows. No HTTP client sends such a line, no header or body can say the same, and the public port
never looks for it. What does not open with one of these lines is public, whichever socket it came
by. Everything that does more for a service of the graph asks the `Trust` of the request.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False, slots=True)
class Trust:
    """Says what is believed of a request.

    Args:
        opening: the line that its connection opens with.
        values: whether its body may hold what only a service sends: references to memory, models by
            the names of their fields, large integers. Its answer may hold them then, too.
        hop: whether its internal headers count (an absolute deadline), and its answer has such
            headers.
        texts: whether its answer may tell the texts of exceptions.
        memory: whether its caller can read our memory: then large results go by reference.
    """

    opening: bytes = b""
    values: bool = False
    hop: bool = False
    texts: bool = False
    memory: bool = False


PUBLIC = Trust()
# A client's request that a process of the entry passes on to a sibling: the bytes are the client's,
# the hop is ours.
RELAYED = Trust(b"graphserve relay\r\n", hop=True)
# A request that user code made with an injected httpx client, perhaps of a client's bytes; it reads
# errors as we do.
MADE = Trust(b"graphserve client\r\n", hop=True, texts=True)
# A typed call of a service of this graph.
PEER = Trust(b"graphserve peer\r\n", values=True, hop=True, texts=True, memory=True)
PEER_BY_SOCKET = Trust(b"graphserve peer, no memory\r\n", values=True, hop=True, texts=True)

_OPENINGS = (PEER, RELAYED, MADE, PEER_BY_SOCKET)


def opened(data: bytes) -> tuple[Trust, bytes] | None:
    """Return what a connection's first bytes make of its requests, and the bytes behind the
    opening; None if more must come.
    """
    for trust in _OPENINGS:
        if data.startswith(trust.opening):
            return trust, data[len(trust.opening) :]
    if any(trust.opening.startswith(data) for trust in _OPENINGS):
        return None
    return PUBLIC, data
