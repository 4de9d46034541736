"""The contexts of what is no call as the parser of a connection makes it: a call that comes out of
middleware or of an httpx client in this process, an application that is mounted, a WebSocket.

Runs in entry workers and in `local()`. (Of each other call the connection makes it, in as few steps
as can be.)
"""

from __future__ import annotations

from collections.abc import Collection

from graphserve.call.context import CallContext, earliest, shortest
from graphserve.call.request_head import RequestHead, Sender, pack_fields
from graphserve.errors import CallError
from graphserve.wire.headers import LONGEST_TRAVELLER, Headers
from graphserve.wire.trust import PUBLIC
from graphserve.worker.http.asgi import SCOPE_PRINCIPAL, Scope
from graphserve.worker.http.headers import RequestHeaders
from graphserve.worker.http.limits import too_long_to_travel
from graphserve.worker.http.strict import RequestRefused

LONGEST_TIMEOUT = 1e9  # seconds that a client may ask for; beyond, there is no deadline


class HandedContext(CallContext):
    """The context of a request that somebody hands over, who has read its head.

    Args:
        head: of the request.
        principal: whose API key it came with, if clients need one.
    """

    def __init__(self, head: RequestHead | None, principal: str | None = None) -> None:
        super().__init__()
        self.head = head
        self.principal = principal


class ClientContext(HandedContext):
    """Has all that a client's request says of what is executed for it.

    Args:
        head: of the request, as it came.
        headers: as they are now: middleware may have changed them.
        principal: whose API key it came with, if clients need one.
        forward_headers: names of headers that travel down with each call, in lower case.
        timeout: seconds that it has at most; None: as many as the client says.

    `refusal` is why it is not executed: a header cannot be read, or more is to travel than can.
    """

    def __init__(
        self,
        head: RequestHead | None,
        headers: Headers,
        principal: str | None,
        forward_headers: Collection[bytes],
        timeout: float | None = None,
    ) -> None:
        super().__init__(head, principal)
        self.refusal: CallError | None = None
        try:
            said = RequestHeaders(headers, self, PUBLIC).timeout
        except RequestRefused as exc:
            self.refusal = exc.problem
            return
        if said is None or not 0 < said < LONGEST_TIMEOUT:
            said = None
        self.deadline_ns = earliest(None, shortest(said, timeout))
        fields = [field for field in headers if field[0] in forward_headers]
        if sum(len(name) + len(value) for name, value in fields) > LONGEST_TRAVELLER:
            self.refusal = too_long_to_travel(LONGEST_TRAVELLER)
        elif fields:
            self.forwarded = pack_fields(fields)

    @classmethod
    def of_socket(
        cls, scope: Scope, forward_headers: Collection[bytes], timeout: float | None = None
    ) -> ClientContext:
        """Return the context of a WebSocket, whose handshake a scope of ASGI describes."""
        headers: Headers = scope["headers"]
        path, query = scope["raw_path"], scope["query_string"]
        target = path + b"?" + query if query else path
        scheme = "https" if scope["scheme"] == "wss" else "http"
        head = RequestHead(b"GET", target, headers, Sender(scope["client"], scheme))
        return cls(head, headers, scope.get(SCOPE_PRINCIPAL), forward_headers, timeout)
