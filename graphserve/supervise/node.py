"""One node while it runs: its workers, from their start to its drain. Runs in the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from graphserve.errors import StartupError
from graphserve.graph.plan import NodePlan
from graphserve.graph.resolver import import_limit
from graphserve.supervise.backoff import Backoff
from graphserve.supervise.counts import GraphCounts
from graphserve.supervise.events import SHOWN_OTHERWISE, EventKind, LogRecord, State, happened
from graphserve.supervise.overload import Overload
from graphserve.supervise.process.reaper import how_it_ended
from graphserve.supervise.process.sockets import NamedSocket
from graphserve.supervise.process.worker_process import (
    NO_PROCESS_PAUSE,
    MakePool,
    Pool,
    WorkerProcess,
    gone,
)
from graphserve.supervise.quarantine import Quarantine, noted_calls
from graphserve.supervise.revision import Revision
from graphserve.supervise.states import Claim, NodeLife, NodePhase, WorkerState
from graphserve.supervise.timing import Timings
from graphserve.supervise.verdicts import FREEZE, judge, stuck
from graphserve.supervise.waiting import first
from graphserve.system import messages, os_errors
from graphserve.system.rundir.paths import file_identity
from graphserve.system.worker_pages import Roster

# seconds that workers which have drained have to leave, where others needed all of
# `graceful_timeout`
LEAVING = 5.0


class Node(NodeLife):
    """The workers of one node, and what becomes of them.

    Args:
        plan: the node.
        revision: what its workers are started from.
        sockets: its shared sockets.
        emit: takes records for the terminal.
        on_change: called when its state or its workers changed.
        look: has the run folder looked after, before something is started that needs it.
        warn: called when callers are to know which calls kill workers.
        roster: where its workers are named.
        counts: what its workers count.
        timings: what its workers' starts take.
        make_pool: makes its processes.
    """

    def __init__(
        self,
        plan: NodePlan,
        revision: Revision,
        sockets: dict[str, NamedSocket],
        emit: Callable[[LogRecord], None],
        on_change: Callable[[Node], None],
        look: Callable[[], None],
        warn: Callable[[Node], None],
        roster: Roster,
        counts: GraphCounts,
        timings: Timings,
        make_pool: MakePool = Pool,
    ) -> None:
        super().__init__()
        self.counts = counts
        self.quarantine = Quarantine(self, partial(warn, self))
        self._look = look
        self._roster = roster
        self._timings = timings
        self.plan = plan
        self.revision = revision
        self.sockets = sockets
        self.emit = emit
        self.on_change = on_change
        self.pool = make_pool(plan, emit, self._died, roster=roster)
        self.reason = ""
        self.incomplete_since = asyncio.get_running_loop().time()  # since when it lacks workers
        self.started = asyncio.Event()  # every worker was ready once
        self.callable_since = 0.0  # on the loop's clock: callers have not waited for it since
        self.broken: WorkerProcess | None = None  # died before
        self.scaling = False  # it gets more workers, which are not ready yet
        self.shows = True  # whether its changes are shown
        self.restart_policy = RestartPolicy(self)
        self.overload = Overload()
        self._broke = asyncio.Event()
        self._pulse_at = 0.0  # when `check_pulse` was called last

    @property
    def workers(self) -> list[WorkerProcess]:
        """Return the processes that live."""
        return list(self.pool.workers.values())

    @property
    def stopping(self) -> bool:
        """Return whether workers that die are not replaced any more."""
        return self.restart_policy.ended

    def ready_workers(self) -> list[WorkerProcess]:
        """Return the workers that take calls."""
        return [worker for worker in self.workers if worker.state is WorkerState.READY]

    @property
    def warms_up(self) -> bool:
        """Return whether the node starts, and a worker of it warms up."""
        return self.phase is NodePhase.STARTING and any(
            worker.warms_up and worker.state is WorkerState.STARTING for worker in self.workers
        )

    @property
    def required(self) -> bool:
        """Return whether the graph does not start without the node."""
        return self.plan.name in self.revision.plan.required()

    def revisions(self) -> set[Revision]:
        """Return the revisions that its workers are started from, those to come included."""
        return {self.revision, *(worker.revision for worker in self.workers)}

    def adopt(self, plan: NodePlan, revision: Revision) -> None:
        """Start workers from another revision from now on."""
        self.plan = plan
        self.revision = revision
        for sock in self.sockets.values():
            sock.listen(plan.options.queue)  # as many may wait as is said now

    def spawn(
        self, slot: int, plan: NodePlan | None = None, revision: Revision | None = None
    ) -> WorkerProcess:
        """Start a worker; it imports its modules, and waits until what it needs is ready.

        Raises:
            OSError: the machine will not give us a process.
        """
        self.restart_policy.filled(slot)
        self._look()
        revision = revision or self.revision
        worker = self.pool.spawn(slot, revision, revision.env(plan or self.plan, slot))
        self._timings.started(worker.timing)
        words = f"a worker of {self.plan.name} is started"
        self.say(EventKind.WORKER_STARTED, SHOWN_OTHERWISE, words, worker)
        limit = import_limit(worker.options.startup_timeout)
        self._limit_start(
            worker, limit, "was still importing its modules {:g} s after it was spawned"
        )
        return worker

    def spawn_all(self) -> None:
        """Start a worker for every slot.

        Raises:
            OSError: the machine will not give us a process.
        """
        self.became_incomplete()
        for slot in range(self.plan.workers):
            self.spawn(slot)

    def resize(self, workers: int) -> None:
        """Have so many slots from now on; who fills or empties them is another matter."""
        self.scaling = workers > self.plan.workers
        self.plan = replace(self.plan, workers=workers)

    @property
    def shown(self) -> State:
        """Return its state as users see it."""
        if self.scaling and self.phase is NodePhase.READY:
            return "scaling"
        # what fails at the start is stopped at once
        if self.broken is not None and self.phase is NodePhase.DRAINING:
            return "failed"
        return self.phase.shown

    def became_incomplete(self) -> None:
        """Measure from now on how long it takes until it has all its workers."""
        self.incomplete_since = asyncio.get_running_loop().time()

    def hide(self) -> None:
        """Show none of its changes any more."""
        self.shows = False

    async def up(self) -> None:
        """Wait until every worker was ready once.

        Raises:
            StartupError: one of them died before.
        """
        await first(self.started.wait, self._broke.wait)
        if self.broken is not None:
            raise StartupError(self.broken.message, self.plan.name, self.broken.last_words())

    def send_init(
        self, worker: WorkerProcess, members: messages.Members, init: messages.Init
    ) -> None:
        """Let a worker initialise: what it needs is ready."""
        worker.enter(WorkerState.STARTING)
        limit = worker.options.startup_timeout
        self._limit_start(worker, limit, "was not ready {:g} s after it began to start")
        revision = worker.revision
        self.counts.hand_over(worker, revision.plan, revision.plan.node(self.plan.name))
        if self._roster.descriptor >= 0:
            worker.send(messages.RosterHandover(), [self._roster.descriptor])
        worker.send(members)
        worker.send(init, [self.sockets[name].fileno() for name in init.listeners])

    def became_ready(self, worker: WorkerProcess) -> None:
        """Note that a worker takes calls."""
        worker.become_ready()
        self._say_ready(worker)
        self.reason = ""
        was_callable = self.started.is_set() and len(self.ready_workers()) > 1
        if len(self.ready_workers()) >= self.plan.workers:
            self.started.set()
            self.scaling = False
        if not was_callable:
            self.callable_since = asyncio.get_running_loop().time()
        if self.phase is NodePhase.FAILED:
            words = f"{self.plan.name} takes calls again"
            self.say(EventKind.NODE_READY, SHOWN_OTHERWISE, words)
        if self.started.is_set() and not self.stopping:
            self.enter(NodePhase.READY)
        self.on_change(self)

    def _say_ready(self, worker: WorkerProcess) -> None:
        phases = {what: round(until - at, 3) for what, at, until in worker.timing.phases()}
        took = sum(phases.values())
        shown = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in phases.items() if seconds)
        words = f"a worker of {self.plan.name} is ready after {took:.2f} s ({shown})"
        self.say(EventKind.WORKER_READY, SHOWN_OTHERWISE, words, worker, fields={"took": phases})

    def fail(self, reason: str) -> None:
        """Have callers wait no more: its workers die early, again and again."""
        if self.phase is not NodePhase.FAILED:
            words = f"{self.plan.name} has failed, and its calls are refused: {reason}"
            self.say(EventKind.NODE_FAILED, SHOWN_OTHERWISE, words)
        self.enter(NodePhase.FAILED)
        self.callable_since = asyncio.get_running_loop().time()
        self.reason = reason

    def on_health(self, worker: WorkerProcess, report: messages.HealthReport) -> str:
        """Judge a worker by what it says of itself, and kill it where it is stuck.

        Returns:
            Why it is to be replaced, if it has had its time; else nothing.
        """
        worker.reports(report)
        if self.overload.reported(worker.pid, report.shed, asyncio.get_running_loop().time()):
            words = f"{self.plan.name} sheds calls: it has more to do than it can"
            self.say(EventKind.SHEDDING_BEGUN, "warning", words)
        verdict = judge(worker.options, report, worker.quota)
        if verdict is None:
            return ""
        if verdict[0] == "kill" and worker.state in (WorkerState.READY, WorkerState.DRAINING):
            self._kill_stuck(worker, verdict[1])
            return ""
        return (
            verdict[1] if worker.state is WorkerState.READY and worker.claim is Claim.HOLDS else ""
        )

    def check_pulse(self) -> None:
        """Kill workers whose loop is stuck: they do not even report."""
        now = asyncio.get_running_loop().time()
        if (shed := self.overload.over(now)) is not None:
            refused, seconds = shed
            words = (
                f"{self.plan.name} sheds no calls any more: {refused:,} were refused in"
                f" {max(1.0, seconds):.0f} s"
            )
            self.say(EventKind.SHEDDING_ENDED, "info", words, fields={"refused": refused})
        on_time = now - self._pulse_at < FREEZE  # otherwise it was we who did not listen
        self._pulse_at = now
        for worker in self.ready_workers():
            worker.usage.cpu()
            if on_time and (words := worker.frozen.look(now, worker.seen_at)):
                again = worker.frozen.since is None
                kind = EventKind.WORKER_ANSWERS if again else EventKind.WORKER_SILENT
                self.say(kind, "warning", f"a worker of {self.plan.name} {words}", worker)
            if words := stuck(worker.options, now, worker.seen_at, worker.page.deadline):
                self._kill_stuck(worker, words)

    def leave(self, worker: WorkerProcess) -> None:
        """Have a worker answer what it took, and end; another one has its place, or nobody shall
        have it.
        """
        worker.decide(Claim.RETIRED)
        worker.lift_limit()
        self._drain_or_kill(worker, last=False)
        if worker.state is WorkerState.DRAINING:
            self._limit(worker)
        self.on_change(self)

    def on_draining(self, worker: WorkerProcess) -> None:
        """Note that a worker drains of its own accord; it is replaced when it has ended."""
        worker.enter(WorkerState.DRAINING)
        self._limit(worker)
        self.on_change(self)

    def give_up(self) -> None:
        """Give up its start: kill the workers that were not ready yet, and start no others."""
        self._end()
        for worker in self.workers:
            if not (worker.state.accepts or worker.state is WorkerState.DRAINING):
                worker.kill()

    async def drain(self, callers: Callable[[], Awaitable[None]]) -> None:
        """Stop for good: answer what was taken, end every worker.

        Args:
            callers: waits until nobody is left who may pass on a call that its client sends late.
        """
        self._end()
        self.enter(NodePhase.DRAINING)
        for worker in self.workers:
            worker.decide(Claim.RETIRED)
            self._drain_or_kill(worker, last=True)
        self.on_change(self)
        loop = asyncio.get_running_loop()
        began, timeout = loop.time(), self.plan.options.graceful_timeout
        await _within(
            timeout, [first(worker.drained.wait, worker.gone.wait) for worker in self.workers]
        )
        await self._kill_late(
            [worker for worker in self.workers if not worker.drained.is_set()], timeout
        )
        # Those that are left have done nothing wrong: they leave their instances, however long the
        # others took.
        latest = max(began + timeout, loop.time() + min(timeout, LEAVING))
        await _within(latest - loop.time(), [first(callers, partial(gone, list(self.workers)))])
        for worker in self.workers:
            worker.send(messages.Exit())
        await _within(latest - loop.time(), [worker.gone.wait() for worker in self.workers])
        await self._kill_late(self.workers, timeout)
        self.enter(NodePhase.STOPPED)
        self.on_change(self)

    def _drain_or_kill(self, worker: WorkerProcess, *, last: bool) -> None:
        """Have a worker answer what it took, if it may have taken something; one that drains
        already goes on.
        """
        if worker.state.accepts:
            worker.enter(WorkerState.DRAINING)
            worker.send(messages.Drain(last))
        elif worker.state is not WorkerState.DRAINING:
            worker.kill()

    async def _kill_late(self, workers: list[WorkerProcess], seconds: float) -> None:
        """Kill what has not done in time what a stop asks of it, and nothing else."""
        for worker in workers:
            self._say_killed(worker, seconds)
            worker.kill()
        await gone(workers)

    async def kill(self) -> None:
        """End every worker at once."""
        self._end()
        # not one by one
        shows = self.shows
        self.shows = False
        for worker in self.workers:
            worker.kill()
        await asyncio.gather(*(worker.gone.wait() for worker in self.workers))
        self.enter(NodePhase.STOPPED)
        self.shows = shows
        self.on_change(self)

    def restore(self, folder: Path) -> list[str]:
        """Make anew what others have removed of the node's folder; returns the paths of that.

        Calls that wait in a socket without a name are served: workers keep it until it is empty.

        Raises:
            OSError: it cannot be made.
        """
        folder.mkdir(mode=0o700, exist_ok=True)
        lost = [name for name, sock in self.sockets.items() if sock.lost]
        paths = [self.sockets[name].path for name in lost]
        for name in lost:
            before = self.sockets[name]
            self.sockets[name] = NamedSocket(before.path, self.plan.options.queue)
            for worker in self.workers:
                if worker.state.listens:
                    worker.send(messages.Listeners((name,)), [self.sockets[name].fileno()])
            before.sock.close()
        for worker in self.workers:
            own = worker.state.accepts
            if (
                own
                and not worker.rebinding
                and file_identity(worker.address) != worker.address_identity
            ):
                worker.rebind()
                paths.append(worker.address)
        if lost:
            self.on_change(self)  # who waits for these connects at once
        return paths

    def rebound(self, worker: WorkerProcess, trouble: str) -> None:
        """Note that a worker listens on its own socket again, or why it cannot."""
        worker.rebound(listens=not trouble)
        if trouble:
            self.say(
                EventKind.WORKER_UNHEARD,
                "error",
                f"a worker of {self.plan.name} cannot listen on its own socket: {trouble}",
                worker,
            )
        else:
            self.on_change(self)  # who waits for it connects at once

    def close_sockets(self) -> None:
        """Close the shared sockets; who still waits there is told by the kernel."""
        for sock in self.sockets.values():
            sock.close()

    def news(self) -> messages.NodeNews:
        """Return what callers are told of this node; not the reason, which may be an exception's
        text.
        """
        workers = tuple(
            messages.WorkerNews(worker.pid, worker.address, state)
            for worker in self.workers
            if (state := worker.state.news) is not None
        )
        next_at = self.restart_policy.next_at if self.phase is NodePhase.FAILED else None
        return messages.NodeNews(
            self.plan.name, self.phase.shown, workers, self.restart_policy.starts, next_at
        )

    def say(
        self,
        kind: EventKind,
        level: str,
        message: str,
        worker: WorkerProcess | None = None,
        trace: str = "",
        fields: Mapping[str, object] | None = None,
    ) -> None:
        """Have something that happened shown at the terminal, and kept."""
        slot, pid = (worker.slot, worker.pid) if worker else (None, None)
        name = self.plan.name
        self.emit(
            happened(
                kind, level, message, node=name, slot=slot, pid=pid, trace=trace, fields=fields
            )
        )

    def _end(self) -> None:
        self.restart_policy.end()

    def _kill_stuck(self, worker: WorkerProcess, words: str) -> None:
        worker.ends_for(f"a worker of {self.plan.name} {words}")
        worker.declare_stuck()
        worker.end()

    def _limit_start(self, worker: WorkerProcess, limit: float, words: str) -> None:
        """Kill it unless it has come further in time."""

        def too_slow() -> None:
            worker.ends_for(f"{self.plan.name} {words.format(limit)} (startup_timeout)")
            worker.end()

        worker.limit(limit, too_slow)

    def _limit(self, worker: WorkerProcess) -> None:
        """Kill it unless it has drained in time."""
        limit = worker.options.graceful_timeout

        def too_long() -> None:
            self._say_killed(worker, limit)
            worker.kill()

        worker.limit(limit, too_long)

    def _say_killed(self, worker: WorkerProcess, limit: float) -> None:
        words = (
            f"a worker of {self.plan.name} had not ended {limit:g} s after it was told to stop"
            " (graceful_timeout): killed, with the calls that it still executed"
        )
        self.say(EventKind.WORKER_KILLED, "warning", words, worker)
        worker.ends_for(f"a worker of {self.plan.name} was killed, as it was told to end in vain")

    def _died(self, worker: WorkerProcess, code: int) -> None:
        self.overload.gone(worker.pid)
        self.counts.died(worker)
        if not worker.message:
            worker.ends_for(f"a worker of {self.plan.name} {how_it_ended(code)}")
        replaced = worker.respawns and not self.stopping
        if replaced and (self.started.is_set() or not self.required):
            if worker.ready_at is not None:
                apis = worker.revision.plan.node(self.plan.name).apis
                calls = noted_calls(worker.page, [api.route for api in apis])
                self.quarantine.died(calls, worker.page.executing())
            self.restart_policy.replace(worker)
            self.on_change(self)
            return
        self._say_ended(worker, code)
        if replaced:
            self.broken = self.broken or worker
            self._broke.set()
        else:
            self.on_change(self)

    def _say_ended(self, worker: WorkerProcess, code: int) -> None:
        """Say that a worker has ended that nobody replaces; if it should not have, whoever waited
        for it says why at the terminal.
        """
        if worker.retired or self.stopping:
            words = f"a worker of {self.plan.name} has ended"
            if code:
                words = worker.message
            self.say(EventKind.WORKER_ENDED, SHOWN_OTHERWISE, words, worker)
        else:
            said = worker.message, worker, worker.traceback, worker.words_field()
            self.say(EventKind.WORKER_DIED, SHOWN_OTHERWISE, *said)


async def _within(seconds: float, works: Iterable[Awaitable[object]]) -> None:
    """Wait for these side by side, and give up what is not done after so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await asyncio.gather(*works)


class RestartPolicy:
    """Decides when the slot of a worker that has died is filled again.

    Args:
        node: whose slots these are.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.count = Counter[int]()  # by slot
        self._backoffs = defaultdict[int, Backoff](Backoff)  # by slot
        self.ended = False  # whether the node stops
        self.starts = False  # whether the worker that died last had been ready
        self._timers: dict[int, asyncio.TimerHandle] = {}  # by slot

    @property
    def next_at(self) -> float | None:
        """Return when the next worker is due, by CLOCK_MONOTONIC, which all processes share; None
        if none is.
        """
        return min((timer.when() for timer in self._timers.values()), default=None)

    def replace(self, worker: WorkerProcess) -> None:
        """Fill the slot of a worker that died: at once if it died of a call or after a healthy
        life, else with a pause.

        A pause is for what dies of itself: a start that fails, or a worker that is ready only to
        end at once.
        """
        loop, node = asyncio.get_running_loop(), self.node
        lived = loop.time() - worker.ready_at if worker.ready_at is not None else 0.0
        backoff = self._backoffs[worker.slot]
        self.starts = worker.ready_at is not None
        if self.starts and worker.page.executing():
            lived = max(lived, backoff.healthy)
        pause = backoff.died(lived)
        if backoff.failed and not node.ready_workers():
            node.fail(worker.message)
        if node.phase is NodePhase.FAILED:
            pause = backoff.hopeless()
        self.count[worker.slot] += 1
        node.counts.restarted(
            node.plan.name,
            "stuck" if worker.hangs else "died" if self.starts else "failed-start",
        )
        when = f" in {pause:.1f} s" if pause else ""
        words = f"{worker.message}; replaced{when}"
        said = words, worker, worker.traceback, worker.words_field()
        node.say(EventKind.WORKER_DIED, "error", *said)
        if not worker.has_successor:
            self.later(worker.slot, pause)

    def later(self, slot: int, pause: float = 0.0) -> None:
        """Fill a slot after a pause, unless somebody else does before; a pause that it has already
        goes on.
        """
        if slot not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[slot] = loop.call_later(pause, self._respawn, slot)

    def filled(self, slot: int) -> None:
        """Note that a slot has its worker: the pause that it had is over."""
        if (timer := self._timers.pop(slot, None)) is not None:
            timer.cancel()

    def end(self) -> None:
        """Fill no slot any more."""
        self.ended = True
        for timer in self._timers.values():
            timer.cancel()

    def _respawn(self, slot: int) -> None:
        self._timers.pop(slot, None)
        node = self.node
        if node.stopping or slot >= node.plan.workers:
            return
        try:
            node.spawn(slot)
        except OSError as exc:
            node.say(
                EventKind.NO_PROCESS,
                "error",
                f"{node.plan.name}: no worker could be started, the next try is in"
                f" {NO_PROCESS_PAUSE:g} s: {os_errors.explain(exc)}",
            )
            self.later(slot, NO_PROCESS_PAUSE)
