"""What `GET /logs` answers: the newest records, line by line, and those that still come.

Runs in the supervisor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Required, TypedDict

from graphserve.supervise.control.http import ControlResponse, HttpError
from graphserve.supervise.control.queries import SHOWN, count, moment, read_query, switch
from graphserve.supervise.control.readers import Readers
from graphserve.supervise.events import LEVELS, OutputName
from graphserve.supervise.log_ring import SUPERVISOR, LogQuery, LogRing

MAX_READERS = 16  # at once: each may have a copy of a block of each node
NAMES = ("n", "since", "level", "request", "grep", "follow")


class LogLine(TypedDict, total=False):
    """A record, as `GET /logs` lists it; what is empty is not there."""

    seq: Required[int]  # counts the records of the graph
    time: Required[float]  # seconds since the epoch
    level: Required[str]
    node: str
    slot: int
    pid: int
    stream: Required[OutputName]
    message: Required[str]
    traceback: str
    fields: dict[str, object]


class LogReaders:
    """Answers those who read the log.

    Args:
        ring: has it.
        nodes: returns the nodes that there are.
    """

    def __init__(self, ring: LogRing, nodes: Callable[[], Collection[str]]) -> None:
        self._ring = ring
        self._nodes = nodes
        self._readers = Readers(MAX_READERS, "the log")

    async def answer(self, query: str, response: ControlResponse) -> None:
        """Answer one request; its client may take as long as it likes.

        Raises:
            HttpError: the request is refused.
        """
        asked = parse(query, {*self._nodes(), *self._ring.nodes, SUPERVISOR})
        if not self._ring.limit:
            raise HttpError(409, "the graph keeps no log: it was started with --log-buffer 0")
        await self._readers.send(self._ring.read(asked), response)


def parse(query: str, nodes: Collection[str]) -> LogQuery:
    """Return what the query of a request asks for.

    Args:
        query: what stands behind the `?`.
        nodes: those that there are.

    Raises:
        HttpError: it is not understood, or names a node that there is not.
    """
    named, given = read_query(query, nodes, NAMES)
    level = given.get("level", "debug")
    if level not in LEVELS:
        raise HttpError(422, f"level is one of {', '.join(LEVELS)}, not {level[:SHOWN]!r}")
    return LogQuery(
        nodes=named,
        newest=count("n", given["n"], "lines") if "n" in given else None,
        since=moment("since", given.get("since", "0")),
        level=level,
        request_id=given.get("request", ""),
        text=given.get("grep", ""),
        follow=switch("follow", given.get("follow", "0")),
    )
