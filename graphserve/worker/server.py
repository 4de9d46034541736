"""What a worker serves: one instance, its listeners, and the way out.

`WorkerServer.start` makes the instance, and then the server around it: the executor and the slots,
the batchers, the worker's own socket (`OwnSocket`) and the node's shared ones (`GatedListener`); in
a worker of the entry also the public port (`Acceptor`), when the supervisor says so. Once a second
it looks after them and reports its health. `drain` takes nothing new and answers what it has;
`stop` leaves the instance. Runs in workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import mmap
import os
import socket
import ssl
import sys
from collections.abc import Callable, Container, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from graphserve.call.lanes.of_process import Lanes
from graphserve.call.membership import Membership
from graphserve.errors import StartupError
from graphserve.graph.plan import NodePlan, Plan
from graphserve.logs import records
from graphserve.loop.periodic import Periodic
from graphserve.metrics.recorder import Recorder
from graphserve.system.frozen import dataclass
from graphserve.system.inherited import open_standard_streams
from graphserve.system.messages import FromWorker, HealthReport, WarmingUp
from graphserve.system.rundir.paths import batch_sockets, received_files, worker_socket
from graphserve.wire.api_keys import ApiKeyCheck
from graphserve.wire.shared_buffers import SharedMemory
from graphserve.wire.signature import Signature
from graphserve.worker.batch.batcher import Batcher, BatchLease
from graphserve.worker.dispatch.executor import Executor, TimingExecutor, bind
from graphserve.worker.dispatch.slots import GatedListener, Permit, Slots
from graphserve.worker.drain import finish_connections, in_flight, until
from graphserve.worker.flight_recorder import FlightRecorder
from graphserve.worker.http.asgi import AsgiApp
from graphserve.worker.http.fast_connection import FastConnection
from graphserve.worker.http.limits import Limits
from graphserve.worker.http.listener import (
    Listener,
    ListenerOptions,
    cors_of,
    publicly,
    route_tree,
    routes,
)
from graphserve.worker.http.protocol import HttpConnection
from graphserve.worker.http.public.acceptor import Acceptor
from graphserve.worker.http.relay import Relay
from graphserve.worker.http.response import Responder
from graphserve.worker.instance import InstanceThreads, ServiceInstance
from graphserve.worker.pages.application import PagesOnDemand, WorkerApp
from graphserve.worker.pages.health import Health
from graphserve.worker.websockets.door import SocketDoor
from graphserve.worker.websockets.routes import SocketRoutes

if TYPE_CHECKING:
    from graphserve.call.clients import Clients
    from graphserve.worker.middleware import PortApp
    from graphserve.worker.mounts.mounts import MountedApp, Mounts

NO_KEYS: Mapping[str, str] = {}
SERVER_KEEP_ALIVE = 2.5  # times the caller's keep-alive: the caller always closes first
BACKLOG = 1024  # connections that may wait at the worker's own socket
# seconds that a socket without a name stays open: who connected before is accepted by then
OLD_SOCKET = 1.0
TAKEN_TIMEOUT = 2.0  # seconds that a stopping worker waits for results in its memory to be taken


class OwnSocket:
    """The worker's own socket, under a name of its own: where calls of unlimited APIs come, and
    questions for health.

    Args:
        address: its path.
        make_protocol: makes the protocol of a connection.
    """

    def __init__(self, address: str, make_protocol: Callable[[], HttpConnection]) -> None:
        self.address = address
        self._make_protocol = make_protocol
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Listen, also where the name of the socket before was removed: that one is closed in a
        while.

        Raises:
            OSError: it cannot be made.
        """
        loop = asyncio.get_running_loop()
        before = self._server
        self._server = await loop.create_unix_server(
            self._make_protocol, sock=self._bind(), backlog=BACKLOG
        )
        if before is not None:
            loop.call_later(OLD_SOCKET, before.close)

    def close(self) -> None:
        """Close it, and remove its name."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(OSError):
            os.unlink(self.address)

    def _bind(self) -> socket.socket:
        # Listening first and renamed into place then: a caller that finds the name can connect.
        sock = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            sock.bind(self.address + "~")
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
        sock.setblocking(False)
        os.rename(self.address + "~", self.address)
        return sock


@dataclass(frozen=True)
class Neighbours:
    """The nodes that this one calls, and what it shares with them.

    Args:
        membership: what is known about them.
        memory: where large values are passed; None if no memory is shared.
        lanes: the ways to them.
        clients: what the instance calls them with; None if it calls none.
    """

    membership: Membership
    memory: SharedMemory | None
    lanes: Lanes
    clients: Clients[bytes] | None


class WorkerServer:
    """Serves one instance, which has been made.

    Args:
        plan: the graph.
        node: the node.
        run: the run folder.
        instance: the instance, entered.
        neighbours: the nodes that it calls.
        sockets: the node's shared sockets, by API name (`""` for the one of all that is not
            batched).
        report: told once a second how this worker is.
        tls: of the public socket, if it is a TLS port.
        keys: find out who clients are, if they need an API key.
        mounts: what the port serves besides, started, if there is anything.
        recorder: counts what comes of requests; None: nothing does.
    """

    def __init__(
        self,
        plan: Plan,
        node: NodePlan,
        run: Path,
        instance: ServiceInstance,
        neighbours: Neighbours,
        sockets: dict[str, socket.socket],
        report: Callable[[HealthReport], None],
        tls: ssl.SSLContext | None,
        keys: ApiKeyCheck | None = None,
        mounts: Mounts | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._recorder = recorder
        membership = neighbours.membership
        self.plan = plan
        self.node = node
        self.neighbours = neighbours
        self.memory = neighbours.memory
        self.report = report
        self.loop = asyncio.get_running_loop()
        # the calls
        self.instance = instance
        self.apis = bind(node, instance.instance)
        self.recorder = FlightRecorder()
        self.address = worker_socket(run, node.id, os.getpid())
        make_executor = TimingExecutor if plan.access_log else Executor
        self.executor = make_executor(
            node,
            instance.threads,
            plan.depth(node.name),
            self.recorder.words,
            received_files(self.address),
            recorder,
        )
        self.slots = Slots(node.limit)
        self.relay = Relay(node, neighbours.lanes, self.executor.guard)
        paths = batch_sockets(run, node.id, node.batched) if node.workers > 1 else {}
        self._leases = {name: BatchLease(path) for name, path in paths.items()}
        self.batchers = {
            name: Batcher(api, self.executor, self.slots, self.slots.update, self._leases.get(name))
            for name, api in self.apis.items() if api.plan.batch is not None
        }  # fmt: skip
        # what is no call
        self._keys = keys
        self._mounts = mounts
        self.health = Health(
            node.name, lambda: membership.missing(plan.below(node.name)), membership.outdated
        )
        self.app = WorkerApp(
            self.health,
            self.apis,
            (lambda app: PagesOnDemand(app, self._make_pages)) if node.name == plan.entry else None,
            SocketRoutes(node.sockets),
            mounts,
        )
        self._inside: PortApp | None = None  # what middleware is around
        self._around: AsgiApp = self.app
        if node.middleware and node.name == plan.entry:
            self._around = self._with_middleware()
        # the sockets
        self._listeners: list[Listener] = []
        self._attaching: set[asyncio.Task[object]] = set()
        self._shared = sockets
        self.private = self._make_listener(public=False)
        self._own = OwnSocket(self.address, partial(HttpConnection, self.private))
        self._tls = tls
        self._port: Acceptor | None = None
        self._resident = ResidentMemory()
        self._pulse = Periodic(
            1.0,
            self._beat,
            self._watch_streams,
            self._refresh,
            self._sweep,
            self._renew,
            self._report_health,
        )

    @classmethod
    async def start(
        cls,
        plan: Plan,
        node: NodePlan,
        run: Path,
        membership: Membership,
        service: type,
        sockets: dict[str, socket.socket],
        report: Callable[[FromWorker], None],
        owners: Container[int] | None,
        tls: ssl.SSLContext | None,
        keys: ApiKeyCheck | None = None,
        edge_keys: Mapping[str, str] = NO_KEYS,
        recorder: Recorder | None = None,
    ) -> WorkerServer:
        """Make the instance, then listen on the worker's own socket and on the node's shared ones.

        Args:
            plan: the graph.
            node: the node.
            run: the run folder.
            membership: what is known about other nodes.
            service: the class of the instance.
            sockets: the node's shared sockets, by API name; one may be replaced in there until this
                returns.
            report: told once a second how this worker is, and when it warms up.
            owners: the workers of the graph; None if nobody can say: then no memory is shared.
            tls: of the public socket, if it is a TLS port.
            keys: find out who clients are, if they need an API key.
            edge_keys: the API keys that services elsewhere want, by `EdgePlan.place`.
            recorder: counts calls, and what comes of requests; None: nothing does.

        Raises:
            StartupError: the instance cannot be made or entered, or what is mounted does not start.
        """
        threads = InstanceThreads(node.limit, node.name)
        memory = (
            SharedMemory(plan.shared_memory, owners)
            if plan.shared_memory and owners is not None
            else None
        )
        if memory is not None and "PIL.Image" in sys.modules:
            from graphserve.wire.media import pixels

            pixels.keep_in_one_piece()
        lanes = Lanes(plan, run, membership, memory)
        clients: Clients[bytes] | None = None
        if node.edges:
            from graphserve.call.clients import Clients

            clients = Clients(
                node,
                plan,
                lanes.to,
                lanes.http_client,
                sharing_with=lanes.sharing,
                has_started=membership.has_started,
                files=received_files(worker_socket(run, node.id, os.getpid())),
                keys=edge_keys,
                recorder=recorder,
            )
        inject = _nothing if clients is None else clients.inject
        instance = ServiceInstance(node, service, threads, inject, lambda: report(WarmingUp()))
        await instance.start()
        neighbours = Neighbours(membership, memory, lanes, clients)
        mounts = None
        if node.mounts and node.name == plan.entry:
            mounts = await _started(node, service, instance)
        server = cls(
            plan, node, run, instance, neighbours, sockets, report, tls, keys, mounts, recorder
        )
        await server._open()
        return server

    async def _open(self) -> None:
        await self._own.listen()
        self.health.begin()
        self.slots.open([self._gated(name, sock) for name, sock in self._shared.items()])
        self._pulse.begin()

    @property
    def shared_descriptors(self) -> list[int]:
        """Return the descriptor of the memory that the supervisor reads."""
        return [self.recorder.descriptor]

    def unready(self) -> None:
        """Have `/readyz` say 503; everything else is answered as before."""
        self.health.drain()

    def replace(self, sockets: dict[str, socket.socket]) -> None:
        """Accept from shared sockets that take the places of those whose names somebody removed."""
        for name, sock in sockets.items():
            before = self._shared[name]
            self._shared[name] = sock
            self.slots.replace(before, self._gated(name, sock))

    async def rebind(self) -> None:
        """Listen on the worker's own socket anew, since somebody removed its name.

        Raises:
            OSError: it cannot be made.
        """
        await self._own.listen()

    async def listen(self, sock: socket.socket) -> None:
        """Serve the public socket too: this worker is of the entry."""
        if self._port is not None:
            await self._port.succeed(sock, self.plan.listen.backlog)
            return
        listener, limits = self._make_listener(public=True), Limits.of(self.plan.listen)
        door = self._make_door(listener)
        self._port = Acceptor(listener, limits, self._tls, door=door)
        await self._port.open(sock, self.plan.listen.backlog)

    async def drain(self, *, last: bool) -> None:
        """Take nothing new, and return when everything that was taken is answered.

        Args:
            last: the whole node stops: the shared sockets stay ours until the very end, since a
                sibling may still pass on what it accepted.
        """
        self.health.drain()
        if self._port is not None:
            self._port.close()
        if not last:
            self.slots.close()
        for listener in self._listeners:
            listener.close_after_answers()
        await finish_connections(self._listeners, self._busy, self._port)

    async def stop(self) -> None:
        """Leave the instance and close everything."""
        self.slots.close()
        await until(lambda: not self.executor.executing and not self._busy())
        await self._until_taken()
        if self._mounts is not None:
            # what they do behind an answer is a part of their request
            await until(lambda: not any(listener.tasks for listener in self._listeners))
            await self._mounts.stop()
        await self._leave()
        if self.neighbours.clients is not None:
            await self.neighbours.clients.close()
        self._own.close()

    async def _leave(self) -> None:
        try:
            await self.instance.stop()
        # user code may raise anything; what is left to do is done all the same
        except Exception as exc:
            name = "__aexit__" if hasattr(self.instance.cls, "__aexit__") else "__exit__"
            records.note("graphserve", "error", self.instance.words(name, exc), exc)

    # --- listeners ---

    def _make_listener(self, *, public: bool) -> Listener:
        plan, listen = self.plan, self.plan.listen
        rest: ListenerOptions = (
            publicly(listen)
            if public
            else {"keep_alive": plan.inner_keep_alive * SERVER_KEEP_ALIVE}
        )
        cors = cors_of(plan) if public else None
        common = b"" if cors is None else cors.common
        responder = Responder(self.node.name, public=public, debug=plan.debug, lines=common)
        prefix = listen.root_path if public else ""
        listener = Listener(
            self._around if public else self.app,
            routes(self.apis.values(), prefix, inside=not public),
            self.executor,
            self.slots,
            responder,
            self.relay,
            self.batchers,
            access_log=plan.access_log,
            memory=None if public else self.memory,
            notes=self.recorder.notes if public else None,
            forward_headers=(
                self.node.options.forward_headers if self.node.name == plan.entry else ()
            ),
            tree=route_tree(self.apis.values(), prefix),
            cors=cors,
            keys=self._keys if public else None,
            mounts=self._mounts if public else None,
            middleware=public and self._inside is not None,
            recorder=self._recorder if public else None,
            **rest,
        )
        if public and self._inside is not None:
            self._inside.listener = listener
        self.neighbours.membership.watch_suspicions(self.node.name, listener.suspect)
        self._listeners.append(listener)
        return listener

    def _with_middleware(self) -> AsgiApp:
        """Return the application inside of the middleware that the class declares.

        Raises:
            StartupError: one of it cannot be made.
        """
        from graphserve.declare.declaration import declaration
        from graphserve.worker.middleware import PortApp, stack

        declared = declaration(self.instance.cls)
        assert declared is not None
        self._inside = PortApp(self.app, self._socket_endpoints())
        return stack(declared.middleware, self._inside, self.node.name)

    def _make_door(self, listener: Listener) -> SocketDoor | None:
        if not self.node.sockets and not self._mounted_with_sockets:
            return None
        # (it brings Starlette, and `websockets`)
        from graphserve.worker.websockets.connection import OpenDoor

        endpoints = self._socket_endpoints()
        if self._inside is not None:
            from graphserve.worker.middleware import SocketByName

            endpoints = {name: SocketByName(self._around, name) for name in endpoints}
        routes = SocketRoutes(self.node.sockets, self.plan.listen.root_path)
        find_mounted = partial(self.app.find_socket, listener.path)
        return OpenDoor(self.node, routes, endpoints, find_mounted)

    @property
    def _mounted_with_sockets(self) -> list[MountedApp]:
        """Return the applications whose WebSockets are served: none without `websockets`."""
        if self._mounts is None or importlib.util.find_spec("websockets") is None:
            return []
        return self._mounts.with_sockets

    def _socket_endpoints(self) -> dict[str, AsgiApp]:
        endpoints: dict[str, AsgiApp] = {
            mounted.socket.name: partial(self._mounts.talk, mounted)
            for mounted in self._mounted_with_sockets
            if self._mounts is not None
        }
        if not self.node.sockets:
            return endpoints
        # (it brings Starlette)
        from graphserve.worker.websockets.endpoint import SocketEndpoint

        node, service = self.node, type(self.instance.instance)
        responder = Responder(node.name, public=True, debug=self.plan.debug)
        slots = self.slots if node.options.concurrency is not None else None
        forwarded = frozenset(name.lower().encode() for name in node.options.forward_headers)
        return endpoints | {
            plan.name: SocketEndpoint(
                plan,
                getattr(self.instance.instance, plan.name),
                Signature.of_socket(service, plan.name),
                self.executor,
                slots,
                responder,
                forwarded,
            )
            for plan in node.sockets
        }

    def _gated(self, name: str, sock: socket.socket) -> GatedListener:
        batcher = self.batchers.get(name)

        def attach(connection: socket.socket) -> None:
            permit = Permit(self.slots, slot=batcher is None, batcher=batcher)
            FastConnection(self.private, connection, permit, self._hand_over).begin()

        if batcher is None:
            return GatedListener(sock, attach, self.slots.take)
        return GatedListener(
            sock,
            attach,
            batcher.reserve_place,
            lambda: batcher.room,
            batcher.take_lease,
            batcher.leave_lease_if_idle,
        )

    def _hand_over(self, connection: socket.socket, permit: Permit, first: bytes) -> None:
        factory = lambda: HttpConnection(self.private, permit, first)  # noqa: E731
        task = self.loop.create_task(self.loop.connect_accepted_socket(factory, connection))
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)

    def _make_pages(self, app: WorkerApp) -> AsgiApp:
        from graphserve.worker.pages.docs import application, openapi_document

        service, version = self.instance.cls, self.node.options.version
        keys = self._keys is not None
        document = partial(openapi_document, self.node.name, service, self.apis, version, keys=keys)
        return application(app, self.node.name, document, self.plan.listen.root_path)

    # --- the way out ---

    def _beat(self) -> None:
        if self._recorder is not None:
            self._recorder.beat(0 if self.memory is None else self.memory.sender.reserved)

    def _watch_streams(self) -> None:
        # The next connection would get the number of one that user code closed, and a client what
        # is printed there.
        for name in open_standard_streams():
            records.note(
                "graphserve",
                "warning",
                f"user code closed {name}: what is printed there is lost from now on",
            )

    def _refresh(self) -> None:
        for listener in self._listeners:
            listener.refresh()
        self.executor.refresh_deadline()

    def _sweep(self) -> None:
        if self.memory is not None:
            self.memory.sweep()

    def _renew(self) -> None:
        for lease in self._leases.values():
            lease.renew()

    def _report_health(self) -> None:
        self.report(self.health_report())

    def health_report(self) -> HealthReport:
        """Return how this worker is, for the supervisor."""
        executor = self.executor
        return HealthReport(
            executed=executor.executed,
            overdue=executor.overdue(),
            rss=self._resident.read(),
            in_flight=in_flight(self._listeners),
            executing=len(executor.executing),
            waiting=sum(batcher.waiting_calls for batcher in self.batchers.values()),
            ran_on_async=executor.abandoned.ran_on_async,
            ran_on_sync=executor.abandoned.ran_on_sync,
            shed=executor.refused,
        )

    def _busy(self) -> bool:
        waits = bool(self._attaching) or (self._port is not None and self._port.pending)
        return bool(waits or in_flight(self._listeners))

    async def _until_taken(self) -> None:
        """Wait for callers to take the results that lie in our memory; what nobody takes does not
        hold us for long.
        """
        end = self.loop.time() + TAKEN_TIMEOUT
        memory = self.memory
        await until(
            lambda: memory is None or not memory.sender.in_transit() or self.loop.time() > end
        )


def _nothing(instance: object) -> None:
    """Inject nothing: the node has no dependency."""


async def _started(node: NodePlan, service: type, instance: ServiceInstance) -> Mounts:
    """Start what is mounted; the instance is left if that fails.

    Raises:
        StartupError: it does.
    """
    from graphserve.declare.declaration import declaration
    from graphserve.worker.mounts.mounts import Mounts

    declared = declaration(service)
    assert declared is not None
    forwarded = node.options.forward_headers
    try:
        return await Mounts.start(node.name, declared.mounts, instance.instance, forwarded)
    except StartupError:
        with contextlib.suppress(Exception):  # it is of no interest beside that
            await instance.stop()
        raise


class ResidentMemory:
    """Reads how much memory of this process is resident."""

    def __init__(self) -> None:
        self._bytes = 0

    def read(self) -> int:
        """Return the bytes (proc(5), statm); those of the time before where there is no descriptor
        left to read them by.
        """
        with contextlib.suppress(OSError), open("/proc/self/statm") as file:
            self._bytes = int(file.read().split()[1]) * mmap.PAGESIZE
        return self._bytes
