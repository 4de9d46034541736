"""What is known about calls that kill workers:
those that are suspected, and those that are refused.

Runs in workers.

The supervisor decides (see `supervise/quarantine.py`); here its word is followed, and it is told
what it cannot see. Nothing of this costs anything before a worker has died.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from graphserve.call import call_fingerprint
from graphserve.errors import Quarantined
from graphserve.system.messages import SuspectCalls
from graphserve.wire.shared_buffers import Ticket, contents

KILLS = 2  # workers in a row that a call may kill before it is refused


class SuspectCall(Protocol):
    """What is looked at of an `Exchange`."""

    tickets: list[Ticket] | None
    upload: AsyncIterator[bytes] | None
    fingerprint: str | None

    def written(self) -> bytes:
        """Return the bytes of the request."""
        ...


class Suspicions:
    """Knows which calls of one node are suspected, and which are refused.

    Args:
        node: its name.
        suspects: calls that were executed when a worker died.
        refused: calls that are refused, and until when (CLOCK_MONOTONIC, seconds).
        tell: tells the supervisor of a suspect that was answered.
    """

    def __init__(
        self, node: str, suspects: set[str], refused: dict[str, float], tell: Callable[[str], None]
    ) -> None:
        self.node = node
        self.suspects = suspects
        self.refused = refused
        self._tell = tell

    @classmethod
    def read(cls, message: SuspectCalls, tell: Callable[[str, str], None]) -> Suspicions | None:
        """Return what the supervisor suspects; None if there is no suspicion."""
        if not (message.suspects or message.refused):
            return None
        return cls(
            message.node,
            set(message.suspects),
            message.refused,
            lambda call: tell(message.node, call),
        )

    def refusal(self, call: str) -> Quarantined | None:
        """Return why this call is not executed, if it is not."""
        until = self.refused.get(call)
        if until is None or (left := until - time.monotonic()) <= 0:
            return None
        return quarantined(self.node, f"it is refused for {math.ceil(left)} s more")

    def refusal_of(self, request: SuspectCall) -> Quarantined | None:
        """Return the same of the call that one of our own requests is about to make.

        Its fingerprint is kept: once the call is answered, the memory that it refers to is used for
        something else.
        """
        request.fingerprint = known(request)
        return self.refusal(request.fingerprint)

    def answered(self, call: str) -> None:
        """Suspect this call no more: it was answered, and so kills nobody."""
        if call in self.suspects:
            self.suspects.discard(call)
            self._tell(call)

    def answered_of(self, request: SuspectCall) -> None:
        """Suspect the call no more that one of our own requests makes."""
        if not self.suspects:
            return
        if request.fingerprint is not None:
            self.answered(request.fingerprint)
            return
        if request.tickets and contents(request.written(), request.tickets) is None:
            # It was sent before there was a suspicion: it may be any of that API and length.
            alike = known(request).rpartition(".")[0]
            for call in [call for call in self.suspects if call.rpartition(".")[0] == alike]:
                self.answered(call)
            return
        self.answered(known(request))


def known(request: SuspectCall) -> str:
    """Return the fingerprint of the call that one of our own requests makes: what it refers to
    counts, not the references.

    A call whose memory is used for something else by now is like no other.
    """
    data = request.written()
    if request.tickets:
        data = contents(data, request.tickets) or data
    return call_fingerprint.of_request(data, streamed=request.upload is not None)


def quarantined(node: str, what: str) -> Quarantined:
    """Return the error for the caller of a call that kills workers."""
    words = (
        f"workers of {node} died {KILLS} times in a row while they executed this very call; {what}"
    )
    return Quarantined(words, node=node)
