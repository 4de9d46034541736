"""The lane of an edge that is optional: it refuses calls as long as the node was never ready. Runs
in workers.

It stands before the lane that all edges to the node share, since those of other edges wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from graphserve.call.exchange import Compose, Exchange, RequestT, TypedLane
from graphserve.call.retry_budget import RetryBudget
from graphserve.errors import Unavailable
from graphserve.graph.plan import ApiPlan

RETRY_AFTER = 1.0  # seconds after which trying again makes sense


class OptionalLane(Generic[RequestT]):
    """Sends calls by another lane, once the node has started.

    Args:
        lane: that lane.
        node: the node's name.
        has_started: whether it has.
    """

    def __init__(
        self, lane: TypedLane[RequestT], node: str, has_started: Callable[[str], bool]
    ) -> None:
        self._lane = lane
        self._node = node
        self._has_started = has_started

    @property
    def retry_budget(self) -> RetryBudget | None:
        """Return the budget of calls that may run again."""
        return self._lane.retry_budget

    def composer(self, api: ApiPlan, *, checked: bool, caller: str) -> Compose[RequestT]:
        """Return a function that makes requests to one API, in the form that the lane sends."""
        return self._lane.composer(api, checked=checked, caller=caller)

    def send(self, exchange: Exchange[RequestT]) -> None:
        """Send it, or fail it at once if the node has not started."""
        if self._has_started(self._node):
            self._lane.send(exchange)
        else:
            exchange.fail(
                Unavailable(
                    f"{self._node} has not started, and calls to a dependency that is optional do"
                    " not wait for that",
                    node=self._node,
                    retry_after=RETRY_AFTER,
                )
            )

    def forget(self, exchange: Exchange[RequestT]) -> None:
        """Drop an exchange that is over."""
        self._lane.forget(exchange)
