"""No body costs a public worker more than a small multiple of itself: CPU, memory, answer, the wait
of others.

`COST_EXAMPLES` says how many changed bodies are sent; `nox -s fuzz` sends many more than the tests,
other ones each time, and larger ones. `python -m tests.hostile.cost` prints what each kind costs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random

import pytest

from tests.hostile.cost import Scales, mutated, scales, weigh_all, worst

EXAMPLES = int(os.environ.get("COST_EXAMPLES", "60"))
LONG = EXAMPLES > 60
SIZES = [20_000, 200_000, 2_000_000] if LONG else [60_000]


@pytest.fixture(scope="module")
def on() -> Iterator[Scales]:
    with scales() as on:
        yield on


@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", SIZES)
def test_costly_kinds_of_bodies(on: Scales, size: int) -> None:
    costs = weigh_all(on, size)
    print(f"bodies of {size:,} bytes\n{worst(costs)}")
    assert not [str(cost) for cost in costs if cost.excess]


@pytest.mark.timeout(EXAMPLES * 3 + 60)
@pytest.mark.parametrize(
    "seed", [Random().getrandbits(32)] if LONG else [1, 2, 3], ids=lambda _: ""
)
def test_changed_bodies(on: Scales, seed: int) -> None:
    random, costs = Random(seed), []
    for number in range(EXAMPLES):
        kind, body = mutated(random, 200_000 if LONG and number % 10 == 0 else 20_000)
        costs.append(on.weigh_bytes(kind.name, kind.type, body, kind.format))
        assert not costs[-1].excess, f"number {number} of seed {seed}: {costs[-1]}\n{on.graph.text}"
    print(f"changed bodies, seed {seed}\n{worst(costs)}")
    assert "Traceback" not in on.graph.text
