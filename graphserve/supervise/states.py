"""The states of workers, nodes, rollouts and the graph, and which may follow which; nothing else
changes them.

Runs in the supervisor.

A worker:

    SPAWNED → IMPORTED → STARTING → (OPENING) → READY → DRAINING → GONE

A worker may be gone at any time. Whether its slot is filled again then is another question: `Claim`
answers it.

A node is STARTING until all its workers were ready once, then READY; FAILED while its workers die
early, again and again; DRAINING and STOPPED at its end.

A rollout replaces the workers of a node one by one, here with the old one first:

    IDLE → (MAKING_ROOM) → STARTING → LEAVING → (MAKING_ROOM) → STARTING → LEAVING → IDLE

A graph is STARTING until every node that it requires was ready once, then SERVING, and STOPPING at
its end.

A change that is not in a table is a bug of ours. It raises; the event loop or the operation logs it
as that, and the graph goes on as it was.
"""

from __future__ import annotations

import asyncio
import enum

from graphserve.system.messages import NodeNewsState, WorkerNewsState
from graphserve.system.transitions import Transitions


class WorkerState(enum.Enum):
    """How far a worker has come."""

    SPAWNED = "spawned"  # it imports its modules
    IMPORTED = "imported"  # it waits until what it needs is ready
    STARTING = "starting"  # it was told to initialise
    # it is initialised, and was told to serve the public port: it may have accepted something
    OPENING = "opening"
    READY = "ready"  # it takes calls
    DRAINING = "draining"  # it answers what it took, and takes no more
    GONE = "gone"  # it has ended

    @property
    def shown(self) -> str:
        """The state as users see it: only we tell `OPENING` from `STARTING`."""
        return "starting" if self is WorkerState.OPENING else self.value

    @property
    def news(self) -> WorkerNewsState | None:
        """The state as callers hear of it; None while they need not know the worker."""
        if self is WorkerState.READY:
            return "ready"
        return "draining" if self is WorkerState.DRAINING else None

    @property
    def accepts(self) -> bool:
        """Whether it may have accepted something by now: it is asked to end, and not killed."""
        return self in (WorkerState.OPENING, WorkerState.READY)

    @property
    def listens(self) -> bool:
        """Whether it is told what becomes of others."""
        return self in (
            WorkerState.STARTING,
            WorkerState.OPENING,
            WorkerState.READY,
            WorkerState.DRAINING,
        )


class Claim(enum.Enum):
    """What becomes of a worker's slot when it ends."""

    HOLDS = "holds"  # the restart policy fills the slot again
    # a rollout waits for this worker to be ready, and decides what becomes of it if it is not
    STANDBY = "standby"
    RECYCLING = "recycling"  # as HOLDS, and a rollout is about to replace the worker
    # nobody fills the slot for this one: another worker has it, or nobody shall
    RETIRED = "retired"


WORKER_TRANSITIONS = Transitions(
    "a worker cannot become",
    {
        WorkerState.SPAWNED: frozenset({WorkerState.IMPORTED, WorkerState.GONE}),
        WorkerState.IMPORTED: frozenset({WorkerState.STARTING, WorkerState.GONE}),
        # It drains from here on SIGTERM that somebody sends it by hand.
        WorkerState.STARTING: frozenset(
            {WorkerState.OPENING, WorkerState.READY, WorkerState.DRAINING, WorkerState.GONE}
        ),
        WorkerState.OPENING: frozenset({WorkerState.READY, WorkerState.DRAINING, WorkerState.GONE}),
        WorkerState.READY: frozenset({WorkerState.DRAINING, WorkerState.GONE}),
        WorkerState.DRAINING: frozenset({WorkerState.GONE}),
        WorkerState.GONE: frozenset(),
    },
)
CLAIM_TRANSITIONS = Transitions(
    "a slot cannot be",
    {
        Claim.HOLDS: frozenset({Claim.STANDBY, Claim.RECYCLING, Claim.RETIRED}),
        Claim.STANDBY: frozenset({Claim.HOLDS, Claim.RETIRED}),
        Claim.RECYCLING: frozenset({Claim.HOLDS, Claim.RETIRED}),
        Claim.RETIRED: frozenset(),
    },
)


class WorkerLife:
    """One worker's state, and its claim on its slot, from its start to its end."""

    def __init__(self) -> None:
        self._state = WorkerState.SPAWNED
        self._claim = Claim.HOLDS
        self.was_ready = asyncio.Event()
        self.gone = asyncio.Event()

    @property
    def state(self) -> WorkerState:
        """How far it has come."""
        return self._state

    @property
    def claim(self) -> Claim:
        """What becomes of its slot when it ends."""
        return self._claim

    @property
    def retired(self) -> bool:
        """Whether nobody fills its slot for it."""
        return self._claim is Claim.RETIRED

    @property
    def respawns(self) -> bool:
        """Whether the restart policy fills its slot when it ends."""
        return self._claim in (Claim.HOLDS, Claim.RECYCLING)

    def enter(self, state: WorkerState) -> None:
        """Enter a state; nothing if it is in that one.

        Raises:
            IllegalTransition: it does not follow the present one.
        """
        self._state = WORKER_TRANSITIONS.follow(self._state, state)
        if state is WorkerState.READY:
            self.was_ready.set()
        elif state is WorkerState.GONE:
            self.gone.set()

    def decide(self, claim: Claim) -> None:
        """Decide what becomes of its slot.

        `RETIRED` is final; to decide the same twice changes nothing.

        Raises:
            IllegalTransition: it does not follow what was decided before.
        """
        self._claim = CLAIM_TRANSITIONS.follow(self._claim, claim)

    def hold(self) -> None:
        """Have the restart policy fill its slot when it ends; nothing once it is retired."""
        if not self.retired:
            self.decide(Claim.HOLDS)


class NodePhase(enum.Enum):
    """How a node is; its callers know it too."""

    STARTING = "starting"  # not all of its workers were ready yet
    READY = "ready"  # calls are taken, or wait for the next worker
    FAILED = "failed"  # no worker is ready, and they die early: calls are refused, and do not wait
    DRAINING = "draining"  # it answers what it took, and ends
    STOPPED = "stopped"  # its workers are gone for good

    @property
    def shown(self) -> NodeNewsState:
        """The phase as users and callers see it."""
        return self.value


NODE_TRANSITIONS = Transitions(
    "a node cannot become",
    {
        # It fails from here if the graph starts without it.
        NodePhase.STARTING: frozenset(
            {NodePhase.READY, NodePhase.FAILED, NodePhase.DRAINING, NodePhase.STOPPED}
        ),
        NodePhase.READY: frozenset({NodePhase.FAILED, NodePhase.DRAINING, NodePhase.STOPPED}),
        NodePhase.FAILED: frozenset({NodePhase.READY, NodePhase.DRAINING, NodePhase.STOPPED}),
        NodePhase.DRAINING: frozenset({NodePhase.STOPPED}),
        NodePhase.STOPPED: frozenset(),
    },
)


class NodeLife:
    """One node's phase, from its start to its end."""

    def __init__(self) -> None:
        self._phase = NodePhase.STARTING

    @property
    def phase(self) -> NodePhase:
        """How it is."""
        return self._phase

    def enter(self, phase: NodePhase) -> None:
        """Enter a phase; nothing if it is in that one.

        Raises:
            IllegalTransition: it does not follow the present one.
        """
        self._phase = NODE_TRANSITIONS.follow(self._phase, phase)


class RolloutState(enum.Enum):
    """What a rollout does at the moment."""

    IDLE = "idle"  # no worker is replaced, added or taken away
    MAKING_ROOM = "making room"  # the old worker drains before the new one starts
    STARTING = "starting"  # new workers start; old ones that are left serve on
    LEAVING = "leaving"  # the new workers serve; those that they replace, or too many, drain


ROLLOUT_TRANSITIONS = Transitions(
    "a rollout cannot be",
    {
        RolloutState.IDLE: frozenset({RolloutState.MAKING_ROOM, RolloutState.STARTING}),
        RolloutState.MAKING_ROOM: frozenset({RolloutState.STARTING, RolloutState.IDLE}),
        RolloutState.STARTING: frozenset({RolloutState.LEAVING, RolloutState.IDLE}),
        RolloutState.LEAVING: frozenset(
            {RolloutState.MAKING_ROOM, RolloutState.STARTING, RolloutState.IDLE}
        ),
    },
)


class RecyclingState(enum.Enum):
    """What becomes of workers that have had their time (`max_requests`, `max_memory`)."""

    IDLE = "idle"  # none has
    REPLACING = "replacing"  # one is replaced, or waits for a change that is under way; others wait
    DRAINING = "draining"  # one has its successor and drains: other changes need not wait for it
    PAUSED = "paused"  # a successor did not start: none is replaced for a while


RECYCLING_TRANSITIONS = Transitions(
    "recycling cannot be",
    {
        RecyclingState.IDLE: frozenset({RecyclingState.REPLACING}),
        RecyclingState.REPLACING: frozenset(
            {RecyclingState.DRAINING, RecyclingState.PAUSED, RecyclingState.IDLE}
        ),
        RecyclingState.DRAINING: frozenset({RecyclingState.REPLACING, RecyclingState.IDLE}),
        RecyclingState.PAUSED: frozenset({RecyclingState.IDLE}),
    },
)


class RolloutLife:
    """What the rollout of one node does, and its recycling."""

    def __init__(self) -> None:
        self._state = RolloutState.IDLE
        self._recycling = RecyclingState.IDLE

    @property
    def state(self) -> RolloutState:
        """What it does."""
        return self._state

    @property
    def recycling(self) -> RecyclingState:
        """What becomes of workers that have had their time."""
        return self._recycling

    def enter(self, state: RolloutState) -> None:
        """Enter a state; nothing if it is in that one.

        Raises:
            IllegalTransition: it does not follow the present one.
        """
        self._state = ROLLOUT_TRANSITIONS.follow(self._state, state)

    def enter_recycling(self, state: RecyclingState) -> None:
        """Enter a state of recycling; nothing if it is in that one.

        Raises:
            IllegalTransition: it does not follow the present one.
        """
        self._recycling = RECYCLING_TRANSITIONS.follow(self._recycling, state)


class GraphPhase(enum.Enum):
    """How far the graph as a whole has come."""

    STARTING = "starting"  # not every node that it requires was ready yet
    SERVING = "serving"  # operators may change it
    STOPPING = "stopping"  # it answers what it took, and ends; or its start has failed

    @property
    def shown(self) -> str:
        """The phase as operators see it."""
        return self.value


GRAPH_TRANSITIONS = Transitions(
    "a graph cannot be",
    {
        GraphPhase.STARTING: frozenset({GraphPhase.SERVING, GraphPhase.STOPPING}),
        GraphPhase.SERVING: frozenset({GraphPhase.STOPPING}),
        GraphPhase.STOPPING: frozenset(),
    },
)


class GraphLife:
    """The phase of the graph, from its start to its end."""

    def __init__(self) -> None:
        self._phase = GraphPhase.STARTING

    @property
    def phase(self) -> GraphPhase:
        """How far it has come."""
        return self._phase

    def enter(self, phase: GraphPhase) -> None:
        """Enter a phase; nothing if it is in that one.

        Raises:
            IllegalTransition: it does not follow the present one.
        """
        self._phase = GRAPH_TRANSITIONS.follow(self._phase, phase)
