"""The lanes of one process, each made once.

Runs in workers and fallback servers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from graphserve.call.exchange import ANY_RUNS, Lane, RequestT, TypedLane
from graphserve.call.lanes.pooled import PooledLane
from graphserve.call.lanes.queue import QueueLane
from graphserve.call.membership import Membership
from graphserve.call.memory_sharing import Sharing
from graphserve.call.retry_budget import RetryBudget
from graphserve.graph.plan import URL_LEVELS, ApiPlan, EdgePlan, NodePlan, Plan
from graphserve.loop.loop_thread import LoopThread
from graphserve.metrics.recorder import CallSeries
from graphserve.system.rundir.paths import batch_sockets, queue_socket
from graphserve.wire.shared_buffers import SharedMemory

if TYPE_CHECKING:
    import httpx

    HttpClient = httpx.AsyncClient | httpx.Client

# seconds that a caller waits past the deadline for each level below it to speak first
HOP_SLACK = 0.006
URL_SLACK = HOP_SLACK * URL_LEVELS


def slack_to(plan: Plan, node: str) -> float:
    """Return the seconds that a caller of a node waits past the deadline."""
    return HOP_SLACK * (plan.depth(node) + 1)


SeriesOf = Callable[[bytes], CallSeries | None]  # what counts a request, by its path


class Lanes:
    """Makes the lanes of a process, each once, and shares them among all edges to its node.

    Args:
        plan: the graph.
        run: the run folder.
        membership: what is known about the nodes.
        memory: of this process; None sends everything by the socket.
    """

    def __init__(
        self, plan: Plan, run: Path, membership: Membership, memory: SharedMemory | None = None
    ) -> None:
        self.plan = plan
        self.run = run
        self.membership = membership
        self.memory = memory
        self._sharing: dict[str, Sharing] = {}
        self._made: dict[tuple[str, str], QueueLane | PooledLane] = {}
        self._retry_budgets: dict[str, RetryBudget] = {}

    def to(self, node: NodePlan, api: ApiPlan | None) -> QueueLane | PooledLane:
        """Return the lane to an API of a node; the pooled one without an API."""
        sharing = self.sharing(node)  # before its lanes: it hears first who is there
        if api is None or api.lane == "pooled":
            return self._once(node.name, "pooled", lambda: self._pooled(node, sharing))
        batched = batch_sockets(self.run, node.id, node.batched)
        path = batched.get(api.name) or queue_socket(self.run, node.id)

        def made() -> QueueLane:
            retry_budget = self._retry_budget(node)
            timed = self.plan.metrics
            return QueueLane(self.membership, node.name, path, retry_budget, sharing, timed=timed)

        return self._once(node.name, path, made)

    def sharing(self, node: NodePlan) -> Sharing | None:
        """Return what is known of sharing memory with a node; None if none is shared."""
        if self.memory is not None and node.name not in self._sharing:
            self._sharing[node.name] = Sharing(self.memory, self.membership, node.name)
        return self._sharing.get(node.name)

    def http_client(
        self, node: NodePlan, edge: EdgePlan, caller: str, series: SeriesOf
    ) -> HttpClient:
        """Make the httpx client for an edge to a node; `series` counts a request by its path."""
        from graphserve.call import httpx_transport  # brings httpx, which brings click and rich

        def lane_to(api: ApiPlan | None) -> Lane[bytes]:
            lane = self.to(node, api)
            if not edge.optional:
                return lane
            return optional_lane(lane, node, self.membership.has_started)

        limited = {api.route.encode(): lane_to(api) for api in node.apis if api.lane == "queue"}
        core = httpx_transport.NodeTransport(
            LoopThread.here(),
            node.name,
            limited,
            lane_to(None),
            edge.timeout,
            slack_to(self.plan, node.name),
            caller,
            edge.attempts or ANY_RUNS,
            series,
        )
        make = (
            httpx_transport.async_client
            if edge.client == "httpx.AsyncClient"
            else httpx_transport.sync_client
        )
        return make(core)

    def _pooled(self, node: NodePlan, sharing: Sharing | None) -> PooledLane:
        return PooledLane(
            self.membership,
            node.name,
            node.options.queue,
            self.plan.inner_keep_alive,
            self._retry_budget(node),
            sharing,
        )

    def _retry_budget(self, node: NodePlan) -> RetryBudget:
        if node.name not in self._retry_budgets:
            self._retry_budgets[node.name] = retry_budget = RetryBudget(
                partial(self.membership.tell_killed, node.name)
            )
            self.membership.watch_suspicions(node.name, retry_budget.on_suspicions)
        return self._retry_budgets[node.name]

    def _once(
        self, node: str, kind: str, make: Callable[[], QueueLane | PooledLane]
    ) -> QueueLane | PooledLane:
        if (node, kind) not in self._made:
            self._made[node, kind] = make()
        return self._made[node, kind]


def optional_lane(
    lane: TypedLane[RequestT], node: NodePlan, has_started: Callable[[str], bool]
) -> TypedLane[RequestT]:
    """Return a lane that refuses calls until the node has started."""
    from graphserve.call.lanes.optional import OptionalLane  # few graphs need it

    return OptionalLane(lane, node.name, has_started)
