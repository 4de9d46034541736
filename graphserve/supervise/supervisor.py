"""The supervisor: run folder, public socket, signals, generations; from the first line to exit code 0.

The pid of `graphserve serve` is this process; workers are its direct children. It never imports user code.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import shutil
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from graphserve import machine, shortage
from graphserve.config import Config
from graphserve.errors import ExitCode, GraphServeError, StartupError
from graphserve.plan import Plan, Resolution
from graphserve.resolver import Resolver, require
from graphserve.rundir import RunDir, remove_stale
from graphserve.supervise.environment import MARK
from graphserve.supervise.generation import Generation
from graphserve.supervise.notify import Notifier
from graphserve.supervise.observer import LogRecord, Observer
from graphserve.supervise.output import Pipe
from graphserve.supervise.reaper import Reaper, end_leftovers
from graphserve.supervise.signals import Signals
from graphserve.supervise.sockets import PublicSocket
from graphserve.supervise.watch import changes, folders

T = TypeVar("T")


class Supervisor:
    """A running graph.

    Args:
        config: what to run, and how.
        observer: who watches.
        resolver: the resolver of this configuration, if it works already.
        reread: reads the configuration again, for a reload; without it, it stays as it is.
    """

    def __init__(
        self, config: Config, observer: Observer, resolver: Resolver | None = None,
        reread: Callable[[], Config] | None = None,
    ) -> None:  # fmt: skip
        self.config, self._resolver, self._reread = config, resolver, reread
        self.observer = self.notifier = Notifier(observer, os.environ)
        self.signals = Signals(self._say)
        self.generations: list[Generation] = []  # those that have processes; the last one that is ready serves
        self.serving: Generation
        self.reaper = Reaper(self._workers)
        self._numbers = 0
        self._jobs: set[asyncio.Task[None]] = set()
        self._retiring: set[asyncio.Task[None]] = set()

    async def run(self) -> ExitCode:
        """Start, serve, and stop when a signal comes.

        Raises:
            GraphServeError: the graph is invalid, or could not start; nothing is left behind.
        """
        work = asyncio.ensure_future(self._live())
        killed = asyncio.ensure_future(self.signals.killing.wait())
        await asyncio.wait([work, killed], return_when=asyncio.FIRST_COMPLETED)
        killed.cancel()
        if not work.done():
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, GraphServeError):
                await work
            return ExitCode.INTERRUPTED
        return work.result()

    async def _live(self) -> ExitCode:
        stale = remove_stale()
        self.folder = RunDir(self.config.run_dir)
        end_leftovers([*stale, self.folder.before])
        try:
            self.public = PublicSocket(self.config.settings.listen)
            try:
                return await self._serve()
            finally:
                self.public.remove()
                self.public.close()
        except GraphServeError as exc:
            self.notifier.stopping(str(exc))
            raise
        finally:
            await self.reaper.end()
            self.folder.remove()

    async def _serve(self) -> ExitCode:
        try:
            started = await _unless(self.signals.stopping, self._begin())
            if started is None:
                return ExitCode.OK
            self.serving = started
            self.observer.serving(self.public.url)
            self._jobs.add(asyncio.ensure_future(self._reload_on_change()))
            await self.signals.stopping.wait()
            await _cancel(self._jobs)
            await self._drain()
            return ExitCode.OK
        finally:
            await _cancel(self._jobs | self._retiring)
            await asyncio.gather(*(generation.kill() for generation in self.generations))

    async def _drain(self) -> None:
        self.notifier.stopping()
        if self.config.drain_delay:
            self.serving.unready()
            await asyncio.sleep(self.config.drain_delay)
        self.public.close()
        await asyncio.gather(self.serving.drain(), *self._retiring)

    async def _begin(self) -> Generation:
        plan = require(await self._resolve(self.config))
        if self.config.reload:  # what changes from here on is not missed, however long the start takes
            self._jobs.add(asyncio.ensure_future(self._watch_files(plan)))
        return await self._start(plan)

    async def _start(self, plan: Plan) -> Generation:
        self._numbers += 1
        run = self.folder.path / str(self._numbers)
        try:
            run.mkdir(mode=0o700)
            _write_private(run / "plan.json", plan.to_json())
        except OSError as exc:
            shutil.rmtree(run, ignore_errors=True)
            raise StartupError(f"the graph could not start: {shortage.words(exc)}") from exc
        password = self.config.keyfile_password
        secrets = {} if password is None else {"keyfile_password": password}
        generation = Generation(plan, run, self.public, self.observer, self.config.env, secrets)
        self.generations.append(generation)
        try:
            await generation.start()
        except BaseException:  # it has ended what it had started
            self._forget(generation)
            raise
        return generation

    async def _resolve(self, config: Config) -> Resolution:
        """What the resolver says; what user modules print meanwhile is shown."""
        child, self._resolver = self._resolver or Resolver(config.settings, config.env, capture=True), None
        pipes = [Pipe(descriptor, stream, self.observer.log) for stream, descriptor in child.outputs()]
        self.reaper.spared.add(child.pid)
        try:
            return await asyncio.to_thread(child.wait)
        finally:
            child.kill()
            self.reaper.spared.discard(child.pid)
            for pipe in pipes:
                pipe.close()
            child.close()

    # --- reload ---

    async def _watch_files(self, plan: Plan) -> None:
        watched = folders(self.config, plan)
        try:
            async with contextlib.aclosing(changes(watched, self.config.files)) as news:
                await anext(news)
                self._say("info", f"watching {', '.join(watched)}")
                async for paths in news:
                    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
                    self._say("info", f"changed: {paths[0]}{more}")
                    self.signals.changing.set()
        except GraphServeError as exc:
            self._say("error", f"{exc}; until then, SIGHUP reloads")

    async def _reload_on_change(self) -> None:
        """Whenever a reload is asked for: the new code starts beside the old, and only then takes its place."""
        while True:
            await self.signals.changing.wait()
            self.signals.changing.clear()
            began = time.monotonic()
            self._say("info", "reloading")
            self.notifier.reloading()
            try:
                if await _unless(self.signals.changing, self._reload()) is None:
                    continue  # changed again meanwhile: what had begun is given up
            except (GraphServeError, OSError) as exc:
                words = f"{exc}\nthe new code did not start; the old code goes on serving"
                self._say("error", words, getattr(exc, "log", ""))
                self.notifier.ready(f"the reload failed: {exc}")
            else:
                self.notifier.ready()
                self._say("info", f"reloaded in {time.monotonic() - began:.2f} s")

    async def _reload(self) -> Generation:
        config = self._config_now()
        plan = require(await self._resolve(config))
        before, self.config = self.config, config
        try:
            new = await self._start(plan)
        except BaseException:
            self.config = before
            raise
        old, self.serving = self.serving, new  # from here on nothing can be given up
        task = asyncio.ensure_future(self._retire(old))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return new

    async def _retire(self, old: Generation) -> None:
        old.retire()
        await old.drain()
        self._forget(old)

    def _forget(self, generation: Generation) -> None:
        self.generations.remove(generation)
        shutil.rmtree(generation.run, ignore_errors=True)

    def _config_now(self) -> Config:
        """The configuration as files and environment say it now; where the graph listens stays."""
        if self._reread is None:
            return self.config
        new, old = self._reread(), self.config.settings.listen
        listen = new.settings.listen
        tls = listen.tls if (listen.tls is None) == (old.tls is None) else old.tls
        listen = dataclasses.replace(listen, host=old.host, port=old.port, uds=old.uds, backlog=old.backlog, tls=tls)
        password = new.keyfile_password or self.config.keyfile_password
        settings = dataclasses.replace(new.settings, listen=listen)
        return dataclasses.replace(self.config, settings=settings, keyfile_password=password, env=new.env)

    def _workers(self) -> list[tuple[int, str]]:
        nodes = [node for generation in self.generations for node in generation.nodes.values()]
        return [(worker.pid, worker.process.env[MARK]) for node in nodes for worker in node.workers]

    def _say(self, level: str, message: str, trace: str = "") -> None:
        self.observer.log(LogRecord(time.time(), level, message, traceback=trace))


def run(
    config: Config, observer: Observer, resolver: Resolver | None = None, reread: Callable[[], Config] | None = None
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

    async def main() -> ExitCode:
        return await Supervisor(config, observer, resolver, reread).run()

    try:
        return int(asyncio.run(main()))
    except (OSError, RuntimeError) as exc:
        if not shortage.refused(exc):
            raise
        raise StartupError(f"the graph could not go on: {shortage.words(exc)}") from exc


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` comes to; None, and `work` cancelled, when the event comes first."""
    task = asyncio.ensure_future(work)
    happened = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([task, happened], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
    finally:
        happened.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    return None


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
