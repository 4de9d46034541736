"""What `GET /events` answers: what happened lately, line by line, and what still happens.

Runs in the supervisor.
"""

from __future__ import annotations

from graphserve.supervise.control.http import ControlResponse
from graphserve.supervise.control.queries import count, moment, read_values, switch
from graphserve.supervise.control.readers import Readers
from graphserve.supervise.event_ring import EventQuery, EventRing

MAX_FOLLOWERS = 16  # at once
NAMES = ("n", "since", "after", "follow")


class EventReaders:
    """Answers those who read the events.

    Args:
        ring: has them.
    """

    def __init__(self, ring: EventRing) -> None:
        self._ring = ring
        self._readers = Readers(MAX_FOLLOWERS, "events")

    async def answer(self, query: str, response: ControlResponse) -> None:
        """Answer one request, until its client leaves.

        Raises:
            HttpError: the request is refused.
        """
        asked = parse(query)
        await self._readers.send(self._ring.read(asked), response)


def parse(query: str) -> EventQuery:
    """Return what the query of a request asks for.

    Raises:
        HttpError: it is not understood.
    """
    given = read_values(query, NAMES)
    return EventQuery(
        newest=count("n", given["n"], "events") if "n" in given else None,
        since=moment("since", given.get("since", "0")),
        after=count("after", given.get("after", "0"), "events"),
        follow=switch("follow", given.get("follow", "0")),
    )
