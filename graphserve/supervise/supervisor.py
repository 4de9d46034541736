"""The supervisor: run folder, sockets, signals, the fleet; from the first line to exit code 0.

The pid of `graphserve serve` is this process; workers are its direct children. It never imports
user code.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import traceback
from collections.abc import Awaitable, Callable
from typing import TypeVar

from graphserve.config import Config
from graphserve.errors import ExitCode, GraphServeError, StartupError
from graphserve.graph.plan import Plan, Resolution
from graphserve.graph.resolver import Resolver, import_limit, require
from graphserve.supervise.certificate_watch import CertificateWatch
from graphserve.supervise.control.admin import AdminPort
from graphserve.supervise.control.server import ControlApi, open_admin, open_control
from graphserve.supervise.event_ring import EventRecorder, EventRing
from graphserve.supervise.events import (
    SHOWN_OTHERWISE,
    EventKind,
    LogRecord,
    Observer,
    happened,
    log_of,
)
from graphserve.supervise.fleet import Fleet
from graphserve.supervise.log_ring import LogRing, RecordingObserver
from graphserve.supervise.operations import Operations
from graphserve.supervise.process.output import Pipe
from graphserve.supervise.process.reaper import Reaper, end_leftovers
from graphserve.supervise.process.sockets import PublicSocket
from graphserve.supervise.revision import provisional_plan
from graphserve.supervise.run_folder import RunFolderUpkeep
from graphserve.supervise.signals import Signals
from graphserve.supervise.states import GraphLife, GraphPhase
from graphserve.supervise.systemd import SystemdNotifier
from graphserve.supervise.timing import process_age
from graphserve.supervise.waiting import cancel, unless
from graphserve.supervise.watch import changes, folders
from graphserve.system import machine, os_errors, stack
from graphserve.system.child_process import begin_collecting
from graphserve.system.rundir.claim import RunDir
from graphserve.system.rundir.cleanup import remove_stale

T = TypeVar("T")

LEAVING = 3.0  # seconds that what was ready has to leave when a start has failed


class Supervisor:
    """The process: it makes the run folder, binds the public port, and runs the graph in them.

    Args:
        config: what to run, and how.
        observer: who watches.
        resolver: the resolver of this configuration, if it works already.
        reread: reads the configuration again, for a reload; without it, it stays as it is.
    """

    def __init__(
        self,
        config: Config,
        observer: Observer,
        resolver: Resolver | None = None,
        reread: Callable[[], Config] | None = None,
    ) -> None:
        self.config = config
        self.resolver = resolver
        self.reread = reread
        self.log_ring = LogRing(config.log_buffer)
        self.event_ring = EventRing()
        recording = RecordingObserver(observer, self.log_ring)
        self.notifier = SystemdNotifier(EventRecorder(recording, self.event_ring), os.environ)
        self.signals = Signals(self.say)

    async def run(self) -> ExitCode:
        """Start, serve, and stop when a signal comes.

        Raises:
            GraphServeError: the graph is invalid, or could not start; nothing is left behind.
        """
        work = asyncio.ensure_future(self._run())
        killed = asyncio.ensure_future(self.signals.killing.wait())
        await asyncio.wait([work, killed], return_when=asyncio.FIRST_COMPLETED)
        killed.cancel()
        if not work.done():
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, GraphServeError):
                await work
            self.say(
                EventKind.GRAPH_KILLED,
                "warning",
                "killed at once by a second signal: calls that were not answered yet are lost",
            )
            return ExitCode.INTERRUPTED
        return work.result()

    def say(self, kind: EventKind, level: str, message: str, trace: str = "") -> None:
        """Show something that happened to the graph, and keep it."""
        self.notifier.log(happened(kind, level, message, trace=trace))

    async def _run(self) -> ExitCode:
        stale = remove_stale()
        folder = RunDir(self.config.run_dir)
        self._say_foreign([*stale.foreign, *(str(folder.path / name) for name in folder.foreign)])
        if folder.parent_made is not None:
            self.say(
                EventKind.FOLDER_MADE,
                "info",
                f"made the folder {folder.parent_made} for the run folder: it was not there,"
                " and stays",
            )
        end_leftovers([*stale.tokens, folder.before])
        try:
            public = PublicSocket(self.config.settings.listen)
            try:
                return await SupervisedGraph(self, folder, public).run()
            finally:
                public.remove()
                public.close()
        except GraphServeError as exc:
            self.notifier.failed(str(exc))
            raise
        finally:
            self._say_foreign([str(folder.path / name) for name in folder.remove()])

    def _say_foreign(self, paths: list[str]) -> None:
        if paths:
            self.say(
                EventKind.FILES_FOREIGN,
                "warning",
                f"left in the run folder, since graphserve did not make it: {', '.join(paths)}",
            )


class SupervisedGraph(GraphLife):
    """The graph, from its start to its end; operators see and change it by the control socket.

    Args:
        supervisor: the process.
        folder: the run folder.
        public: the public socket.
    """

    def __init__(self, supervisor: Supervisor, folder: RunDir, public: PublicSocket) -> None:
        super().__init__()
        self.config = supervisor.config
        self.public = public
        self.signals = supervisor.signals
        self.fleet = Fleet(folder.path, public, supervisor.notifier, look=self._look)
        self.operations = Operations(
            self.fleet,
            self.config,
            self._resolve,
            supervisor.reread,
            supervisor.say,
            supervisor.notifier.reload,
        )
        self.log_ring = supervisor.log_ring
        self.event_ring = supervisor.event_ring
        self._say = supervisor.say
        self._notifier = supervisor.notifier
        self._folder = folder
        self._admin: AdminPort | None = None
        self._upkeep: RunFolderUpkeep | None = None  # of the run folder, once it has begun
        self._reaper = Reaper(self.fleet.marks)
        self._resolver = supervisor.resolver  # for the start
        self._jobs: set[asyncio.Task[object]] = set()

    async def run(self) -> ExitCode:
        """Start, serve, and stop when it is told to.

        Raises:
            GraphServeError: the graph is invalid, or could not start; its processes have ended.
        """
        api = ControlApi(self, self._folder.path)
        control = await open_control(api, self._folder.path)
        upkeep = RunFolderUpkeep(self._folder, self.fleet, control, self._say)
        try:
            self._admin = open_admin(api, self)
            self._say_admin()
            self._upkeep = upkeep
            upkeep.begin()
            try:
                started = await unless(self.signals.stopping, self._start())
            except GraphServeError as exc:
                self._notifier.failed(str(exc))
                self.fleet.timings.end(str(exc))
                # the terminal is told when all has ended
                words = f"the start has failed: {exc}"
                self._say(EventKind.START_FAILED, SHOWN_OTHERWISE, words, log_of(exc))
                await self._give_up(exc)
                raise
            if started is None:
                self._notifier.stopping()
                await self._give_up()
                return ExitCode.OK
            self.enter(GraphPhase.SERVING)
            self._notifier.serving(self.public.url)
            self.job(self._reload_when_asked())
            self._watch_certificate()
            await self.signals.stopping.wait()
            self.enter(GraphPhase.STOPPING)
            await cancel(self._jobs)
            await self._drain()
            return ExitCode.OK
        finally:
            await cancel(self._jobs)
            await self.fleet.kill()
            await self._reaper.end()
            upkeep.end()
            self.log_ring.end()
            self.event_ring.end()
            if self._admin is not None:
                await self._admin.close()
            await control.close()

    @property
    def admin_url(self) -> str | None:
        """Return where the admin port answers, if there is one."""
        return None if self._admin is None else self._admin.url

    def _say_admin(self) -> None:
        """Say where the admin port is, and who can read what passes there."""
        if self._admin is None:
            return
        words = f"the admin port is at {self._admin.url}"
        if self._admin.is_local:
            self._say(EventKind.NOTICE, "info", words)
            return
        words += (
            ", where other machines reach it without TLS: whoever is on the way reads its key."
            " Listen on 127.0.0.1 behind a proxy with TLS, or come by an SSH tunnel"
        )
        self._say(EventKind.NOTICE, "warning", words)

    def _watch_certificate(self) -> None:
        """Tell from now on before the certificate expires, if there is one."""
        config = self.config
        if (tls := config.settings.listen.tls) is None:
            return
        # brings ssl along, which few graphs need here
        from graphserve.config.certificate import seconds_left

        fleet = self.fleet
        watch = CertificateWatch(
            tls.certfile,
            lambda: seconds_left(tls, config.keyfile_password),
            self._say,
        )
        self.job(watch.run(lambda: fleet.current.number if fleet.current is not None else 0))

    def _look(self, suspect: str) -> None:
        """Have the run folder looked after, once there is who does it."""
        if self._upkeep is not None:
            self._upkeep.look(suspect)

    def job(self, work: Awaitable[T]) -> asyncio.Task[T]:
        """Do something that a stop gives up."""
        task = asyncio.ensure_future(work)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return task

    async def _start(self) -> bool:
        config = self.config
        self.fleet.timings.begin("start", process_age())
        words = f"{config.settings.target} starts"
        self._say(EventKind.GRAPH_STARTING, SHOWN_OTHERWISE, words)
        self.fleet.watch_start(provisional_plan(config.settings), config.env, config.secrets)
        plan = require(await self._resolve(config))
        self.fleet.timings.resolved()
        # what changes from here on is not missed, however long the start takes
        if config.reload:
            self.job(self._watch_files(plan))
        await self.fleet.start(self.fleet.add_revision(plan, config.env, config.secrets))
        self.fleet.timings.end()
        return True

    async def _give_up(self, failure: GraphServeError | None = None) -> None:
        """End a start: what was ready leaves, in order; the rest is killed, and what does not leave
        is soon after.
        """
        self.enter(GraphPhase.STOPPING)
        if failure is not None and any(node.ready_workers() for node in self.fleet.nodes):
            words = f"the start has failed, the nodes that are ready stop: {failure}"
            self._say(EventKind.GRAPH_STOPPING, "error", words)
        for node in self.fleet.nodes:
            node.give_up()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVING if failure is not None else None):
                await self.fleet.drain()

    async def _drain(self) -> None:
        self._notifier.stopping()
        if self.config.drain_delay:
            self.fleet.unready()
            await asyncio.sleep(self.config.drain_delay)
        await self.fleet.drain()

    async def _resolve(self, config: Config) -> Resolution:
        """Return what the resolver says; what user modules print meanwhile is shown."""
        child = self._resolver or Resolver(config.settings, config.env, capture=True)
        self._resolver = None
        self._reaper.spared.add(child.pid)
        try:
            limit = import_limit(config.settings.startup_timeout)
            return await _resolution(child, limit, self._notifier.log)
        finally:
            self._reaper.spared.discard(child.pid)

    async def _watch_files(self, plan: Plan) -> None:
        watched = folders(self.config, plan)
        try:
            async with contextlib.aclosing(changes(watched, self.config.files)) as news:
                await anext(news)
                self._say(EventKind.NOTICE, "info", f"watching {', '.join(watched)}")
                async for paths in news:
                    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
                    self._say(EventKind.CODE_CHANGED, "info", f"changed: {paths[0]}{more}")
                    self.signals.changing.set()
        except GraphServeError as exc:
            words = f"{exc}; meanwhile `graphserve reload` reloads"
            self._say(EventKind.WATCH_FAILED, "error", words)

    async def _reload_when_asked(self) -> None:
        """Reload whenever SIGHUP or a changed file asks for it: new workers start beside the old,
        and only then take their places.
        """
        while True:
            await self.signals.changing.wait()
            self.signals.changing.clear()
            try:
                # changed again: it begins anew
                await unless(self.signals.changing, self.operations.reload())
            except Exception:
                pass  # it was said


def run(
    config: Config,
    observer: Observer,
    resolver: Resolver | None = None,
    reread: Callable[[], Config] | None = None,
) -> int:
    """Run a graph until it is told to stop; blocks. Call it on the main thread.

    Workers die with the thread that started them (PR_SET_PDEATHSIG), and signals are handled here.

    Args:
        config: what to run, and how.
        observer: who watches.
        resolver: the resolver of this configuration, if it works already; its outputs captured.
        reread: reads the configuration again, for a reload.

    Returns:
        An exit code: 0 after a drained stop, 130 when a second signal killed.

    Raises:
        GraphServeError: the graph is invalid or could not start; its `exit_code` says which.
    """
    logging.getLogger("circus").setLevel(logging.CRITICAL)
    machine.raise_open_files()
    begin_collecting()

    async def main() -> ExitCode:
        supervisor = Supervisor(config, observer, resolver, reread)
        logging.getLogger().addHandler(_Shown(supervisor.notifier))
        logging.captureWarnings(True)
        try:
            return await supervisor.run()
        finally:
            supervisor.signals.end()

    try:
        return int(asyncio.run(main()))
    except (OSError, RuntimeError) as exc:
        if not os_errors.is_refusal(exc):
            raise
        raise StartupError(f"the graph could not go on: {os_errors.explain(exc)}") from exc


class _Shown(logging.Handler):
    """Tells the observer as records what libraries in this process log: else it would be printed
    between our own lines, in another form.

    Args:
        observer: who watches.
    """

    def __init__(self, observer: Observer) -> None:
        super().__init__(logging.WARNING)
        self._observer = observer

    def emit(self, record: logging.LogRecord) -> None:
        raised = record.exc_info[1] if record.exc_info else None
        trace = "".join(traceback.format_exception(raised)) if raised is not None else ""
        level = "error" if record.levelno >= logging.ERROR else "warning"
        self._observer.log(LogRecord(record.created, level, record.getMessage(), traceback=trace))


async def _resolution(
    child: Resolver, limit: float, emit: Callable[[LogRecord], None]
) -> Resolution:
    """Return what the resolver says; whatever happens, it has ended then.

    Args:
        child: the resolver; its outputs captured.
        limit: seconds that it may take.
        emit: takes what user modules print meanwhile.

    Raises:
        ConfigurationError: it died.
        StartupError: it took too long; its log says where it hangs.
    """
    pipes = [Pipe(descriptor, stream, emit) for stream, descriptor in child.outputs()]
    answer = asyncio.ensure_future(asyncio.to_thread(child.wait))
    # it need not matter any more
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        await asyncio.wait([answer], timeout=limit)
        if answer.done():
            return answer.result()
        pipes[1].collect_stack()
        child.interrupt()
        await asyncio.wait([answer], timeout=stack.WRITE_TIMEOUT)
    finally:
        answer.cancel()
        child.kill()
        for pipe in pipes:
            pipe.close()
        child.close()
    raise StartupError(child.too_slow(limit), log=str(pipes[1].stack))
