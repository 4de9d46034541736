"""The states of a worker's process, in every order of events: no process, no socket, no clock."""

from __future__ import annotations

from itertools import product

import pytest

from graphserve.system.transitions import IllegalTransition
from graphserve.worker.lifecycle import PROCESS_TRANSITIONS, Lifecycle, ProcessState

WAY = list(ProcessState)
EVENTS = ("drain", "all drained", "drained", "exit")


def at(state: ProcessState) -> Lifecycle:
    """A life that came to a state by the way of every worker."""
    life = Lifecycle()
    for step in WAY[1 : WAY.index(state) + 1]:
        life.move_to(step)
    return life


@pytest.mark.parametrize(("before", "after"), list(product(WAY, WAY)), ids=lambda state: state.name)
def test_only_what_the_table_has_can_follow(before: ProcessState, after: ProcessState) -> None:
    life = at(before)
    if after in PROCESS_TRANSITIONS.table[before]:
        life.move_to(after)
        assert life.state is after
    else:
        with pytest.raises(IllegalTransition, match=f"{after.value} when it is {before.value}"):
            life.move_to(after)
        assert life.state is before


def test_every_state_can_end_and_nothing_follows_the_end() -> None:
    assert all(
        ProcessState.ENDED in after
        for state, after in PROCESS_TRANSITIONS.table.items()
        if state is not ProcessState.ENDED
    )
    assert not PROCESS_TRANSITIONS.table[ProcessState.ENDED]
    assert PROCESS_TRANSITIONS.table.keys() == set(ProcessState)


@pytest.mark.parametrize("state", WAY[:3], ids=lambda state: state.name)
def test_who_does_not_serve_yet_has_nothing_to_drain(state: ProcessState) -> None:
    life = at(state)
    assert life.before_serving
    assert not life.drain()
    assert life.state is state


def happens(life: Lifecycle, event: str) -> bool:
    """Have one event come, and return whether the supervisor would hear of it."""
    if event == "drain":
        return life.drain()
    if event in ("all drained", "drained"):
        return life.drained(waits_for_exit=event == "all drained")
    life.end()
    return False


@pytest.mark.parametrize("events", list(product(EVENTS, repeat=3)), ids="-".join)
def test_any_order_of_events_goes_forward_only(events: tuple[str, ...]) -> None:
    life = at(ProcessState.SERVING)
    if events[0] in ("all drained", "drained"):  # a drain was there before it can be over
        life.drain()
    for event in events:
        before = life.state
        heard = happens(life, event)
        assert WAY.index(life.state) >= WAY.index(before)
        if before is ProcessState.ENDED:
            assert not heard, "nobody hears of what an ended worker does"
    if {"drained", "exit"} & set(events):
        assert life.state is ProcessState.ENDED
    else:
        assert life.state is not ProcessState.ENDED, "the supervisor says when it may go"


def test_a_drain_of_the_last_workers_waits_for_the_exit() -> None:
    life = at(ProcessState.SERVING)
    assert life.drain()
    assert life.drained(waits_for_exit=True)
    assert life.state is ProcessState.DRAINED
    assert life.serves, "a sibling may pass on a call"
    life.end()
    assert not life.serves


def test_a_signal_during_the_last_drain_does_not_wait_for_the_exit() -> None:
    life = at(ProcessState.SERVING)
    assert life.drain()
    assert life.drain()
    assert not life.drained(waits_for_exit=False)
    assert not life.drained(waits_for_exit=True), "it has ended: nobody is told"
    assert life.state is ProcessState.ENDED
