"""The life of a worker's process: which states there are, and which follows which.

    IMPORTING → WAITING → STARTING → SERVING → DRAINING → DRAINED → ENDED

The process changes its state in one place, `Lifecycle.move_to`, and decides by it what a message or
a signal means: a drain, for example, ends a process at once that does not serve yet. Pure, but for
the event that somebody waits for.
"""

from __future__ import annotations

import asyncio
from enum import Enum

from graphserve.system.transitions import Transitions


class ProcessState(Enum):
    """What a worker's process does."""

    IMPORTING = "importing"  # the user's modules; there is no event loop yet
    WAITING = "waiting"  # until what it needs is ready, and the supervisor says `init`
    STARTING = "starting"  # the instance is made and entered
    SERVING = "serving"
    DRAINING = "draining"  # it takes no new calls, and answers those that it took
    # everything is answered; a sibling may still pass on a call, until the supervisor says `exit`
    DRAINED = "drained"
    ENDED = "ended"


_BEFORE_SERVING = frozenset({ProcessState.IMPORTING, ProcessState.WAITING, ProcessState.STARTING})

PROCESS_TRANSITIONS = Transitions(
    "the process of a worker cannot be",
    {  # it may end at any time
        ProcessState.IMPORTING: frozenset({ProcessState.WAITING, ProcessState.ENDED}),
        ProcessState.WAITING: frozenset({ProcessState.STARTING, ProcessState.ENDED}),
        ProcessState.STARTING: frozenset({ProcessState.SERVING, ProcessState.ENDED}),
        ProcessState.SERVING: frozenset({ProcessState.DRAINING, ProcessState.ENDED}),
        ProcessState.DRAINING: frozenset({ProcessState.DRAINED, ProcessState.ENDED}),
        ProcessState.DRAINED: frozenset({ProcessState.ENDED}),
        ProcessState.ENDED: frozenset(),
    },
)


class Lifecycle:
    """The state of this process.

    Args:
        state: where it begins; a fallback server imports nothing.
    """

    def __init__(self, state: ProcessState = ProcessState.IMPORTING) -> None:
        self._state = state
        self._ended = asyncio.Event()

    @property
    def state(self) -> ProcessState:
        """Return the state."""
        return self._state

    @property
    def serves(self) -> bool:
        """Return whether there is a server, and it is not being left."""
        return self._state not in _BEFORE_SERVING and self._state is not ProcessState.ENDED

    @property
    def before_serving(self) -> bool:
        """Return whether there is nothing yet that would have to drain."""
        return self._state in _BEFORE_SERVING

    def move_to(self, state: ProcessState) -> None:
        """Enter another state; unlike the supervisor, whom others tell, nobody here enters one
        twice.

        Raises:
            IllegalTransition: the state cannot follow the one that it is in.
        """
        self._state = PROCESS_TRANSITIONS.change(self._state, state)
        if state is ProcessState.ENDED:
            self._ended.set()

    def drain(self) -> bool:
        """Begin to drain, and return whether there is something to do.

        A second drain repeats the first one: one that is not the last of the node needs nobody's
        word to end.
        """
        if self._state is ProcessState.SERVING:
            self.move_to(ProcessState.DRAINING)
        return self.serves

    def drained(self, *, waits_for_exit: bool) -> bool:
        """Note that everything is answered, and return whether the supervisor is to hear it: it
        says `exit` then.

        Args:
            waits_for_exit: whether a sibling may still pass on a call.
        """
        if not waits_for_exit:
            self.end()
            return False
        if self._state is ProcessState.DRAINING:
            self.move_to(ProcessState.DRAINED)
        return self.serves

    def end(self) -> None:
        """Go to the end, from any state; a second time changes nothing."""
        if self._state is not ProcessState.ENDED:
            self.move_to(ProcessState.ENDED)

    async def until_ended(self) -> None:
        """Wait until it is to end."""
        await self._ended.wait()
