"""A worker process, from its first line to its last: imports, waits for its turn, serves, drains, ends.

Started by the supervisor (see `child.py`); what it shall be stands in the Plan in the run folder, what it shall do
comes by the control connection.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import gc
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from graphserve import rundir, shortage
from graphserve.call.members import Members, Node
from graphserve.control import Channel, Message
from graphserve.errors import ConfigurationError, ExitCode, StartupError
from graphserve.load import Target, load
from graphserve.parent import die_with
from graphserve.plan import NodePlan, Plan
from graphserve.worker import log
from graphserve.worker.forks import Forks
from graphserve.worker.life import user_traceback

if TYPE_CHECKING:
    from graphserve.worker.serve import Serving
    from graphserve.worker.standin import StandIn


class Worker:
    """This process.

    Args:
        plan: the graph.
        node: the node that it works for.
        run: the run folder.
        stands_in: whether it is no worker of the entry, but answers at the public port while there is none.
    """

    def __init__(self, plan: Plan, node: NodePlan, run: Path, *, stands_in: bool) -> None:
        self.plan, self.node, self.run, self.stands_in = plan, node, run, stands_in
        self.members = Members()
        self.serving: Serving | StandIn | None = None
        self._init: asyncio.Future[list[tuple[str, int]]] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self.secrets: dict[str, Any] = {}
        self.forks = Forks(run)

    async def live(self) -> None:
        """The whole life."""
        self.channel = await self._connect()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._on_drain, {"last": False})
        self.channel.send({"type": "hello", "pid": os.getpid()})
        try:
            serving = await self._start()
        except StartupError as exc:
            if isinstance(exc.__cause__, RuntimeError) and shortage.refused(exc.__cause__):
                self._fail(f"{self.node.name}: {shortage.words(exc.__cause__)}", "")  # no fault of the user's class
            self._fail(str(exc), exc.log)
        except OSError as exc:  # ours: what user code raises is a StartupError by now
            self._fail(f"{self.node.name}: {shortage.words(exc)}", "")
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again and again
        latest = -1 if self.stands_in else cast("Serving", serving).latest.descriptor  # a stand-in executes nothing
        self.channel.send({"type": "ready", "address": serving.address, "latest": latest})
        await self._ended.wait()
        await serving.stop()

    async def _start(self) -> Serving | StandIn:
        self.serving = serving = await (self._stand_in() if self.stands_in else self._serve())
        if self.node.name == self.plan.entry:
            serving.read_certificate(self.secrets.get("keyfile_password"))
        await serving.start()
        return serving

    async def _serve(self) -> Serving:
        from graphserve.worker.serve import Serving  # a stand-in is quicker without

        cls = self._import()
        self.channel.send({"type": "imported"})
        listeners = await self._init
        return Serving(self.plan, self.node, self.run, self.members, cls, listeners, self._report)

    async def _stand_in(self) -> StandIn:
        from graphserve.worker.standin import StandIn

        self.channel.send({"type": "imported"})
        await self._init
        return StandIn(self.plan, self.node, self.run, self.members)

    async def _connect(self) -> Channel:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(rundir.workers_socket(self.run))
        # Without a supervisor there is nobody to serve for, and nobody who would end us.
        return Channel(sock, self._on_message, lambda: os._exit(ExitCode.FAILED), self._no_room)

    def _import(self) -> type:
        target = Target(*self.node.target.split(":"))
        try:
            return load(target, self.plan.main)
        except ConfigurationError as exc:
            raise StartupError(f"{self.node.name}: {exc}", self.node.name) from None
        except BaseException as exc:  # user code may raise anything, SystemExit included
            text = f"{self.node.name}: importing {target.module!r} raised {type(exc).__name__}: {exc}"
            raise StartupError(text, self.node.name, user_traceback(exc)) from None

    def _fail(self, message: str, trace: str) -> NoReturn:
        self.channel.send({"type": "failed", "message": message, "traceback": trace})
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ExitCode.STARTUP)

    # --- messages ---

    def _on_message(self, message: Message, fds: list[int]) -> None:
        getattr(self, "_on_" + message["type"])(message, fds)

    def _on_init(self, message: Message, fds: list[int]) -> None:
        self.secrets = message.get("secrets", {})
        self.node = self.node.with_urls(self.secrets.get("urls", {}))  # the file of the Plan has them without secrets
        self.plan = self.plan.with_node(self.node)
        self._init.set_result(list(zip(message["listeners"], fds, strict=True)))

    def _on_members(self, message: Message, fds: list[int]) -> None:
        for node in message["nodes"]:
            self.members.update(Node.read(node))

    def _on_serve(self, message: Message, fds: list[int]) -> None:
        assert self.serving is not None
        sock = socket.socket(fileno=fds[0])
        self.forks.public(sock)
        self._opening = self._spawn(self._open(sock))

    def _on_drain(self, message: Message, fds: list[int] | None = None) -> None:
        if self.serving is None:
            os._exit(ExitCode.OK)
        self.channel.send({"type": "draining"})
        self._spawn(self._drain(last=message["last"]))

    def _on_unready(self, message: Message, fds: list[int]) -> None:
        assert self.serving is not None
        self.serving.health.state = "draining"

    def _on_report(self, message: Message, fds: list[int]) -> None:
        if self.serving is not None and not self.stands_in:  # only workers are asked
            self._report(cast("Serving", self.serving).vitals())

    def _on_exit(self, message: Message, fds: list[int]) -> None:
        self._ended.set()

    async def _open(self, sock: socket.socket) -> None:
        """Listen at the public port: who does not is not ready, and says why."""
        assert self.serving is not None
        try:
            await self.serving.listen(sock)
        except OSError as exc:
            self._fail(f"{self.node.name} cannot serve the public port: {shortage.words(exc)}", "")
        self.channel.send({"type": "listening"})

    async def _drain(self, last: bool) -> None:
        assert self.serving is not None
        if self._opening is not None:
            await self._opening
        await self.serving.drain(last=last)
        if last and not self.stands_in:  # siblings may still hand us calls: the supervisor says when all are done
            self.channel.send({"type": "drained"})
        else:
            self._ended.set()

    def _report(self, vitals: dict[str, Any]) -> None:
        self.channel.send({"type": "vitals", **vitals})

    def _no_room(self) -> None:
        """Sockets that the supervisor sent did not fit into this process: without them it serves nobody."""
        reason = shortage.words(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        self._fail(f"{self.node.name} cannot take the sockets that it shall serve: {reason}", "")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def main() -> None:
    """The process: `child.py worker <node id>`, or `child.py standin <node id>`."""
    die_with(int(os.environ.pop("GRAPHSERVE_INTERNAL_SUPERVISOR")))
    # Ctrl-C reaches the whole foreground group of a terminal; the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run = Path(os.environ.pop("GRAPHSERVE_INTERNAL_RUN"))
    version = int(os.environ.pop("GRAPHSERVE_INTERNAL_VERSION"))
    plan = Plan.from_json(rundir.plan_file(run, version).read_text())
    node = next(node for node in plan.nodes if node.id == sys.argv[2])
    log.configure(plan.log_level)
    stands_in = sys.argv[1] == "standin"
    for folder in () if stands_in else reversed(plan.sys_path):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    import uvloop

    async def live() -> None:
        await Worker(plan, node, run, stands_in=stands_in).live()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live())
    _end()


def _end() -> NoReturn:
    """End although user code may have forgotten threads and processes: the interpreter would wait for them.

    `__aexit__` has run, so who wanted to end them in order has done so. What is registered with `atexit` runs.
    """
    if "multiprocessing" in sys.modules:
        from multiprocessing import active_children

        for child in active_children():
            child.kill()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(ExitCode.OK)
