"""The states of workers: scripted workers on socket pairs, a clock that jumps, no process, every
order of events.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import os
import selectors
import socket
import subprocess
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graphserve.errors import StartupError
from graphserve.graph.plan import EdgePlan, ListenPlan, NodePlan, Plan
from graphserve.supervise.events import LogRecord, NodeState
from graphserve.supervise.fleet import Fleet
from graphserve.supervise.operations import Reload
from graphserve.supervise.process.output import Pipe, Records
from graphserve.supervise.process.sockets import PublicSocket
from graphserve.supervise.process.worker_process import WorkerProcess
from graphserve.supervise.revision import Revision
from graphserve.supervise.states import (
    CLAIM_TRANSITIONS,
    GRAPH_TRANSITIONS,
    NODE_TRANSITIONS,
    RECYCLING_TRANSITIONS,
    ROLLOUT_TRANSITIONS,
    WORKER_TRANSITIONS,
    Claim,
    IllegalTransition,
    NodeLife,
    NodePhase,
    RecyclingState,
    RolloutLife,
    RolloutState,
    Transitions,
    WorkerLife,
    WorkerState,
)
from graphserve.system import messages
from graphserve.system.channel import Channel
from graphserve.system.messages import Message
from graphserve.system.rundir.claim import RunDir

PLAN = Plan(
    "Entry",
    (
        NodePlan("Leaf", "", "app:Leaf", 0, 2, 1),
        NodePlan("Entry", "", "app:Entry", 1, 1, 1, edges=(EdgePlan("leaf", "Leaf"),)),
    ),
)
TABLES = [
    WORKER_TRANSITIONS,
    CLAIM_TRANSITIONS,
    NODE_TRANSITIONS,
    ROLLOUT_TRANSITIONS,
    RECYCLING_TRANSITIONS,
    GRAPH_TRANSITIONS,
]
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
        self.descriptors = [*reading, *writing]
        pipes = [Pipe(reading[0], "stdout", pool.emit), Pipe(reading[1], "stderr", pool.emit)]
        process = SimpleNamespace(pid=next(pool.bench.pids), env={})
        super().__init__(node, revision, slot, process, pipes, Records(reading[2], pool.emit))
        near, far = socket.socketpair()
        self.channel = Channel(
            near, lambda message, fds: pool.bench.fleet._on_message(self, message), lambda: None
        )
        self.far = Channel(far, self.told, lambda: None)
        if stalls is not WorkerState.SPAWNED:
            self.far.send(messages.Imported())

    def told(self, message: Message, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        match message:
            case messages.Init() if self.stalls is not WorkerState.STARTING:
                self.far.send(messages.Ready(f"/nowhere/{self.pid}"))
            case messages.ServePublic() if self.stalls is not WorkerState.OPENING:
                self.far.send(messages.Listening())
            case messages.Drain(last=last) if self.stalls is not WorkerState.DRAINING:
                self.far.send(messages.Draining())
                if last and self.slot >= 0:  # a fallback server waits for nobody
                    self.far.send(messages.Drained())
                else:
                    self.die(0)
            case messages.Exit():
                self.die(0)

    def kill(self) -> None:
        self.die(-9)

    def end(self) -> None:
        self.die(-9)

    def die(self, code: int = -9) -> None:
        asyncio.get_running_loop().call_soon(self.pool.bury, self, code)


class ScriptedPool:
    def __init__(
        self, bench: Bench, node: NodePlan, emit: Callable[[LogRecord], None],
        on_death: Callable[[WorkerProcess, int], None],
    ) -> None:  # fmt: skip
        self.bench = bench
        self.emit = emit
        self.on_death = on_death
        self.workers: dict[int, WorkerProcess] = {}
        self._name = node.name

    def spawn(self, slot: int, revision: Revision, env: Mapping[str, str]) -> WorkerProcess:
        script = self.bench.script
        worker = ScriptedWorker(self, self._name, revision, slot, script.pop(0) if script else None)
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
        worker.unlimit()
        del self.workers[worker.pid]
        worker.enter(WorkerState.GONE)
        worker.gone.set()
        self.on_death(worker, code)


class Bench:
    """A fleet of scripted workers; it is the observer too."""

    def __init__(self, folder: Path, script: list[WorkerState | None]) -> None:
        self.script = script  # where the next workers stall, in the order in which they are spawned
        self.pids: Iterator[int] = itertools.count(10_000_000)  # no process has these
        self.spawned: list[ScriptedWorker] = []
        self.bugs: list[str] = []
        self.states: list[NodeState] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: self.bugs.append(str(context))
        )
        self.folder = RunDir(str(folder / "run"))
        self.public = PublicSocket(ListenPlan(uds=str(folder / "s")))

        def make(node, emit, on_death, role="worker", roster=None):
            return ScriptedPool(self, node, emit, on_death)

        self.fleet = Fleet(self.folder.path, self.public, self, make)

    def node(self, state: NodeState) -> None:
        self.states.append(state)

    def log(self, record: LogRecord) -> None:
        pass

    def serving(self, url: str) -> None:
        pass

    async def start(self) -> None:
        await self.fleet.start(self.fleet.add_revision(PLAN, {}, None))

    def reload(self) -> asyncio.Task[None]:
        reload = Reload(self.fleet, lambda words: None)
        return asyncio.ensure_future(reload.run(PLAN, {}, None))

    async def until(self, condition: Callable[[], bool]) -> None:
        end = asyncio.get_running_loop().time() + MOST
        while not condition():
            assert asyncio.get_running_loop().time() < end, [
                (w.slot, w.state, w.claim) for w in self.spawned
            ]
            await asyncio.sleep(0.01)

    def whole(self) -> bool:
        """Whether every slot has one worker, and it is ready."""
        return all(
            sorted(worker.slot for worker in node.workers) == list(range(node.plan.workers))
            and len(node.ready_workers()) == node.plan.workers
            for node in self.fleet.current_nodes().values()
        )

    async def stop(self) -> None:
        await self.fleet.drain()
        assert not self.fleet.nodes
        assert all(worker.state is WorkerState.GONE for worker in self.spawned)

    async def close(self) -> None:
        await self.fleet.kill()
        self.public.remove()
        self.public.close()
        self.folder.remove()
        assert not self.bugs


def play(
    folder: Path,
    script: list[WorkerState | None],
    scene: Callable[[Bench], Coroutine[Any, Any, None]],
) -> None:
    async def main() -> None:
        bench = Bench(folder, script)
        try:
            await scene(bench)
        finally:
            await bench.close()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


STARTING = [WorkerState.SPAWNED, WorkerState.STARTING]
ORDERS = [*itertools.permutations(["old", "new", "stop"], 2), ("old", "new", "stop"), ("stop",)]
UP = [WorkerState.SPAWNED, WorkerState.STARTING, WorkerState.OPENING]
# Workers 0 and 1 are of the leaf; only that of the entry opens the public port.
STALLED = [*itertools.product(STARTING, range(3)), (WorkerState.OPENING, 2)]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # the path of a socket is short
        yield Path(name)


@pytest.mark.parametrize(
    "transitions", TABLES, ids=lambda each: type(next(iter(each.table))).__name__
)
def test_a_state_follows_only_those_of_the_table(transitions: Transitions[enum.Enum]) -> None:
    states = list(type(next(iter(transitions.table))))
    assert list(transitions.table) == states
    for before, after in itertools.product(states, states):
        if after in transitions.table[before]:
            assert transitions.follow(before, after) is after
        else:
            with pytest.raises(IllegalTransition):
                transitions.follow(before, after)


@pytest.mark.parametrize(
    "transitions", TABLES, ids=lambda each: type(next(iter(each.table))).__name__
)
def test_every_state_is_reached_and_comes_to_its_end(transitions: Transitions[enum.Enum]) -> None:
    """Either the last state, which none follows, or the first one, where everything begins anew."""

    def reached(begin: enum.Enum) -> set[enum.Enum]:
        found = {begin}
        while more := set().union(*(transitions.table[each] for each in found)) - found:
            found |= more
        return found

    first = next(iter(transitions.table))
    ends = {each for each, following in transitions.table.items() if not following} or {first}
    assert reached(first) == set(transitions.table)
    assert all(reached(each) & ends for each in transitions.table)


def test_a_life_refuses_what_is_not_in_its_table() -> None:
    worker, node, rollout = WorkerLife(), NodeLife(), RolloutLife()
    for change in (
        lambda: worker.enter(WorkerState.SPAWNED),
        lambda: node.enter(NodePhase.FAILED),
        lambda: rollout.enter_recycling(RecyclingState.PAUSED),
    ):
        with pytest.raises(IllegalTransition):
            change()
    worker.decide(Claim.STANDBY)
    with pytest.raises(IllegalTransition):
        worker.decide(Claim.RECYCLING)
    worker.decide(Claim.RETIRED)
    worker.decide(Claim.HOLDS)  # retired is final
    assert (worker.state, worker.claim) == (WorkerState.SPAWNED, Claim.RETIRED)
    rollout.enter(RolloutState.STARTING)
    with pytest.raises(IllegalTransition):
        rollout.enter(RolloutState.MAKING_ROOM)
    node.enter(NodePhase.STARTING)  # to stay is no change
    assert (node.phase, rollout.state) == (NodePhase.STARTING, RolloutState.STARTING)


@pytest.mark.parametrize("stop", [False, True])
def test_a_node_whose_workers_die_early_is_failed_and_comes_back(folder: Path, stop: bool) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        leaf = bench.fleet.current_nodes()["Leaf"]
        bench.script += [WorkerState.STARTING] * 30
        for worker in bench.spawned[:2]:
            worker.die()
        seen = 3
        for _ in range(100):
            for worker in bench.spawned[seen:]:
                worker.die()
            seen = len(bench.spawned)
            await asyncio.sleep(0.1)
            if leaf.phase is NodePhase.FAILED:
                break
        assert leaf.phase is NodePhase.FAILED
        if not stop:
            bench.script.clear()
            for worker in bench.spawned[seen:]:
                worker.die()
            await bench.until(bench.whole)
            assert leaf.phase is NodePhase.READY
        await bench.stop()
        assert leaf.phase is NodePhase.STOPPED

    play(folder, [], scene)


def test_a_graph_starts_reloads_and_stops(folder: Path) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        assert bench.whole()
        await bench.reload()
        await bench.until(bench.whole)
        assert len(bench.spawned) == 6
        await bench.stop()

    play(folder, [], scene)


@pytest.mark.parametrize(("state", "slot"), STALLED)
def test_a_death_while_the_graph_starts_fails_the_start(
    folder: Path, slot: int, state: WorkerState
) -> None:
    async def scene(bench: Bench) -> None:
        start = asyncio.ensure_future(bench.start())
        await bench.until(lambda: len(bench.spawned) == 3 and bench.spawned[slot].state is state)
        bench.spawned[slot].die()
        with pytest.raises(StartupError):
            await start
        await bench.stop()

    play(folder, [state if each == slot else None for each in range(3)], scene)


@pytest.mark.parametrize("state", UP)
def test_a_stop_while_the_graph_starts_ends_everything(folder: Path, state: WorkerState) -> None:
    async def scene(bench: Bench) -> None:
        start = asyncio.ensure_future(bench.start())
        await bench.until(lambda: len(bench.spawned) == 3 and bench.spawned[2].state is state)
        start.cancel()
        await bench.stop()

    play(folder, [None, None, state], scene)


@pytest.mark.parametrize(("state", "slot"), STALLED)
def test_a_replacement_that_dies_is_replaced(folder: Path, slot: int, state: WorkerState) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        bench.script.append(state)
        bench.spawned[slot].die()
        await bench.until(lambda: len(bench.spawned) > 3 and bench.spawned[3].state is state)
        bench.spawned[3].die()
        await bench.until(bench.whole)
        await bench.stop()

    play(folder, [], scene)


@pytest.mark.parametrize("slots", [(0, 1), (0, 2), (2, 1), (0, 1, 2)])
def test_deaths_at_once_are_all_replaced(folder: Path, slots: tuple[int, ...]) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        for slot in slots:
            bench.spawned[slot].die()
        await bench.until(lambda: len(bench.spawned) >= 3 + len(slots) and bench.whole())
        await bench.stop()

    play(folder, [], scene)


@pytest.mark.parametrize("slot", [0, 1, 2])
@pytest.mark.parametrize("code", [-9, 0])
def test_a_death_while_it_drains_of_its_own_accord_is_replaced(
    folder: Path, slot: int, code: int
) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        bench.spawned[slot].far.send(messages.Draining())  # somebody sent it SIGTERM by hand
        await bench.until(lambda: bench.spawned[slot].state is WorkerState.DRAINING)
        bench.spawned[slot].die(code)
        await bench.until(bench.whole)
        await bench.stop()

    play(folder, [], scene)


@pytest.mark.parametrize("events", ORDERS, ids="-".join)
@pytest.mark.parametrize("state", STARTING)
def test_deaths_and_stops_while_a_worker_is_replaced(
    folder: Path, state: WorkerState, events: tuple[str, ...]
) -> None:
    """Whatever comes in whatever order, the graph is whole again, or has ended."""

    async def scene(bench: Bench) -> None:
        await bench.start()
        bench.script.append(state)
        reload = bench.reload()
        await bench.until(lambda: len(bench.spawned) > 3 and bench.spawned[3].state is state)
        old, new = bench.spawned[0], bench.spawned[3]
        for event in events:
            if event == "stop":
                reload.cancel()
                await asyncio.wait([reload])
                await bench.stop()
                return
            (old if event == "old" else new).die()
            await asyncio.sleep(0)
        with pytest.raises(StartupError):
            await reload
        await bench.until(bench.whole)
        await bench.stop()

    play(folder, [], scene)


def test_a_worker_that_does_not_drain_is_killed(folder: Path) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        old = bench.spawned[0]
        await bench.reload()
        await bench.until(lambda: old.state is WorkerState.GONE and bench.whole())
        bench.spawned[-1].stalls = WorkerState.DRAINING
        await bench.stop()

    play(folder, [WorkerState.DRAINING], scene)


@pytest.mark.parametrize("message", [
    messages.Imported(), messages.Ready("/x"), messages.Listening(), messages.Drained(), messages.Bound(""),
    messages.Init((), None, {}), messages.Exit(), messages.Held("No", "x", 1), messages.Answered("No", "x"),
])  # fmt: skip
@pytest.mark.parametrize("state", [WorkerState.SPAWNED, WorkerState.STARTING, WorkerState.READY])
def test_a_message_out_of_turn_ends_nothing(
    folder: Path, state: WorkerState, message: Message
) -> None:
    """User code may write to the connection."""

    async def scene(bench: Bench) -> None:
        await bench.start()
        if state is not WorkerState.READY:
            bench.script.append(state)
            bench.spawned[0].die()
            await bench.until(lambda: len(bench.spawned) > 3 and bench.spawned[3].state is state)
        bench.spawned[-1].far.send(message)
        await asyncio.sleep(0.1)
        assert not bench.bugs
        await bench.stop()

    play(folder, [], scene)


@pytest.mark.parametrize(("dies", "lost"), [(True, 0), (False, 1)])
def test_a_dead_worker_is_no_removed_file(folder: Path, dies: bool, lost: int) -> None:
    """Its callers are refused, and say so, before the supervisor has noticed its death."""
    with subprocess.Popen(["sleep", "600"]) as process:
        if dies:
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie

        async def scene(bench: Bench) -> None:
            bench.pids = iter([process.pid, *range(10_000_000, 10_000_009)])
            await bench.start()
            assert len(bench.fleet.suspect(bench.spawned[0].address)) == lost
            await bench.stop()

        try:
            play(folder, [], scene)
        finally:
            process.kill()
