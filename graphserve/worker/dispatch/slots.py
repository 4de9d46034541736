"""The gate of the queue lane: a worker accepts from its node's shared sockets only while it has a free slot.

The kernel's accept queue is then one queue for all callers and all workers of the node. Runs in workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from graphserve.call.context import CallContext
from graphserve.errors import CallError, DeadlineExceeded, Unavailable
from graphserve.loop.poller import poller
from graphserve.worker.batch.batcher import LEASE_PAUSE, Batcher
from graphserve.worker.dispatch.executor import Executor

Attach = Callable[[socket.socket], None]
EMPTY_STEP = 0.1  # seconds between two looks at whether calls still wait in a socket that has lost its name
NO_DESCRIPTORS_PAUSE = 0.05  # seconds that a worker without free descriptors leaves the queue to others


@dataclass(eq=False)
class GatedListener:
    """One shared socket.

    Args:
        sock: where callers connect.
        attach: takes a connection, whose place `admit` has kept.
        admit: keeps a place for a connection: a slot, or room in a batch; False if there is none.
        room: connections that may come although no slot is free.
        may: whether it is this worker's turn to accept; it is asked again soon.
        settle: follows `may`, when what could be accepted was.
    """

    sock: socket.socket
    attach: Attach
    admit: Callable[[], bool]
    room: Callable[[], int] = lambda: 0
    may: Callable[[], bool] = lambda: True
    settle: Callable[[], None] = lambda: None
    reading: bool = False
    held: bool = False  # a sibling has the turn
    accept: Callable[[], None] = lambda: None  # set by the gate


class Slots:
    """The slots of one worker.

    Args:
        limit: slots.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.doors = list[GatedListener]()
        self.in_use = 0
        self.loop = asyncio.get_running_loop()
        self._readers = poller(self.loop)
        self._open = False
        self._waiting: deque[Callable[[], None]] = deque()

    def open(self, doors: list[GatedListener]) -> None:
        """Begin to accept."""
        for door in doors:
            door.accept = partial(self._accept, door)
        self.doors = doors
        self._open = True
        self.update()

    def close(self) -> None:
        """Accept no more; what waits in the shared sockets is left to the other workers."""
        self._open = False
        self.update()
        for door in self.doors:
            door.sock.close()
        self.doors = []

    def succeed(self, before: socket.socket, door: GatedListener) -> None:
        """Accept at a door in place of one whose socket has lost its name; what waits there still is served."""
        if not self._open:
            door.sock.close()
            return
        door.accept = partial(self._accept, door)
        self.doors.append(door)
        self.update()
        self._leave_empty(before)

    def _leave_empty(self, sock: socket.socket) -> None:
        old = next((door for door in self.doors if door.sock is sock), None)
        if old is None:
            return  # closed meanwhile
        if _holds(sock, select.POLLIN):
            self.loop.call_later(EMPTY_STEP, self._leave_empty, sock)
            return
        if old.reading:
            self._readers.remove_reader(sock)
        self.doors.remove(old)
        sock.close()

    def take(self) -> bool:
        """Take a slot if one is free."""
        if self.in_use >= self.limit:
            return False
        self.in_use += 1
        if self.in_use == self.limit:
            self.update()
        return True

    def take_after_queue(self) -> bool:
        """Take a slot for a call that came another way: if one is left when who waits in the queue has been served."""
        if self.in_use < self.limit:
            for door in self.doors:
                if door.reading:
                    self._accept(door)
        return self.take()

    def release(self) -> None:
        """Give a slot back."""
        if self._waiting:
            self._waiting.popleft()()  # it has the slot now
            return
        self.in_use -= 1
        if self.in_use == self.limit - 1:
            self.update()

    def has_waiting_calls(self) -> bool:
        """Whether another call waits in a shared socket of ours."""
        poll = select.poll()
        for door in self.doors:
            poll.register(door.sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def when_free(self, then: Callable[[], None]) -> None:
        """Call `then` with a slot taken for it, as soon as one is free."""
        if self.take():
            then()
        else:
            self._waiting.append(then)

    @property
    def waiting(self) -> int:
        """How many wait for `when_free`."""
        return len(self._waiting)

    def leave(self, then: Callable[[], None]) -> None:
        """Call it no more."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(then)

    def update(self) -> None:
        """Begin or cease to accept at each door, as there is room."""
        free = self._open and self.in_use < self.limit
        for door in self.doors:
            wanted = (free or (self._open and door.room() > 0)) and not door.held
            if wanted and not door.reading:
                self._readers.add_reader(door.sock, door.accept)
            elif door.reading and not wanted:
                self._readers.remove_reader(door.sock)
            door.reading = wanted

    def _accept(self, door: GatedListener) -> None:
        # One connection a turn, or a worker with many slots would leave none for its siblings; what joins a batch
        # that is open already comes all at once.
        if not door.may():
            door.held = True
            self.update()
            self.loop.call_later(LEASE_PAUSE, self._ask_again, door)
            return
        while self._accept_one(door) and door.room() > 0:
            pass
        door.settle()

    def _ask_again(self, door: GatedListener) -> None:
        door.held = False
        self.update()

    def _accept_one(self, door: GatedListener) -> bool:
        try:
            connection, _ = door.sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another worker took it
            return False
        except OSError:  # no descriptors
            self._pause()
            return False
        if not door.admit():
            connection.close()  # reset before it is read: the caller sends it again
            return False
        connection.setblocking(False)
        door.attach(connection)
        return True

    def _pause(self) -> None:
        for door in self.doors:
            if door.reading:
                self._readers.remove_reader(door.sock)
                door.reading = False
        self.loop.call_later(NO_DESCRIPTORS_PAUSE, self.update)


def has_hung_up(connection: Any) -> bool:
    """Whether the caller has closed its end already: it gave up while it waited (poll(2), POLLRDHUP)."""
    return _holds(connection, select.POLLRDHUP)


def has_sent(connection: Any) -> bool:
    """Whether there is something that we have not read: a request that came while we did something else, or the end."""
    return _holds(connection, select.POLLIN)


def _holds(connection: Any, event: int) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), event)
    return bool(poll.poll(0))


def drain_backlog(listener: socket.socket, attach: Attach) -> None:
    """Accept all that waits at a listener, then close it: connections left in its queue would be reset."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            attach(connection)
    listener.close()


# --- What a connection holds at the gate until its call begins: a slot, or a place in a batch ---


class Permit:
    """The permit of one connection; one that came by another socket than a shared one holds nothing.

    Args:
        slots: of the worker.
        slot: whether a slot was taken for it.
        batcher: the batch API whose shared socket it came by; a place in the batch is kept for it.
    """

    __slots__ = ("batcher", "slot", "slots")

    def __init__(self, slots: Slots, slot: bool = False, batcher: Batcher | None = None) -> None:
        self.slots = slots
        self.slot = slot
        self.batcher = batcher

    @property
    def held(self) -> bool:
        """Whether the connection came by a shared socket and its call has not begun."""
        return self.slot or self.batcher is not None

    def take_slot(self) -> bool:
        """The connection's slot for its call, or a free one that nobody waits for."""
        if self.slot:
            self.slot = False
            return True
        return self.slots.take_after_queue()

    def take_place(self) -> bool:
        """The connection's place in a batch; False if it did not come by the batch API's shared socket."""
        had = self.batcher is not None
        self.batcher = None
        return had

    def give_back(self) -> None:
        """The connection ends, or has no call: what it still holds is free again."""
        if self.slot:
            self.slot = False
            self.slots.release()
        if self.batcher is not None:
            self.batcher.release_place()
            self.batcher = None


# --- An upload that waits for a slot: its body is coming to this worker, so no sibling can take it ---


class WaitingUpload:
    """A place in the line for a slot, until there is a slot, the deadline passes, or the client leaves.

    Args:
        executor: of the worker.
        slots: what it waits for; as many do as the node's `queue` allows.
        context: what travels with the call.
        on_slot: called with a slot taken for it.
        on_end: called if it ends without one.
    """

    def __init__(
        self, executor: Executor, slots: Slots, context: CallContext, on_slot: Callable[[], None],
        on_end: Callable[[CallError], None],
    ) -> None:  # fmt: skip
        self._slots = slots
        self._on_slot = on_slot
        self._on_end = on_end
        self._name = executor.node.name
        self._timer: asyncio.TimerHandle | None = None
        if slots.waiting >= executor.node.options.queue:
            on_end(Unavailable(f"the queue of {self._name} is full", node=self._name, full=True))
            return
        left = context.seconds_left()
        if left is not None:
            self._timer = executor.loop.call_later(max(0.0, left + executor.guard), self._late)
        slots.when_free(self._begin)

    def cancel(self) -> None:
        """The client went away, or the deadline passed."""
        self._slots.leave(self._begin)
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._on_slot()

    def _late(self) -> None:
        self.cancel()
        self._on_end(DeadlineExceeded(f"{self._name} did not answer before the deadline", node=self._name))
