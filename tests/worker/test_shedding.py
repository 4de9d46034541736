"""What decides whether a call is executed under load: the estimate of an API's latency, the limit
that the lag of a loop sets, the adaptive throttle of the entry.
"""

from __future__ import annotations

import asyncio
import math
import random

import pytest
from hypothesis import given, strategies as st

from graphserve.errors import Unavailable
from graphserve.worker.dispatch.load import (
    BEAT,
    CALM,
    FEWEST,
    LATE,
    PERSISTENCE,
    TARGET,
    WAY_BACK,
    LatencyEstimate,
    LoopLagLimit,
)
from graphserve.worker.dispatch.shedding import SURPLUS, AdaptiveThrottle

# --- latency estimate ---


def test_nothing_is_known_at_first() -> None:
    assert LatencyEstimate().needed == 0.0


def test_a_steady_latency_is_needed_and_little_more() -> None:
    estimate = LatencyEstimate()
    for _ in range(50):
        estimate.add(0.1)
    assert 0.1 <= estimate.needed < 0.1 + WAY_BACK + 0.001


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=50))
def test_the_need_lies_between_the_quickest_and_far_beyond_the_slowest(times: list[float]) -> None:
    estimate = LatencyEstimate()
    for seconds in times:
        estimate.add(seconds)
    assert min(times) <= estimate.needed <= 5 * max(times) + WAY_BACK
    assert min(times) <= estimate.usual <= estimate.needed


def test_a_slow_first_call_is_forgotten() -> None:
    estimate = LatencyEstimate()
    estimate.add(5.0)
    for _ in range(100):
        estimate.add(0.01)
    assert estimate.needed < 0.05


# --- loop-lag limit ---


def limits_after(steps: list[tuple[float, int]]) -> list[float]:
    """The limit after each beat, which came so many seconds late with so many calls in flight."""

    async def run() -> list[float]:
        lag_limit = LoopLagLimit(asyncio.get_running_loop(), lambda: 0)
        now, limits = 100.0, []
        for late, in_flight in steps:
            now += BEAT + late
            lag_limit._judge(now, late, in_flight)
            limits.append(lag_limit.limit)
        return limits

    return asyncio.run(run())


def test_a_hiccup_changes_nothing() -> None:
    assert limits_after([(TARGET * 2, 500), (0.0, 500), (TARGET * 2, 500)]) == [math.inf] * 3


def test_a_late_loop_is_given_what_it_serves_in_time() -> None:
    limits = limits_after([(PERSISTENCE, 300), (PERSISTENCE, 300)])
    assert limits[-1] == pytest.approx(300 * TARGET / PERSISTENCE)
    assert limits_after([(10.0, 300)]) == [FEWEST], "and always some"


def test_the_limit_grows_back_and_goes() -> None:
    calm = [(0.0, 10)] * (int(CALM / BEAT) + 2)
    limits = limits_after([(1.0, 1000), *calm])
    assert limits[0] == 100 and limits[1] > limits[0]
    assert limits[-1] == math.inf


def test_it_is_late_only_as_long_as_it_is() -> None:
    lag_limit = LoopLagLimit(asyncio.new_event_loop(), lambda: 0)
    for late, said in ((LATE / 2, False), (LATE * 2, True), (0.0, False)):
        lag_limit._judge(100.0, late, 1)
        assert lag_limit.late is said
    lag_limit.loop.close()


async def test_it_beats_only_while_there_are_calls() -> None:
    calls = [1]
    lag_limit = LoopLagLimit(asyncio.get_running_loop(), lambda: calls[0])
    lag_limit.begin()
    await asyncio.sleep(3 * BEAT)
    assert lag_limit.beating
    calls[0] = 0
    async with asyncio.timeout(10):
        while lag_limit.beating:  # noqa: ASYNC110
            await asyncio.sleep(BEAT)


# --- adaptive throttle ---

FULL = Unavailable("the queue of Model is full", node="Model", full=True)


def through(throttle: AdaptiveThrottle, asked: int, capacity: int) -> int:
    """Ask so often in a second, of which `capacity` are taken below; how many were let through."""
    passed = 0
    for _ in range(asked):
        if throttle.active and throttle.refusal() is not None:
            continue
        passed += 1
        throttle.taken() if passed <= capacity else throttle.refused(FULL)
    throttle.forget()
    return passed


@pytest.mark.parametrize("times", [1.0, 1.5, 3.0, 10.0])
def test_it_lets_through_a_surplus_and_no_more(times: float) -> None:
    random.seed(1)
    throttle = AdaptiveThrottle("Gateway", "work")
    passed = [through(throttle, int(200 * times), 200) for _ in range(20)][-1]
    assert min(200, 200 * times) <= passed <= 200 * min(times, SURPLUS * 1.15)


def test_it_says_why() -> None:
    throttle = AdaptiveThrottle("Gateway", "work")
    throttle.refused(FULL)
    assert [throttle.refusal() for _ in range(9)] == [None] * 9, "one refusal says little"
    refusals = [refusal for _ in range(100) if (refusal := throttle.refusal()) is not None]
    assert str(refusals[0]) == "Gateway sheds calls of work: the queue of Model is full"
    assert (refusals[0].node, refusals[0].full, refusals[0].status) == ("Gateway", True, 503)


def test_it_is_over_soon() -> None:
    random.seed(1)
    throttle = AdaptiveThrottle("Gateway", "work")
    for _ in range(10):
        through(throttle, 600, 200)
    seconds = 0
    while through(throttle, 100, 200) < 100:
        seconds += 1
    assert seconds <= 4
    for _ in range(20):
        throttle.forget()
    assert not throttle.active, "and nothing is counted any more"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio
