"""Requests to a worker that is free, and to one whose only slot is taken: it passes them on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.harness import Served, eventually

Post = Callable[..., httpx.Response]


def to_one_worker(stack: ExitStack, graph: Served) -> list[httpx.Client]:
    """Two connections to one worker of the entry."""
    by_pid: dict[int, list[httpx.Client]] = {}
    for _ in range(64):
        client = stack.enter_context(graph.client())
        mine = by_pid.setdefault(client.post("/pid", json={}).json(), [])
        mine.append(client)
        if len(mine) == 2:
            return mine
    raise AssertionError("each of 64 connections went to a worker of its own")


@contextmanager
def free_or_relayed(how: str, graph: Served, folder: Path) -> Iterator[Post]:
    """Yield what sends a request to a worker that is free ("at once"), or to one that passes it on
    to its sibling ("relayed"). The entry has `/pid`, and `/hold`, which takes a slot.
    """
    gate = folder / "open"
    with ExitStack() as stack:
        first, second = to_one_worker(stack, graph)
        if how == "relayed":
            mine = second.post("/pid", json={}).json()
            busy = threading.Thread(target=lambda: first.post("/hold", json={"gate": str(gate)}))
            busy.start()
            stack.callback(busy.join)
            stack.callback(gate.touch)
            eventually(Path(f"{gate}.held").exists)  # before anything else may take that slot
            assert second.post("/pid", json={}).json() != mine
        yield second.post
