"""The states of workers: scripted workers on socket pairs, a clock that jumps, no process, every
order of events.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import os
import subprocess
from pathlib import Path

import pytest

from graphserve.errors import StartupError
from graphserve.supervise.states import (
    CLAIM_TRANSITIONS,
    GRAPH_TRANSITIONS,
    NODE_TRANSITIONS,
    RECYCLING_TRANSITIONS,
    ROLLOUT_TRANSITIONS,
    WORKER_TRANSITIONS,
    Claim,
    NodeLife,
    NodePhase,
    RecyclingState,
    RolloutLife,
    RolloutState,
    WorkerLife,
    WorkerState,
)
from graphserve.system import messages
from graphserve.system.messages import ControlMessage
from graphserve.system.transitions import IllegalTransition, Transitions
from tests.lifecycle.scripted import Bench, play

TABLES = [
    WORKER_TRANSITIONS,
    CLAIM_TRANSITIONS,
    NODE_TRANSITIONS,
    ROLLOUT_TRANSITIONS,
    RECYCLING_TRANSITIONS,
    GRAPH_TRANSITIONS,
]
STARTING = [WorkerState.SPAWNED, WorkerState.STARTING]
ORDERS = [*itertools.permutations(["old", "new", "stop"], 2), ("old", "new", "stop"), ("stop",)]
UP = [WorkerState.SPAWNED, WorkerState.STARTING, WorkerState.OPENING]
# Workers 0 and 1 are of the leaf; only that of the entry opens the public port.
STALLED = [*itertools.product(STARTING, range(3)), (WorkerState.OPENING, 2)]


@pytest.mark.parametrize(
    "transitions", TABLES, ids=lambda each: type(next(iter(each.table))).__name__
)
def test_a_state_follows_only_those_of_the_table(transitions: Transitions[enum.Enum]) -> None:
    states = list(type(next(iter(transitions.table))))
    assert list(transitions.table) == states
    for before, after in itertools.product(states, states):
        if after is before or after in transitions.table[before]:
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
    ends = NodeLife()
    ends.enter(NodePhase.DRAINING)
    for change in (
        lambda: worker.enter(WorkerState.READY),
        lambda: ends.enter(NodePhase.FAILED),
        lambda: rollout.enter_recycling(RecyclingState.PAUSED),
    ):
        with pytest.raises(IllegalTransition):
            change()
    worker.decide(Claim.STANDBY)
    with pytest.raises(IllegalTransition):
        worker.decide(Claim.RECYCLING)
    worker.decide(Claim.RETIRED)
    with pytest.raises(IllegalTransition):
        worker.decide(Claim.HOLDS)
    worker.hold()  # retired is final
    assert (worker.state, worker.claim) == (WorkerState.SPAWNED, Claim.RETIRED)
    rollout.enter(RolloutState.STARTING)
    with pytest.raises(IllegalTransition):
        rollout.enter(RolloutState.MAKING_ROOM)
    for stay in (
        lambda: worker.enter(WorkerState.SPAWNED),
        lambda: worker.decide(Claim.RETIRED),
        lambda: node.enter(NodePhase.STARTING),
        lambda: rollout.enter(RolloutState.STARTING),
    ):
        stay()
    assert (node.phase, rollout.state) == (NodePhase.STARTING, RolloutState.STARTING)


def test_events_of_a_worker_are_set_by_its_states() -> None:
    worker = WorkerLife()
    for state in (WorkerState.IMPORTED, WorkerState.STARTING):
        worker.enter(state)
    assert not worker.was_ready.is_set()
    worker.enter(WorkerState.READY)
    assert worker.was_ready.is_set()
    assert not worker.gone.is_set()
    worker.enter(WorkerState.GONE)
    assert worker.gone.is_set()


@pytest.mark.parametrize("end", [None, "stop", "kill"])
def test_a_node_whose_workers_die_early_is_failed_and_comes_back(
    folder: Path, end: str | None
) -> None:
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
        if end is None:
            bench.script.clear()
            for worker in bench.spawned[seen:]:
                worker.die()
            await bench.until(bench.whole)
            assert leaf.phase is NodePhase.READY
        await (bench.fleet.kill() if end == "kill" else bench.stop())
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


@pytest.mark.parametrize("state", UP)
def test_a_kill_while_the_graph_starts_ends_everything(folder: Path, state: WorkerState) -> None:
    async def scene(bench: Bench) -> None:
        start = asyncio.ensure_future(bench.start())
        await bench.until(lambda: len(bench.spawned) == 3 and bench.spawned[2].state is state)
        start.cancel()
        entry = bench.fleet.current_nodes()["Entry"]
        assert entry.phase is NodePhase.STARTING
        await bench.fleet.kill()
        assert entry.phase is NodePhase.STOPPED

    play(folder, [None, None, state], scene)


def test_a_worker_that_drains_while_it_opens_the_port_does_not_become_ready(folder: Path) -> None:
    """Somebody sends it SIGTERM by hand, and it says afterwards that it listens."""

    async def scene(bench: Bench) -> None:
        await bench.start()
        bench.script.append(WorkerState.OPENING)
        bench.spawned[2].die()
        await bench.until(
            lambda: len(bench.spawned) > 3 and bench.spawned[3].state is WorkerState.OPENING
        )
        worker = bench.spawned[3]
        worker.far.send(messages.Draining())
        worker.go_on()
        await bench.until(lambda: worker.state is not WorkerState.OPENING)
        assert worker.state is WorkerState.DRAINING
        await asyncio.sleep(0.1)
        assert worker.state is WorkerState.DRAINING
        worker.die(0)
        await bench.until(bench.whole)
        await bench.stop()

    play(folder, [], scene)


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
    messages.Imported(), messages.WarmingUp(), messages.Ready("/x"), messages.Listening(), messages.Drained(), messages.Bound(""),
    messages.Init((), None, {}), messages.Exit(), messages.Held("No", "x", 1), messages.Answered("No", "x"),
])  # fmt: skip
@pytest.mark.parametrize("state", [WorkerState.SPAWNED, WorkerState.STARTING, WorkerState.READY])
def test_a_message_out_of_turn_ends_nothing(
    folder: Path, state: WorkerState, message: ControlMessage
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
