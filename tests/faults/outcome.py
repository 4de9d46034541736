"""What a fault came to: the figures of its row, and where it missed its bar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.load import REFUSED, Results


@dataclass(frozen=True)
class Setting:
    """How large a fault is made.

    Args:
        seconds: how long the load lasts.
        rate: requests a second.
        clients: how many cut the line at once.
        callers: how many ask without a pause where the graph is to be at full load.
    """

    seconds: float = 60.0
    rate: float = 200.0
    clients: int = 1000
    callers: int = 64


@dataclass
class Outcome:
    """One row.

    Args:
        sent: requests that found a connection.
        failed: answers that were not as expected, and lost requests.
        lost: requests without any answer.
        worst: seconds that the slowest answer took.
        recovery: seconds until all was as before, the longest of all injections.
        broken: what must never be, and was.
        slow: bars of time that were missed.
        remarks: what else was seen.
        reasons: what the failures said, counted.
    """

    sent: int = 0
    failed: int = 0
    lost: int = 0
    worst: float = 0.0
    recovery: float = 0.0
    broken: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def take(self, results: Results) -> None:
        """Count the answers of a load in; who was refused a connection has sent nothing."""
        sent = [answer for answer in results.answers if answer.status != REFUSED]
        self.sent += len(sent)
        self.failed += len(results.failures) - (len(results.answers) - len(sent))
        self.lost += len(results.lost)
        self.worst = max(self.worst, results.worst)
        self.reasons.update(results.reasons())

    def never(self, happened: object, words: str) -> None:
        """Something that must never be."""
        if happened:
            self.broken.append(words)

    def recovered(self, seconds: Iterable[float]) -> None:
        """How long injections took until all was as before."""
        self.recovery = max(self.recovery, *seconds, 0.0)


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        name: what the command line calls it.
        title: what is done, in words.
        bar: what must hold.
        inject: does it, in a folder of its own.
        needs: the command of `graphserve` that it uses.
    """

    name: str
    title: str
    bar: str
    inject: Callable[[Setting, Path], Outcome]
    needs: str = "serve"
