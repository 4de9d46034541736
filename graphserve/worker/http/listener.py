"""A listener: what all connections of one listening socket share. Runs in workers and fallback
servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, NotRequired, Protocol, TypedDict

from graphserve.call.exchange import error_of
from graphserve.call.suspicions import Suspicions
from graphserve.errors import CallError, RemoteError
from graphserve.graph.plan import ListenPlan, Plan
from graphserve.loop.poller import poller
from graphserve.metrics.layout import OTHER
from graphserve.metrics.recorder import Recorder, RequestSeries
from graphserve.wire.extensions import Fetch, Place, no_memory
from graphserve.wire.headers import CONNECTION, ERROR_KIND, http_date
from graphserve.wire.problem import HttpProblem
from graphserve.wire.reason_phrases import phrase
from graphserve.wire.shared_buffers import MemorySender, SharedMemory
from graphserve.worker.batch.batcher import Batcher
from graphserve.worker.dispatch.executor import BoundApi, Executor
from graphserve.worker.dispatch.shedding import AdaptiveThrottle
from graphserve.worker.dispatch.slots import Slots
from graphserve.worker.flight_recorder import CallNotes
from graphserve.worker.http.access_log import AccessLog
from graphserve.worker.http.asgi import AsgiApp
from graphserve.worker.http.browsers import AllowedHosts
from graphserve.worker.http.fast_parser import FastParser
from graphserve.worker.http.forwarded import TrustedProxies
from graphserve.worker.http.relay import Relay
from graphserve.worker.http.response import Responder
from graphserve.worker.http.routing import RoutedCall, RouteTree
from graphserve.worker.http.strict import plain

if TYPE_CHECKING:
    from graphserve.wire.api_keys import ApiKeyCheck
    from graphserve.worker.http.cors import Cors

FAILED = 500  # of an API that raised what is no Problem
EVERY_HOST = AllowedHosts(("*",))
PRIVATE_BODY = 1 << 40  # bytes; between nodes the limit is memory
# seconds from accept to complete headers at a shared socket, where a slot is held meanwhile
HEADERS_TIMEOUT = 5.0


class MountFinder(Protocol):
    """Finds mounted applications: `Mounts`."""

    def find(self, path: str) -> object | None:
        """Return what a path belongs to, or None."""
        ...


class OpenConnection(Protocol):
    """A connection as its listener knows it, which closes it when it was idle for too long."""

    @property
    def idle(self) -> bool:
        """Return whether no request is in progress."""
        ...

    @property
    def at_rest(self) -> bool:
        """Return whether no request is in progress, and none has come that is still to be read."""
        ...

    def idle_before(self, moment: float) -> bool:
        """Return whether no request is in progress, nor was since then, on the loop's clock."""
        ...

    def close(self) -> None:
        """Close it when all that was written is sent."""

    def close_after_answer(self) -> None:
        """Let the answer in progress say that it is the last one."""


class Listener:
    """Holds what the connections of one kind of socket share: of the public one, of the worker's
    own, or of the shared ones.

    Args:
        app: the ASGI application for what is no API.
        apis: the APIs that are found by the exact bytes of their path, with POST.
        executor: runs the calls.
        slots: of the worker.
        responder: makes the answers; says whether this is the public listener. What a request may
            do is its own property (`Trust`), whichever listener it came by.
        relay: passes a limited call to the node's own queue.
        batchers: collect the calls of batched APIs, by API name.
        keep_alive: seconds that an idle connection stays open.
        memory: what is shared with callers of the graph, if any is.
        notes: of calls that clients make here, if such are executed in this process.
        passes_on: whether every call is relayed, since nothing is executed in this process.
        max_body_size: bytes; larger bodies are refused.
        access_log: whether requests are logged.
        root_path: the prefix that a proxy may leave on paths.
        proxy_headers: whether proxies say who their clients are.
        forwarded_allow_ips: the proxies that are believed.
        hosts: those that the public port answers to.
        forward_headers: names of headers of clients that travel down with each call.
        tree: finds the APIs that are asked for in other ways, if there are such.
        cors: pages of which other origins may call, if any may.
        keys: find out who clients are, if they need an API key.
        mounts: finds out which paths are of mounted applications, if there are such.
        middleware: whether calls of APIs go through the application too, since that has middleware
            around it.
        recorder: counts the requests of the public port; None: nothing does.
    """

    def __init__(
        self,
        app: AsgiApp,
        apis: dict[bytes, BoundApi],
        executor: Executor,
        slots: Slots,
        responder: Responder,
        relay: Relay,
        batchers: dict[str, Batcher],
        *,
        keep_alive: float,
        memory: SharedMemory | None = None,
        notes: CallNotes | None = None,
        passes_on: bool = False,
        max_body_size: int = PRIVATE_BODY,
        access_log: bool = False,
        root_path: str = "",
        proxy_headers: bool = False,
        forwarded_allow_ips: str = "127.0.0.1",
        hosts: AllowedHosts = EVERY_HOST,
        forward_headers: Iterable[str] = (),
        tree: RouteTree | None = None,
        cors: Cors | None = None,
        keys: ApiKeyCheck | None = None,
        mounts: MountFinder | None = None,
        middleware: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.readers = poller(self.loop)
        # For as long as it listens.
        self.slots = slots
        self.batchers = batchers
        self.max_body_size = max_body_size
        self.access_log = access_log
        self.public = responder.public
        self.keep_alive = keep_alive
        self.fetch: Fetch = no_memory if memory is None else memory.receiver.fetch
        self.place: Place | None = None if memory is None else memory.sender.place
        self.sender: MemorySender | None = None if memory is None else memory.sender
        self.notes = notes
        self.passes_on = passes_on
        self.root_path = root_path
        self._prefix = plain(root_path.rstrip("/").encode())
        self.hosts = hosts
        self.keys = keys
        self.mounts = mounts
        self.middleware = middleware
        # (of a call in middleware the log has the answer that the client gets)
        self.logs_calls = access_log and not middleware
        self.forward_headers = frozenset(name.lower().encode() for name in forward_headers)
        self._trusted = forwarded_allow_ips if proxy_headers and responder.public else None
        # Until there is another Plan: see `serve`.
        self.throttles: dict[str, AdaptiveThrottle] = {}
        self._innermost = app
        self.recorder: Recorder | None = None
        # whether a request counts itself that is for an API (in middleware, the application does)
        self.counts_calls = False
        # what counts the requests that nearly all are: with POST, by the number of the API
        self.posts: dict[int, RequestSeries] = {}
        self.count_in(recorder)
        self.serve(apis, executor, responder, relay, tree, cors)
        self.fast_parser = None if responder.public else FastParser(responder.node, apis.values())
        # What changes.
        self.suspicions: Suspicions | None = None  # of calls that kill workers of this node
        self.connections: set[OpenConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()  # of the application
        self.default_headers: list[tuple[bytes, bytes]] = []  # of its answers
        self.closing = False  # whether each answer is the last one of its connection
        self.refresh()

    def count_in(self, recorder: Recorder | None) -> None:
        """Count requests with this from now on."""
        self.recorder = recorder
        self.counts_calls = recorder is not None and not self.middleware
        self.posts = {}

    def counted(self, method: bytes, route: int = OTHER) -> RequestSeries | None:
        """Return what counts a request, which begins now; None: nothing does.

        Args:
            method: of the request.
            route: the number of the API that it is for, if it is for one.
        """
        if self.recorder is None:
            return None
        series = self.recorder.requests(route, method)
        if method == b"POST" and route != OTHER:
            self.posts[route] = series
        series.begin()
        return series

    def suspect(self, suspicions: Suspicions | None) -> None:
        """Refuse the calls that are known to kill workers of this node; None: there are none."""
        self.suspicions = suspicions

    def serve(
        self,
        apis: dict[bytes, BoundApi],
        executor: Executor,
        responder: Responder,
        relay: Relay,
        tree: RouteTree | None = None,
        cors: Cors | None = None,
    ) -> None:
        """Serve these from now on."""
        self.cors = cors
        app = self._innermost
        if cors is not None:
            from graphserve.worker.http.cors import CorsApp

            app = CorsApp(app, cors, responder.node)
        logged: AsgiApp = AccessLog(app) if self.access_log else app
        self.proxies: TrustedProxies | None = None
        if self._trusted is not None:
            self.proxies = TrustedProxies(logged, self._trusted)
        self.app: AsgiApp = self.proxies or logged
        # (only the log wants to know who each client is)
        self.logged_proxies = self.proxies if self.access_log else None
        self.apis = apis
        self.tree = tree
        self.executor = executor
        self.responder = responder
        self.relay = relay
        self.throttles = {}
        if self.public:
            names = {api.plan.name for api in apis.values()}
            if tree is not None:
                names |= {api.plan.name for api in tree.apis}
            self.throttles = {name: AdaptiveThrottle(responder.node, name) for name in names}

    def refresh(self) -> None:
        """Note the time, for the `date` header and for idle connections; called once a second."""
        self.now = self.loop.time()
        if not self.public:  # (there the timeouts do it)
            self._close_old()
        self.responder.refresh()
        for throttle in self.throttles.values():
            throttle.forget()
        headers = [(CONNECTION, b"close")] if self.closing else []
        if self.public:
            headers.append((b"date", http_date()))
        self.default_headers = headers

    def _close_old(self) -> None:
        latest = self.now - self.keep_alive
        for connection in self.open():
            if connection.idle_before(latest) and connection.at_rest:
                connection.close()

    def route(self, url: bytes) -> BoundApi | None:
        """Return the API at this path, or None."""
        return self.apis.get(url) or (self._route(url) if b"?" in url or b"%" in url else None)

    def _route(self, url: bytes) -> BoundApi | None:
        path = url.partition(b"?")[0]
        return self.apis.get(path) or self.apis.get(plain(path))

    def find(self, method: bytes, url: bytes) -> RoutedCall | None:
        """Return what a request is for that `route` does not find, or None."""
        return None if self.tree is None else self.tree.find(method, url)

    def executes(self, method: bytes, url: bytes) -> bool:
        """Return whether a request is for an API, or would be with another method."""
        return self.route(url) is not None or (
            self.tree is not None and bool(self.tree.allowed(url.partition(b"?")[0]))
        )

    def path(self, url: bytes) -> bytes:
        """Return the path of a target, plainly written, as it would be if the proxy had taken its
        prefix off.
        """
        path = plain(url.partition(b"?")[0])
        rest = path.removeprefix(self._prefix)
        return rest or b"/" if rest[:1] in (b"", b"/") else path

    def error_of(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> CallError:
        """Return the error that an answer of our own node stands for."""
        if (ERROR_KIND, HttpProblem.kind.encode()) in headers:
            return HttpProblem.read(status, body)
        error = error_of(status, headers, body, self.responder.node)
        if status == FAILED and isinstance(error, RemoteError):  # the sibling's API, so ours
            error.status = status
            error.title = phrase(status)
        return error

    def close_after_answers(self) -> None:
        """Tell every client that this connection ends with its answer."""
        self.closing = True
        self.refresh()
        for connection in self.open():
            connection.close_after_answer()

    def close_idle(self) -> None:
        """Close the connections that are between requests."""
        for connection in self.open():
            if connection.at_rest:
                connection.close()

    def open(self) -> list[OpenConnection]:
        """Return the connections that are open now."""
        return list(self.connections)


def routes(
    apis: Iterable[BoundApi], prefix: str = "", *, inside: bool = False
) -> dict[bytes, BoundApi]:
    """Return the APIs that are called with POST and have all arguments in the body, by path, with
    the prefix that a proxy may leave on it, and without.

    Args:
        apis: the APIs.
        prefix: of the proxy.
        inside: whether services of the graph call here: they call every API so.
    """
    bare = {api.plan.route.encode(): api for api in apis if inside or api.plan.is_plain}
    return bare | {plain(prefix.rstrip("/").encode()) + path: api for path, api in bare.items()}


class ListenerOptions(TypedDict):
    """What differs between the listeners of a worker: see `Listener`."""

    keep_alive: float
    max_body_size: NotRequired[int]
    root_path: NotRequired[str]
    proxy_headers: NotRequired[bool]
    forwarded_allow_ips: NotRequired[str]
    hosts: NotRequired[AllowedHosts]


def route_tree(apis: Iterable[BoundApi], prefix: str = "") -> RouteTree | None:
    """Return what finds APIs that `routes` does not; None if there are none."""
    found = RouteTree(apis, prefix)
    return None if found.simple else found


def cors_of(plan: Plan) -> Cors | None:
    """Return which pages of other origins may call at the port of a graph; None if none may."""
    if not plan.cors:
        return None
    from graphserve.worker.http.cors import Cors

    return Cors(plan.cors)


def publicly(listen: ListenPlan) -> ListenerOptions:
    """Return the options of a listener of the public socket."""
    return {
        "keep_alive": listen.timeout_keep_alive,
        "max_body_size": listen.max_body_size,
        "root_path": listen.root_path,
        "proxy_headers": listen.proxy_headers,
        "forwarded_allow_ips": listen.forwarded_allow_ips,
        "hosts": AllowedHosts.of(listen),
    }
