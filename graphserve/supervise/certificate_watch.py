"""Tells before the certificate of the public port expires: 14 days ahead, 3, and when it has.

Runs in the supervisor, while the graph serves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from graphserve.supervise.events import EventKind, Say

DAYS = (14.0, 3.0, 0.0)  # before the end, at each of which it is told
INTERVAL = 3600.0  # seconds between two looks at the file
DAY = 86400.0  # seconds


class CertificateWatch:
    """Looks at the certificate of one graph.

    Workers go on with what they have read until a reload, whatever the file holds by then.

    Args:
        name: the file, for messages.
        seconds_left: returns how long the certificate in it is valid; 0.0: no more; None: unknown.
        say: takes what is to be said.
        clock: returns the seconds since the epoch.
    """

    def __init__(
        self,
        name: str,
        seconds_left: Callable[[], float | None],
        say: Say,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._seconds_left = seconds_left
        self._say = say
        self._clock = clock
        self._version = 0  # of the graph, when the file was read that workers go on with
        self._ends: float | None = None  # when that certificate expires, since the epoch
        self._told: float | None = None  # the days of which was told

    async def run(self, version: Callable[[], int]) -> None:
        """Look again and again.

        Args:
            version: returns how often the graph was reloaded.
        """
        while True:
            self.look(await asyncio.to_thread(self._seconds_left), version())
            await asyncio.sleep(INTERVAL)

    def look(self, in_file: float | None, version: int) -> None:
        """Tell if there is something new to tell.

        Args:
            in_file: seconds that the certificate in the file is valid.
            version: of the graph.
        """
        if in_file is None:
            return
        now = self._clock()
        if version != self._version or self._ends is None:
            # One that is renewed begins anew; one that expires about then is the same.
            if self._ends is None or abs(now + in_file - self._ends) > DAY / 2:
                self._told = None
            self._version = version
            self._ends = now + in_file
        left = max(0.0, self._ends - now)
        reached = [days for days in DAYS if left <= days * DAY]
        if not reached or (self._told is not None and self._told <= reached[-1]):
            return
        self._told = reached[-1]
        is_newer = in_file - left > DAY / 2
        what = "has expired" if not left else f"expires in {left / DAY:.1f} days"
        how = (
            "the file holds a newer one already: `graphserve reload` takes it"
            if is_newer
            else "renew it, then `graphserve reload`"
        )
        words = f"the certificate of {self._name} {what}: {how}"
        self._say(EventKind.CERTIFICATE_EXPIRES, "warning" if left else "error", words)
