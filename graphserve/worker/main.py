"""A worker's process, from its first line to its last: it imports, waits, starts, serves, drains,
ends.

Started by the supervisor (see `child.py`): the Plan in the run folder says what it is, the control
connection what it does. `Lifecycle` has its states. What it serves is in `server`, or in `fallback`
if it answers in place of the entry.

User modules are imported before there is an event loop, as a program imports them. The control
connection is there by then, and nobody reads it: if the supervisor ends meanwhile, PR_SET_PDEATHSIG
ends this process; a thread that watched would make every fork of user code one of a process with
threads.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

from graphserve.call.membership import KnownNode, Membership
from graphserve.call.quarantine import Suspicions
from graphserve.errors import ConfigurationError, ExitCode, StartupError
from graphserve.graph.importer import Target, described, load
from graphserve.graph.plan import NodePlan, Plan
from graphserve.isolation import forked, prompts
from graphserve.isolation.restore import CLOSED, Steady
from graphserve.logs import records
from graphserve.logs.tracebacks import formatted
from graphserve.system import messages, os_errors
from graphserve.system.channel import Channel
from graphserve.system.child_process import die_with_parent
from graphserve.system.inherited import do_nothing, take_input
from graphserve.system.process_title import name_process
from graphserve.system.rundir.paths import plan_file, workers_socket
from graphserve.system.shared_memory import RosterReader
from graphserve.worker import logs
from graphserve.worker.dispatch import endings
from graphserve.worker.dispatch.slots import has_sent
from graphserve.worker.forks import Forks
from graphserve.worker.lifecycle import Lifecycle, ProcessState

if TYPE_CHECKING:
    import ssl

    from graphserve.worker.fallback import FallbackServer
    from graphserve.worker.pages.health import Health
    from graphserve.worker.server import WorkerServer


# Seconds after which processes of multiprocessing are killed that its exit handler waits for, such
# as one that ignores SIGTERM.
CHILDREN_PATIENCE = 2.0


class ProcessServer(Protocol):
    """What a process serves: `WorkerServer` or `FallbackServer`."""

    health: Health
    address: str

    @property
    def shared_descriptors(self) -> Sequence[int]:
        """Return the descriptors of memory that the supervisor reads, to be sent with `ready`."""
        ...

    async def listen(self, sock: socket.socket) -> None:
        """Serve the public socket."""

    async def drain(self, *, last: bool) -> None:
        """Accept no more, and return when everything that was accepted is answered."""

    async def stop(self) -> None:
        """Close everything."""


ServerT = TypeVar("ServerT", bound=ProcessServer)


class SupervisedProcess(Generic[ServerT]):
    """This process, as its supervisor knows it: a worker, or a fallback server.

    Args:
        plan: the graph.
        node: the node that it works for.
        run: the run folder.
        forks: takes our sockets from what user code forks.
        sock: the control connection.
        life: its state.
    """

    def __init__(
        self,
        plan: Plan,
        node: NodePlan,
        run: Path,
        forks: Forks,
        sock: socket.socket,
        life: Lifecycle,
    ) -> None:
        self.plan = plan
        self.node = node
        self.run = run
        self.forks = forks
        self.life = life
        # what the supervisor says before it serves
        self.keyfile_password: str | None = None
        self._init: asyncio.Future[messages.Init] = asyncio.get_running_loop().create_future()
        # from when it serves
        self.server: ServerT | None = None
        self._opening: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.membership = Membership()
        self.membership.tell = self._tell_lost
        self.membership.killed = self._tell_killed
        # this loop was late, and not the supervisor
        self.membership.unread = lambda: has_sent(sock)
        # Without a supervisor there is nobody to serve for, and nobody who would end us.
        self.channel = Channel(
            sock, self._on_message, lambda: os._exit(ExitCode.FAILED), self._no_room
        )

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
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again and again
        self.channel.send(messages.Ready(server.address), list(server.shared_descriptors))
        await self.life.until_ended()
        await server.stop()

    async def _start(self) -> ServerT:
        """Start as far as `self.server`, which is set in the end."""
        raise NotImplementedError

    async def _until_init(self) -> messages.Init:
        """Say that the modules are imported, and wait until what the node needs is ready."""
        self.channel.send(messages.Imported())
        init = await self._init
        self.life.move_to(ProcessState.STARTING)
        return init

    def _serves(self, server: ServerT) -> ServerT:
        self.server = server
        self.life.move_to(ProcessState.SERVING)
        return server

    def _tls(self) -> ssl.SSLContext | None:
        """Read what the public socket needs for TLS, before anything that takes long.

        Raises:
            StartupError: a file cannot be used.
        """
        from graphserve.worker.http.tls import context

        tls = self.plan.listen.tls
        return (
            context(tls, self.keyfile_password)
            if tls and self.node.name == self.plan.entry
            else None
        )

    def _fail(self, message: str, trace: str) -> NoReturn:
        self.channel.send(messages.Failed(message, trace))
        _flush()
        os._exit(ExitCode.STARTUP)

    # --- what the supervisor says ---

    def _on_message(self, message: messages.Message, fds: list[int]) -> None:
        self.membership.heard_at = time.monotonic()  # a `Beat` says no more
        match message:
            case messages.Init():
                self._on_init(message, fds)
            case messages.Members(nodes=nodes):
                for node in nodes:
                    self.membership.update(KnownNode.read(node))
            case messages.ServePublic():
                self._on_serve_public(fds[0])
            case messages.SuspectCalls(node=name):
                self.membership.update_suspicions(
                    name, Suspicions.read(message, self._tell_answered)
                )
            case messages.Unready():
                assert self.server is not None
                self.server.health.state = "draining"
            case messages.Drain():
                self._on_drain(message)
            case messages.Exit():
                self._on_exit()
            case _:
                self._on_own_message(message, fds)

    def _on_own_message(self, message: messages.Message, fds: list[int]) -> None:
        """Do what only a worker, or only a fallback server, is told."""

    def _on_init(self, message: messages.Init, fds: list[int]) -> None:
        self.keyfile_password = message.keyfile_password
        # the file of the Plan has them without secrets
        self.node = self.node.with_urls(message.urls)
        self.plan = self.plan.with_node(self.node)
        self._init.set_result(message)

    def _on_serve_public(self, descriptor: int) -> None:
        assert self.server is not None
        sock = socket.socket(fileno=descriptor)
        self.forks.add_public(sock)
        self._opening = self._spawn(self._open(self.server, sock))

    def _on_drain(self, message: messages.Drain) -> None:
        if self.life.before_serving:
            os._exit(ExitCode.OK)
        if self.life.drain():
            assert self.server is not None
            self.channel.send(messages.Draining())
            self._spawn(self._drain(self.server, last=message.last))

    def _on_exit(self) -> None:
        if self.life.before_serving:
            os._exit(ExitCode.OK)
        self.life.end()

    async def _open(self, server: ServerT, sock: socket.socket) -> None:
        """Listen at the public port; a process that cannot is not ready, and says why."""
        try:
            await server.listen(sock)
        except OSError as exc:
            self._fail(
                f"{self.node.name} cannot serve the public port: {os_errors.explain(exc)}", ""
            )
        self.channel.send(messages.Listening())

    async def _drain(self, server: ServerT, last: bool) -> None:
        if self._opening is not None:
            await self._opening
        await server.drain(last=last)
        if self.life.drained(waits_for_exit=self._waits_for_exit(last)):
            self.channel.send(messages.Drained())

    def _waits_for_exit(self, last: bool) -> bool:
        """Return whether it stays when it has drained, until the supervisor says that all are
        done.
        """
        raise NotImplementedError

    # --- what it tells the supervisor ---

    def _tell_lost(self, path: str) -> None:
        """Say that nobody listens at a socket whose owner is said to be ready."""
        self.channel.send(messages.Lost(path))

    def _tell_killed(self, node: str, call: str, kills: int) -> None:
        self.channel.send(messages.Held(node, call, kills))

    def _tell_answered(self, node: str, call: str) -> None:
        self.channel.send(messages.Answered(node, call))

    def _no_room(self) -> None:
        """Fail: sockets that the supervisor sent did not fit into this process, and without them it
        serves nobody.
        """
        reason = os_errors.explain(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        self._fail(f"{self.node.name} cannot take the sockets that it shall serve: {reason}", "")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
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
        found: type | StartupError,
    ) -> None:
        self._found = found
        self._roster: RosterReader | None = None
        # The node's shared sockets by API name; until it serves, one may come in place of another.
        self._sockets: dict[str, socket.socket] = {}
        super().__init__(plan, node, run, forks, sock, life)

    async def _start(self) -> WorkerServer:
        from graphserve.worker.server import WorkerServer  # a fallback server is quicker without

        if isinstance(self._found, StartupError):
            raise self._found
        await self._until_init()
        tls = self._tls()
        return self._serves(
            await WorkerServer.start(
                self.plan,
                self.node,
                self.run,
                self.membership,
                self._found,
                self._sockets,
                self.channel.send,
                self._roster,
                tls,
            )
        )

    def _on_init(self, message: messages.Init, fds: list[int]) -> None:
        super()._on_init(message, fds)
        early = self._sockets
        self._sockets = {
            name: socket.socket(fileno=descriptor)
            for name, descriptor in zip(message.listeners, fds, strict=True)
        }
        self._replace(early)

    def _on_own_message(self, message: messages.Message, fds: list[int]) -> None:
        match message:
            case messages.RosterHandover():
                self._roster = RosterReader(fds[0])
            # in place of those whose names somebody removed
            case messages.Listeners(listeners=names):
                found = {
                    name: socket.socket(fileno=fd) for name, fd in zip(names, fds, strict=True)
                }
                if self.server is None:
                    self._replace(found)
                else:
                    self.server.replace(found)
            case messages.Rebind():
                self._spawn(self._rebind())
            case messages.Report():
                if self.server is not None:
                    self.channel.send(self.server.health_report())

    def _replace(self, sockets: dict[str, socket.socket]) -> None:
        for name, sock in sockets.items():
            if name in self._sockets:
                self._sockets[name].close()
            self._sockets[name] = sock

    async def _rebind(self) -> None:
        """Listen anew on the worker's own socket, since somebody removed its name."""
        assert self.server is not None
        trouble = ""
        try:
            await self.server.rebind()
        except OSError as exc:  # the supervisor says so, and asks again
            trouble = os_errors.explain(exc)
        self.channel.send(messages.Bound(trouble))

    def _waits_for_exit(self, last: bool) -> bool:
        return last  # siblings may still pass on calls


class FallbackServerProcess(SupervisedProcess["FallbackServer"]):
    """A fallback server: it answers at the public port while the entry has no worker, and serves no
    class.
    """

    async def _start(self) -> FallbackServer:
        from graphserve.worker.fallback import FallbackServer

        init = await self._until_init()
        server = FallbackServer(
            self.plan, self.node, self.run, self.membership, self._tls(), resolving=init.resolving
        )  # fmt: skip
        await server.start()
        return self._serves(server)

    def _on_own_message(self, message: messages.Message, fds: list[int]) -> None:
        if isinstance(message, messages.Resolved):
            self._on_resolved(message.revision)

    def _on_resolved(self, revision: int) -> None:
        """Serve the Plan, which was not there before."""
        try:
            self.plan = Plan.from_json(plan_file(self.run, revision).read_text())
        except OSError as exc:
            self._fail(f"{self.node.name}: {os_errors.explain(exc)}", "")
        self.node = self.plan.node(self.plan.entry)
        name_process(f"{self.node.name}[fallback]", "fallback", self.node.id)
        assert self.server is not None
        self.server.resolve(self.plan, self.node)

    def _waits_for_exit(self, last: bool) -> bool:
        return False


def main() -> None:
    """Run the process: `child.py worker <node id>`, or `child.py fallback <node id>`."""
    die_with_parent(int(os.environ.pop("GRAPHSERVE_INTERNAL_SUPERVISOR")))
    # Ctrl-C reaches the whole foreground group of a terminal; the supervisor decides what it means.
    signal.signal(signal.SIGINT, do_nothing)
    run = Path(os.environ.pop("GRAPHSERVE_INTERNAL_RUN"))
    revision = int(os.environ.pop("GRAPHSERVE_INTERNAL_REVISION"))
    plan = Plan.from_json(plan_file(run, revision).read_text())
    node = next(node for node in plan.nodes if node.id == sys.argv[2])
    slot = (
        "fallback" if sys.argv[1] == "fallback" else os.environ.get("GRAPHSERVE_INTERNAL_SLOT", "")
    )
    name_process(f"{node.name}[{slot}]", sys.argv[1], node.id)
    records.open_pipe(take_input(), plan.log_level)
    logs.configure(plan.log_level)
    make_loop = _loop_factory(plan.loop)
    forks = Forks(run)
    sock = _connect(run)
    life = Lifecycle()
    found = None if sys.argv[1] == "fallback" else _import_user(plan, node, sock, life)
    life.move_to(ProcessState.WAITING)

    async def live() -> None:
        if found is None:
            await FallbackServerProcess(plan, node, run, forks, sock, life).live()
        else:
            await Worker(plan, node, run, forks, sock, life, found).live()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        _run(runner.get_loop(), live(), node.name)
    _end()


def _connect(run: Path) -> socket.socket:
    """Connect to the supervisor, which knows from now on that we live: the kernel tells it our
    pid.
    """
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(workers_socket(run))
    return sock


def _loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the event loop; its library is imported before user code can replace it."""
    if loop != "asyncio":
        try:
            import uvloop
        except ImportError:
            if loop == "uvloop":
                raise
        else:
            return uvloop.new_event_loop
    return asyncio.SelectorEventLoop  # not what a policy of user code would make


def _import_user(
    plan: Plan, node: NodePlan, sock: socket.socket, life: Lifecycle
) -> type | StartupError:
    """Import the class of a node and return it; or what went wrong, for the supervisor."""
    import graphserve.worker.server  # noqa: F401  (before modules of the user's can replace what it imports)

    def terminate(number: int, frame: FrameType | None) -> None:
        life.end()

    # SIGTERM ends a worker that does not serve yet, but not in the middle of a module.
    signal.signal(signal.SIGTERM, terminate)
    prompts.say_so()
    steady = Steady(sock.fileno(), ignores=True)
    sys.argv[:] = plan.argv
    for folder in reversed(plan.sys_path):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    target = Target(*node.target.split(":"))
    found: type | StartupError
    try:
        found = load(target, plan.main)
    except ConfigurationError as exc:
        found = StartupError(f"{node.name}: {exc}", node.name)
    except BaseException as exc:  # user code may raise anything, SystemExit included
        text = f"{node.name}: importing {target.module!r} raised {described(exc)}"
        found = StartupError(text, node.name, formatted(exc))
    steady.restore()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(ExitCode.OK))
    if steady.cut_off:
        os.write(2, f"importing {target.module!r} {CLOSED}\n".encode())
        os._exit(ExitCode.STARTUP)
    if life.state is ProcessState.ENDED:
        os._exit(ExitCode.OK)
    return found


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None], node: str) -> None:
    """Run the worker to its end.

    A task or a callback of user code that raises SystemExit or KeyboardInterrupt has asyncio leave
    the loop, with every call that is executed in it: whoever awaits the task has been told, so it
    is logged, and the loop goes on.
    """
    life = loop.create_task(work)
    thread = threading.get_ident()

    def end_copy() -> None:
        # In a process that user code forks in a coroutine, and that comes back to its copy of the
        # loop.
        if threading.get_ident() == thread:
            loop.call_soon(forked.leave, "a coroutine", None)

    os.register_at_fork(after_in_child=end_copy)
    while True:
        try:
            loop.run_until_complete(life)
            endings.flush()
            return
        except (SystemExit, KeyboardInterrupt) as exc:
            if forked.forks:
                forked.leave("a task or a callback", exc)
            if life.done():
                raise
            text = (
                f"{node}: a task or a callback raised {type(exc).__name__}({exc}); the worker"
                " goes on"
            )
            endings.raised(loop, exc, partial(records.note, "graphserve", "error", text, exc))


def _end() -> NoReturn:
    """End although user code may have forgotten threads and processes: the interpreter would wait
    for them.

    `__aexit__` has run, so who wanted to end them in order has done so. What is registered with
    `atexit` runs.
    """
    _end_children()
    try:
        atexit._run_exitfuncs()
    except BaseException as exc:  # what one of them raises, Python has printed
        if not isinstance(exc, SystemExit):
            records.note("graphserve", "error", f"an exit handler raised {type(exc).__name__}", exc)
    _flush()
    os._exit(ExitCode.OK)


def _end_children() -> None:
    """Kill the processes of multiprocessing that the interpreter would wait for, and in a while
    those that are left.

    The others are daemonic, such as the workers of a Pool: multiprocessing's own exit handler ends
    them in order. One of them may hold the lock of the pool's queue; killed with it, it would have
    that handler wait for ever.
    """
    if "multiprocessing" not in sys.modules:
        return
    from multiprocessing import active_children

    def end_all() -> None:
        time.sleep(CHILDREN_PATIENCE)
        for child in active_children():
            child.kill()

    for child in active_children():
        if not child.daemon:
            child.kill()
    threading.Thread(target=end_all, name="graphserve-end", daemon=True).start()


def _flush() -> None:
    records.flush()
    forked.flush()
