"""The quarantine: calls that kill worker after worker are refused for a while,
and their neighbours live.

Runs in the supervisor. What was executed at a death is known by two ways. Who made the call tells
us: it has its bytes. Of calls that came by the public port, the worker itself leaves a note in the
memory that we share (`worker/flight_recorder.py`).

Only a call that was executed alone, at two deaths, is quarantined. Who can kill a worker chooses
when: he could have any other call that is under way then look like the killer, however often it was
there. A call that is answered meanwhile is no suspect any more, so an operator who kills workers
quarantines nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from graphserve.call import call_fingerprint
from graphserve.call.call_fingerprint import is_upload, route
from graphserve.graph.plan import NodePlan
from graphserve.supervise.events import EventKind
from graphserve.system.messages import SuspectCalls
from graphserve.system.worker_pages import UPLOAD, WorkerPage

REMEMBERED = 60.0  # seconds that a death is remembered
REFUSED = 60.0  # seconds that a call is refused
MOST_DEATHS = 8  # of one node that are remembered at most
ROW = 3  # deaths in a row while one API was executed, from which on that is told
MOST_APIS = 16  # of one death that are remembered
MOST_SHOWN = 5  # calls of one death that the log names
MOST_EXECUTING = 256  # calls of one death that are remembered at most
MOST_REFUSED = 256  # calls of one node that are refused at once; the oldest is let go
CLOSE = 0.05  # seconds between deaths that count as one: somebody ended several workers
SETTLING = 0.1  # seconds after a death in which all who held a call have said so
APART = 1.0  # seconds that may lie between a death and the word of who held a call


@dataclass(eq=False)
class Death:
    """A death, and the calls that were executed then."""

    at: float
    calls: set[str]
    executing: int  # how many those were, as the workers counted; a few too many, maybe
    workers: int = 1  # that died then
    alone: bool = True  # whether no second one is known
    heard: bool = False  # whether any call is known, or was
    judged: bool = False  # who held a call has said so by now, if the machine is not slow
    # of the APIs that were executed, whichever calls those were
    routes: set[str] = field(default_factory=set)

    def add(self, calls: Iterable[str]) -> None:
        """Add calls that were executed."""
        for call in calls:
            self.heard = True
            self.alone = self.alone and (not self.calls or call in self.calls)
            if len(self.routes) < MOST_APIS:
                self.routes.add(route(call))
            if len(self.calls) < MOST_EXECUTING:
                self.calls.add(call)

    def clear(self, call: str) -> None:
        """Clear a call of suspicion; others that were executed with it do not become suspects."""
        if call in self.calls:
            self.calls.discard(call)
            self.alone = False

    @property
    def killer(self) -> str | None:
        """Return the call that was executed alone, if one was and it was not answered since."""
        if not self.alone or self.executing > self.workers:
            return None
        return next((call for call in self.calls if not is_upload(call)), None)


def noted_calls(page: WorkerPage, routes: Sequence[str]) -> set[str]:
    """Return the calls that a worker executes, or executed when it died, for clients.

    Args:
        page: of that worker.
        routes: of its APIs.
    """
    return {
        call_fingerprint.upload(routes[api])
        if length == UPLOAD
        else call_fingerprint.name(routes[api], length, checked)
        for api, length, checked in page.notes()
        if api < len(routes)
    }


class QuarantinedNode(Protocol):
    """What is asked of the node whose calls these are."""

    plan: NodePlan

    @property
    def stopping(self) -> bool:
        """Return whether it ends."""

    def say(
        self,
        kind: EventKind,
        level: str,
        message: str,
        *,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        """Have something that happened shown at the terminal, and kept."""


class Quarantine:
    """Finds the calls of one node that kill its workers.

    Args:
        node: the node.
        on_change: called when callers are to be told.
        clock: seconds of CLOCK_MONOTONIC.
        later: calls something after so many seconds; default: the running loop's.
    """

    def __init__(
        self,
        node: QuarantinedNode,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        later: Callable[..., asyncio.TimerHandle] | None = None,
    ) -> None:
        self._node = node
        self._on_change = on_change
        self._clock = clock
        self._later = later or asyncio.get_running_loop().call_later
        self._deaths: deque[Death] = deque(maxlen=MOST_DEATHS)
        # said before we saw the death
        self._early: deque[tuple[float, str]] = deque(maxlen=MOST_EXECUTING)
        self._refused: dict[str, float] = {}  # until when, by call
        self._said = False  # whether callers know of anything
        self._row_said = ""  # what was said last of deaths in a row
        self._timer: asyncio.TimerHandle | None = None

    def died(self, calls: set[str], executing: int = 1) -> None:
        """Note that a worker that was ready has died.

        Args:
            calls: those that it executed for clients.
            executing: how many it executed in all.
        """
        now = self._clock()
        early = {call for at, call in self._early if now - at <= APART}
        self._early.clear()
        if self._deaths and now - self._deaths[-1].at < CLOSE:
            self._deaths[-1].add(calls | early)
            self._deaths[-1].workers += 1
            self._deaths[-1].executing += executing
            return
        death = Death(now, set(), executing)
        death.add(calls | early)
        self._deaths.append(death)
        self._later(SETTLING, self._judge, death)

    def held(self, call: str, kills: int) -> None:
        """Note that a caller has lost a call to a worker that executed it.

        Args:
            call: the call.
            kills: the workers that this very call was lost to by now.
        """
        now = self._clock()
        if kills > 1:  # it ran again, and no other call is meant
            self._later(SETTLING, self._convict, call)
        last = self._deaths[-1] if self._deaths and now - self._deaths[-1].at <= APART else None
        # it may come before the death that it is about
        if last is None or (last.judged and last.heard):
            self._early.append((now, call))
            return
        if last.judged:
            self._later(SETTLING, self._judge, last)
        last.add([call])

    def answered(self, call: str) -> None:
        """Note that a suspect was answered: it is none any more."""
        for death in self._deaths:
            death.clear(call)
        self._tell()

    def message(self) -> SuspectCalls | None:
        """Return what callers and workers are to know;
        None if there is nothing, and was nothing.
        """
        now = self._clock()
        while self._deaths and now - self._deaths[0].at > REMEMBERED:
            self._deaths.popleft()
        self._refused = {call: until for call, until in self._refused.items() if until > now}
        suspects = sorted(
            {call for death in self._deaths if (call := death.killer) is not None}
            - self._refused.keys()
        )
        known = self._said
        self._said = bool(suspects or self._refused)
        if not (known or self._said):
            return None
        return SuspectCalls(self._node.plan.name, tuple(suspects), dict(self._refused))

    def row(self) -> str:
        """Return which APIs were executed at each of the latest deaths, in words; empty if those
        were not several in a row.

        No single call need be known for it: it is one line of help for who looks for what ends the
        workers.
        """
        count, common = 0, set[str]()
        after = self._clock()
        for death in reversed(self._deaths):
            both = common & death.routes if count else set(death.routes)
            if not both or after - death.at > REMEMBERED:
                break
            count += death.workers
            common = both
            after = death.at
        if count < ROW:
            return ""
        plan = self._node.plan
        apis = {api.route: api.name for api in plan.apis}
        names = " and ".join(sorted(f"{plan.name}.{apis.get(each, each)}" for each in common))
        return f"the last {count} workers of {plan.name} that died executed {names}"

    def _say_row(self) -> None:
        row = self.row()
        if row and row != self._row_said:
            words = f"{row}: see what its calls have in common"
            self._node.say(EventKind.DEATHS_IN_A_ROW, "warning", words)
        self._row_said = row

    def end(self) -> None:
        """Tell nobody any more: the node has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _judge(self, death: Death) -> None:
        """Refuse the call that was executed alone at this death and at one before it: it kills."""
        death.judged = True
        self._say_row()
        killer = death.killer
        if killer is None:
            self._say_who(death)
        elif any(
            before is not death
            and before.killer == killer
            and 0 <= death.at - before.at <= REMEMBERED
            for before in self._deaths
        ):
            self._refuse(killer)
        self._tell()

    def _say_who(self, death: Death) -> None:
        """Say which calls were executed, since one of them may have ended the worker,
        and nobody knows which.
        """
        # an upload: it cannot be refused
        if not death.calls or (death.alone and death.executing <= death.workers):
            return
        names = sorted(death.calls)
        shown = ", ".join(names[:MOST_SHOWN])
        more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
        count = max(len(names), death.executing)
        words = (
            f"{count} calls of {self._node.plan.name} were under way when their worker died: none"
            f" of them is quarantined. Known are {shown}{more}"
        )
        fields = {"calls": names[:MOST_SHOWN]}
        self._node.say(EventKind.CALLS_AT_DEATH, "warning", words, fields=fields)

    def _convict(self, call: str) -> None:
        recent = [
            death
            for death in self._deaths
            if self._clock() - death.at <= REMEMBERED and call == death.killer
        ]
        if sum(death.workers for death in recent) > 1 and call not in self._refused:
            self._refuse(call)
            self._tell()

    def _refuse(self, call: str) -> None:
        for death in self._deaths:
            if death.killer == call:
                death.routes.clear()  # what ended these workers is known
            death.clear(call)
        if len(self._refused) >= MOST_REFUSED:
            del self._refused[next(iter(self._refused))]
        self._refused[call] = self._clock() + REFUSED
        name = self._node.plan.name
        words = (
            f"a call of {name} has killed two of its workers in a row ({call}): it is refused for"
            f" {REFUSED:g} s"
        )
        fields = {"call": call, "seconds": REFUSED}
        self._node.say(EventKind.CALL_QUARANTINED, "error", words, fields=fields)

    def _tell(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._on_change()
        if self._said and not self._node.stopping:
            self._timer = self._later(REMEMBERED, self._tell)  # some of it is over by then
