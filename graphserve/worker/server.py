"""What a worker serves: the instance, its listeners, and the way out (drain). Runs in workers."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import socket
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from graphserve.call.clients import Clients, Lanes
from graphserve.call.membership import Membership
from graphserve.graph.plan import NodePlan, Plan
from graphserve.logs import records
from graphserve.system import rundir
from graphserve.system.inherited import open_standard_streams
from graphserve.system.messages import HealthReport
from graphserve.wire.memory import SharedMemory
from graphserve.worker.batch.batcher import Batcher, BatchLease
from graphserve.worker.dispatch.executor import Executor, bind
from graphserve.worker.dispatch.slots import GatedListener, Permit, Slots
from graphserve.worker.drain import finish_connections, in_flight, until
from graphserve.worker.flight_recorder import FlightRecorder
from graphserve.worker.http.acceptor import Acceptor
from graphserve.worker.http.fast_connection import FastConnection
from graphserve.worker.http.limits import Limits
from graphserve.worker.http.listener import Listener, publicly, routes
from graphserve.worker.http.protocol import HttpConnection
from graphserve.worker.http.relay import Relay
from graphserve.worker.http.response import Responder
from graphserve.worker.http.tls import context as tls_context
from graphserve.worker.instance import ServiceInstance
from graphserve.worker.pages.health import App, Health, openapi_document

SERVER_KEEP_ALIVE = 2.5  # times the caller's keep-alive: the caller always closes first
OLD_SOCKET = 1.0  # seconds that a socket without a name stays open: who connected before is accepted by then
TAKEN_TIMEOUT = 2.0  # seconds that a stopping worker waits for results in its memory to be taken


class Serving:
    """The serving part of a worker.

    Args:
        plan: the graph.
        node: the node.
        run: the run folder.
        members: what is known about other nodes.
        cls: the service's class.
        listeners: the node's shared sockets, by API name (`""` for the one of all that is not batched).
        report: told once a second how this worker is.
        owners: the workers of the graph; None if nobody can say: then no memory is shared.
    """

    def __init__(
        self, plan: Plan, node: NodePlan, run: Path, members: Membership, cls: type, listeners: list[tuple[str, int]],
        report: Callable[[HealthReport], None], owners: Container[int] | None,
    ) -> None:  # fmt: skip
        self.report = report
        self.plan = plan
        self.node = node
        self.run = run
        self.members = members
        self.cls = cls
        self.loop = asyncio.get_running_loop()
        self.address = rundir.worker_socket(run, node.id, os.getpid())
        self.health = Health(node.name, lambda: members.missing(plan.below(node.name)), members.outdated)
        self.threads = ThreadPoolExecutor(node.limit, thread_name_prefix=node.name)
        self.memory = SharedMemory(plan.shared_memory, owners) if plan.shared_memory and owners is not None else None
        self.lanes = Lanes(plan, run, members, self.memory)
        self.clients = Clients(node, plan, self.lanes.to, self.lanes.http_client, sharing_with=self.lanes.sharing)
        self._shared = {name: socket.socket(fileno=fd) for name, fd in listeners}
        self._port: Acceptor | None = None
        self._attaching: set[asyncio.Task[Any]] = set()
        self._listeners: list[Listener] = []
        self._accepts = False

    async def start(self) -> None:
        """Make the instance, then listen on the worker's own socket and on the node's shared ones."""
        self.life = ServiceInstance(self.node, self.cls, self.threads, self.clients.inject)
        await self.life.start()
        self.apis = bind(self.node, self.life.instance)
        self.latest = FlightRecorder()
        self.executor = Executor(self.node, self.threads, self.plan.depth(self.node.name), self.latest.words)
        self.slots = Slots(self.node.limit)
        self.relay = Relay(self.node, self.lanes, self.executor.guard)
        paths = rundir.batch_sockets(self.run, self.node.id, self.node.batched) if self.node.workers > 1 else {}
        turns = {name: BatchLease(path) for name, path in paths.items()}
        self._turns = list(turns.values())
        self.batchers = {
            name: Batcher(api, self.executor, self.slots, self.slots.update, turns.get(name))
            for name, api in self.apis.items() if api.plan.batch is not None
        }  # fmt: skip
        self.app = App(self.health, self.apis)
        if self.node.name == self.plan.entry:
            self.app.pages = self._pages(self.app)
        self.private = self._listener(public=False)
        self._own = await self._listen_alone()
        self.health.state = "ready"
        self.slots.open([self._gated(name, sock) for name, sock in self._shared.items()])
        self._accepts = True
        self._tick()

    def succeed(self, listeners: list[tuple[str, int]]) -> None:
        """Accept from shared sockets that take the places of those whose names somebody removed."""
        for name, descriptor in listeners:
            sock = socket.socket(fileno=descriptor)
            before, self._shared[name] = self._shared[name], sock
            if self._accepts:
                self.slots.replace(before, self._gated(name, sock))
            else:
                before.close()

    async def rebind(self) -> None:
        """Listen on the worker's own socket anew, since somebody removed its name.

        Raises:
            OSError: it cannot be made.
        """
        before = self._own
        self._own = await self._listen_alone()
        self.loop.call_later(OLD_SOCKET, before.close)

    async def _listen_alone(self) -> asyncio.Server:
        return await self.loop.create_unix_server(lambda: HttpConnection(self.private), sock=self._bind(), backlog=1024)

    def read_certificate(self, password: str | None) -> None:
        """Read what the public socket needs for TLS, before anything that takes long.

        Raises:
            StartupError: a file cannot be used.
        """
        tls = self.plan.listen.tls
        self._tls = tls_context(tls, password) if tls else None

    async def listen(self, sock: socket.socket) -> None:
        """Serve the public socket too: this worker is of the entry."""
        if self._port is not None:
            await self._port.succeed(sock, self.plan.listen.backlog)
            return
        self._port = Acceptor(self._listener(public=True), Limits.of(self.plan.listen), self._tls)
        await self._port.open(sock, self.plan.listen.backlog)

    async def drain(self, *, last: bool) -> None:
        """Take nothing new, and return when everything that was taken is answered.

        Args:
            last: the whole node stops: the shared sockets stay ours until the very end, since a sibling may still pass
                on what it accepted.
        """
        self.health.state = "draining"
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
        await self._leave()
        await self.clients.close()
        self._own.close()
        with contextlib.suppress(OSError):
            os.unlink(self.address)

    async def _leave(self) -> None:
        try:
            await self.life.stop()
        except Exception as exc:  # user code may raise anything; what is left to do is done all the same
            name = "__aexit__" if hasattr(self.cls, "__aexit__") else "__exit__"
            records.note("graphserve", "error", self.life.words(name, exc), exc)

    # --- listeners ---

    def _listener(self, *, public: bool) -> Listener:
        plan, listen = self.plan, self.plan.listen
        rest: dict[str, Any] = publicly(listen) if public else {"keep_alive": plan.inner_keep_alive * SERVER_KEEP_ALIVE}
        responder = Responder(self.node.name, public=public, debug=plan.debug)
        listener = Listener(
            self.app,
            routes(self.apis.values(), listen.root_path if public else ""),
            self.executor,
            self.slots,
            responder,
            self.relay,
            self.batchers,
            access_log=plan.access_log,
            memory=None if public else self.memory,
            notes=self.latest.notes if public else None,
            **rest,
        )
        self.members.watch_wary(self.node.name, listener.suspect)
        self._listeners.append(listener)
        return listener

    def _bind(self) -> socket.socket:
        # Listening first and renamed into place then: a caller that finds the name can connect.
        sock = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            sock.bind(self.address + "~")
        finally:
            os.umask(before)
        sock.listen(1024)
        sock.setblocking(False)
        os.rename(self.address + "~", self.address)
        return sock

    def _gated(self, name: str, sock: socket.socket) -> GatedListener:
        batcher = self.batchers.get(name)

        def attach(connection: socket.socket) -> None:
            permit = Permit(self.slots, slot=batcher is None, batcher=batcher)
            FastConnection(self.private, connection, permit, self._hand_over).begin()

        if batcher is None:
            return GatedListener(sock, attach, self.slots.take)
        return GatedListener(
            sock, attach, batcher.reserve_place, lambda: batcher.room, batcher.take_lease, batcher.leave_lease_if_idle
        )

    def _hand_over(self, connection: socket.socket, permit: Permit, first: bytes) -> None:
        factory = lambda: HttpConnection(self.private, permit, first)  # noqa: E731
        task = self.loop.create_task(self.loop.connect_accepted_socket(factory, connection))
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)

    def _pages(self, app: App) -> Any:
        from graphserve.worker.pages.entry import application

        document = lambda: openapi_document(self.node.name, self.cls, self.apis, self.node.options.version)  # noqa: E731
        return application(app, self.node.name, document, self.plan.listen.root_path)

    # --- the way out ---

    def _tick(self) -> None:
        # The next connection would get the number of one that user code closed, and a client what is printed there.
        for name in open_standard_streams():
            records.note("graphserve", "warning", f"user code closed {name}: what is printed there is lost from now on")
        for listener in self._listeners:
            listener.refresh()
        self.executor.refresh_deadline()
        if self.memory is not None:
            self.memory.sweep()
        for turn in self._turns:
            turn.renew()
        self.report(self.health_report())
        self.loop.call_later(1.0, self._tick)

    def health_report(self) -> HealthReport:
        """Return how this worker is, for the supervisor."""
        executor = self.executor
        return HealthReport(
            executed=executor.executed, overdue=executor.overdue(), rss=resident(),
            in_flight=in_flight(self._listeners), executing=len(executor.executing),
            waiting=sum(batcher.held for batcher in self.batchers.values()),
            ran_on_async=executor.orphans.ran_on_async, ran_on_sync=executor.orphans.ran_on_sync,
        )  # fmt: skip

    def _busy(self) -> bool:
        waits = bool(self._attaching) or (self._port is not None and self._port.pending)
        return bool(waits or in_flight(self._listeners))

    async def _until_taken(self) -> None:
        """Wait for callers to take the results that lie in our memory; what nobody takes does not hold us for long."""
        end = self.loop.time() + TAKEN_TIMEOUT
        memory = self.memory
        await until(lambda: memory is None or not memory.sender.in_transit() or self.loop.time() > end)


def resident() -> int:
    """Bytes of resident memory of this process (proc(5), statm)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE
