"""What the queue lane and the pooled lane to a node of the graph share: the pushed state of the
node, and what a caller gets without one.
"""

from __future__ import annotations

import asyncio
import errno

from graphserve.call.membership import KnownNode, Membership
from graphserve.call.memory_sharing import Sharing
from graphserve.call.retry_budget import RetryBudget
from graphserve.errors import Unavailable

GONE = (errno.ECONNREFUSED, errno.ENOENT)  # nobody listens there


class NodeLane:
    """Follows the state of a node for the lanes to it.

    Args:
        membership: what is known about the nodes.
        node: the node's name.
        retry_budget: of calls to the node that may run again.
        sharing: what is known of sharing memory with the node; None if none is shared.
    """

    def __init__(
        self,
        membership: Membership,
        node: str,
        retry_budget: RetryBudget,
        sharing: Sharing | None = None,
    ) -> None:
        self.node = node
        self.retry_budget: RetryBudget | None = retry_budget
        self.loop = asyncio.get_running_loop()
        self.state: KnownNode | None = None  # as it was pushed last
        self._membership = membership
        self._sharing = sharing

    def failed(self, state: KnownNode) -> Unavailable:
        """Make the error for a caller of a node that has failed or stopped."""
        return Unavailable(str(state), node=self.node, retry_after=state.retry_after)

    def full(self) -> Unavailable:
        """Make the error for a caller that finds no room in the queue."""
        return Unavailable(f"the queue of {self.node} is full", node=self.node, full=True)

    def no_socket(self, exc: OSError) -> Unavailable:
        """Make the error for a caller when no connection to the node can be made."""
        return Unavailable(f"no connection to {self.node}: {exc.strerror or exc}", node=self.node)
