"""What `GET /events` answers: what happened lately, line by line, and what still happens.

Runs in the supervisor.
"""

from __future__ import annotations

import contextlib
import math
from urllib.parse import parse_qsl

from graphserve.supervise.control.http import ControlResponse, HttpError
from graphserve.supervise.control.readers import Readers
from graphserve.supervise.event_ring import EventQuery, EventRing

MAX_FOLLOWERS = 16  # at once
NAMES = {"n", "since", "after", "follow"}
HOW_TO_ASK = f"a query may have {', '.join(sorted(NAMES))}"


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
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=bool(query), errors="strict"
        )
    except ValueError:
        raise HttpError(422, f"the query is no list of name=value; {HOW_TO_ASK}") from None
    given = dict(pairs)
    if unknown := sorted(given.keys() - NAMES):
        raise HttpError(422, f"unknown: {', '.join(unknown)[:100]}; {HOW_TO_ASK}")
    if len(given) < len(pairs):
        raise HttpError(422, f"each name is given once; {HOW_TO_ASK}")
    follow = given.get("follow", "0")
    if follow not in ("0", "1"):
        raise HttpError(422, f"follow is 0 or 1, not {follow[:40]!r}")
    return EventQuery(
        newest=_count("n", given["n"]) if "n" in given else None,
        since=_time(given.get("since", "0")),
        after=_count("after", given.get("after", "0")),
        follow=follow == "1",
    )


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise HttpError(422, f"{name} is a number of events from 0, not {text[:40]!r}")
    return int(text)


def _time(text: str) -> float:
    with contextlib.suppress(ValueError):
        if math.isfinite(seconds := float(text)):
            return seconds
    raise HttpError(422, f"since is a time in seconds since the epoch, not {text[:40]!r}")
