"""The slots of a worker: how many limited calls it executes at once,
and when it accepts the next one.

A worker accepts from its node's shared sockets (`GatedListener`) only while it has a free slot. The
kernel's accept queue is then one queue for all callers and all workers of the node, and the free
worker takes the oldest call. What a connection was accepted for (a slot, or a place in a batch) is
its `Permit`, until its call begins. A call whose body is already on its way to this worker cannot
be taken by a sibling: it waits for a slot here (`WaitingUpload`).

Runs in workers.
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
from typing import Protocol

from graphserve.call.context import CallContext
from graphserve.errors import CallError, DeadlineExceeded, Unavailable
from graphserve.loop.poller import poller
from graphserve.worker.batch.batcher import LEASE_PAUSE, Batcher
from graphserve.worker.dispatch.executor import Executor

Attach = Callable[[socket.socket], None]
# seconds between two looks at whether calls still wait in a socket that has lost its name
EMPTY_STEP = 0.1
# seconds that a worker without free descriptors leaves the queue to others
NO_DESCRIPTORS_PAUSE = 0.05


class Descriptor(Protocol):
    """What poll(2) looks at: a socket, or the socket of a transport."""

    def fileno(self) -> int:
        """Return the number of its descriptor."""
        ...


@dataclass(frozen=True, eq=False)
class GatedListener:
    """One shared socket, and when a connection of it may be accepted.

    Args:
        sock: where callers connect.
        attach: takes a connection, whose place `admit` has reserved.
        admit: reserves a place for a connection: a slot, or room in a batch; False if there is
            none.
        room: the number of connections that may come although no slot is free.
        take_lease: returns whether this worker may accept now; where it may not, it is asked again
            soon.
        leave_lease_if_idle: follows `take_lease`, when what could be accepted was.
    """

    sock: socket.socket
    attach: Attach
    admit: Callable[[], bool]
    room: Callable[[], int] = lambda: 0
    take_lease: Callable[[], bool] = lambda: True
    leave_lease_if_idle: Callable[[], None] = lambda: None


class _Watch:
    """A listener that a worker accepts from, and whether the loop watches it now."""

    __slots__ = ("accept", "leased_elsewhere", "listener", "reading", "sock")

    def __init__(self, listener: GatedListener, accept: Callable[[_Watch], None]) -> None:
        self.listener = listener
        self.sock = listener.sock
        self.accept = partial(accept, self)
        self.reading = False
        self.leased_elsewhere = False  # a sibling collects the batch


class Slots:
    """The slots of one worker.

    Args:
        limit: the number of slots.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_use = 0
        self.loop = asyncio.get_running_loop()
        self._readers = poller(self.loop)
        self._watches = list[_Watch]()
        self._open = False
        self._waiting: deque[Callable[[], None]] = deque()

    # --- the shared sockets ---

    def open(self, listeners: list[GatedListener]) -> None:
        """Begin to accept."""
        self._watches = [_Watch(listener, self._accept) for listener in listeners]
        self._open = True
        self.update()

    def close(self) -> None:
        """Stop accepting; what waits in the shared sockets is left to the other workers."""
        self._open = False
        self.update()
        for watch in self._watches:
            watch.sock.close()
        self._watches = []

    def replace(self, before: socket.socket, listener: GatedListener) -> None:
        """Accept from a listener in place of one whose socket has lost its name; what still waits
        there is served.
        """
        if not self._open:
            listener.sock.close()
            return
        self._watches.append(_Watch(listener, self._accept))
        self.update()
        self._close_when_empty(before)

    def _close_when_empty(self, sock: socket.socket) -> None:
        old = next((watch for watch in self._watches if watch.sock is sock), None)
        if old is None:
            return  # closed meanwhile
        if _polls(sock, select.POLLIN):
            self.loop.call_later(EMPTY_STEP, self._close_when_empty, sock)
            return
        if old.reading:
            self._readers.remove_reader(sock)
        self._watches.remove(old)
        sock.close()

    def update(self) -> None:
        """Watch each listener for which there is room, and no other."""
        free = self._open and self.in_use < self.limit
        for watch in self._watches:
            wanted = (
                free or (self._open and watch.listener.room() > 0)
            ) and not watch.leased_elsewhere
            if wanted and not watch.reading:
                self._readers.add_reader(watch.sock, watch.accept)
            elif watch.reading and not wanted:
                self._readers.remove_reader(watch.sock)
            watch.reading = wanted

    def _accept(self, watch: _Watch) -> None:
        # One connection a turn, or a worker with many slots would leave none for its siblings; what
        # joins a batch that is open already comes all at once.
        listener = watch.listener
        if not listener.take_lease():
            watch.leased_elsewhere = True
            self.update()
            self.loop.call_later(LEASE_PAUSE, self._ask_again, watch)
            return
        while self._accept_one(listener) and listener.room() > 0:
            pass
        listener.leave_lease_if_idle()

    def _ask_again(self, watch: _Watch) -> None:
        watch.leased_elsewhere = False
        self.update()

    def _accept_one(self, listener: GatedListener) -> bool:
        try:
            connection, _ = listener.sock.accept()
        # another worker took it
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError:  # no descriptors
            self._pause()
            return False
        if not listener.admit():
            connection.close()  # reset before it is read: the caller sends it again
            return False
        connection.setblocking(False)
        listener.attach(connection)
        return True

    def _pause(self) -> None:
        for watch in self._watches:
            if watch.reading:
                self._readers.remove_reader(watch.sock)
                watch.reading = False
        self.loop.call_later(NO_DESCRIPTORS_PAUSE, self.update)

    # --- the slots ---

    def take(self) -> bool:
        """Take a slot if one is free, and return whether one was."""
        if self.in_use >= self.limit:
            return False
        self.in_use += 1
        if self.in_use == self.limit:
            self.update()
        return True

    def take_after_queue(self) -> bool:
        """Take a slot for a call that came another way,
        if one is left when those in the queue have been served.
        """
        if self.in_use < self.limit:
            for watch in self._watches:
                if watch.reading:
                    self._accept(watch)
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
        """Return whether another call waits in a shared socket of ours."""
        poll = select.poll()
        for watch in self._watches:
            poll.register(watch.sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def when_free(self, then: Callable[[], None]) -> None:
        """Call `then` with a slot taken for it, as soon as one is free."""
        if self.take():
            then()
        else:
            self._waiting.append(then)

    def forget(self, then: Callable[[], None]) -> None:
        """Stop waiting for a slot for `then`: it is not called any more."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(then)

    @property
    def waiting(self) -> int:
        """Return how many wait for `when_free`."""
        return len(self._waiting)


def has_hung_up(connection: Descriptor) -> bool:
    """Return whether the caller has closed its end:
    it gave up while it waited (poll(2), POLLRDHUP).
    """
    return _polls(connection, select.POLLRDHUP)


def has_sent(connection: Descriptor) -> bool:
    """Return whether there is something to read: a request that came while we did something else,
    or the end.
    """
    return _polls(connection, select.POLLIN)


def _polls(connection: Descriptor, event: int) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), event)
    return bool(poll.poll(0))


def drain_backlog(listener: socket.socket, attach: Attach) -> None:
    """Accept all that waits at a listener, then close it:
    connections left in its queue would be reset.
    """
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            attach(connection)
    listener.close()


class Permit:
    """What a connection holds until its call begins: a slot, a place in a batch, or nothing.

    A connection that did not come by a shared socket holds nothing.

    Args:
        slots: of the worker.
        slot: whether a slot was taken for it.
        batcher: the batched API whose shared socket it came by; a place in the batch is reserved
            for it.
    """

    __slots__ = ("batcher", "slot", "slots")

    def __init__(self, slots: Slots, slot: bool = False, batcher: Batcher | None = None) -> None:
        self.slots = slots
        self.slot = slot
        self.batcher = batcher

    @property
    def held(self) -> bool:
        """Return whether the connection came by a shared socket and its call has not begun."""
        return self.slot or self.batcher is not None

    def take_slot(self) -> bool:
        """Use the connection's slot for its call, or a free one that nobody waits for; return
        whether there was one.
        """
        if self.slot:
            self.slot = False
            return True
        return self.slots.take_after_queue()

    def take_place(self) -> bool:
        """Use the connection's place in a batch; return False if it did not come by the batched
        API's shared socket.
        """
        had = self.batcher is not None
        self.batcher = None
        return had

    def give_back(self) -> None:
        """Free what it still holds: the connection ends, or has no call."""
        if self.slot:
            self.slot = False
            self.slots.release()
        if self.batcher is not None:
            self.batcher.release_place()
            self.batcher = None


class WaitingUpload:
    """An upload that waits until there is a slot, the deadline passes, or the client leaves.

    Its body is on its way to this worker, so no sibling can take it.

    Args:
        executor: of the worker.
        slots: what it waits for; as many wait as the node's `queue` allows.
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
            self._timer = executor.loop.call_later(max(0.0, left + executor.guard), self._time_out)
        slots.when_free(self._begin)

    def cancel(self) -> None:
        """Stop waiting: the client went away, or the deadline passed."""
        self._slots.forget(self._begin)
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._on_slot()

    def _time_out(self) -> None:
        self.cancel()
        self._on_end(
            DeadlineExceeded(f"{self._name} did not answer before the deadline", node=self._name)
        )
