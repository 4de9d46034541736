"""The URL lane: services that run somewhere else (`depends(X, url=…)`), reached by httpx over TCP.
Runs in workers.

Typed calls take `UrlLane`; `AsyncUrlClient` and `UrlClient` are what an edge with `client=` is
given, and `UrlEdge` has what the two have in common. `own_client` is for the program that started
a graph: the lane to its public address.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

import httpx

from graphserve.call.context import CallContext, current, earliest
from graphserve.call.exchange import Compose, Exchange, error_of
from graphserve.call.fetched import FULL, FetchedFiles, WrittenFile, name_of, write_file
from graphserve.call.request import accepted, with_forwarded
from graphserve.declare.addresses import credentials
from graphserve.declare.routes import BODILESS
from graphserve.errors import CallError, DeadlineExceeded, Problem, RemoteError, Unavailable
from graphserve.graph.plan import ApiPlan, TlsPlan
from graphserve.logs import records
from graphserve.wire.formats import ERROR, Format, FrameReader, media_type, pack
from graphserve.wire.headers import (
    ACCEPT,
    API_KEY,
    AUTHORIZATION,
    CONTENT_DISPOSITION,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    TIMEOUT,
    TRANSFER_ENCODING,
    WWW_AUTHENTICATE,
    Headers,
)
from graphserve.wire.problem import CARRIED, body_of_frame, with_body
from graphserve.wire.url_arguments import filled, method_of, split

# seconds past the deadline that an httpx client waits for the service's own word, which names a
# node
SLACK = 0.03
SHORTEST_TIMEOUT = 0.001  # seconds, of what may be said in milliseconds

LOGGER = "graphserve.calls"
_UNREACHED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


PIECE = 256 * 1024  # bytes of a file that are written at a time
_FILE = "graphserve.file"  # the extension of a request that is answered with a file: the API
_AUTHORIZATION = AUTHORIZATION.decode()
_CODING = CONTENT_ENCODING.decode()
_DISPOSITION = CONTENT_DISPOSITION.decode()
_TYPE = CONTENT_TYPE.decode()
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=32)
_TIMEOUT = TIMEOUT.decode()
_CUT = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


def basic(user: str, password: str) -> str:
    """Return the value of `Authorization` for a user and a password (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


class UrlLane:
    """Sends calls to a service at a URL: their deadlines travel as `X-Request-Timeout`, since
    clocks differ.

    Args:
        node: the name for messages.
        url: where it listens.
        connect: makes the httpx client; default: one that checks certificates and uses the
            environment's proxies.
        explain: puts the detail into a problem that keeps it from the public, for who may know it.
        lost: what it means that a connection ended without an answer.
        api_key: of the service, if it wants one.
        files: where files that it answers with are put.
        edge: what it is the lane of, such as `Gateway.model`, for messages.
    """

    retry_budget = None  # httpx has the connections

    def __init__(
        self, node: str, url: str, connect: Callable[[], httpx.AsyncClient] | None = None,
        explain: Callable[[bytes], Awaitable[bytes]] | None = None, lost: str | None = None,
        api_key: str | None = None, *, files: FetchedFiles, edge: str = "",
    ) -> None:  # fmt: skip
        self.node = node
        self._files = files
        self._connect = connect or _connect
        self._explain = explain
        self._lost = lost or f"the connection to {node} ended before it had answered"
        self.url, login = credentials(url)
        self._login = [] if login is None else [(AUTHORIZATION, basic(*login).encode())]
        if api_key is not None:
            self._login.append((API_KEY, api_key.encode()))
        self._unknown = _unknown(node, edge, has_key=api_key is not None)
        self._client: httpx.AsyncClient | None = None
        self._closed = False
        self._reached = True  # by the last call, as far as is known
        self._sending: dict[Exchange[httpx.Request], asyncio.Task[None]] = {}

    def composer(self, api: ApiPlan, *, checked: bool, caller: str) -> Compose[httpx.Request]:
        """Return a function that makes requests to one API, in the form that this lane sends."""
        url = httpx.URL(self.url.rstrip("/") + api.public_path)
        accept = accepted(api, checked=checked)
        if api.files == "result":
            accept = b"*/*"  # then the file itself comes, and not what stands for it
        elif not api.stream:
            accept += b", %b;q=0.9" % Format.MSGPACK.value
        extensions = {_FILE: api.name} if api.files == "result" else {}

        def compose(
            context: CallContext | None, deadline_ns: int | None, body: bytes
        ) -> httpx.Request:
            headers = with_forwarded(context, [(ACCEPT, accept), *self._login])
            if deadline_ns is not None:
                headers.append((TIMEOUT, timeout(deadline_ns)))
            if not api.is_plain or api.input_stream is not None:
                request = self._by_url(api, headers, body)
                request.extensions = extensions
                return request
            format = Format.JSON if body[:1] == b"{" else Format.MSGPACK  # see `Writer.public`
            headers.append((CONTENT_TYPE, format.value))
            return httpx.Request("POST", url, headers=headers, content=body, extensions=extensions)

        return compose

    def _by_url(
        self, api: ApiPlan, headers: list[tuple[bytes, bytes]], written: bytes
    ) -> httpx.Request:
        """Return a request to an API whose method or URL is one of its own.

        Args:
            api: the API.
            headers: of the request.
            written: its arguments, as `url_writer` writes them; nothing, for a call that is never
                sent.
        """
        method, media_type = method_of(api.methods), b""
        pairs: list[tuple[str, str]] = []
        body: bytes | None = b""
        if written:
            method, media_type, pairs, body = split(written)
        if api.input_stream is not None:
            body = None
            headers += [(CONTENT_TYPE, Format.RAW.value), (TRANSFER_ENCODING, b"chunked")]
        elif written and method not in BODILESS:
            headers.append((CONTENT_TYPE, media_type))
        path, query = filled(api.public_path, pairs)
        try:
            url = f"{self.url.rstrip('/')}{path}{'?' if query else ''}{query}"
            return httpx.Request(
                method, url, headers=headers, content=None if method in BODILESS else body
            )
        except httpx.InvalidURL as exc:  # longer than a URL can be
            raise ValueError(str(exc)) from None

    def send(self, exchange: Exchange[httpx.Request]) -> None:
        """Send the exchange with httpx, in a task of its own."""
        if self._closed:
            exchange.fail(self._gone())
            return
        task = exchange.loop.create_task(self._send(exchange))
        self._sending[exchange] = task
        task.add_done_callback(lambda _: self._sending.pop(exchange, None))

    def forget(self, exchange: Exchange[httpx.Request]) -> None:
        """Cancel what still sends an exchange that is over."""
        task = self._sending.pop(exchange, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def prepare(self) -> None:
        """Make the httpx client now: it reads certificates, which would cost the first call a part
        of its time.
        """
        with contextlib.suppress(httpx.ConnectError):  # each call says so
            self._opened()

    async def close(self) -> None:
        """Close the connections; what is under way fails."""
        self._closed = True
        for exchange in list(self._sending):
            exchange.fail(self._gone())
        if self._client is not None:
            await self._client.aclose()

    def _gone(self) -> Unavailable:
        return Unavailable(f"the connection to {self.node} was closed", node=self.node)

    async def _send(self, exchange: Exchange[httpx.Request]) -> None:
        try:
            client = self._opened()
            response = await client.send(self._whole(exchange), stream=True)
            self._reached = True
            try:
                body = b""
                is_answer = response.status_code == 200
                if exchange.streams and is_answer:
                    await self._items(response, exchange)
                elif is_answer and (name := _file_in(response, exchange.request)):
                    body = await self._file(response, exchange, name)
                else:
                    body = await response.aread()
                    if self._explain is not None and response.status_code != 200:
                        body = await self._explain(body)
            finally:
                await response.aclose()
        except Exception as exc:  # whatever it is, somebody waits for an answer
            if not exchange.over:
                exchange.fail(self._failure(exc, exchange.request.stream))
        else:
            headers = [(name.lower(), value) for name, value in response.headers.raw]
            if response.status_code == 401 and self._asks_for_key(headers, body):
                exchange.fail(RemoteError(self._unknown, node=self.node))
            else:
                exchange.answered(response.status_code, headers, body)

    async def _items(self, response: httpx.Response, exchange: Exchange[httpx.Request]) -> None:
        exchange.head(response.headers.raw)
        reader = FrameReader()
        async for chunk in response.aiter_raw():
            if self._explain is not None:
                chunk = b"".join(
                    [await self._explained(*frame, self._explain) for frame in reader.feed(chunk)]
                )
            exchange.chunk(chunk)
            await exchange.room()

    async def _file(
        self, response: httpx.Response, exchange: Exchange[httpx.Request], name: str
    ) -> WrittenFile:
        """Write the file that is the answer to disk, as it comes; return where it is."""
        if (coding := response.headers.get(_CODING, "identity")) != "identity":
            raise httpx.DecodingError(f"it sent a file as {coding[:40]}, which nobody asked for")
        chunks = response.aiter_raw(PIECE)
        file = await write_file(self._files.folder(exchange.context), name, chunks)
        if exchange.over:  # meanwhile
            file.discard()
        return WrittenFile(os.fsencode(file.path))

    async def _explained(
        self, kind: int, payload: bytes, explain: Callable[[bytes], Awaitable[bytes]]
    ) -> bytes:
        if kind == ERROR and (body := body_of_frame(payload)):
            payload = with_body(payload, await explain(body))
        return pack(kind, payload)

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            try:
                self._client = self._connect()
            except Exception as exc:  # a proxy or a certificate of the environment that is none
                raise httpx.ConnectError(str(exc)) from exc
        return self._client

    def _whole(self, exchange: Exchange[httpx.Request]) -> httpx.Request:
        request = exchange.request
        # anew: it counts from here, and we wait little longer for its word
        if exchange.deadline_ns is not None:
            request.headers[_TIMEOUT] = timeout(exchange.deadline_ns).decode()
        if exchange.upload is not None:
            request.stream = _Body(exchange)
        return request

    def _asks_for_key(self, headers: Headers, body: bytes) -> bool:
        """Return whether a 401 is of the port, and not of user code by a `Problem` of its own."""
        said = dict(headers).get(WWW_AUTHENTICATE, b"").lower()
        return said.startswith(b"bearer") and not isinstance(
            error_of(401, headers, body, self.node), Problem
        )

    def _failure(self, exc: Exception, body: object) -> CallError:
        """Return the error for one of httpx's; its text may go to anyone, and so does not say where
        the service is.
        """
        if isinstance(exc, _UNREACHED):
            said = f"{self.node} at {self.url} cannot be reached: {exc}"
            if self._reached:  # not with each call
                self._reached = False
                records.note(LOGGER, "warning", said)
            error = Unavailable(f"{self.node} cannot be reached", node=self.node)
            error.add_note(said)  # for who reads the traceback
            return error
        if isinstance(exc, OSError) and exc.errno in FULL:
            said = f"there is no room on disk for the file that {self.node} answered with"
            records.note(LOGGER, "error", said)
            return Unavailable(said)
        if not isinstance(exc, httpx.HTTPError):
            records.note(LOGGER, "error", f"a call to {self.node} failed", exc)
        # httpx reads no answer before it has sent all
        if isinstance(body, _Body) and not body.complete:
            why = "before it had the whole upload: it answered without, or refused it"
            return RemoteError(
                f"{self.node} closed the connection {why}{_reason(exc)}", node=self.node
            )
        if isinstance(exc, _CUT):
            return RemoteError(f"{self._lost}{_reason(exc)}", node=self.node)
        return RemoteError(f"the call to {self.node} failed{_reason(exc)}", node=self.node)


def _unknown(node: str, edge: str, *, has_key: bool) -> str:
    """Return what a 401 of a service means, which asks for an API key."""
    if not edge:
        return f"{node} asks for an API key (401)"
    if has_key:
        return (
            f"{node} does not know the API key of {edge} (401): the file that api_key_file= of"
            " its depends(…) names holds the key alone, without a name; `graphserve reload` reads"
            " it again"
        )
    return (
        f"{node} asks for an API key (401): write it into a file, and give {edge}"
        " depends(…, api_key_file=PATH)"
    )


def _file_in(response: httpx.Response, request: httpx.Request) -> str | None:
    """Return the name of the file that an answer is; None if it is none: then it is read as a
    result, which says what is wrong with it.
    """
    api = request.extensions.get(_FILE)
    disposition: str | None = response.headers.get(_DISPOSITION)
    if api is None or disposition is None:
        return None
    return name_of(disposition, media_type(response.headers.get(_TYPE, "").encode()), str(api))


def _reason(exc: Exception) -> str:
    """Return the text of an exception, in brackets; many of httpx's have none."""
    said = str(exc).strip().rstrip(".")
    return f" ({said})" if said else ""


def timeout(deadline_ns: int) -> bytes:
    """Return a deadline as it travels to a service with another clock: the seconds left."""
    left = (deadline_ns - time.monotonic_ns()) / 1e9
    return b"%.3f" % max(left, SHORTEST_TIMEOUT)


class UrlEdge:
    """Add what travels to the requests that an httpx client sends to a service at a URL, and
    explain its failures.

    Args:
        node: the name for messages.
        url: where it listens; requests to other places are left alone.
    """

    def __init__(self, node: str, url: httpx.URL) -> None:
        self.node = node
        self._origin = _origin(url)

    @contextlib.contextmanager
    def sending(self, request: httpx.Request) -> Iterator[int | None]:
        """Send a request within; the value is its deadline, None without one.

        Raises:
            httpx.TransportError: what was raised within, which carries what it means should nobody
                catch it.
        """
        try:
            yield self._prepare(request)
        except httpx.TransportError as exc:
            self._note(exc, request)
            raise
        finally:
            self._done()

    def _prepare(self, request: httpx.Request) -> int | None:
        """Add what travels to a request; return its deadline, None without one.

        Raises:
            httpx.ReadTimeout: the deadline has passed.
        """
        if _origin(request.url) != self._origin:
            return None
        context = current.get()
        timeouts = request.extensions.get("timeout", {})
        deadline_ns = earliest(
            context.deadline_ns if context is not None else None, timeouts.get("read")
        )
        for name, value in with_forwarded(context, request.headers.raw)[len(request.headers.raw) :]:
            request.headers[name.decode()] = value.decode("latin-1")
        if deadline_ns is None:
            return None
        left = (deadline_ns - time.monotonic_ns()) / 1e9
        if left <= 0:
            raise self._late(
                DeadlineExceeded(f"{self.node} was not called before the deadline", node=self.node)
            )
        if _TIMEOUT not in request.headers:
            request.headers[_TIMEOUT] = timeout(deadline_ns).decode()
        most = left + SLACK
        shorter = {
            name: most if given is None else min(given, most) for name, given in timeouts.items()
        }
        request.extensions = {**request.extensions, "timeout": shorter}
        if context is not None:
            context.url_service = self.node  # should the caller be late, this is who it waits for
        return deadline_ns

    def _done(self) -> None:
        context = current.get()
        if context is not None:
            context.url_service = None

    def is_late(self, response: httpx.Response, deadline_ns: int | None) -> bool:
        """Return whether it may be what a service of ours says of the caller's own deadline."""
        passed = deadline_ns is not None and deadline_ns <= time.monotonic_ns()
        return passed and response.status_code == DeadlineExceeded.default_status

    def raise_if_late(self, response: httpx.Response) -> None:
        """Raise what it says, if it does; its body has been read.

        Raises:
            httpx.ReadTimeout: the deadline passed; it carries the node that the call waited for.
        """
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        error = error_of(response.status_code, headers, response.content, self.node)
        if isinstance(error, DeadlineExceeded):
            raise self._late(error) from error

    def _note(self, exc: httpx.TransportError, request: httpx.Request) -> None:
        if _origin(request.url) != self._origin or hasattr(exc, CARRIED):
            return
        if isinstance(exc, _UNREACHED):
            carrying(Unavailable(f"{self.node} cannot be reached", node=self.node), exc)
        elif isinstance(exc, httpx.TimeoutException):
            carrying(
                DeadlineExceeded(f"{self.node} did not answer before the deadline", node=self.node),
                exc,
            )
        elif not isinstance(exc, httpx.LocalProtocolError):  # that is the caller's own doing
            said = f"the connection to {self.node} ended before it had answered{_reason(exc)}"
            carrying(RemoteError(said, node=self.node), exc)

    def _late(self, error: DeadlineExceeded) -> httpx.TransportError:
        return carrying(error, httpx.ReadTimeout(str(error)))


class OriginAuth(httpx.Auth):
    """Says who calls, to the service at a URL and to nobody else: user code may send requests to
    other places by the same client.

    Args:
        url: of the service.
        said: the value of `Authorization`.
    """

    def __init__(self, url: str, said: str) -> None:
        self._origin = _origin(httpx.URL(url))
        self._said = said

    @classmethod
    def of(cls, url: str, login: tuple[str, str] | None, api_key: str | None) -> OriginAuth | None:
        """Return what says a user and a password, or an API key; None if there is neither."""
        if api_key is not None:
            return cls(url, f"Bearer {api_key}")
        return None if login is None else cls(url, basic(*login))

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add it, unless the request says itself who calls. (A redirect to another origin leaves it
        out: httpx does so.)
        """
        if _origin(request.url) == self._origin and _AUTHORIZATION not in request.headers:
            request.headers[_AUTHORIZATION] = self._said
        yield request


class AsyncUrlClient(httpx.AsyncClient):
    """The `httpx.AsyncClient` of an edge to a service at a URL."""

    def __init__(
        self, node: str, url: str, timeout: float | None, api_key: str | None = None
    ) -> None:
        public, login = credentials(url)
        super().__init__(
            base_url=public, timeout=timeout, auth=OriginAuth.of(public, login, api_key)
        )
        self._edge = UrlEdge(node, self.base_url)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request as every client does; deadline, request id and trace travel with it."""
        with self._edge.sending(request) as deadline_ns:
            response = await super().send(request, **options)
            if self._edge.is_late(response, deadline_ns):
                await response.aread()
                self._edge.raise_if_late(response)
        return response


class UrlClient(httpx.Client):
    """The `httpx.Client` of an edge to a service at a URL."""

    def __init__(
        self, node: str, url: str, timeout: float | None, api_key: str | None = None
    ) -> None:
        public, login = credentials(url)
        super().__init__(
            base_url=public, timeout=timeout, auth=OriginAuth.of(public, login, api_key)
        )
        self._edge = UrlEdge(node, self.base_url)

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request as every client does; deadline, request id and trace travel with it."""
        with self._edge.sending(request) as deadline_ns:
            response = super().send(request, **options)
            if self._edge.is_late(response, deadline_ns):
                response.read()
                self._edge.raise_if_late(response)
        return response


def carrying(error: CallError, foreign: httpx.TransportError) -> httpx.TransportError:
    """Return an error of httpx that stands for one of ours, which is answered with if nobody
    catches it.
    """
    setattr(foreign, CARRIED, error)
    return foreign


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


class _Body(httpx.AsyncByteStream):
    """A request body that is made while it is sent."""

    def __init__(self, exchange: Exchange[httpx.Request]) -> None:
        self._exchange = exchange
        self.complete = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._exchange.upload_pieces():
            yield piece
        self.complete = True


def _connect() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=None, limits=_LIMITS)


def own_client(url: str, tls: TlsPlan | None, password: str | None) -> httpx.AsyncClient:
    """Make a client of a graph that this process started, at its public address.

    No proxy of the environment stands between a program and its own graph.

    Args:
        url: what the supervisor says it serves on; it may be `unix:/path`.
        tls: what the graph serves TLS with.
        password: of the TLS key.
    """
    verify = True if tls is None else _trust(tls, password)
    if not url.startswith("unix:"):
        return httpx.AsyncClient(verify=verify, timeout=None, trust_env=False, limits=_LIMITS)
    transport = httpx.AsyncHTTPTransport(
        uds=url.removeprefix("unix:"), verify=verify, limits=_LIMITS
    )
    return httpx.AsyncClient(transport=transport, timeout=None, trust_env=False)


def _trust(tls: TlsPlan, password: str | None) -> ssl.SSLContext:
    # The graph is ours: its own certificate is what it has to show, whoever issued it and whatever
    # host it names.
    trust = ssl.create_default_context(cafile=tls.certfile)
    trust.check_hostname = False
    trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # it asks for a certificate: we have the one that it shows itself
    if tls.cert_reqs != ssl.CERT_NONE:
        trust.load_cert_chain(tls.certfile, tls.keyfile, password)
    return trust
