"""The states of workers and nodes, and which may follow which; nothing else changes them.

Runs in the supervisor.

A worker:

    SPAWNED → IMPORTED → STARTING → (OPENING) → READY → DRAINING → GONE

A worker may be gone at any time. Whether its slot is filled again then is another question: `Claim`
answers it.

A node is STARTING until all its workers were ready once, then READY; FAILED while its workers die
early, again and again; DRAINING and STOPPED at its end.
"""

from __future__ import annotations

import enum

from graphserve.supervise.events import State


class IllegalTransition(AssertionError):
    """Raised for a change of state that is not in the table: a bug of ours."""


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


WORKER_TRANSITIONS: dict[WorkerState, frozenset[WorkerState]] = {
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
}
CLAIM_TRANSITIONS: dict[Claim, frozenset[Claim]] = {
    Claim.HOLDS: frozenset({Claim.STANDBY, Claim.RECYCLING, Claim.RETIRED}),
    Claim.STANDBY: frozenset({Claim.HOLDS, Claim.RETIRED}),
    Claim.RECYCLING: frozenset({Claim.HOLDS, Claim.RETIRED}),
    Claim.RETIRED: frozenset(),
}


class WorkerLife:
    """One worker's state, and its claim on its slot, from its start to its end."""

    def __init__(self) -> None:
        self._state = WorkerState.SPAWNED
        self._claim = Claim.HOLDS

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
        """Enter a state.

        Raises:
            IllegalTransition: it does not follow the present one.
        """
        if state not in WORKER_TRANSITIONS[self._state]:
            raise IllegalTransition(
                f"a worker cannot become {state.value} when it is {self._state.value}"
            )
        self._state = state

    def decide(self, claim: Claim) -> None:
        """Decide what becomes of its slot.

        `RETIRED` is final; to decide the same twice changes nothing.

        Raises:
            IllegalTransition: it does not follow what was decided before.
        """
        if claim is self._claim or self.retired:
            return
        if claim not in CLAIM_TRANSITIONS[self._claim]:
            raise IllegalTransition(
                f"a slot cannot be {claim.value} when it is {self._claim.value}"
            )
        self._claim = claim


class NodePhase(enum.Enum):
    """How a node is; its callers know it too."""

    STARTING = "starting"  # not all of its workers were ready yet
    READY = "ready"  # calls are taken, or wait for the next worker
    FAILED = "failed"  # no worker is ready, and they die early: calls are refused, and do not wait
    DRAINING = "draining"  # it answers what it took, and ends
    STOPPED = "stopped"  # its workers are gone for good

    @property
    def shown(self) -> State:
        """The phase as users and callers see it."""
        return self.value


NODE_TRANSITIONS: dict[NodePhase, frozenset[NodePhase]] = {
    NodePhase.STARTING: frozenset({NodePhase.READY, NodePhase.DRAINING, NodePhase.STOPPED}),
    NodePhase.READY: frozenset({NodePhase.FAILED, NodePhase.DRAINING, NodePhase.STOPPED}),
    NodePhase.FAILED: frozenset({NodePhase.READY, NodePhase.DRAINING, NodePhase.STOPPED}),
    NodePhase.DRAINING: frozenset({NodePhase.STOPPED}),
    NodePhase.STOPPED: frozenset(),
}


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
        if phase is self._phase:
            return
        if phase not in NODE_TRANSITIONS[self._phase]:
            raise IllegalTransition(
                f"a node cannot become {phase.value} when it is {self._phase.value}"
            )
        self._phase = phase
