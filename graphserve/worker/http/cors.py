"""Pages of other origins that may call (CORS): which they are, and the headers by which a browser
lets them.

Runs in entry workers and fallback servers, where origins are allowed. What a browser asks before a
request (a preflight) is answered here; every other answer to a page that is allowed gets the
headers, errors too. The rules are those of Starlette's `CORSMiddleware`, but for what
`docs/how-to/browsers.md` names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from graphserve.declare.origins import EVERY, normal
from graphserve.wire.headers import ORIGIN, REQUEST_ID, Headers, is_token
from graphserve.wire.problem import HttpProblem
from graphserve.worker.http.asgi import (
    AsgiApp,
    Message,
    Receive,
    Scope,
    Send,
    send_answer,
    send_problem,
)
from graphserve.worker.http.limits import shown
from graphserve.worker.http.response import CrossOriginResponder, Responder

VARY = (b"vary", b"Origin")
_VARY_ASKED = (
    b"vary",
    b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers,"
    b" Access-Control-Request-Private-Network",
)
_PREFIX = b"access-control-"
_ASKED_METHOD = b"access-control-request-method"
_ASKED_HEADERS = b"access-control-request-headers"
_METHODS = (b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT", b"QUERY")
_MAX_AGE = 600  # seconds that a browser may remember what it was allowed
_MOST_REMEMBERED = 256  # origins; how many there are is not for a client to say
# What scripts may read of an answer anyway (Fetch, 3.2.4), and what is of the connection.
_READABLE = frozenset(
    b"cache-control content-language content-length content-type expires last-modified pragma"
    b" connection date keep-alive transfer-encoding vary set-cookie".split()
)


class Cors:
    """Decides which pages may call, and says so to their browsers.

    Origins that are named may send cookies and read the answers to that; `*` is every page, and
    none of them may.

    Args:
        origins: those that are allowed: see `declare.origins`.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        names = [normal(each) or each for each in origins]
        self.every = EVERY in names
        self._names = frozenset(name for name in names if "*" not in name)
        # scheme and dot before it, what is behind the star
        self._below = [tuple(name.split("*", 1)) for name in names if "//*." in name]
        self.allows: Callable[[bytes], bool] = lru_cache(maxsize=_MOST_REMEMBERED)(self._allows)
        # of each answer, to whomever: a cache must not give it to a page of another origin
        self.always: Headers = [] if self.every else [VARY]
        self.common = lines(self.always)

    def _allows(self, origin: bytes) -> bool:
        if self.every:
            return True
        name = normal(origin.decode("latin-1"))
        if name is None or "*" in name:
            return False
        return name in self._names or any(
            name.startswith(scheme) and name.endswith(rest) and len(name) > len(scheme + rest)
            for scheme, rest in self._below
        )

    def asks(self, method: bytes, headers: Headers) -> bool:
        """Return whether a request is a preflight."""
        names = {name for name, _ in headers}
        return method == b"OPTIONS" and ORIGIN in names and _ASKED_METHOD in names

    def origin(self, headers: Headers) -> bytes | None:
        """Return the origin that a request is from, if that is allowed."""
        origins = [value for name, value in headers if name == ORIGIN]
        return origins[0] if len(origins) == 1 and self.allows(origins[0]) else None

    def fields(self, origin: bytes, names: Iterable[bytes] = ()) -> Headers:
        """Return the headers that let a page of an allowed origin read an answer.

        Args:
            origin: of the page.
            names: of the headers of the answer, in lower case.
        """
        fields = self._leave(origin)
        readable = sorted({REQUEST_ID, *names} - _READABLE)
        fields.append((b"access-control-expose-headers", b", ".join(readable)))
        return fields

    def responder(self, base: Responder, origin: bytes) -> Responder:
        """Return what makes the answers to a request of a page: `base`, which has `always` in each
        of them, unless the page may read them.
        """
        if not self.allows(origin):
            return base
        return CrossOriginResponder(base, lambda names: lines(self.fields(origin, names)))

    def preflight(self, headers: Headers) -> Headers | HttpProblem:
        """Return the headers that answer a preflight; a refusal if it asks for too much."""
        said = dict(headers)
        origin = self.origin(headers)
        if origin is None:
            told = shown(said[ORIGIN])
            return HttpProblem(403, f"pages of {told} may not call: --cors-origin says whose may")
        if said[_ASKED_METHOD] not in _METHODS:
            allowed = b", ".join(_METHODS).decode()
            told = shown(said[_ASKED_METHOD])
            return HttpProblem(403, f"pages of other origins may use {allowed}, not {told}")
        fields = [
            *self._leave(origin),
            (b"access-control-allow-methods", b", ".join(_METHODS)),
            (b"access-control-max-age", b"%d" % _MAX_AGE),
        ]
        if _ASKED_HEADERS in said:
            asked = [name.strip() for name in said[_ASKED_HEADERS].split(b",")]
            names = b", ".join(name for name in asked if is_token(name))
            fields.append((b"access-control-allow-headers", names))
        return fields

    def _leave(self, origin: bytes) -> Headers:
        if self.every:
            return [(b"access-control-allow-origin", b"*")]
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
        ]


def lines(fields: Headers) -> bytes:
    """Return headers as lines of a head."""
    return b"".join(b"%s: %s\r\n" % field for field in fields)


class CorsApp:
    """Answers preflights, and lets pages of allowed origins read what the application answers.

    Args:
        app: what answers all else.
        cors: which pages may.
        node: the name of the entry, for refusals.
    """

    def __init__(self, app: AsgiApp, cors: Cors, node: str) -> None:
        self.app = app
        self.cors = cors
        self.node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI, for `http` scopes)."""
        headers: Headers = scope["headers"]
        cors = self.cors
        if cors.asks(scope["method"].encode(), headers):
            await self._preflight(headers, send)
            return
        origin = cors.origin(headers)

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                if origin is not None:  # (an application with rules of its own may say them too)
                    given = [field for field in given if not field[0].lower().startswith(_PREFIX)]
                    names = [name.lower() for name, _ in given]
                    given += cors.fields(origin, names)
                message = {**message, "headers": [*given, *cors.always]}
            await send(message)

        await self.app(scope, receive, telling)

    async def _preflight(self, headers: Headers, send: Send) -> None:
        said = self.cors.preflight(headers)
        if isinstance(said, HttpProblem):
            said.headers[_VARY_ASKED[0].decode()] = _VARY_ASKED[1].decode()
            await send_problem(send, said, self.node)
            return
        await send_answer(send, 200, [*said, _VARY_ASKED], b"")
