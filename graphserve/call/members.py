"""Membership: what the supervisor pushed about other nodes and their workers. Runs in workers.

So callers know at once who is ready, who drains and which node is failed; nobody polls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Worker:
    """One ready or draining worker: its process and the path of its own socket."""

    pid: int
    address: str
    state: str


@dataclass(frozen=True)
class Node:
    """The state of one node: `starting`, `ready`, `draining`, `failed` or `stopped`, why, and its workers."""

    name: str
    state: str
    reason: str = ""
    workers: tuple[Worker, ...] = ()

    @property
    def hopeless(self) -> bool:
        """Whether nobody should wait for it."""
        return self.state in ("failed", "stopped")

    @classmethod
    def read(cls, message: dict[str, Any]) -> Node:
        """Read what a `members` message says of one node."""
        workers = tuple(Worker(**worker) for worker in message["workers"])
        return cls(message["name"], message["state"], message.get("reason", ""), workers)


class Members:
    """Every node that this process may speak of, kept up to date by messages."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._watchers: dict[str, list[Callable[[Node], None]]] = {}

    def update(self, node: Node) -> None:
        """Take in the new state of a node, and tell who watches it."""
        self.nodes[node.name] = node
        for watcher in self._watchers.get(node.name, ()):
            watcher(node)

    def watch(self, name: str, watcher: Callable[[Node], None]) -> None:
        """Call `watcher` with the node's state at each change, and now if it is known."""
        self._watchers.setdefault(name, []).append(watcher)
        if name in self.nodes:
            watcher(self.nodes[name])

    def missing(self, names: tuple[str, ...]) -> list[str]:
        """Which of these nodes have no ready worker, in words."""
        words = []
        for name in names:
            node = self.nodes.get(name)
            if node is None or not any(worker.state == "ready" for worker in node.workers):
                state = node.state if node is not None and node.state != "ready" else "starting"
                words.append(f"{name} is {state}" + (f": {node.reason}" if node and node.reason else ""))
        return words
