"""Whether memory is shared with the workers of one node: asked of each of them, in each direction.

Runs in workers.

A process may hide what it has open (prctl(2), PR_SET_DUMPABLE), or not see what others have
(another view of /proc). Then the socket is used.
"""

from __future__ import annotations

from graphserve.call.membership import KnownNode, Membership
from graphserve.logs import records
from graphserve.wire.extensions import inlined
from graphserve.wire.media.kinds import BufferSource
from graphserve.wire.shared_buffers import SharedMemory, readable

LOGGER = "graphserve.calls"


class Sharing:
    """Knows whether memory is shared with one node.

    `can_read_results` says whether this process can read the memory of each of its workers.

    Args:
        memory: of this process.
        membership: what is known about the nodes.
        node: the node's name.
    """

    def __init__(self, memory: SharedMemory, membership: Membership, node: str) -> None:
        self.memory = memory
        self.node = node
        self.can_read_results = False
        self._refused = False
        self._said = False
        membership.watch(node, self._changed)

    def place(self, data: memoryview | BufferSource) -> bytes | None:
        """Place data in shared memory; None:
        it goes by the socket, since a worker cannot read our memory.
        """
        return None if self._refused else self.memory.sender.place(data)

    def inlined(self, body: bytes) -> bytes:
        """Return arguments that a worker could not take, with what they refer to in them; the next
        ones go by the socket too.

        It is asked again when other workers are there.
        """
        self._refused = True
        if not self._said:
            self._said = True
            why = "it cannot read the memory of this process, or has no descriptors left"
            records.note(
                LOGGER, "warning", f"large arguments go to {self.node} by the socket: {why}"
            )
        return inlined(body, self.memory.sender.recall)

    def _changed(self, node: KnownNode) -> None:
        self.can_read_results = bool(node.workers) and all(
            readable(worker.pid) for worker in node.workers
        )
        self._refused = False
