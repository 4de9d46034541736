"""What a connection holds at the gate until its call begins: a slot, or a place in a batch. Runs in workers."""

from __future__ import annotations

from graphserve.worker.batch.batcher import Batcher
from graphserve.worker.dispatch.slots import Gate


class Admission:
    """The admission of one connection; one that came by another socket than a shared one holds nothing.

    Args:
        gate: of the worker.
        slot: whether a slot was taken for it.
        batcher: the batch API whose shared socket it came by; a place in the batch is kept for it.
    """

    __slots__ = ("batcher", "gate", "slot")

    def __init__(self, gate: Gate, slot: bool = False, batcher: Batcher | None = None) -> None:
        self.gate, self.slot, self.batcher = gate, slot, batcher

    @property
    def held(self) -> bool:
        """Whether the connection came by a shared socket and its call has not begun."""
        return self.slot or self.batcher is not None

    def take_slot(self) -> bool:
        """The connection's slot for its call, or a free one that nobody waits for."""
        if self.slot:
            self.slot = False
            return True
        return self.gate.take_behind()

    def take_place(self) -> bool:
        """The connection's place in a batch; False if it did not come by the batch API's shared socket."""
        had, self.batcher = self.batcher is not None, None
        return had

    def give_back(self) -> None:
        """The connection ends, or has no call: what it still holds is free again."""
        if self.slot:
            self.slot = False
            self.gate.release()
        if self.batcher is not None:
            self.batcher.disappoint()
            self.batcher = None
