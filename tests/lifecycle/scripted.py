"""A fleet without processes: scripted workers on socket pairs, and a clock that jumps to the next
timer, so that any order of events is played in no time.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import selectors
import socket
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from graphserve.config import Secrets
from graphserve.graph.plan import EdgePlan, ListenPlan, NodePlan, Plan
from graphserve.supervise.events import LogRecord, NodeState
from graphserve.supervise.fleet import Fleet
from graphserve.supervise.node import Node
from graphserve.supervise.operations import Reload
from graphserve.supervise.process.output import Pipe, Records
from graphserve.supervise.process.sockets import PublicSocket
from graphserve.supervise.process.worker_process import WorkerProcess
from graphserve.supervise.revision import Revision
from graphserve.supervise.rollout import Rollout
from graphserve.supervise.states import Claim, RolloutState, WorkerState
from graphserve.system import messages
from graphserve.system.channel import Channel
from graphserve.system.messages import ControlMessage
from graphserve.system.rundir.claim import RunDir

PLAN = Plan(
    "Entry",
    (
        NodePlan("Leaf", "", "app:Leaf", 0, 2, 1),
        NodePlan("Entry", "", "app:Entry", 1, 1, 1, edges=(EdgePlan("leaf", "Leaf"),)),
    ),
)
MOST = 600.0  # seconds of the turned clock in which everything is over


class JumpingSelector(selectors.DefaultSelector):
    """Never waits: when nothing is ready, the clock is at the next timer."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "nothing will happen any more"
            self.now += timeout
        return found


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


class ScriptedWorker(WorkerProcess):
    """A worker that is a socket: it does what it is told, up to the state that it stalls in."""

    def __init__(
        self,
        pool: ScriptedPool,
        node: str,
        revision: Revision,
        slot: int,
        stalls: WorkerState | None,
    ) -> None:
        reading, writing = zip(*(os.pipe() for _ in range(3)), strict=True)
        self.pool = pool
        self.stalls = stalls
        self.withheld: list[Callable[[], None]] = []  # what it would have done
        self.known: dict[str, set[int]] = {}  # by node, the workers that it may call
        self.on_standby = False  # whether it was that when it was retired
        self.killed = False
        self.dies_after = 0.0  # seconds from its kill to its death
        self.descriptors = [*reading, *writing]
        pipes = [Pipe(reading[0], "stdout", pool.emit), Pipe(reading[1], "stderr", pool.emit)]
        process = SimpleNamespace(pid=next(pool.bench.pids), env={})
        super().__init__(node, revision, slot, process, pipes, Records(reading[2], pool.emit))
        near, far = socket.socketpair()
        fleet = pool.bench.fleet
        self.connected(
            Channel(near, lambda message, fds: fleet._on_message(self, message), lambda: None)
        )
        self.far = Channel(far, self.told, lambda: None)
        self._does(WorkerState.SPAWNED, lambda: self.far.send(messages.Imported()))

    def _does(self, state: WorkerState, *steps: Callable[[], None]) -> None:
        """Do this, unless it is stalled in that state; then when it goes on."""
        if self.killed:
            return
        if self.stalls is state:
            self.withheld += steps
            return
        for step in steps:
            step()

    def go_on(self) -> None:
        self.stalls = None
        steps, self.withheld = self.withheld, []
        if self.state is not WorkerState.GONE and not self.killed:
            for step in steps:
                step()

    def told(self, message: ControlMessage, fds: list[int]) -> None:
        say = self.far.send
        for fd in fds:
            os.close(fd)
        if self.killed:
            return
        match message:
            case messages.Members(nodes=nodes):
                self.known |= {
                    news.name: {each.pid for each in news.workers if each.state == "ready"}
                    for news in nodes
                }
            case messages.Init():
                ready = messages.Ready(f"/nowhere/{self.pid}")
                self._does(WorkerState.STARTING, lambda: say(ready))
            case messages.ServePublic():
                self._does(WorkerState.OPENING, lambda: say(messages.Listening()))
            case messages.Drain(last=last):
                self._does(
                    WorkerState.DRAINING,
                    lambda: say(messages.Draining()),
                    # a fallback server waits for nobody
                    (lambda: say(messages.Drained()))
                    if last and self.slot >= 0
                    else (lambda: self.die(0)),
                )
            case messages.Exit():
                self.die(0)

    def send(self, message: messages.FromSupervisor, fds: list[int] | None = None) -> None:
        if isinstance(message, messages.Drain) and not message.last:
            self.pool.bench.check_drain(self)
        super().send(message, fds)

    def decide(self, claim: Claim) -> None:
        if claim is Claim.RETIRED and not self.retired:
            self.on_standby = self.claim is Claim.STANDBY
        super().decide(claim)

    def expire(self) -> None:
        """Say that it has executed all the calls that it may (`max_requests`)."""
        if not self.killed:
            self.far.send(messages.HealthReport(10**9, 0.0, 0, 0, 0, 0, 0, 0))

    def terminated(self) -> None:
        """Somebody sends it SIGTERM by hand: it drains, and ends."""
        self._does(
            WorkerState.DRAINING, lambda: self.far.send(messages.Draining()), lambda: self.die(0)
        )

    def kill(self) -> None:
        self.die(-9, self.dies_after)

    def end(self) -> None:
        self.die(-9, self.dies_after)

    def die(self, code: int = -9, after: float = 0.0) -> None:
        """Do nothing any more, and be found dead after so many seconds."""
        self.killed = True
        loop = asyncio.get_running_loop()
        if after:
            loop.call_later(after, self.pool.bury, self, code)
        else:
            loop.call_soon(self.pool.bury, self, code)


class ScriptedPool:
    def __init__(
        self, bench: Bench, node: NodePlan, emit: Callable[[LogRecord], None],
        on_death: Callable[[WorkerProcess, int], None],
    ) -> None:  # fmt: skip
        self.bench = bench
        self.emit = emit
        self.on_death = on_death
        self.workers: dict[int, WorkerProcess] = {}
        self.name = node.name

    def spawn(self, slot: int, revision: Revision, env: Mapping[str, str]) -> WorkerProcess:
        script = self.bench.script
        worker = ScriptedWorker(self, self.name, revision, slot, script.pop(0) if script else None)
        worker.process.env = dict(env)
        self.workers[worker.pid] = worker
        self.bench.spawned.append(worker)
        return worker

    def bury(self, worker: ScriptedWorker, code: int) -> None:
        if worker.state is WorkerState.GONE:
            return
        assert worker.channel is not None
        worker.channel.drain()
        worker.channel.close()
        worker.far.close()
        for output in (*worker.pipes, worker.records):
            output.close()
        for descriptor in worker.descriptors:
            os.close(descriptor)
        worker.lift_limit()
        del self.workers[worker.pid]
        worker.enter(WorkerState.GONE)
        self.on_death(worker, code)


class Bench:
    """A fleet of scripted workers; it is the observer too.

    Args:
        folder: an empty folder.
        script: where the next workers stall, in the order in which they are spawned; None for one
            that does not.
        plan: what runs.
    """

    def __init__(self, folder: Path, script: list[WorkerState | None], plan: Plan = PLAN) -> None:
        self.script = script
        self.plan = plan
        self.pids: Iterator[int] = itertools.count(10_000_000)  # no process has these
        self.spawned: list[ScriptedWorker] = []
        self.bugs: list[str] = []
        self.states: list[NodeState] = []
        self.old_first = False  # whether the change under way may take a worker away first
        self.changes: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        asyncio.get_running_loop().set_exception_handler(self._note_bug)
        self.folder = RunDir(str(folder / "run"))
        self.public = PublicSocket(ListenPlan(uds=str(folder / "s")))

        def make(node, emit, on_death, role="worker", roster=None):
            return ScriptedPool(self, node, emit, on_death)

        self.fleet = Fleet(self.folder.path, self.public, self, make)

    def _note_bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        raised = context.get("exception")
        self.bugs.append("".join(traceback.format_exception(raised)) if raised else str(context))

    # the observer

    def node(self, state: NodeState) -> None:
        self.states.append(state)

    def log(self, record: LogRecord) -> None:
        pass

    def serving(self, url: str) -> None:
        pass

    # what is done to it

    async def start(self) -> None:
        await self.fleet.start(self.fleet.add_revision(self.plan, {}, Secrets()))

    def reload(self, plan: Plan | None = None) -> asyncio.Task[None]:
        plan = plan or self.plan
        return self._change(
            lambda: Reload(self.fleet, lambda words: None).run(plan, {}, Secrets()), old_first=False
        )

    def scale(self, name: str, workers: int) -> asyncio.Task[None]:
        return self._change(
            lambda: self._rollout(name).resize(workers, lambda words: None), old_first=False
        )

    def restart(self, name: str) -> asyncio.Task[None]:
        return self._change(lambda: self._rollout(name).restart(lambda words: None), old_first=True)

    def _rollout(self, name: str) -> Rollout:
        return self.fleet.rollouts[self.fleet.current_nodes()[name]]

    def _change(
        self, work: Callable[[], Coroutine[Any, Any, None]], *, old_first: bool
    ) -> asyncio.Task[None]:
        """Change it, one change at a time, as `Operations` does."""

        async def change() -> None:
            async with self._one_at_a_time:
                self.old_first = old_first
                try:
                    await work()
                finally:
                    self.old_first = False

        task = asyncio.ensure_future(change())
        self.changes.add(task)
        task.add_done_callback(self.changes.discard)
        return task

    async def give_up_changes(self) -> None:
        for task in self.changes:
            task.cancel()
        if self.changes:
            await asyncio.wait(set(self.changes))

    async def stop(self) -> None:
        await self.give_up_changes()
        await self.fleet.drain()
        assert not self.fleet.nodes
        assert not self.fleet.rollouts
        assert not self.live()

    async def close(self) -> None:
        await self.give_up_changes()
        await self.fleet.kill()
        ends = await asyncio.gather(*self.fleet._ends.values(), return_exceptions=True)
        wrong = [each for each in ends if isinstance(each, Exception)]
        gc.collect()  # a task whose error nobody took says so when it is collected
        self.public.remove()
        self.public.close()
        self.folder.remove()
        assert not self.live()
        assert not wrong, wrong
        assert not self.bugs, self.bugs

    # how it is

    async def until(self, condition: Callable[[], bool], step: float = 0.01) -> None:
        end = asyncio.get_running_loop().time() + MOST
        while not condition():
            assert asyncio.get_running_loop().time() < end, self.shown()
            await asyncio.sleep(step)

    async def delivered(self) -> None:
        """Wait until all that was sent has arrived: only then the clock goes on."""
        await asyncio.sleep(0.001)

    def shown(self) -> str:
        """How it is, in words."""
        lines = [f"{task}" for task in self.changes]
        for node in self.fleet.nodes:
            lines.append(f"{node.plan.name} {node.plan.id}: {node.phase.value}")
            lines.append(f"  revision {node.revision.number}, {node.plan.workers} workers")
        lines += [
            f"{w.pool.name}[{w.slot}] {w.state.value} {w.claim.value} of {w.revision.number}"
            for w in self.live()
        ]
        return "\n".join(lines)

    def live(self) -> list[ScriptedWorker]:
        return [worker for worker in self.spawned if worker.state is not WorkerState.GONE]

    def whole(self) -> bool:
        """Whether every slot has one worker, and it is ready."""
        return all(
            sorted(worker.slot for worker in node.workers) == list(range(node.plan.workers))
            and len(node.ready_workers()) == node.plan.workers
            for node in self.fleet.current_nodes().values()
        )

    def settled(self) -> bool:
        """Whether it is whole, and nothing is under way."""
        fleet = self.fleet
        wanted = set(fleet.current_nodes().values())
        # A change that was given up leaves the workers that it had replaced, and whom those call.
        wanted |= {
            needed for node in wanted for worker in node.workers for needed in self.callees(worker)
        }
        return (
            self.whole()
            and not self.changes
            and set(fleet.nodes) == wanted
            and not fleet.fallback.processes
            and all(rollout.state is RolloutState.IDLE for rollout in fleet.rollouts.values())
        )

    def callees(self, worker: WorkerProcess) -> list[Node]:
        """Return the nodes that a worker calls."""
        nodes = self.fleet.nodes_of(worker.revision)
        assert isinstance(worker, ScriptedWorker)
        plan = worker.revision.plan.node(worker.pool.name)
        return [nodes[name] for name in plan.needs()]

    def node_of(self, worker: ScriptedWorker) -> Node | None:
        """Return the node of a worker; None for a fallback server."""
        return next((node for node in self.fleet.nodes if node.pool is worker.pool), None)

    # what must hold

    def check_drain(self, worker: ScriptedWorker) -> None:
        """Nobody who serves is told to leave before another one serves in its slot."""
        node = self.node_of(worker)
        if node is None or worker.on_standby or worker.slot >= node.plan.workers:
            return
        if self.fleet.rollouts[node].state is RolloutState.MAKING_ROOM:
            assert self.old_first or node.plan.options.gpus
            return
        serving = (WorkerState.READY, WorkerState.DRAINING)  # the other one, if it was told by hand
        assert any(
            other.slot == worker.slot and not other.retired and other.state in serving
            for other in node.workers
        ), f"slot {worker.slot} of {node.plan.name} has no other worker"

    def check_slots(self) -> None:
        """No slot has two workers, but for the one that is to take it over."""
        for node in self.fleet.nodes:
            slots = [
                worker.slot
                for worker in node.workers
                if worker.claim in (Claim.HOLDS, Claim.RECYCLING)
            ]
            assert len(slots) == len(set(slots)), f"{node.plan.name} has workers in slots {slots}"
            assert all(worker.state is not WorkerState.GONE for worker in node.workers)

    def check_callers(self) -> None:
        """Every worker knows whom it may call."""
        for worker in self.live():
            for node in self.callees(worker):
                ready = {each.pid for each in node.ready_workers()}
                assert worker.known[node.plan.name] == ready


def play(
    folder: Path,
    script: list[WorkerState | None],
    scene: Callable[[Bench], Coroutine[Any, Any, None]],
    plan: Plan = PLAN,
) -> None:
    """Play a scene; at its end everything has ended."""

    async def main() -> None:
        bench = Bench(folder, script, plan)
        try:
            await scene(bench)
        finally:
            await bench.close()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())
