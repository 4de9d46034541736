"""Calls to a graph of processes from the Python program that started it: on a loop and a thread of their own."""

from __future__ import annotations

import asyncio
import threading

from graphserve.call import public
from graphserve.call.calls import Api, RemoteApi, TypedClient
from graphserve.call.clients import HOP_SLACK, public_codecs, slack_to
from graphserve.call.elsewhere import UrlLane
from graphserve.call.home import Home
from graphserve.graph import resolve_here
from graphserve.plan import TlsPlan


class Calls:
    """The thread.

    Args:
        cls: the entry's class.
        url: where it answers.
        tls: what it serves TLS with.
        password: of the TLS key.
    """

    def __init__(self, cls: type, url: str, tls: TlsPlan | None, password: str | None) -> None:
        self._plan, _ = resolve_here(cls, {})
        self._cls, self._entry = cls, self._plan.node(self._plan.entry)
        scheme = "http" if tls is None else "https"
        base = f"{scheme}://graphserve" if url.startswith("unix:") else url
        self._lane = UrlLane(self._entry.name, base, lambda: public.connect(url, tls, password))
        self._begun = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._live(),), name="graphserve-calls", daemon=True)
        self._thread.start()
        self._begun.wait()

    def close(self) -> None:
        """End it; what is still under way fails."""
        self._home.loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    async def _live(self) -> None:
        self._home, self._closing = Home.here(), asyncio.Event()
        timeouts, slack = (self._entry.options.timeout,), HOP_SLACK + slack_to(self._plan, self._entry.name)
        self.client = TypedClient(self._entry.name, {
            api.name: RemoteApi(self._home, Api(
                api, self._entry.name, self._lane, *public_codecs(self._cls, api), timeouts, slack
            )) for api in self._entry.apis
        })  # fmt: skip
        self._begun.set()
        await self._closing.wait()
        await self._lane.close()
