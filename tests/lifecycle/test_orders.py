"""Orders of events that users meet, one by one; `test_any_order.py` plays all the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphserve.declare.options import ServiceOptions
from graphserve.errors import StartupError
from graphserve.graph.plan import Plan
from graphserve.supervise.states import RecyclingState, RolloutState, WorkerState
from tests.lifecycle.scripted import PLAN, Bench, ScriptedWorker, play


def with_options(**options: float) -> Plan:
    """The graph, with options of its leaf."""
    leaf, entry = PLAN.nodes
    return replace(PLAN, nodes=(replace(leaf, options=ServiceOptions(**options)), entry))


LIMITED = with_options(max_requests=10)
ON_GPUS = with_options(gpus=1, max_requests=10)


def rollout_state(bench: Bench) -> RolloutState:
    return bench.fleet.rollouts[bench.fleet.current_nodes()["Leaf"]].state


async def comes_to(bench: Bench, state: RolloutState) -> None:
    """Bring the rollout of the leaf into a state, and hold it there."""
    if state is RolloutState.STARTING:
        bench.script.append(WorkerState.STARTING)
    else:
        bench.spawned[0].stalls = WorkerState.DRAINING  # it is the first that is replaced
    match state:
        case RolloutState.MAKING_ROOM:
            bench.restart("Leaf")
        case RolloutState.STARTING | RolloutState.LEAVING:
            bench.reload()
    if state is not RolloutState.IDLE:
        await bench.until(lambda: rollout_state(bench) is state)


@pytest.mark.parametrize("state", RolloutState)
@pytest.mark.parametrize("kill", [False, True], ids=["stop", "kill"])
def test_a_stop_in_each_state_of_the_rollout(folder: Path, state: RolloutState, kill: bool) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        await comes_to(bench, state)
        if not kill:
            await bench.stop()

    play(folder, [], scene)


@pytest.mark.parametrize("turns", [0, 1, 3, 10])
def test_a_kill_beside_a_stop_ends_everything(folder: Path, turns: int) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        bench.spawned[1].stalls = WorkerState.DRAINING
        stop = asyncio.ensure_future(bench.stop())
        for _ in range(turns):
            await asyncio.sleep(0)
        stop.cancel()
        await bench.fleet.kill()
        await asyncio.wait([stop])
        assert not bench.live()

    play(folder, [], scene)


def test_a_kill_ends_nothing_that_it_has_ended_already(folder: Path) -> None:
    """The last caller of the old leaf dies after that one, and what nobody needs is let go."""
    changed = replace(PLAN, nodes=(replace(PLAN.nodes[0], init={"changed": True}), PLAN.nodes[1]))

    async def scene(bench: Bench) -> None:
        await bench.start()
        entry = bench.spawned[2]
        entry.stalls = WorkerState.DRAINING
        entry.dies_after = 0.05
        bench.reload(changed)
        await bench.until(lambda: entry.state is WorkerState.DRAINING)
        await bench.give_up_changes()
        await bench.fleet.kill()
        assert not bench.live()

    play(folder, [], scene)


@pytest.mark.parametrize("dies", [False, True])
def test_the_fallback_server_goes_or_dies_and_the_entry_comes_back(
    folder: Path, dies: bool
) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        entry = bench.spawned[2]
        bench.script.append(WorkerState.STARTING)
        entry.die()
        await bench.until(lambda: bench.fleet.fallback.pid is not None)
        first = bench.fleet.fallback.pid
        if dies:
            bench.spawned[-1].die()
            await bench.until(lambda: bench.fleet.fallback.pid not in (None, first))
        bench.spawned[3].go_on()
        await bench.until(bench.settled)
        assert bench.fleet.fallback.pid is None
        await bench.stop()

    play(folder, [], scene)


@pytest.mark.parametrize("first", ["scale", "restart"])
@pytest.mark.parametrize("workers", [1, 3])
def test_scale_and_restart_at_once_come_one_after_the_other(
    folder: Path, first: str, workers: int
) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        changes = [lambda: bench.scale("Leaf", workers), lambda: bench.restart("Leaf")]
        ordered = changes if first == "scale" else reversed(changes)
        await asyncio.gather(*[change() for change in ordered])
        await bench.until(bench.settled)
        leaf = bench.fleet.current_nodes()["Leaf"]
        assert len(leaf.workers) == workers
        assert not set(leaf.workers) & set(bench.spawned[:2])
        await bench.stop()

    play(folder, [], scene)


@pytest.mark.parametrize("plan", [LIMITED, ON_GPUS], ids=["limited", "on GPUs"])
@pytest.mark.parametrize("expire_first", [False, True])
def test_recycling_during_a_reload(folder: Path, plan: Plan, expire_first: bool) -> None:
    """Each worker is replaced: by the one or by the other, and none twice at once."""

    async def scene(bench: Bench) -> None:
        await bench.start()
        old = bench.spawned[:2]
        if not expire_first:
            reload = bench.reload()
        for worker in old:
            worker.expire()
        if expire_first:
            await asyncio.sleep(0)
            reload = bench.reload()
        await reload
        await bench.until(bench.settled)
        assert all(worker.state is WorkerState.GONE for worker in old)
        await bench.stop()

    play(folder, [], scene, plan)


def test_a_successor_that_does_not_start_pauses_recycling(folder: Path) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        rollout = bench.fleet.rollouts[bench.fleet.current_nodes()["Leaf"]]
        old = bench.spawned[:2]
        bench.script.append(WorkerState.STARTING)
        for worker in old:
            worker.expire()
        await bench.until(lambda: len(bench.spawned) > 3)
        bench.spawned[3].die()
        await bench.until(lambda: rollout.recycling is RecyclingState.PAUSED)
        assert all(worker.state is WorkerState.READY for worker in old)
        old[0].expire()
        await asyncio.sleep(0.01)
        assert len(bench.spawned) == 4  # its report is no reason to try again so soon
        await bench.until(lambda: rollout.recycling is RecyclingState.IDLE)
        for worker in old:
            worker.expire()
        await bench.until(lambda: bench.settled() and old[1].state is WorkerState.GONE)
        assert old[0].state is WorkerState.GONE
        await bench.stop()

    play(folder, [], scene, LIMITED)


def test_on_gpus_the_old_worker_is_gone_before_the_new_one_starts(folder: Path) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        old = bench.spawned[0]
        old.stalls = WorkerState.DRAINING
        reload = bench.reload()
        await bench.until(lambda: old.state is WorkerState.DRAINING)
        await asyncio.sleep(1)
        assert len(bench.spawned) == 3
        old.go_on()
        await reload
        await bench.until(bench.settled)
        assert len(bench.spawned) == 6
        await bench.stop()

    play(folder, [], scene, ON_GPUS)


def test_on_gpus_a_slot_whose_successor_dies_is_filled_again(folder: Path) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        bench.script.append(WorkerState.STARTING)
        reload = bench.reload()
        await bench.until(lambda: len(bench.spawned) > 3)
        bench.spawned[3].die()
        with pytest.raises(StartupError):
            await reload
        await bench.until(bench.settled)
        await bench.stop()

    play(folder, [], scene, ON_GPUS)


@pytest.mark.parametrize("cancelled", [False, True])
def test_two_reloads_one_after_the_other(folder: Path, cancelled: bool) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        bench.script.append(WorkerState.STARTING)
        first = bench.reload()
        await bench.until(lambda: len(bench.spawned) > 3)
        second = bench.reload()
        if cancelled:
            first.cancel()
        else:
            bench.spawned[3].go_on()
        await second
        await bench.until(bench.settled)
        current = bench.fleet.current
        assert current is not None
        assert current.number == 3
        assert all(worker.revision is current for worker in bench.live())
        await bench.stop()

    play(folder, [], scene)


@pytest.mark.parametrize("first", ["old", "new"])
def test_two_deaths_in_one_slot_are_one_gap(folder: Path, first: str) -> None:
    """The old worker and its successor die side by side, in a crash loop: with a pause before the
    next one, there is one next one.
    """

    async def scene(bench: Bench) -> None:
        await bench.start()
        leaf = bench.fleet.current_nodes()["Leaf"]

        def holder() -> ScriptedWorker:
            return next(w for w in bench.live() if bench.node_of(w) is leaf and w.slot == 0)

        for _ in range(3):  # early deaths: the next one has a pause
            worker = holder()
            worker.die()
            await worker.gone.wait()
            await bench.until(bench.whole)
        old = holder()
        bench.script.append(WorkerState.STARTING)
        seen = len(bench.spawned)
        reload = bench.reload()
        await bench.until(lambda: len(bench.spawned) > seen)
        new = bench.spawned[seen]
        for worker in (old, new) if first == "old" else (new, old):
            worker.die()
        with pytest.raises(StartupError):
            await reload
        await bench.until(bench.settled)
        await asyncio.sleep(5)
        bench.check_slots()
        assert bench.settled()
        await bench.stop()

    play(folder, [], scene)


@pytest.mark.parametrize("again", [False, True])
def test_an_old_worker_that_dies_while_it_drains_is_replaced_once(
    folder: Path, again: bool
) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        old = bench.spawned[0]
        old.stalls = WorkerState.DRAINING
        reload = bench.reload()
        await bench.until(lambda: old.state is WorkerState.DRAINING)
        old.die()
        if again:
            bench.spawned[3].die()
        await asyncio.wait([reload])
        await bench.until(bench.settled)
        await bench.stop()

    play(folder, [], scene)


def test_a_change_that_is_given_up_twice_leaves_no_node_behind(folder: Path) -> None:
    """It is cancelled again while the nodes go that only it needed."""

    async def scene(bench: Bench) -> None:
        await bench.start()
        leaf, entry = PLAN.nodes
        bench.script += [None, WorkerState.STARTING]
        reload = bench.reload(replace(PLAN, nodes=(replace(leaf, init={"x": 1}), entry)))
        await bench.until(lambda: len(bench.spawned) == 5)
        bench.spawned[3].stalls = WorkerState.DRAINING
        await bench.until(lambda: bench.spawned[3].state is WorkerState.READY)
        reload.cancel()
        await bench.until(lambda: bench.spawned[3].state is WorkerState.DRAINING)
        reload.cancel()
        await asyncio.wait([reload])
        await bench.until(bench.settled)
        assert len(bench.live()) == 3
        await bench.stop()

    play(folder, [], scene)


def test_a_worker_that_dies_while_a_reload_waits_for_another_one_to_drain(folder: Path) -> None:
    """It is replaced by one of the new revision, and not once more by the reload."""

    async def scene(bench: Bench) -> None:
        await bench.start()
        first, second = bench.spawned[:2]
        first.stalls = WorkerState.DRAINING
        reload = bench.reload()
        await bench.until(lambda: first.state is WorkerState.DRAINING)
        second.die()
        await second.gone.wait()
        await bench.until(lambda: len(bench.spawned) == 5)
        first.go_on()
        await reload
        await bench.until(bench.settled)
        assert len(bench.spawned) == 6  # two of the leaf, one of the entry
        await bench.stop()

    play(folder, [], scene)


@pytest.mark.parametrize("kill", [False, True], ids=["stop", "kill"])
def test_no_worker_is_started_when_the_graph_stops_while_one_is_recycled(
    folder: Path, kill: bool
) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start()
        old = bench.spawned[0]
        old.stalls = WorkerState.DRAINING
        old.expire()
        await bench.until(lambda: rollout_state(bench) is RolloutState.MAKING_ROOM)
        if kill:
            await bench.fleet.kill()
        else:
            await bench.stop()
        await asyncio.sleep(1)
        assert len(bench.spawned) == 3

    play(folder, [], scene, ON_GPUS)


def test_a_stop_just_when_a_node_that_was_replaced_has_ended(folder: Path) -> None:
    """At each turn of the event loop around the end of that node."""

    def scene(turns: int) -> Callable[[Bench], Coroutine[Any, Any, None]]:
        async def stop(bench: Bench) -> None:
            await bench.start()
            leaf, entry = PLAN.nodes
            bench.spawned[0].stalls = WorkerState.DRAINING
            await bench.reload(replace(PLAN, nodes=(replace(leaf, init={"x": 1}), entry)))
            await bench.until(lambda: bench.spawned[0].state is WorkerState.DRAINING)
            bench.spawned[0].go_on()
            for _ in range(turns):
                await asyncio.sleep(0)
            await bench.stop()

        return stop

    for turns in range(40):
        place = folder / str(turns)
        place.mkdir()
        play(place, [], scene(turns))
