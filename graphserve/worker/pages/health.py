"""Says whether a worker lives and is ready. Runs in workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal


class Health:
    """Says whether this worker is ready, from state that is already here; nothing is asked, so
    nothing hangs.

    Args:
        node: this node's name.
        missing: returns what is missing below, in words.
        outdated: returns why that may not be true any more, in words.
    """

    def __init__(
        self, node: str, missing: Callable[[], list[str]], outdated: Callable[[], list[str]] = list
    ) -> None:
        self.node = node
        self._missing = missing
        self._outdated = outdated
        self._state: Literal["starting", "ready", "draining"] = "starting"

    def rename(self, node: str) -> None:
        """Name the node so from now on: what it was called was known before its class was."""
        self.node = node

    def begin(self) -> None:
        """Say from now on that this worker is ready, if what it needs is."""
        self._state = "ready"

    def drain(self) -> None:
        """Say from now on that this worker drains."""
        self._state = "draining"

    def live(self) -> tuple[int, dict[str, object]]:
        """Answer `GET /livez`."""
        return 200, {"status": "ok", "service": self.node}

    def ready(self) -> tuple[int, dict[str, object]]:
        """Answer `GET /readyz`."""
        missing = [*self._outdated(), *self._missing()]
        if self._state != "ready":
            missing.insert(0, f"{self.node} is {self._state}")
        if not missing:
            return 200, {"status": "ready", "service": self.node}
        return 503, {"status": "not ready", "service": self.node, "missing": missing}
