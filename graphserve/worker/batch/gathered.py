"""What a batch gives back: the pieces of each caller's result, over several executions. Runs in workers."""

from __future__ import annotations

from typing import Any

from graphserve.wire import batch_joining
from graphserve.worker.batch.call import BatchedCall


class Gathered:
    """The pieces of the results of calls that were cut over several executions.

    Args:
        calls: whose they are.
    """

    def __init__(self, calls: list[BatchedCall]) -> None:
        self._missing = {call: call.size for call in calls}
        self._pieces: dict[BatchedCall, list[tuple[int, Any]]] = {call: [] for call in calls}

    def add(self, call: BatchedCall, start: int, piece: Any) -> None:
        """Take in one piece; the call is answered when it has all."""
        self._pieces[call].append((start, piece))
        self._missing[call] -= len(piece)
        if self._missing[call] > 0:
            return
        pieces = [value for _, value in sorted(self._pieces[call], key=lambda pair: pair[0])]
        failure = next((item for value in pieces for item in batch_joining.failures(value)), None)
        result = None
        try:
            result = batch_joining.rejoin(pieces) if failure is None else None
        except Exception as exc:  # arrays of executions that do not go together
            failure = exc
        call.end(result, failure)
