"""The request in hand: what user code may ask of the request that it executes.

Imported where user code asks. Runs in workers and in `local()`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote_to_bytes

from graphserve.call.answer import Answer
from graphserve.call.context import CallContext, current
from graphserve.call.request_head import Fields, RequestHead, Sender, unpack_fields
from graphserve.wire.headers import HOP_BY_HOP, INTERNAL_PREFIX

_NO_HEAD = RequestHead(b"POST", b"", [], Sender())  # of a call that no request has begun
_COOKIE = "cookie"
_QUOTED = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))")


class HeaderFields(Mapping[str, str]):
    """The headers of a request: names in any case; what came several times is joined by commas.

    Args:
        fields: names in lower case.
    """

    def __init__(self, fields: Fields) -> None:
        found: dict[str, str] = {}
        for key, value in fields:
            name = key.decode("latin-1")
            text = value.decode("latin-1")
            if name in found:
                text = f"{found[name]}{'; ' if name == _COOKIE else ', '}{text}"
            found[name] = text
        self._fields = found

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"<headers of a request: {', '.join(self._fields) or 'none'}>"  # values may be keys


class Request:
    """The request that is executed: what `graphserve.request()` returns.

    Example:
        >>> def tenant(request: graphserve.Request) -> str:
        ...     return request.headers.get("x-tenant", "nobody")
        >>> @service
        ... class Greeter:
        ...     @api
        ...     async def greet(self) -> str:
        ...         return f"Hello {tenant(graphserve.request())}"
    """

    __slots__ = ("_context", "_head")

    def __init__(self, context: CallContext) -> None:
        head = context.head
        if head is None:
            head = _NO_HEAD
        elif not isinstance(head, RequestHead):
            head = context.head = head.unpack()
        self._context = context
        self._head = head

    @property
    def id(self) -> str:
        """Return the id under which all logs speak of the request."""
        return self._context.request_id.decode("latin-1")

    @property
    def method(self) -> str:
        """Return its method, such as `POST`; that of a call of a service is `POST`."""
        return self._head.method.decode("latin-1")

    @property
    def path(self) -> str:
        """Return its path, with escapes (`%20`) read; that of a call of a service is the route."""
        path = self._head.target.partition(b"?")[0]
        return unquote_to_bytes(path).decode("utf-8", "replace")

    @property
    def query(self) -> str:
        """Return what stands behind the `?` of its URL, as it came; empty without one."""
        return self._head.target.partition(b"?")[2].decode("latin-1")

    @property
    def headers(self) -> Mapping[str, str]:
        """Return its headers: names in any case, the values of one that came twice joined.

        Those of the connection and of the framing (`Connection`, `Content-Length`,
        `Transfer-Encoding`, …) are not among them. In a service that was called by another one,
        they are those that `forward_headers` of the entry names, and what an httpx client has sent.
        """
        head = self._head
        packed = self._context.forwarded
        if packed is not None and head.service is not None:
            own = _visible(head.headers)
            named = {name for name, _ in own}
            travelled = [field for field in unpack_fields(packed) if field[0] not in named]
            return HeaderFields([*own, *travelled])
        if head.fields is None:
            head.fields = HeaderFields(_visible(head.headers))
        return head.fields

    @property
    def cookies(self) -> Mapping[str, str]:
        """Return its cookies by name; empty without any."""
        found: dict[str, str] = {}
        for pair in self.headers.get(_COOKIE, "").split(";"):
            name, equals, value = pair.partition("=")
            if equals and name.strip():
                found[name.strip()] = _unquoted(value.strip())
        return found

    @property
    def client(self) -> tuple[str, int] | None:
        """Return host and port of who sent it; None for a service, and at a Unix socket.

        Behind a proxy that is trusted (`--proxy-headers`), it is the client that the proxy names.
        """
        return self._head.client

    @property
    def scheme(self) -> str:
        """Return `https` or `http`; behind a proxy that is trusted, what the proxy says."""
        return self._head.scheme

    @property
    def service(self) -> str | None:
        """Return the node that calls; None for a request that came by the port."""
        return self._head.service

    @property
    def principal(self) -> str | None:
        """Return the name of the API key that it came with; None without one."""
        return self._context.principal

    @property
    def answer(self) -> Answer:
        """Return how it is answered if it succeeds: status, headers, cookies and media type can be
        set.

        They count at the port, and for an injected httpx client; of a service that was called as a
        dependency only the result travels.
        """
        context = self._context
        if context.answer is None:
            context.answer = Answer()
            if context.over:
                context.answer.close()
        return context.answer

    def deadline(self) -> float | None:
        """Return the seconds left for it, never below 0; None without a deadline, and once it was
        answered.
        """
        left = self._context.seconds_left()
        return None if left is None else max(0.0, left)

    def __repr__(self) -> str:
        return f"<request {self.id}: {self.method} {self.path}>"


class BatchedRequest(Request):
    """One of the requests that a batched API executes together.

    Args:
        context: of its call.
        items: how many items of this execution are its own.
        shared: the context of the execution.

    Example:
        >>> def tenants(request: graphserve.BatchedRequest) -> list[str]:
        ...     return [request.headers.get("x-tenant", "nobody")] * request.items
        >>> @service(concurrency=1)
        ... class Reader:
        ...     @api(batch=Batch(max_size=8))
        ...     def read(self, pages: list[str]) -> list[str]:
        ...         return [name for each in graphserve.requests() for name in tenants(each)]
    """

    __slots__ = ("_items", "_shared")

    def __init__(self, context: CallContext, items: int, shared: CallContext) -> None:
        super().__init__(context)
        self._items = items
        self._shared = shared

    @property
    def items(self) -> int:
        """Return how many items of this execution are its own."""
        return self._items

    def deadline(self) -> float | None:
        """Return the seconds left for it, never below 0; None without a deadline, and once the
        execution has ended.
        """
        return None if self._shared.over else super().deadline()


def request() -> Request:
    """Return the request that is being executed: its headers, who sent it, how it is answered.

    Raises:
        LookupError: no call is being executed here, or several are: the API is batched.

    Example:
        >>> @service
        ... class Greeter:
        ...     @api
        ...     async def greet(self) -> str:
        ...         language = graphserve.request().headers.get("accept-language", "en")
        ...         return "Bonjour" if language.startswith("fr") else "Hello"
    """
    context = _context("request")
    if context.callers is not None:
        raise LookupError(
            "graphserve.request() is for one request, and a batched API executes several together:"
            " write graphserve.requests(), which gives each, with how many items are its own"
        )
    return Request(context)


def requests() -> tuple[BatchedRequest, ...]:
    """Return the requests whose items a batched API is executing, in the order of their items.

    A request whose items do not fit one execution is in several of them.

    Raises:
        LookupError: no call is being executed here, or the API is not batched.

    Example:
        >>> @service(concurrency=1)
        ... class Reader:
        ...     @api(batch=Batch(max_size=8))
        ...     def read(self, pages: list[str]) -> list[str]:
        ...         found, begin = [], 0
        ...         for request in graphserve.requests():
        ...             language = request.headers.get("accept-language", "en")
        ...             for page in pages[begin : begin + request.items]:
        ...                 found.append(f"{language}: {page}")
        ...             begin += request.items
        ...         return found
    """
    context = _context("requests")
    if context.callers is None:
        raise LookupError(
            "graphserve.requests() is for batched APIs, @api(batch=…), and this one executes one"
            " request at a time: write graphserve.request()"
        )
    return tuple(BatchedRequest(call, items, context) for call, items in context.callers)


def _context(asked: str) -> CallContext:
    context = current.get()
    if context is None:
        raise LookupError(
            f"no request is being executed here: graphserve.{asked}() is for the APIs of a service"
            " and for what they start; a thread of your own needs contextvars.copy_context().run"
        )
    return context


def _visible(fields: Fields) -> list[tuple[bytes, bytes]]:
    """Return the headers that are of the request: not of the connection, and none of ours."""
    return [
        (name, value)
        for name, value in fields
        if name not in HOP_BY_HOP and not name.startswith(INTERNAL_PREFIX)
    ]


def _unquoted(value: str) -> str:
    """Return the value of a cookie, as `http.cookies` and the clients of Python write them."""
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    return _QUOTED.sub(_character, value[1:-1])


def _character(match: re.Match[str]) -> str:
    return chr(int(match[1], 8)) if match[1] else match[2]
