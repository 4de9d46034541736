"""A worker process, from its first line to its last: imports, waits for its turn, serves, drains, ends.

Started by the supervisor (see `child.py`); what it shall be stands in the Plan in the run folder, what it shall do
comes by the control connection.

User modules are imported before there is an event loop, as a program imports them. The control connection is there by
then, and nobody reads it: if the supervisor ends meanwhile, PR_SET_PDEATHSIG ends this process; a thread that watched
would make every fork of user code one of a process with threads.
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
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, cast

from graphserve.call.membership import KnownNode, Membership
from graphserve.call.quarantine import Suspicions
from graphserve.errors import ConfigurationError, ExitCode, StartupError
from graphserve.graph.importer import Target, described, load
from graphserve.graph.plan import NodePlan, Plan
from graphserve.isolation import forked, prompts
from graphserve.isolation.restore import CLOSED, Steady
from graphserve.logs import records
from graphserve.logs.tracebacks import formatted
from graphserve.system import messages, os_errors, rundir
from graphserve.system.channel import Channel
from graphserve.system.child_process import die_with_parent
from graphserve.system.inherited import do_nothing, take_input
from graphserve.system.process_title import name_process
from graphserve.system.shared_memory import RosterReader
from graphserve.worker import logs
from graphserve.worker.dispatch import endings
from graphserve.worker.dispatch.slots import has_sent
from graphserve.worker.forks import Forks

if TYPE_CHECKING:
    from graphserve.worker.fallback import FallbackServer
    from graphserve.worker.server import Serving


# Seconds after which processes of multiprocessing are killed that its exit handler waits for, such as one that ignores
# SIGTERM.
CHILDREN_PATIENCE = 2.0


class Worker:
    """This process.

    Args:
        plan: the graph.
        node: the node that it works for.
        run: the run folder.
        forks: takes our sockets from what user code forks.
        sock: the control connection.
        found: the class that it serves, or why there is none; None for a stand-in, which answers at the public port
            while the entry has no worker, and serves no class.
    """

    def __init__(
        self, plan: Plan, node: NodePlan, run: Path, forks: Forks, sock: socket.socket,
        found: type | StartupError | None,
    ) -> None:  # fmt: skip
        self.plan = plan
        self.node = node
        self.run = run
        self.forks = forks
        self.stands_in = found is None
        self._sock = sock
        self._found = found
        self.members = Membership()
        self.serving: Serving | FallbackServer | None = None
        self._init: asyncio.Future[list[tuple[str, int]]] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self.keyfile_password: str | None = None
        self.roster: RosterReader | None = None
        self.members.tell = self._tell_lost
        self.members.killed = self._tell_killed
        self._resolving = False  # there is no Plan yet, but an outline
        self._later: list[tuple[str, int]] = []  # shared sockets that came before there was somebody to serve them

    async def live(self) -> None:
        """All of its life that needs an event loop."""
        # Without a supervisor there is nobody to serve for, and nobody who would end us.
        self.channel = Channel(self._sock, self._on_message, lambda: os._exit(ExitCode.FAILED), self._no_room)
        self.members.heard_at = time.monotonic()
        self.members.unread = lambda: has_sent(self._sock)  # this loop was late, and not the supervisor
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._on_drain, messages.Drain(last=False))
        try:
            serving = await self._start()
        except StartupError as exc:
            if isinstance(exc.__cause__, RuntimeError) and os_errors.is_refusal(exc.__cause__):
                self._fail(f"{self.node.name}: {os_errors.explain(exc.__cause__)}", "")  # no fault of the user's class
            self._fail(str(exc), exc.log)
        except OSError as exc:  # ours: what user code raises is a StartupError by now
            self._fail(f"{self.node.name}: {os_errors.explain(exc)}", "")
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again and again
        latest = [] if self.stands_in else [cast("Serving", serving).latest.descriptor]  # a stand-in executes nothing
        self.channel.send(messages.Ready(serving.address), latest)
        await self._ended.wait()
        await serving.stop()

    async def _start(self) -> Serving | FallbackServer:
        self.serving = serving = await (self._stand_in() if self.stands_in else self._serve())
        if self.node.name == self.plan.entry:
            serving.read_certificate(self.keyfile_password)
        await serving.start()
        return serving

    async def _serve(self) -> Serving:
        from graphserve.worker.server import Serving  # a stand-in is quicker without

        if isinstance(self._found, StartupError):
            raise self._found
        assert self._found is not None
        self.channel.send(messages.Imported())
        listeners = await self._init
        found = dict(listeners)
        for name, descriptor in self._later:
            os.close(found[name])
            found[name] = descriptor
        listeners = list(found.items())
        return Serving(self.plan, self.node, self.run, self.members, self._found, listeners, self._report, self.roster)

    async def _stand_in(self) -> FallbackServer:
        from graphserve.worker.fallback import FallbackServer

        self.channel.send(messages.Imported())
        await self._init
        return FallbackServer(self.plan, self.node, self.run, self.members, resolving=self._resolving)

    def _fail(self, message: str, trace: str) -> NoReturn:
        self.channel.send(messages.Failed(message, trace))
        _flush()
        os._exit(ExitCode.STARTUP)

    # --- messages ---

    def _on_message(self, message: messages.Message, fds: list[int]) -> None:
        self.members.heard_at = time.monotonic()  # a `Beat` says no more
        match message:
            case messages.Init():
                self._on_init(message, fds)
            case messages.Roster():
                self.roster = RosterReader(fds[0])
            case messages.Members(nodes=nodes):
                for node in nodes:
                    self.members.update(KnownNode.read(node))
            case messages.ServePublic():
                self._on_serve_public(fds[0])
            case messages.Resolved(version=version):
                self._on_resolved(version)
            case messages.Listeners():
                self._on_listeners(message, fds)
            case messages.Rebind():
                self._spawn(self._rebind())
            case messages.SuspectCalls(node=name):
                self.members.beware(name, Suspicions.read(message, self._tell_answered))
            case messages.Unready():
                self._on_unready()
            case messages.Report():
                self._on_report()
            case messages.Drain():
                self._on_drain(message)
            case messages.Exit():
                self._ended.set()

    def _on_init(self, message: messages.Init, fds: list[int]) -> None:
        self.keyfile_password = message.keyfile_password
        self._resolving = message.resolving
        self.node = self.node.with_urls(message.urls)  # the file of the Plan has them without secrets
        self.plan = self.plan.with_node(self.node)
        self._init.set_result(list(zip(message.listeners, fds, strict=True)))

    def _on_serve_public(self, descriptor: int) -> None:
        assert self.serving is not None
        sock = socket.socket(fileno=descriptor)
        self.forks.add_public(sock)
        self._opening = self._spawn(self._open(sock))

    def _on_resolved(self, version: int) -> None:
        """The graph is resolved: a stand-in that came before knows it from now on."""
        try:
            self.plan = Plan.from_json(rundir.plan_file(self.run, version).read_text())
        except OSError as exc:
            self._fail(f"{self.node.name}: {os_errors.explain(exc)}", "")
        self.node = self.plan.node(self.plan.entry)
        name_process(f"{self.node.name}[stand-in]", "standin", self.node.id)
        cast("FallbackServer", self.serving).resolve(self.plan, self.node)

    def _on_drain(self, message: messages.Drain) -> None:
        if self.serving is None:
            os._exit(ExitCode.OK)
        self.channel.send(messages.Draining())
        self._spawn(self._drain(last=message.last))

    def _on_listeners(self, message: messages.Listeners, fds: list[int]) -> None:
        """Shared sockets in place of those whose names somebody removed."""
        listeners = list(zip(message.listeners, fds, strict=True))
        if self.serving is None:
            self._later += listeners
        elif not self.stands_in:
            cast("Serving", self.serving).succeed(listeners)

    async def _rebind(self) -> None:
        """Somebody removed the name of the worker's own socket: listen anew."""
        trouble = ""
        try:
            await cast("Serving", self.serving).rebind()
        except OSError as exc:  # the supervisor says so, and asks again
            trouble = os_errors.explain(exc)
        self.channel.send(messages.Bound(trouble))

    def _tell_lost(self, path: str) -> None:
        """Nobody listens at a socket whose owner is said to be ready."""
        self.channel.send(messages.Lost(path))

    def _tell_killed(self, node: str, call: str, kills: int) -> None:
        self.channel.send(messages.Held(node, call, kills))

    def _tell_answered(self, node: str, call: str) -> None:
        self.channel.send(messages.Answered(node, call))

    def _on_unready(self) -> None:
        assert self.serving is not None
        self.serving.health.state = "draining"

    def _on_report(self) -> None:
        if self.serving is not None and not self.stands_in:  # only workers are asked
            self._report(cast("Serving", self.serving).health_report())

    async def _open(self, sock: socket.socket) -> None:
        """Listen at the public port: who does not is not ready, and says why."""
        assert self.serving is not None
        try:
            await self.serving.listen(sock)
        except OSError as exc:
            self._fail(f"{self.node.name} cannot serve the public port: {os_errors.explain(exc)}", "")
        self.channel.send(messages.Listening())

    async def _drain(self, last: bool) -> None:
        assert self.serving is not None
        if self._opening is not None:
            await self._opening
        await self.serving.drain(last=last)
        if last and not self.stands_in:  # siblings may still hand us calls: the supervisor says when all are done
            self.channel.send(messages.Drained())
        else:
            self._ended.set()

    def _report(self, health: messages.HealthReport) -> None:
        self.channel.send(health)

    def _no_room(self) -> None:
        """Sockets that the supervisor sent did not fit into this process: without them it serves nobody."""
        reason = os_errors.explain(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        self._fail(f"{self.node.name} cannot take the sockets that it shall serve: {reason}", "")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def main() -> None:
    """The process: `child.py worker <node id>`, or `child.py standin <node id>`."""
    die_with_parent(int(os.environ.pop("GRAPHSERVE_INTERNAL_SUPERVISOR")))
    # Ctrl-C reaches the whole foreground group of a terminal; the supervisor decides what it means.
    signal.signal(signal.SIGINT, do_nothing)
    run = Path(os.environ.pop("GRAPHSERVE_INTERNAL_RUN"))
    version = int(os.environ.pop("GRAPHSERVE_INTERNAL_VERSION"))
    plan = Plan.from_json(rundir.plan_file(run, version).read_text())
    node = next(node for node in plan.nodes if node.id == sys.argv[2])
    slot = "stand-in" if sys.argv[1] == "standin" else os.environ.get("GRAPHSERVE_INTERNAL_SLOT", "")
    name_process(f"{node.name}[{slot}]", sys.argv[1], node.id)
    records.open_pipe(take_input(), plan.log_level)
    logs.configure(plan.log_level)
    make_loop = _loop_factory(plan.loop)
    forks = Forks(run)
    sock = _connect(run)
    found = None if sys.argv[1] == "standin" else _import_user(plan, node, sock)

    async def live() -> None:
        await Worker(plan, node, run, forks, sock, found).live()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        _run(runner.get_loop(), live(), node.name)
    _end()


def _connect(run: Path) -> socket.socket:
    """Connect to the supervisor, which knows from now on that we live: the kernel tells it our pid."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(rundir.workers_socket(run))
    return sock


def _loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop; its library is imported before user code can stand in for it."""
    if loop != "asyncio":
        try:
            import uvloop
        except ImportError:
            if loop == "uvloop":
                raise
        else:
            return uvloop.new_event_loop
    return asyncio.SelectorEventLoop  # not what a policy of user code would make


def _import_user(plan: Plan, node: NodePlan, sock: socket.socket) -> type | StartupError:
    """The class of a node; or what went wrong, for the supervisor."""
    import graphserve.worker.server  # noqa: F401  (before modules of the user's can stand in for what it imports)

    terminated = False

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True

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
    if terminated:
        os._exit(ExitCode.OK)
    return found


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None], node: str) -> None:
    """Run the worker to its end.

    A task or a callback of user code that raises SystemExit or KeyboardInterrupt has asyncio leave the loop, with every
    call that is executed in it: whoever awaits the task has been told, so it is logged, and the loop goes on.
    """
    life = loop.create_task(work)
    thread = threading.get_ident()

    def end_copy() -> None:
        # In a process that user code forks in a coroutine, and that comes back to its copy of the loop.
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
            text = f"{node}: a task or a callback raised {type(exc).__name__}({exc}); the worker goes on"
            endings.raised(loop, exc, partial(records.note, "graphserve", "error", text, exc))


def _end() -> NoReturn:
    """End although user code may have forgotten threads and processes: the interpreter would wait for them.

    `__aexit__` has run, so who wanted to end them in order has done so. What is registered with `atexit` runs.
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
    """Kill the processes of multiprocessing that the interpreter would wait for, and in a while those that are left.

    The others are daemonic, such as the workers of a Pool: multiprocessing's own exit handler ends them in order. One
    of them may hold the lock of the pool's queue; killed with it, it would have that handler wait for ever.
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
