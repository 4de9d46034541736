"""When a fallback server is started and sent away: it answers at the public port while no worker of
the entry does, in a process of its own (`worker/fallback.py`).

Runs in the supervisor.

Two things raise the suspicion that nobody accepts at the port: the entry has no worker that takes
calls, or a connection waits. If it holds for `SUSPECTED_FOR`, a fallback server is started; the
first sign of life of such a worker sends it away. During the start of the graph one is started for
whoever waits there, unless that start is over soon. It may come before there is a Plan: then it is
told when there is one, and goes on. The supervisor itself only asks the kernel whether somebody
waits; it accepts nothing (decision record 0040).

The end of the public port is decided here too, since who still waits there is known here:
`PortPhase` says what becomes of it, and `close_port` closes it at a stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import select
from collections.abc import Iterator, Mapping
from typing import Protocol

from graphserve.graph.plan import NodePlan, Plan
from graphserve.supervise.backoff import Backoff
from graphserve.supervise.counts import GraphCounts
from graphserve.supervise.events import EventKind, Observer, happened
from graphserve.supervise.node import Node
from graphserve.supervise.process.reaper import how_it_ended, is_dead
from graphserve.supervise.process.sockets import PublicSocket
from graphserve.supervise.process.worker_process import (
    NO_PROCESS_PAUSE,
    MakePool,
    Pool,
    WorkerProcess,
)
from graphserve.supervise.revision import Revision
from graphserve.supervise.states import WorkerState
from graphserve.system import messages, os_errors
from graphserve.system.transitions import Transitions

# Seconds that a suspicion has to hold. A usual respawn is over by then; with the start of the
# fallback server, health has its answer within one second.
SUSPECTED_FOR = 0.4
# Seconds from the beginning of a start: a small graph is ready by then, and needs all of the
# machine until then.
QUICK_START = 1.0
STEP = 0.1  # seconds between two looks while there is a suspicion


class PortPhase(enum.Enum):
    """What becomes of the public port, for whoever waits there and has no worker."""

    IDLE = "idle"  # there is no graph yet
    STARTING = "starting"  # who waits for long is answered; workers will soon be there
    UP = "up"  # workers of the entry were there, and somebody always is
    # The graph stops, and clients wait: the port is open until a fallback server has taken them.
    LAST_CLIENTS = "left to the last clients"
    ENDED = "ended"  # the graph stops: nobody comes to the port any more


PORT_TRANSITIONS = Transitions(
    "the public port cannot be",
    {
        PortPhase.IDLE: frozenset({PortPhase.STARTING, PortPhase.UP, PortPhase.ENDED}),
        PortPhase.STARTING: frozenset({PortPhase.UP, PortPhase.LAST_CLIENTS, PortPhase.ENDED}),
        PortPhase.UP: frozenset({PortPhase.LAST_CLIENTS, PortPhase.ENDED}),
        PortPhase.LAST_CLIENTS: frozenset({PortPhase.ENDED}),
        PortPhase.ENDED: frozenset(),
    },
)


class Lookout(enum.Enum):
    """How the supervisor finds out that somebody waits at the public port in vain."""

    NONE = "none"  # a fallback server is there, or none is to come
    LISTENING = "listening"  # the loop tells when a connection waits
    SUSPICIOUS = "suspicious"  # workers are asked whether they live; a timer looks at the answers
    PAUSED = "paused"  # no process could be started, or it died: until the next attempt


LOOKOUT_TRANSITIONS = Transitions(
    "the lookout at the public port cannot be",
    {
        Lookout.NONE: frozenset({Lookout.LISTENING, Lookout.SUSPICIOUS, Lookout.PAUSED}),
        Lookout.LISTENING: frozenset({Lookout.NONE, Lookout.SUSPICIOUS}),
        Lookout.SUSPICIOUS: frozenset({Lookout.NONE, Lookout.LISTENING}),
        Lookout.PAUSED: frozenset({Lookout.NONE}),
    },
)


class SteeredFleet(Protocol):
    """What is asked of the fleet whose entry has a fallback server."""

    public: PublicSocket
    observer: Observer
    nodes: list[Node]
    current: Revision | None
    counts: GraphCounts

    def look(self, suspect: str) -> None:
        """Have the run folder looked after."""

    def known(self) -> Plan:
        """Return the Plan, or what is known before there is one."""

    def provisional(self) -> Revision:
        """Return the revision that there is before the Plan."""

    def nodes_of(self, revision: Revision) -> Mapping[str, Node]:
        """Return the nodes of a revision, by name."""

    def on_call(self, worker: WorkerProcess, message: messages.Held | messages.Answered) -> None:
        """Tell the quarantine of a node what one of its callers says of a call."""

    def sweep(self) -> None:
        """Let go what nobody needs any more."""


class FallbackProcess:
    """Starts it, and sends it away.

    Args:
        fleet: whose entry it answers for.
        make_pool: makes its processes.
    """

    def __init__(self, fleet: SteeredFleet, make_pool: MakePool = Pool) -> None:
        self._make_pool = make_pool
        self._fleet = fleet
        self._loop = asyncio.get_running_loop()
        # the one at the port, and those that still answer what they took
        self.processes: set[WorkerProcess] = set()
        self._current: WorkerProcess | None = None
        # the port
        self._phase = PortPhase.IDLE
        self._start_began = 0.0  # on the loop's clock: of the graph's start
        # the suspicion that nobody is there
        self._lookout = Lookout.NONE
        self._timer: asyncio.TimerHandle | None = None  # while it is suspicious, or paused
        self._backoff = Backoff()

    @property
    def phase(self) -> PortPhase:
        """Return what becomes of the port."""
        return self._phase

    @property
    def pid(self) -> int | None:
        """Return the process that is at the port now."""
        return self._current.pid if self._current is not None else None

    def revisions(self) -> set[Revision]:
        """Return what its processes were started from."""
        return {process.revision for process in self.processes}

    def watch_start(self) -> None:
        """Have who waits for long answered from now on, since the graph starts."""
        self._enter(PortPhase.STARTING)
        self._start_began = self._loop.time()
        self._listen()

    def resolved(self) -> None:
        """Have a process that came before the Plan go on with it."""
        if self._current is not None and self._current.state.accepts:
            self._tell_plan(self._current)  # another one hears of it when it is ready

    def watch(self) -> None:
        """Have somebody answer at the port whenever no worker does, since the graph is up."""
        self._enter(PortPhase.UP)
        self._listen()
        self.check()

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Look away while the public socket becomes another one."""
        if self._lookout is Lookout.LISTENING:
            self._look_out(Lookout.NONE)
        try:
            yield
        finally:
            self._listen()

    def check(self) -> None:
        """Begin to suspect that nobody answers, if no worker takes calls any more."""
        if self._phase is PortPhase.UP and not self._servers():
            self._suspect()

    def stand_down(self, worker: WorkerProcess) -> None:
        """Send the fallback server away if this worker, which is alive, takes calls."""
        current = self._current
        # a dead one's last words may come late
        last = self._phase is PortPhase.LAST_CLIENTS
        if current is None or last or worker not in self._servers():
            return
        self._current = None
        if current.state is WorkerState.READY:
            again = "" if self._phase is PortPhase.STARTING else " again"
            words = f"takes calls{again}: the fallback server at the public port ends"
            self._say(EventKind.FALLBACK_ENDED, "info", words, current)
        self._dismiss(current)
        self._listen()

    def close_port(self) -> None:
        """Close the port, since the graph stops.

        If clients wait there for no worker, a fallback server comes that answers them first.
        """
        dead = all(is_dead(worker.pid) for worker in self._servers())  # noticed by us or not
        needed = self._watches and dead and self._somebody_waits()
        self._look_out(Lookout.NONE)
        if needed:
            self._enter(PortPhase.LAST_CLIENTS)
            if self._current is None:
                self._begin()
            if self._current is not None and self._current.state is not WorkerState.READY:
                return  # it closes the port when it listens
        self._close_at_last()

    def _close_at_last(self) -> None:
        self._enter(PortPhase.ENDED)
        self._fleet.public.close()

    async def drain(self) -> None:
        """Have it answer what it accepted, and end."""
        last = self._phase is PortPhase.LAST_CLIENTS
        for process in list(self.processes):
            if not (last and process is self._current):
                self._dismiss(process, last=True)
        try:
            async with asyncio.timeout(
                self._entry().options.graceful_timeout if self.processes else None
            ):
                await self._gone()
        except TimeoutError:
            await self.kill()

    async def gone(self, node: Node) -> None:
        """Wait until no process of ours is left that passes calls on to this node."""
        of_it = [
            process
            for process in self.processes
            if node in self._fleet.nodes_of(process.revision).values()
        ]
        await asyncio.gather(*(process.gone.wait() for process in of_it))

    async def kill(self) -> None:
        """End it at once."""
        self._look_out(Lookout.NONE)
        # (the last clients' port is closed when its process is dead)
        if self._phase not in (PortPhase.LAST_CLIENTS, PortPhase.ENDED):
            self._enter(PortPhase.ENDED)
        for process in self.processes:
            process.kill()
        await self._gone()

    def on_message(self, process: WorkerProcess, message: messages.ControlMessage) -> None:
        """Do what is to be done when a process of ours says something."""
        match message:
            case messages.Imported() if process.state is WorkerState.SPAWNED:
                process.enter(WorkerState.IMPORTED)
                self._send_init(process)
            case messages.Ready() if self._wants(process) and process.state is WorkerState.STARTING:
                if self._fleet.current is not None:
                    self._tell_plan(process)
                process.open_port(self._fleet.public.sock.fileno())
            case messages.Listening() if process.state is WorkerState.OPENING:
                process.become_ready()
                if process is not self._current:
                    return
                if self._phase is PortPhase.LAST_CLIENTS:
                    self._close_at_last()
                    self._dismiss(process, last=True)
                elif self._phase is PortPhase.STARTING:
                    self._say(
                        EventKind.FALLBACK_BEGUN,
                        "info",
                        "starts: a fallback server is at the public port, where calls wait",
                        process,
                    )
                else:
                    self._say(
                        EventKind.FALLBACK_BEGUN,
                        "warning",
                        "takes no calls: a fallback server is at the public port, where they wait",
                        process,
                    )
            case messages.Held() | messages.Answered():
                self._fleet.on_call(process, message)
            case messages.Lost():
                self._fleet.look(message.path)
            case messages.Failed():
                process.ends_for(message.message, message.traceback)
            case messages.Draining() if process is self._current and process.state.listens:
                if process.state is not WorkerState.DRAINING:  # somebody sent it SIGTERM by hand
                    process.enter(WorkerState.DRAINING)
                self._current = None
                self._listen()
                self.check()

    @property
    def _watches(self) -> bool:
        """Return whether a fallback server comes when nobody else is at the port."""
        return self._phase in (PortPhase.STARTING, PortPhase.UP)

    def _wants(self, process: WorkerProcess) -> bool:
        """Return whether this process is to answer at the port."""
        return process is self._current and (self._watches or self._phase is PortPhase.LAST_CLIENTS)

    def _enter(self, phase: PortPhase) -> None:
        self._phase = PORT_TRANSITIONS.follow(self._phase, phase)

    def _servers(self) -> list[WorkerProcess]:
        """Return the workers that take calls at the port, of whatever revision."""
        return [
            worker for node in self._fleet.nodes for worker in node.ready_workers()
            if worker.revision.plan.entry == node.plan.name
        ]  # fmt: skip

    def _suspect(self) -> None:
        """Begin to ask whether workers are there, unless that is under way."""
        idle = self._lookout in (Lookout.NONE, Lookout.LISTENING)
        if self._watches and self._current is None and idle:
            self._ask(self._loop.time())

    def _ask(self, since: float) -> None:
        """Have the workers say that they are alive, and look soon whether they did."""
        for worker in self._servers():
            worker.send(messages.Report())
        self._look_out(Lookout.SUSPICIOUS, self._loop.call_later(STEP, self._look, since))

    def _look(self, since: float) -> None:
        servers = self._servers()
        due = max([since, *(worker.seen_at for worker in servers)]) + SUSPECTED_FOR
        starting = self._phase is PortPhase.STARTING
        if starting and not servers:
            due = self._start_began + QUICK_START
        if (servers or starting) and not self._somebody_waits():
            self._look_out(Lookout.LISTENING)
        elif self._loop.time() < due:
            self._ask(since)
        else:
            self._look_out(Lookout.NONE)
            self._begin()

    def _somebody_waits(self) -> bool:
        poll = select.poll()
        poll.register(self._fleet.public.sock, select.POLLIN)
        return bool(poll.poll(0))

    def _listen(self) -> None:
        """Have the loop tell when a connection waits.

        Not while somebody is there, or it is looked into: the socket would be ready to be read all
        the while.
        """
        if self._watches and self._current is None and self._lookout is Lookout.NONE:
            self._look_out(Lookout.LISTENING)

    def _look_out(self, lookout: Lookout, timer: asyncio.TimerHandle | None = None) -> None:
        """Change how it is found out that somebody waits, and end what the way before had begun."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer
        before = self._lookout
        if lookout is before:
            return
        self._lookout = LOOKOUT_TRANSITIONS.follow(before, lookout)
        if before is Lookout.LISTENING:
            self._loop.remove_reader(self._fleet.public.sock)
        if lookout is Lookout.LISTENING:
            self._loop.add_reader(self._fleet.public.sock, self._suspect)

    def _begin(self) -> None:
        """Start a process that answers at the port."""
        plan = self._entry()
        pool = self._make_pool(plan, self._fleet.observer.log, self._died, "fallback")
        try:
            self._fleet.look("")
            revision = self._fleet.current or self._fleet.provisional()
            self._current = process = pool.spawn(-1, revision, revision.env(plan, -1))
        except OSError as exc:
            self._say(
                EventKind.FALLBACK_FAILED,
                "error",
                "takes no calls, and no fallback server could be started; the next try is in"
                f" {NO_PROCESS_PAUSE:g} s: {os_errors.explain(exc)}",
            )
            self._pause(NO_PROCESS_PAUSE)
        else:
            self.processes.add(process)

    def _send_init(self, process: WorkerProcess) -> None:
        process.enter(WorkerState.STARTING)
        revision = process.revision
        self._hand_over_counts(process)
        self._tell_members(process)
        process.send(revision.init((), {}, at_port=True, resolving=revision.is_provisional))

    def _hand_over_counts(self, process: WorkerProcess) -> None:
        plan = process.revision.plan
        self._fleet.counts.hand_over(process, plan, plan.node(plan.entry))

    def _tell_members(self, process: WorkerProcess) -> None:
        revision = process.revision
        process.send(
            messages.Members(tuple(node.news() for node in self._fleet.nodes_of(revision).values()))
        )
        for node in self._fleet.nodes_of(revision).values():
            if (wary := node.quarantine.message()) is not None:
                process.send(wary)

    def _tell_plan(self, process: WorkerProcess) -> None:
        revision = self._fleet.current
        assert revision is not None
        if not process.revision.is_provisional:
            return
        process.goes_on_with(revision)
        self._hand_over_counts(process)
        self._tell_members(process)
        process.send(messages.Resolved(revision.number))

    def _dismiss(self, process: WorkerProcess, *, last: bool = False) -> None:
        if process.state.accepts:
            process.enter(WorkerState.DRAINING)
        elif process.state is not WorkerState.DRAINING:
            process.kill()  # it has accepted nothing yet
            return
        process.send(messages.Drain(last))

    def _died(self, process: WorkerProcess, code: int) -> None:
        self._fleet.counts.died(process)
        self.processes.discard(process)
        if process is self._current:
            self._current = None
            if self._phase is PortPhase.LAST_CLIENTS:
                self._close_at_last()
            pause = self._backoff.died(
                self._loop.time() - process.ready_at if process.ready_at else 0.0
            )
            ended = process.message or f"had a fallback server that {how_it_ended(code)}"
            self._say(EventKind.FALLBACK_FAILED, "error", ended, process)
            self._pause(pause)
        self._fleet.sweep()

    def _pause(self, seconds: float) -> None:
        """Try again in a while, unless the graph stops."""
        if self._watches:
            self._look_out(Lookout.PAUSED, self._loop.call_later(seconds, self._try_again))

    def _try_again(self) -> None:
        self._look_out(Lookout.NONE)
        self._suspect()

    async def _gone(self) -> None:
        await asyncio.gather(*(process.gone.wait() for process in self.processes))

    def _entry(self) -> NodePlan:
        plan = self._fleet.known()
        return plan.node(plan.entry)

    def _say(
        self, kind: EventKind, level: str, message: str, process: WorkerProcess | None = None
    ) -> None:
        name = self._entry().name
        pid = process.pid if process is not None else None
        trace = process.traceback if process is not None else ""
        self._fleet.observer.log(
            happened(kind, level, f"{name} {message}", node=name, pid=pid, trace=trace)
        )
