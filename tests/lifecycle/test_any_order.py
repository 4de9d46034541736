"""Any order of events: hypothesis lets workers stall, die and expire, and operators reload, scale,
restart and stop, as it likes.

Whatever comes: nobody who serves is told to leave before its successor serves, no slot has two
workers or is forgotten, callers know whom they may call, and everything has ended at the end.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from graphserve.declare.options import ServiceOptions
from graphserve.errors import StartupError
from graphserve.graph.plan import NodePlan, Plan
from graphserve.supervise.states import WorkerState
from tests.lifecycle.scripted import MOST, PLAN, Bench, JumpingLoop, ScriptedWorker

OPTIONS = ServiceOptions(max_requests=10, startup_timeout=20.0, graceful_timeout=5.0)
STALLS = [WorkerState.SPAWNED, WorkerState.STARTING, WorkerState.OPENING, WorkerState.DRAINING]
SOON = st.sampled_from([0.0, 0.05, 0.5, 3.0, 40.0])  # seconds


def plan(gpus: float, *, changed: bool) -> Plan:
    """Two workers of a leaf, one of the entry; callers of the changed leaf cannot call the other."""

    def tuned(node: NodePlan) -> NodePlan:
        leaf = node.name == "Leaf"
        options = replace(OPTIONS, gpus=gpus if leaf else 0)
        return replace(node, options=options, init={"changed": True} if changed and leaf else {})

    return replace(PLAN, nodes=tuple(map(tuned, PLAN.nodes)))


class AnyOrder(RuleBasedStateMachine):
    """A fleet whose events come in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.descriptors = set(os.listdir("/proc/self/fd"))
        self.loop = JumpingLoop()
        self.gpus = 0.0
        self.stop: asyncio.Task[None] | None = None
        self.failures: list[BaseException] = []

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(asyncio.wait_for(work, 3 * MOST))

    def some(self, number: int) -> ScriptedWorker | None:
        live = self.bench.live()
        return live[number % len(live)] if live else None

    @initialize(gpus=st.sampled_from([0.0, 1.0]))
    def start(self, gpus: float) -> None:
        self.gpus = gpus

        async def start() -> None:
            self.bench = Bench(self.place, [], plan(gpus, changed=False))
            await self.bench.start()
            assert self.bench.settled()

        self.run(start())

    @rule(state=st.sampled_from(STALLS))
    def the_next_worker_stalls(self, state: WorkerState) -> None:
        self.bench.script.append(state)

    @rule(number=st.integers(0, 9))
    def a_worker_dies(self, number: int) -> None:
        async def die() -> None:
            if (worker := self.some(number)) is not None:
                worker.die()

        self.run(die())

    @rule(number=st.integers(0, 9))
    def a_worker_goes_on(self, number: int) -> None:
        async def go_on() -> None:
            if stalled := [worker for worker in self.bench.live() if worker.withheld]:
                stalled[number % len(stalled)].go_on()

        self.run(go_on())

    @rule(number=st.integers(0, 9))
    def a_worker_gets_a_signal_by_hand(self, number: int) -> None:
        async def terminate() -> None:
            worker = self.some(number)
            if worker is not None and worker.state.accepts:
                worker.terminated()

        self.run(terminate())

    @rule(number=st.integers(0, 9))
    def a_worker_has_had_its_time(self, number: int) -> None:
        async def expire() -> None:
            if (worker := self.some(number)) is not None:
                worker.expire()

        self.run(expire())

    @rule(number=st.integers(0, 9), seconds=st.sampled_from([0.05, 0.5]))
    def a_killed_worker_dies_later(self, number: int, seconds: float) -> None:
        async def linger() -> None:
            if (worker := self.some(number)) is not None:
                worker.dies_after = seconds

        self.run(linger())

    @precondition(lambda self: self.stop is None)
    @rule(changed=st.booleans())
    def somebody_reloads(self, changed: bool) -> None:
        async def reload() -> None:
            self.watch(self.bench.reload(plan(self.gpus, changed=changed)))

        self.run(reload())

    @precondition(lambda self: self.stop is None)
    @rule(workers=st.integers(1, 3))
    def somebody_scales(self, workers: int) -> None:
        async def scale() -> None:
            self.watch(self.bench.scale("Leaf", workers))

        self.run(scale())

    @precondition(lambda self: self.stop is None)
    @rule(name=st.sampled_from(["Leaf", "Entry"]))
    def somebody_restarts(self, name: str) -> None:
        async def restart() -> None:
            self.watch(self.bench.restart(name))

        self.run(restart())

    @rule()
    def the_changes_are_given_up(self) -> None:
        self.run(self.bench.give_up_changes())

    @rule(seconds=SOON)
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @precondition(lambda self: self.stop is None)
    @rule()
    def somebody_stops(self) -> None:
        async def stop() -> None:
            self.stop = asyncio.ensure_future(self.bench.stop())

        self.run(stop())

    @precondition(lambda self: self.stop is not None)
    @rule()
    def somebody_stops_again(self) -> None:
        async def kill() -> None:
            assert self.stop is not None
            self.stop.cancel()
            await asyncio.wait([self.stop])
            await self.bench.fleet.kill()
            assert not self.bench.live()

        self.run(kill())

    def watch(self, change: asyncio.Task[None]) -> None:
        def done(change: asyncio.Task[None]) -> None:
            if not change.cancelled() and (failure := change.exception()) is not None:
                self.failures.append(failure)

        change.add_done_callback(done)

    @invariant()
    def nothing_is_wrong(self) -> None:
        self.bench.check_slots()
        assert not self.bench.bugs, self.bench.bugs
        for failure in self.failures:
            if not isinstance(failure, StartupError):
                raise failure

    def teardown(self) -> None:
        try:
            self.run(self.end())
        finally:
            left = asyncio.all_tasks(self.loop)
            self.loop.close()
            shutil.rmtree(self.place)
        assert not left
        assert set(os.listdir("/proc/self/fd")) <= self.descriptors

    async def end(self) -> None:
        bench = self.bench
        bench.script.clear()
        try:
            for worker in bench.live():
                worker.go_on()
            if self.stop is None:
                await bench.until(bench.settled, 0.5)
                await bench.delivered()
                bench.check_callers()
                await bench.stop()
            else:
                await asyncio.wait([self.stop])
                if not self.stop.cancelled():
                    self.stop.result()
        finally:
            await bench.close()
            for _ in range(5):  # what was cancelled has a turn to end
                await asyncio.sleep(0)
        self.nothing_is_wrong()


def test_any_order_of_events() -> None:
    """The same orders each time; others are tried by the slow test below."""
    run_state_machine_as_test(
        AnyOrder,
        settings=settings(max_examples=60, stateful_step_count=25, deadline=None, derandomize=True),
    )


@pytest.mark.slow
@pytest.mark.timeout(600)  # what fails is made short, which takes up to five minutes
def test_other_orders_each_time() -> None:
    run_state_machine_as_test(
        AnyOrder, settings=settings(max_examples=100, stateful_step_count=30, deadline=None)
    )
