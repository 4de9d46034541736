"""The pause before the next worker: none after a healthy life, then longer and longer, never the
same twice.
"""

from __future__ import annotations

import pytest

from graphserve.supervise.backoff import JITTER, Backoff


@pytest.mark.parametrize(
    ("deaths", "pause"),
    [(1, 0.0), (2, 0.0), (3, 0.1), (4, 0.2), (5, 0.4), (6, 0.5), (100, 0.5), (5000, 0.5)],
)
def test_pauses_grow_to_the_longest(deaths: int, pause: float) -> None:
    backoff = Backoff(first=0.1, longest=0.5)
    found = [backoff.died(0.0) for _ in range(deaths)][-1]
    assert pause * (1 - JITTER) <= found <= pause * (1 + JITTER)


def test_a_healthy_life_forgives() -> None:
    backoff = Backoff(healthy=1.0, failed_after=3)
    for _ in range(3):
        backoff.died(0.9)
    assert backoff.failed
    assert backoff.died(1.0) == 0.0
    assert not backoff.failed
    assert backoff.died(0.0) == 0.0


def test_a_short_life_does_not_forgive() -> None:
    # One that becomes ready and dies at once is in a loop too.
    backoff = Backoff()
    pauses = [backoff.died(0.5) for _ in range(20)]
    assert backoff.failed
    assert min(pauses[-3:]) >= 30 * (1 - JITTER)


def test_without_hope_the_pause_is_the_longest() -> None:
    backoff = Backoff(longest=8.0)
    assert all(8 * (1 - JITTER) <= backoff.hopeless() <= 8 * (1 + JITTER) for _ in range(20))


def test_slots_that_fail_together_come_back_apart() -> None:
    first, second = Backoff(), Backoff()
    for each in (first, second):
        each.early_deaths = 10
    assert len({each.died(0.0) for each in (first, second) for _ in range(5)}) == 10
