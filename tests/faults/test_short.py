"""Every fault in short form: what must never be is asserted, how long it takes is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import report
from tests.faults.faults import FAULTS
from tests.faults.outcome import Fault, Setting
from tests.faults.scene import stage, steerable

pytestmark = pytest.mark.slow

SHORT = Setting(seconds=4.0, rate=60.0, clients=100, callers=16)


@pytest.fixture
def folder():
    with stage() as folder:
        yield folder


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost(fault: Fault, folder: Path) -> None:
    if not steerable(fault.needs):
        pytest.skip(f"there is no `graphserve {fault.needs}` yet")
    outcome = fault.inject(SHORT, folder)
    assert outcome.sent > 0
    assert not outcome.broken, report.details(outcome)
