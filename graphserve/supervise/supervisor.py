"""The supervisor: run folder, public socket, signals, generations; from the first line to exit code 0.

The pid of `graphserve serve` is this process; workers are its direct children. It never imports user code.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from graphserve.config import Config
from graphserve.errors import ExitCode, GraphServeError
from graphserve.graph import require, resolve_in_child
from graphserve.plan import Plan
from graphserve.rundir import RunDir, remove_stale
from graphserve.supervise.generation import Generation
from graphserve.supervise.observer import LogRecord, Observer
from graphserve.supervise.sockets import PublicSocket

T = TypeVar("T")


class Supervisor:
    """A running graph.

    Args:
        config: what to run, and how.
        observer: who watches.
    """

    def __init__(self, config: Config, observer: Observer) -> None:
        self.config, self.observer = config, observer
        self.stopping = asyncio.Event()
        self.killing = asyncio.Event()
        self.changing = asyncio.Event()
        self._numbers = 0
        self._current: Generation | None = None
        self._signals = 0

    async def run(self) -> ExitCode:
        """Start, serve, and stop when a signal comes.

        Raises:
            GraphServeError: the graph is invalid, or could not start; nothing is left behind.
        """
        self._watch_signals()
        work = asyncio.ensure_future(self._live())
        killed = asyncio.ensure_future(self.killing.wait())
        await asyncio.wait([work, killed], return_when=asyncio.FIRST_COMPLETED)
        killed.cancel()
        if not work.done():
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, GraphServeError):
                await work
            return ExitCode.INTERRUPTED
        return work.result()

    async def _live(self) -> ExitCode:
        plan = await self._resolve()
        if plan is None:
            return ExitCode.OK
        remove_stale()
        self.folder = RunDir(self.config.run_dir)
        try:
            self.public = PublicSocket(plan.listen)
            try:
                return await self._serve(plan)
            finally:
                self.public.remove()
                self.public.close()
        finally:
            self.folder.remove()

    async def _serve(self, plan: Plan) -> ExitCode:
        try:
            self._current = await self._unless_stopped(self._start(plan))
            if self._current is None:
                return ExitCode.OK
            self.observer.serving(self.public.url)
            reloading = asyncio.ensure_future(self._reload_on_change())
            await self.stopping.wait()
            reloading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reloading
            await self._drain(self._current)
            return ExitCode.OK
        finally:
            if self._current is not None:
                await self._current.kill()

    async def _drain(self, generation: Generation) -> None:
        if self.config.drain_delay:
            generation.unready()
            await asyncio.sleep(self.config.drain_delay)
        self.public.close()
        await generation.drain()

    async def _start(self, plan: Plan) -> Generation:
        self._numbers += 1
        run = self.folder.path / str(self._numbers)
        run.mkdir(mode=0o700)
        _write_private(run / "plan.json", plan.to_json())
        password = self.config.keyfile_password
        secrets = {} if password is None else {"keyfile_password": password}
        generation = Generation(plan, run, self.public, self.observer, self.config.env, secrets)
        await generation.start()
        return generation

    async def _resolve(self) -> Plan | None:
        """The Plan; None when a signal came meanwhile."""
        resolution = await self._unless_stopped(
            asyncio.to_thread(resolve_in_child, self.config.settings, self.config.env)
        )
        return None if resolution is None else require(resolution)

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What `work` comes to; None, and `work` cancelled, when a stop is asked for first."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            stopped.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        return None

    # --- reload ---

    async def _reload_on_change(self) -> None:
        """Whenever a reload is asked for: the new code starts beside the old, and only then takes its place."""
        while True:
            await self.changing.wait()
            self.changing.clear()
            try:
                await self._reload()
            except GraphServeError as exc:
                self._say("error", f"reload: {exc}", getattr(exc, "log", ""))
                self._say("error", "the new code did not start; the old code goes on serving")

    async def _reload(self) -> None:
        began = time.monotonic()
        self._say("info", "reloading")
        resolution = await asyncio.to_thread(resolve_in_child, self.config.settings, self.config.env)
        new = await self._start(require(resolution))
        old, self._current = self._current, new
        assert old is not None
        await old.drain()
        self._say("info", f"reloaded in {time.monotonic() - began:.2f} s")

    # --- signals ---

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGINT"):
            loop.add_signal_handler(getattr(signal, name), self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_stop(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self._say("info", "stopping: answering what was accepted; a second signal kills at once")
            self.stopping.set()
        else:
            self.killing.set()

    def _on_hangup(self) -> None:
        if _lost_terminal():
            self._on_stop()
        else:
            self.changing.set()

    def _say(self, level: str, message: str, trace: str = "") -> None:
        self.observer.log(LogRecord(time.time(), level, message, traceback=trace))


def run(config: Config, observer: Observer) -> int:
    """Run a graph until it is told to stop; blocks. Call it on the main thread.

    Workers die with the thread that started them (PR_SET_PDEATHSIG), and signals are handled here.

    Args:
        config: what to run, and how.
        observer: who watches.

    Returns:
        An exit code: 0 after a drained stop, 130 when a second signal killed.

    Raises:
        GraphServeError: the graph is invalid or could not start; its `exit_code` says which.
    """
    logging.getLogger("circus").setLevel(logging.CRITICAL)
    _raise_open_files()

    async def main() -> ExitCode:
        return await Supervisor(config, observer).run()

    return int(asyncio.run(main()))


def _lost_terminal() -> bool:
    """Whether a hangup came because the controlling terminal is gone, and not from an operator."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return os.isatty(0) or os.isatty(2)
    return False


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)

