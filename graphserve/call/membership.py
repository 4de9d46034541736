"""Membership: what the supervisor pushed about other nodes and their workers. Runs in workers.

So callers know at once who is ready, who drains and which node is failed; nobody polls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from graphserve.system.frozen import dataclass
from graphserve.system.messages import NodeNews, NodeNewsState, WorkerNewsState

if TYPE_CHECKING:
    from graphserve.call.suspicions import Suspicions

# seconds without a word of the supervisor after which what it said is not taken for true
SILENT = 10.0
TELL_PAUSE = 0.1  # seconds between two words about the same socket


@dataclass(frozen=True)
class KnownWorker:
    """One ready or draining worker: its process and the path of its own socket."""

    pid: int
    address: str
    state: WorkerNewsState


@dataclass(frozen=True)
class KnownNode:
    """The state of one node, and its workers."""

    name: str
    state: NodeNewsState
    workers: tuple[KnownWorker, ...] = ()
    starts: bool = False  # whether its workers start, and die soon after
    # CLOCK_MONOTONIC, seconds: of a failed node, when its next worker is started
    next_at: float | None = None

    @property
    def hopeless(self) -> bool:
        """Return whether nobody should wait for it."""
        return self.state in ("failed", "stopped")

    @classmethod
    def read(cls, news: NodeNews) -> KnownNode:
        """Return what the supervisor says of one node."""
        workers = tuple(
            KnownWorker(worker.pid, worker.address, worker.state) for worker in news.workers
        )
        return cls(news.name, news.state, workers, news.starts, news.next_at)

    @property
    def retry_after(self) -> float:
        """Return the seconds after which trying again makes sense."""
        return 1.0 if self.next_at is None else max(1.0, self.next_at - time.monotonic())

    def __str__(self) -> str:
        """Return its state in words that the public port passes on: the reason itself may be an
        exception's text.
        """
        if self.state != "failed":
            return f"{self.name} is {self.state}"
        why = "its workers die soon after their start" if self.starts else "it does not start"
        return f"{self.name} is failed: {why}; its log says why"


class Membership:
    """Every node that this process may speak of, kept up to date by messages.

    Args:
        tell_lost: tells the supervisor of a socket where nobody listens, by its path.
        tell_killed: tells it of a call of a node that has lost so many workers which executed it.
        is_unread: says whether there is a message of the supervisor that was not read yet.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        tell_lost: Callable[[str], None] = lambda path: None,
        tell_killed: Callable[[str, str, int], None] = lambda node, call, kills: None,
        is_unread: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tell_killed = tell_killed
        self.nodes: dict[str, KnownNode] = {}
        self.suspicions: dict[str, Suspicions | None] = {}  # by node
        self._suspicion_watchers: dict[str, list[Callable[[Suspicions | None], None]]] = {}
        self._tell_lost = tell_lost
        self._is_unread = is_unread
        self._clock = clock
        self._heard_at = clock()  # when the supervisor said something; it does once a second
        self._told: dict[str, float] = {}  # when, by path
        self._watchers: dict[str, list[Callable[[KnownNode], None]]] = {}

    def heard(self) -> None:
        """Note that the supervisor has said something."""
        self._heard_at = self._clock()

    def update(self, node: KnownNode) -> None:
        """Take in the new state of a node, and tell who watches it."""
        self.nodes[node.name] = node
        for watcher in self._watchers.get(node.name, ()):
            watcher(node)

    def update_suspicions(self, node: str, suspicions: Suspicions | None) -> None:
        """Take in which calls of a node are suspected or refused."""
        self.suspicions[node] = suspicions
        for watcher in self._suspicion_watchers.get(node, ()):
            watcher(suspicions)

    def watch_suspicions(self, node: str, watcher: Callable[[Suspicions | None], None]) -> None:
        """Call `watcher` with that now, and whenever it changes."""
        self._suspicion_watchers.setdefault(node, []).append(watcher)
        watcher(self.suspicions.get(node))

    def lost(self, path: str) -> None:
        """Tell the supervisor that nobody listens at this socket, although its node is not said to
        be gone.
        """
        now = self._clock()
        if now - self._told.get(path, -TELL_PAUSE) >= TELL_PAUSE:
            self._told[path] = now
            self._tell_lost(path)

    def watch(self, name: str, watcher: Callable[[KnownNode], None]) -> None:
        """Call `watcher` with the node's state at each change, and now if it is known."""
        self._watchers.setdefault(name, []).append(watcher)
        if name in self.nodes:
            watcher(self.nodes[name])

    def has_started(self, name: str) -> bool:
        """Return whether a node has had all its workers once, or has one that is ready."""
        node = self.nodes.get(name)
        return node is not None and (
            node.state != "starting" or any(worker.state == "ready" for worker in node.workers)
        )

    def outdated(self) -> list[str]:
        """Return why nothing of this may be true any more, in words; nothing if it is."""
        silence = self._clock() - self._heard_at
        if silence < SILENT or self._is_unread():
            return []
        return [
            f"the supervisor has said nothing for {silence:.0f} s: what is known of the graph is"
            " as old"
        ]

    def missing(self, names: tuple[str, ...]) -> list[str]:
        """Return which of these nodes have no ready worker, in words."""
        words = []
        for name in names:
            node = self.nodes.get(name)
            if node is None or not any(worker.state == "ready" for worker in node.workers):
                words.append(
                    str(node)
                    if node is not None and node.state != "ready"
                    else f"{name} is starting"
                )
        return words
