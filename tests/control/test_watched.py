"""What the supervisor tells of load and of certificates: when it begins, and when it is over. No
process is started.
"""

from __future__ import annotations

import pytest

from graphserve.supervise.certificate_watch import DAY, CertificateWatch
from graphserve.supervise.events import EventKind
from graphserve.supervise.overload import QUIET, Overload


def test_shedding_is_told_when_it_begins_and_when_it_is_over() -> None:
    overload = Overload()
    assert not overload.reported(1, 0, 10.0)
    assert overload.over(10.0) is None
    assert overload.reported(1, 3, 11.0)
    assert not overload.reported(2, 2, 12.0), "told once for the node"
    assert not overload.reported(1, 7, 14.0)
    assert overload.over(14.0 + QUIET - 0.1) is None
    assert not overload.reported(1, 7, 14.0 + QUIET - 0.1)
    assert overload.over(14.0 + QUIET) == (9, 3.0)
    assert overload.over(100.0) is None
    assert overload.reported(1, 8, 101.0), "and again"
    overload.gone(1)
    assert not overload.reported(1, 0, 102.0), "another one, which has its pid"
    assert overload.over(101.0 + QUIET) == (1, 0.0)


class Watched:
    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.said: list[str] = []
        self.watch = CertificateWatch("c.pem", lambda: None, self.say, lambda: self.now)

    def say(self, kind: EventKind, level: str, message: str, trace: str = "") -> None:
        assert kind is EventKind.CERTIFICATE_EXPIRES
        self.said.append(f"{level}: {message}")

    def look(self, days: float | None, version: int = 1) -> list[str]:
        self.said = []
        self.watch.look(None if days is None else days * DAY, version)
        return self.said


@pytest.mark.parametrize("step", [0.1, 1.0, 2.5])
def test_each_is_told_once_as_time_passes(step: float) -> None:
    watched = Watched()
    left, said = 20.0, []
    while left > -2:
        said += watched.look(max(0.0, left))
        left -= step
        watched.now += step * DAY
    assert len(said) == 3
    assert "expires in 1" in said[0] and "expires in " in said[1]
    assert said[2] == (
        "error: the certificate of c.pem has expired: renew it, then `graphserve reload`"
    )


def test_one_that_was_renewed_needs_a_reload_and_is_told_of_anew() -> None:
    watched = Watched()
    assert watched.look(2.0)
    watched.now += 2 * DAY
    (said,) = watched.look(90.0)
    assert "has expired: the file holds a newer one already" in said
    assert watched.look(90.0, version=2) == []
    watched.now += 88 * DAY
    (said,) = watched.look(2.0, version=2)
    assert "expires in 2.0 days" in said
    assert watched.look(2.0, version=3) == [], "a reload of the same is no news"


def test_what_cannot_be_read_says_nothing() -> None:
    assert Watched().look(None) == []
