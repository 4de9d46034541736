"""This process as its supervisor steers it: what it does at each message, in each of its states.

`SupervisedProcess` is what a worker (`Worker`) and a fallback server (`FallbackServerProcess`) have
in common: it says that it has imported, waits for `init`, starts its server, says that it is ready,
drains when it is told to, and ends. `Lifecycle` has its states, `SupervisorConnection` what it
tells the supervisor. What it does to the process itself goes through `HostProcess`, so that tests
run all of this without a process of its own.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NoReturn, Protocol, TypeVar

from graphserve.call.membership import KnownNode, Membership
from graphserve.call.suspicions import Suspicions
from graphserve.errors import ExitCode, StartupError
from graphserve.graph.plan import NodePlan, Plan
from graphserve.isolation import forked
from graphserve.logs import records
from graphserve.metrics.recorder import Recorder
from graphserve.system import messages, os_errors
from graphserve.system.channel import Channel
from graphserve.system.process_title import name_process
from graphserve.system.rundir.paths import plan_file
from graphserve.system.worker_pages import RosterReader
from graphserve.worker.dispatch.slots import has_sent
from graphserve.worker.forks import Forks
from graphserve.worker.lifecycle import Lifecycle, ProcessState

if TYPE_CHECKING:
    import ssl

    from graphserve.wire.api_keys import ApiKeyCheck
    from graphserve.worker.fallback import FallbackServer
    from graphserve.worker.server import WorkerServer


class ProcessServer(Protocol):
    """What a process serves: `WorkerServer` or `FallbackServer`."""

    address: str

    @property
    def shared_descriptors(self) -> Sequence[int]:
        """Return the descriptors of memory that the supervisor reads, to be sent with `ready`."""
        ...

    def unready(self) -> None:
        """Have `/readyz` say 503; everything else is answered as before."""

    async def listen(self, sock: socket.socket) -> None:
        """Serve the public socket."""

    async def drain(self, *, last: bool) -> None:
        """Accept no more, and return when everything that was accepted is answered."""

    async def stop(self) -> None:
        """Close everything."""


ServerT = TypeVar("ServerT", bound=ProcessServer)


class HostProcess:
    """The process around all this, as the operating system has it."""

    def exit(self, code: ExitCode) -> NoReturn:
        """End at once: no thread and no exit handler holds us up."""
        os._exit(code)

    def flush(self) -> None:
        """Write what is logged and printed and still waits."""
        records.flush()
        forked.flush()

    def spare_garbage_collector(self) -> None:
        """Keep the garbage collector from looking again
        and again at what lives as long as the process.
        """
        gc.collect()
        gc.freeze()


class SupervisorConnection:
    """The control connection: what this process tells its supervisor.

    Args:
        sock: the connected socket; owned by this from now on.
        on_message: called with each message and the descriptors that came with it.
        on_close: called once when the supervisor is gone.
        on_no_room: called before that when descriptors came that this process has no room for.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[messages.ControlMessage, list[int]], None],
        on_close: Callable[[], None],
        on_no_room: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._channel = Channel(sock, on_message, on_close, on_no_room)

    def send(self, message: messages.FromWorker, descriptors: Sequence[int] = ()) -> None:
        """Send a message; it waits here while the supervisor is slow."""
        self._channel.send(message, descriptors)

    def close(self) -> None:
        """Close it; nothing is heard any more."""
        self._channel.close()

    def has_unread(self) -> bool:
        """Return whether the supervisor has said something that was not read yet: our own loop was
        late, and not the supervisor.
        """
        return has_sent(self._sock)

    def tell_lost(self, path: str) -> None:
        """Say that nobody listens at a socket whose owner is said to be ready."""
        self.send(messages.Lost(path))

    def tell_killed(self, node: str, call: str, kills: int) -> None:
        """Say that a call of ours was lost to this many workers that executed it."""
        self.send(messages.Held(node, call, kills))

    def tell_answered(self, node: str, call: str) -> None:
        """Say that a call which was suspected of killing workers was answered."""
        self.send(messages.Answered(node, call))


class SupervisedProcess(Generic[ServerT]):
    """This process, as its supervisor knows it: a worker, or a fallback server.

    Args:
        plan: the graph.
        node: the node that it works for.
        run: the run folder.
        forks: takes our sockets from what user code forks.
        sock: the control connection.
        life: its state.
        host: what is done to the process itself.
    """

    def __init__(
        self,
        plan: Plan,
        node: NodePlan,
        run: Path,
        forks: Forks,
        sock: socket.socket,
        life: Lifecycle,
        host: HostProcess,
    ) -> None:
        self.plan = plan
        self.node = node
        self.run = run
        self.forks = forks
        self.life = life
        self.host = host
        self.supervisor = SupervisorConnection(
            sock, self._on_message, self._on_supervisor_gone, self._on_no_room
        )
        self.membership = Membership(
            self.supervisor.tell_lost, self.supervisor.tell_killed, self.supervisor.has_unread
        )
        self._init: asyncio.Future[messages.Init] = asyncio.get_running_loop().create_future()
        # from when it serves
        self.server: ServerT | None = None
        self._opening: asyncio.Task[None] | None = None
        self._counts_in: int | None = None  # the descriptor of memory that is not in use yet
        self._tasks: set[asyncio.Task[None]] = set()

    async def live(self) -> None:
        """Start, serve and stop: all that needs an event loop."""
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, self._on_drain, messages.Drain(last=False)
        )
        try:
            server = await self._start()
        except StartupError as exc:
            if isinstance(exc.__cause__, RuntimeError) and os_errors.is_refusal(exc.__cause__):
                # no fault of the user's class
                self._fail(f"{self.node.name}: {os_errors.explain(exc.__cause__)}", "")
            self._fail(str(exc), exc.log)
        except OSError as exc:  # ours: what user code raises is a StartupError by now
            self._fail(f"{self.node.name}: {os_errors.explain(exc)}", "")
        self.server = server
        self.life.move_to(ProcessState.SERVING)
        self.host.spare_garbage_collector()
        self.supervisor.send(messages.Ready(server.address), server.shared_descriptors)
        await self.life.until_ended()
        await server.stop()

    async def _start(self) -> ServerT:
        """Start as far as the server, which is ready then."""
        raise NotImplementedError

    async def _until_init(self) -> messages.Init:
        """Say that the modules are imported, and wait until what the node needs is ready."""
        self.supervisor.send(messages.Imported())
        init = await self._init
        self.life.move_to(ProcessState.STARTING)
        return init

    def _recorder(self) -> Recorder | None:
        """Return what counts here, in the memory that the supervisor has sent last, by the Plan
        as it is now; None if there is none.
        """
        descriptor = self._counts_in
        self._counts_in = None
        return None if descriptor is None else Recorder.open(self.plan, self.node, descriptor)

    def _tls(self, keyfile_password: str | None) -> ssl.SSLContext | None:
        """Read what the public socket needs for TLS, before anything that takes long.

        Raises:
            StartupError: a file cannot be used.
        """
        from graphserve.worker.http.public.tls import context

        tls = self.plan.listen.tls
        if tls is None or self.node.name != self.plan.entry:
            return None
        return context(tls, keyfile_password)

    def _keys(self, init: messages.Init) -> ApiKeyCheck | None:
        """Return what finds out who clients are, where they need an API key."""
        if init.api_keys_salt is None:
            return None
        from graphserve.wire.api_keys import ApiKeyCheck

        return ApiKeyCheck(init.api_keys_salt, init.api_keys)

    def _fail(self, message: str, trace: str) -> NoReturn:
        self.supervisor.send(messages.Failed(message, trace))
        self.host.flush()
        self.host.exit(ExitCode.STARTUP)

    def _on_message(self, message: messages.ControlMessage, descriptors: list[int]) -> None:
        self.membership.heard()
        if not self._obeys(message, descriptors):
            for descriptor in descriptors:
                os.close(descriptor)

    def _obeys(self, message: messages.ControlMessage, descriptors: list[int]) -> bool:
        """Do what the supervisor says; return False for what makes no sense in this state, such as
        a second `init`, or a public socket for a process that drains.
        """
        match message:
            case messages.Beat():
                pass  # it says no more than that there is a supervisor
            case messages.Members(nodes=nodes):
                for node in nodes:
                    self.membership.update(KnownNode.read(node))
            case messages.SuspectCalls(node=name):
                suspicions = Suspicions.read(message, self.supervisor.tell_answered)
                self.membership.update_suspicions(name, suspicions)
            case messages.MetricsHandover() if self._counts_in is None:
                self._counts_in = descriptors[0]
            case messages.Init() if not self._init.done():
                self._on_init(message, descriptors)
            case messages.ServePublic() if self.life.state is ProcessState.SERVING:
                self._on_serve_public(descriptors[0])
            case messages.Unready() if self.server is not None:
                self.server.unready()
            case messages.Drain():
                self._on_drain(message)
            case messages.Exit():
                self._on_exit()
            case _:
                return False
        return True

    def _on_init(self, message: messages.Init, descriptors: list[int]) -> None:
        # the file of the Plan has them without secrets
        self.node = self.node.with_urls(message.urls)
        self.plan = self.plan.with_node(self.node)
        self._init.set_result(message)

    def _on_serve_public(self, descriptor: int) -> None:
        assert self.server is not None
        sock = _listening(descriptor)
        self.forks.add_public(sock)
        self._opening = self._spawn(self._open(self.server, sock))

    def _on_drain(self, message: messages.Drain) -> None:
        if self.life.before_serving:
            self.host.exit(ExitCode.OK)
        if self.life.drain():
            assert self.server is not None
            self.supervisor.send(messages.Draining())
            self._spawn(self._drain(self.server, last=message.last))

    def _on_exit(self) -> None:
        if self.life.before_serving:
            self.host.exit(ExitCode.OK)
        self.life.end()

    def _on_supervisor_gone(self) -> None:
        """End: without a supervisor there is nobody to serve for, and nobody who would end us.

        A copy of a worker that user code forked in a coroutine has no connection either: it ends as
        such a copy does.
        """
        if forked.forks:
            forked.leave("a coroutine", None)
        self.host.exit(ExitCode.FAILED)

    def _on_no_room(self) -> None:
        """Fail: sockets that the supervisor sent did not fit into this process,
        and without them it serves nobody.
        """
        reason = os_errors.explain(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        self._fail(f"{self.node.name} cannot take the sockets that it shall serve: {reason}", "")

    async def _open(self, server: ServerT, sock: socket.socket) -> None:
        """Listen at the public port; a process that cannot is not ready, and says why."""
        try:
            await server.listen(sock)
        except OSError as exc:
            self._fail(
                f"{self.node.name} cannot serve the public port: {os_errors.explain(exc)}", ""
            )
        self.supervisor.send(messages.Listening())

    async def _drain(self, server: ServerT, *, last: bool) -> None:
        if self._opening is not None:
            await self._opening
        await server.drain(last=last)
        if self.life.drained(waits_for_exit=self._waits_for_exit(last)):
            self.supervisor.send(messages.Drained())

    def _waits_for_exit(self, last: bool) -> bool:
        """Return whether it stays when it has drained,
        until the supervisor says that all are done.
        """
        raise NotImplementedError

    def _spawn(self, work: Coroutine[object, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Worker(SupervisedProcess["WorkerServer"]):
    """A worker: it serves one instance of a class.

    Args:
        plan: the graph.
        node: the node that it works for.
        run: the run folder.
        forks: takes our sockets from what user code forks.
        sock: the control connection.
        life: its state.
        host: what is done to the process itself.
        found: the class that it serves, or why there is none.
    """

    def __init__(
        self,
        plan: Plan,
        node: NodePlan,
        run: Path,
        forks: Forks,
        sock: socket.socket,
        life: Lifecycle,
        host: HostProcess,
        found: type | StartupError,
    ) -> None:
        self._found = found
        self._roster: RosterReader | None = None
        # The node's shared sockets by API name; until it serves, one may come in place of another.
        self._sockets: dict[str, socket.socket] = {}
        super().__init__(plan, node, run, forks, sock, life, host)

    async def _start(self) -> WorkerServer:
        from graphserve.worker.server import WorkerServer  # a fallback server is quicker without

        if isinstance(self._found, StartupError):
            raise self._found
        init = await self._until_init()
        tls = self._tls(init.keyfile_password)
        return await WorkerServer.start(
            self.plan,
            self.node,
            self.run,
            self.membership,
            self._found,
            self._sockets,
            self.supervisor.send,
            self._roster,
            tls,
            self._keys(init),
            init.edge_keys,
            self._recorder(),
        )

    def _obeys(self, message: messages.ControlMessage, descriptors: list[int]) -> bool:
        match message:
            case messages.RosterHandover() if not self._init.done():
                self._roster = RosterReader(descriptors[0])
            # in place of those whose names somebody removed
            case messages.Listeners(listeners=names) if self.life.state is not ProcessState.ENDED:
                found = _sockets(names, descriptors)
                if self.server is None:
                    self._replace(found)
                else:
                    self.server.replace(found)
            case messages.Rebind() if self.server is not None and self.life.serves:
                self._spawn(self._rebind(self.server))
            case messages.Report() if self.server is not None:
                self.supervisor.send(self.server.health_report())
            case _:
                return super()._obeys(message, descriptors)
        return True

    def _on_init(self, message: messages.Init, descriptors: list[int]) -> None:
        super()._on_init(message, descriptors)
        early = self._sockets
        self._sockets = _sockets(message.listeners, descriptors)
        self._replace(early)

    def _replace(self, sockets: dict[str, socket.socket]) -> None:
        for name, sock in sockets.items():
            if name in self._sockets:
                self._sockets[name].close()
            self._sockets[name] = sock

    async def _rebind(self, server: WorkerServer) -> None:
        """Listen anew on the worker's own socket, since somebody removed its name."""
        trouble = ""
        try:
            await server.rebind()
        except OSError as exc:  # the supervisor says so, and asks again
            trouble = os_errors.explain(exc)
        self.supervisor.send(messages.Bound(trouble))

    def _waits_for_exit(self, last: bool) -> bool:
        return last  # siblings may still pass on calls


def _sockets(names: Sequence[str], descriptors: Sequence[int]) -> dict[str, socket.socket]:
    return {
        name: _listening(descriptor) for name, descriptor in zip(names, descriptors, strict=True)
    }


def _listening(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    # Else it has what user code has given to `socket.setdefaulttimeout`, and the loop would wait
    # as long to accept what is not there.
    sock.setblocking(False)
    return sock


class FallbackServerProcess(SupervisedProcess["FallbackServer"]):
    """A fallback server: it answers at the public port while the entry has no worker,
    and serves no class.
    """

    async def _start(self) -> FallbackServer:
        from graphserve.worker.fallback import FallbackServer

        init = await self._until_init()
        server = FallbackServer(
            self.plan,
            self.node,
            self.run,
            self.membership,
            self._tls(init.keyfile_password),
            keys=self._keys(init),
            resolving=init.resolving,
            recorder=self._recorder(),
        )
        await server.start()
        return server

    def _obeys(self, message: messages.ControlMessage, descriptors: list[int]) -> bool:
        match message:
            case messages.Resolved(revision=revision) if self.server is not None:
                self._resolve(self.server, revision)
            case _:
                return super()._obeys(message, descriptors)
        return True

    def _resolve(self, server: FallbackServer, revision: int) -> None:
        """Serve the Plan, which was not there before."""
        try:
            self.plan = Plan.from_json(plan_file(self.run, revision).read_text())
        except OSError as exc:
            self._fail(f"{self.node.name}: {os_errors.explain(exc)}", "")
        self.node = self.plan.node(self.plan.entry)
        name_process(f"{self.node.name}[fallback]", "fallback", self.node.id)
        server.resolve(self.plan, self.node, self._recorder())

    def _waits_for_exit(self, last: bool) -> bool:
        return False
