"""One node while it runs: its slots, its respawns, its drain. Runs in the supervisor."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from graphserve import shortage
from graphserve.plan import NodePlan
from graphserve.supervise.observer import LogRecord, State
from graphserve.supervise.pool import Pool, WorkerProcess
from graphserve.supervise.vitals import judge, stuck

if TYPE_CHECKING:
    import socket

HEALTHY = 1.0  # seconds of readiness after which a death is no sign of a crash loop
FREE_DEATHS = 2  # early deaths in a row that are still answered at once
FIRST_PAUSE = 0.2  # seconds before the next respawn after those; doubles up to …
LONGEST_PAUSE = 30.0
FAILED_AFTER = 5  # early deaths in a row, with no ready worker left, after which the node is failed


class Node:
    """A node's workers.

    Args:
        plan: the node.
        sockets: its shared sockets.
        env: the environment of its workers, by slot.
        emit: takes records for the terminal.
        on_change: called when its state or its workers changed.
        on_broken: called with a worker that died before the node was ever ready.
    """

    def __init__(
        self, plan: NodePlan, sockets: dict[str, socket.socket], env: Callable[[int], Mapping[str, str]],
        emit: Callable[[LogRecord], None], on_change: Callable[[Node], None],
        on_broken: Callable[[Node, str, str], None],
    ) -> None:  # fmt: skip
        self.plan, self.sockets, self.emit = plan, sockets, emit
        self.on_change, self.on_broken = on_change, on_broken
        self.pool = Pool(plan, env, emit, self._died)
        self.state: State = "starting"
        self.reason = ""
        self.started = asyncio.Event()  # every worker was ready once
        self.restarts = 0
        self.early_deaths = 0
        self.stopping = False
        self._respawns: dict[int, asyncio.TimerHandle] = {}
        self._recycles: set[asyncio.Future[None]] = set()
        self._one_at_a_time = asyncio.Lock()

    @property
    def workers(self) -> list[WorkerProcess]:
        """The processes that live."""
        return list(self.pool.workers.values())

    def ready_workers(self) -> list[WorkerProcess]:
        """The workers that take calls."""
        return [worker for worker in self.workers if worker.state == "ready"]

    def spawn_all(self) -> None:
        """Start every worker; they import, and wait for their turn."""
        for slot in range(self.plan.workers):
            self.pool.spawn(slot)

    def turn(self, worker: WorkerProcess, snapshot: list[Any], secrets: dict[str, Any]) -> None:
        """What the worker needs is ready: let it initialise."""
        worker.state = "starting"
        limit = self.plan.options.startup_timeout
        worker.startup_timer = asyncio.get_running_loop().call_later(limit, self._too_slow, worker)
        worker.send({"type": "members", "nodes": snapshot})
        listeners = {"type": "init", "listeners": list(self.sockets), "secrets": secrets}
        worker.send(listeners, [sock.fileno() for sock in self.sockets.values()])

    def ready(self, worker: WorkerProcess, address: str) -> None:
        """The worker takes calls."""
        worker.state, worker.address = "ready", address
        worker.ready_at = worker.seen_at = asyncio.get_running_loop().time()
        worker.was_ready.set()
        if worker.startup_timer is not None:
            worker.startup_timer.cancel()
        if self.state == "failed":
            self.early_deaths = 0
        self.reason = ""
        if len(self.ready_workers()) >= self.plan.workers:
            self.started.set()
        if self.started.is_set():
            self.state = "ready"
        self.on_change(self)

    def vitals(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        """A worker says how it is."""
        worker.seen_at = asyncio.get_running_loop().time()
        verdict = judge(self.plan.options, message, worker.quota)
        if verdict is None or worker.state != "ready":
            return
        if verdict[0] == "kill":
            self._put_down(worker, verdict[1])
        elif not worker.recycling:
            worker.recycling = True
            task = asyncio.ensure_future(self._recycle(worker, verdict[1]))
            self._recycles.add(task)
            task.add_done_callback(self._recycles.discard)

    def check_pulse(self) -> None:
        """Kill workers whose loop is stuck: they do not even report."""
        now = asyncio.get_running_loop().time()
        for worker in self.ready_workers():
            if words := stuck(self.plan.options, now - worker.seen_at):
                self._put_down(worker, words)

    async def drain(self, timeout: float) -> None:
        """Stop for good: answer what was taken, end every worker."""
        self.stopping = True
        self.state = "draining"
        for timer in self._respawns.values():
            timer.cancel()
        for worker in self.workers:
            self._retire(worker, last=True)
        self.on_change(self)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(_first(worker.drained, worker.gone) for worker in self.workers))
                for worker in self.workers:
                    worker.send({"type": "exit"})
                await asyncio.gather(*(worker.gone.wait() for worker in self.workers))
        except TimeoutError:
            names = ", ".join(str(worker.pid) for worker in self.workers)
            self._say("warning", f"not drained after {timeout:g} s, killed: {names}")
            await self.kill()
        self.state = "stopped"
        self.on_change(self)

    async def kill(self) -> None:
        """End every worker at once."""
        self.stopping = True
        for timer in self._respawns.values():
            timer.cancel()
        for worker in self.workers:
            worker.kill()
        await asyncio.gather(*(worker.gone.wait() for worker in self.workers))

    def close_sockets(self) -> None:
        """Close the shared sockets; who still waits there is told by the kernel."""
        for sock in self.sockets.values():
            sock.close()

    def membership(self) -> dict[str, Any]:
        """What callers are told of this node."""
        workers = [
            {"pid": worker.pid, "address": worker.address, "state": worker.state}
            for worker in self.workers
            if worker.state in ("ready", "draining")
        ]
        return {"name": self.plan.name, "state": self.state, "reason": self.reason, "workers": workers}

    def _retire(self, worker: WorkerProcess, *, last: bool) -> None:
        worker.retiring = True
        if worker.state == "ready":
            worker.state = "draining"
            worker.send({"type": "drain", "last": last})
        elif worker.state != "draining":  # it serves nothing yet
            worker.kill()

    def _put_down(self, worker: WorkerProcess, words: str) -> None:
        worker.message = f"a worker of {self.plan.name} {words}"
        worker.kill()

    async def _recycle(self, worker: WorkerProcess, words: str) -> None:
        """Replace a worker without loss: the new one is ready before the old one drains; with GPUs the old first."""
        async with self._one_at_a_time:
            if self.stopping or worker.state != "ready":
                return
            self._say("info", f"a worker of {self.plan.name} {words}; replacing it", worker)
            if self.plan.options.gpus:
                await self._let_go(worker)
                if not self.stopping:
                    self.pool.spawn(worker.slot)
                return
            new = self.pool.spawn(worker.slot)
            new.standby = True
            await _first(new.was_ready, new.gone)
            if new.was_ready.is_set():
                new.standby = False
                await self._let_go(worker)
            else:
                worker.recycling = False  # it goes on; the next report asks again

    async def _let_go(self, worker: WorkerProcess) -> None:
        worker.retiring = True
        if worker.state == "ready":
            worker.state = "draining"
            worker.send({"type": "drain", "last": False})
        self.on_change(self)
        try:
            async with asyncio.timeout(self.plan.options.graceful_timeout):
                await worker.gone.wait()
        except TimeoutError:
            worker.kill()
            await worker.gone.wait()

    def _too_slow(self, worker: WorkerProcess) -> None:
        limit = self.plan.options.startup_timeout
        worker.message = f"{self.plan.name} was not ready {limit:g} s after it began to start (startup_timeout)"
        worker.kill()

    def _died(self, worker: WorkerProcess, code: int) -> None:
        if worker.standby:
            words = worker.message or how_it_ended(code)
            self._say("error", f"the replacement did not start: {words}", worker, worker.traceback)
        if self.stopping or worker.retiring or worker.standby:
            self.on_change(self)
            return
        words = worker.message or f"a worker of {self.plan.name} {how_it_ended(code)}"
        if not self.started.is_set():
            self.on_broken(self, words, worker.last_words())
            return
        self._respawn_later(worker, words)
        self.on_change(self)

    def _respawn_later(self, worker: WorkerProcess, words: str) -> None:
        loop = asyncio.get_running_loop()
        lived = loop.time() - worker.ready_at if worker.ready_at is not None else 0.0
        self.early_deaths = 0 if lived >= HEALTHY else self.early_deaths + 1
        pause = 0.0
        if self.early_deaths > FREE_DEATHS:
            longest = min(FIRST_PAUSE * 2.0 ** (self.early_deaths - FREE_DEATHS - 1), LONGEST_PAUSE)
            pause = longest * random.uniform(0.75, 1.25)  # jitter: nodes that failed together come back apart
        if self.early_deaths >= FAILED_AFTER and not self.ready_workers():
            self.state, self.reason = "failed", words
        self.restarts += 1
        trace = worker.traceback
        self._say("error", f"{words}; replaced" + (f" in {pause:.1f} s" if pause else ""), worker, trace)
        self._respawns[worker.slot] = loop.call_later(pause, self._respawn, worker.slot)

    def _respawn(self, slot: int) -> None:
        self._respawns.pop(slot, None)
        if self.stopping:
            return
        try:
            self.pool.spawn(slot)
        except OSError as exc:
            self._say("error", f"{self.plan.name}: no worker could be started, tried again: {shortage.words(exc)}")
            self._respawns[slot] = asyncio.get_running_loop().call_later(1.0, self._respawn, slot)

    def _say(self, level: str, message: str, worker: WorkerProcess | None = None, trace: str = "") -> None:
        slot, pid = (worker.slot, worker.pid) if worker else (None, None)
        self.emit(LogRecord(time.time(), level, message, self.plan.name, slot, pid, traceback=trace))


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


async def _first(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
