"""Calls that are refused before they cost anything: those that would make others late, or be late.

Runs in workers.
"""

from __future__ import annotations

import random
from typing import TypeVar

from graphserve.call.context import CallContext
from graphserve.errors import Unavailable
from graphserve.metrics.layout import BEHIND, LATE, THROTTLED
from graphserve.worker.dispatch.executor import BoundApi, Executor
from graphserve.worker.dispatch.slots import Permit, Slots

TRIED = 4  # calls in flight that are never refused for what others took


def refusal(
    executor: Executor,
    permit: Permit,
    api: BoundApi,
    context: CallContext,
    throttle: AdaptiveThrottle | None,
) -> Unavailable | None:
    """Return why a call is not executed, if it is not.

    Args:
        executor: would run it.
        permit: of the connection that it came by.
        api: the API.
        context: what travels with it.
        throttle: of the API, at the public listener.
    """
    if throttle is not None and throttle.active and (refused := throttle.refusal()) is not None:
        executor.shed(THROTTLED)
        return refused
    refused = None
    if api.plan.lane == "pooled":
        lag = executor.lag_limit
        if not lag.late and len(executor.executing) < lag.limit:
            return None
        if (refused := _behind(api, executor, context)) is not None:
            executor.shed(BEHIND)
    elif (
        permit.held
        and api.latency is not None
        and (refused := _hopeless(api, executor, permit.slots, context)) is not None
    ):
        executor.shed(LATE)
    return refused


def _behind(api: BoundApi, executor: Executor, context: CallContext) -> Unavailable | None:
    """Refuse a call because the event loop is late: more calls of async APIs are in flight than it
    can serve in time.

    A few calls are always tried: from what they take, it is known whether the others can be in time
    again.
    """
    in_flight, lag, name = len(executor.executing), executor.lag_limit, executor.node.name
    if in_flight >= lag.limit:
        return Unavailable(
            f"{name} is behind, with {in_flight} calls in flight", node=name, full=True
        )
    if lag.late and in_flight >= TRIED and api.latency is not None:
        left = context.seconds_left()
        if left is not None and left < api.latency.usual:
            return _too_late(name, left)
    return None


def _hopeless(
    api: BoundApi, executor: Executor, slots: Slots, context: CallContext
) -> Unavailable | None:
    """Refuse a call that got a slot too late and would hold it in vain, while others wait that can
    be in time.

    If none waits, there is nothing to lose, and it is tried.
    """
    left = context.seconds_left()
    if left is None or api.latency is None:
        return None
    # (Where others wait, a batch is full at once: its `max_wait` does not count.)
    if left >= api.latency.needed or not slots.has_waiting_calls():
        return None
    return _too_late(executor.node.name, left)


def _too_late(name: str, left: float) -> Unavailable:
    said = (
        f"{name} has more to do than it can: {max(left, 0.0):.3f} s were left when it was this"
        " call's turn"
    )
    return Unavailable(said, node=name, full=True)


# --- Shedding at the entry: calls that most likely end at a full queue below are refused first ---
# What every hop above the full queue did for such a call is wasted, and under overload most calls
# are such. So the entry compares what it was asked with what was taken, as clients do in "Handling
# Overload" (Site Reliability Engineering, ch. 21): it lets through up to `SURPLUS` times as many
# calls as were taken lately, so that it learns at once when there is room again.


E = TypeVar("E", bound=BaseException)
SURPLUS = 2.0  # calls that are let through for each that was taken
# calls that are let through besides: where few come, one refusal says little about the next
SPARE = 10.0
FORGET = 0.7  # what is left of the counts after a second
LEAST = 1.0  # calls counted, below which there is nothing to compare


class AdaptiveThrottle:
    """The counts of one API; nothing is counted before the first call is refused below.

    Args:
        node: the entry.
        api: the API's name.
    """

    __slots__ = ("_asked", "_taken", "active", "api", "node", "reason")

    def __init__(self, node: str, api: str) -> None:
        self.node = node
        self.api = api
        self.active = False
        self.reason = ""
        self._asked = 0.0
        self._taken = 0.0

    def refusal(self) -> Unavailable | None:
        """Count a call, and return the error that it is refused with, if it is.

        Asked while it is `active`.
        """
        surplus = self._asked - SURPLUS * self._taken - SPARE
        self._asked += 1
        if surplus <= 0 or random.random() >= surplus / self._asked:
            return None
        return Unavailable(
            f"{self.node} sheds calls of {self.api}: {self.reason}", node=self.node, full=True
        )

    def taken(self) -> None:
        """Count a call that was answered."""
        self._taken += 1

    def refused(self, error: Unavailable) -> None:
        """Begin to count, since a call came to a full queue below."""
        self.reason = str(error)
        if not self.active:
            self.active = True
            self._asked = 1.0

    def forget(self) -> None:
        """Let the counts fade; called once a second."""
        self._asked *= FORGET
        self._taken *= FORGET
        if self._asked < LEAST:
            self.active = False
            self._asked = 0.0
            self._taken = 0.0


def noted(exc: E, throttle: AdaptiveThrottle | None) -> E:
    """Return the error, after the throttle has learned of it."""
    if throttle is not None and isinstance(exc, Unavailable) and getattr(exc, "full", False):
        throttle.refused(exc)
    return exc
