"""Finds the WebSocket that a handshake is for, by its path. Pure; runs in entry workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from graphserve.declare.routes import name_in, segments
from graphserve.graph.plan import SocketPlan
from graphserve.worker.http.strict import plain

Parameters = tuple[tuple[str, bytes], ...]  # of a path: the names, and what stands there, escaped


@dataclass(frozen=True, slots=True)
class RoutedSocket:
    """What a handshake is for.

    Args:
        plan: the WebSocket.
        parameters: of the path.
    """

    plan: SocketPlan
    parameters: Parameters


class SocketRoutes:
    """Knows the WebSockets of a node by their paths.

    Args:
        plans: the WebSockets.
        prefix: that a proxy may leave on paths.
    """

    def __init__(self, plans: Iterable[SocketPlan], prefix: str = "") -> None:
        self._prefix = plain(prefix.rstrip("/").encode())
        # of two that fit, the one that is fixed where they differ first is meant
        self._routes = sorted(
            ((segments(plan.path), plan) for plan in plans),
            key=lambda route: [name_in(segment) is not None for segment in route[0]],
        )

    def find(self, url: bytes) -> RoutedSocket | None:
        """Return what a handshake with this target is for, or None."""
        for parts in self._parts(plain(url.partition(b"?")[0])):
            for route, plan in self._routes:
                found = _matched(route, parts)
                if found is not None:
                    return RoutedSocket(plan, found)
        return None

    def _parts(self, path: bytes) -> Iterator[list[bytes]]:
        if path[:1] != b"/":
            return
        yield path.split(b"/")[1:]
        if self._prefix and path.startswith(self._prefix + b"/"):
            yield path[len(self._prefix) :].split(b"/")[1:]


def _matched(route: tuple[str, ...], parts: list[bytes]) -> Parameters | None:
    if len(route) != len(parts):
        return None
    found = []
    for segment, part in zip(route, parts, strict=True):
        name = name_in(segment)
        if name is None and segment.encode() != part:
            return None
        if name is not None:
            if not part:
                return None
            found.append((name, part))
    return tuple(found)
