"""Tables of states: which may follow which. Runs in the supervisor and in workers.

A state machine has an Enum, one such table, and one method that changes the state by it. The tables
are beside their states: `supervise/states.py`, `supervise/fallback_process.py`,
`worker/lifecycle.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Generic, TypeVar

S = TypeVar("S", bound=enum.Enum)


class IllegalTransition(AssertionError):
    """Raised for a change of state that is not in the table: a bug of ours."""


class Transitions(Generic[S]):
    """Which states may follow which.

    Args:
        cannot: begins the sentence that says that one does not, such as `a worker cannot become`.
        table: by state, those that may follow it.
    """

    def __init__(self, cannot: str, table: Mapping[S, frozenset[S]]) -> None:
        self.table = table
        self._cannot = cannot

    def follow(self, before: S, after: S) -> S:
        """Return the state after; to stay in one is always allowed, and no change.

        Raises:
            IllegalTransition: it may not follow the one before.
        """
        return after if after is before else self.change(before, after)

    def change(self, before: S, after: S) -> S:
        """Return the state after, which is another one: for states that nobody may enter twice.

        Raises:
            IllegalTransition: it may not follow the one before, or is the same.
        """
        if after not in self.table[before]:
            raise IllegalTransition(f"{self._cannot} {after.value} when it is {before.value}")
        return after
