"""Calls to a graph of processes from the Python program that started it: on a loop and a thread of
their own.
"""

from __future__ import annotations

import asyncio
import threading

from graphserve.call import httpx_transport
from graphserve.call.clients import HOP_SLACK, public_codecs, slack_to
from graphserve.call.lanes.url import UrlLane
from graphserve.call.remote import DependencyApi, RemoteApi, TypedClient
from graphserve.graph.builder import resolve_here
from graphserve.graph.plan import TlsPlan
from graphserve.loop.loop_thread import LoopThread
from graphserve.run.log_words import Words


class Calls:
    """The thread.

    Args:
        cls: the entry's class.
        url: where it answers.
        tls: what it serves TLS with.
        password: of the TLS key.
        errors: the pipe by which the supervisor says what is logged of failed calls; stays its
            owner's.
    """

    def __init__(
        self, cls: type, url: str, tls: TlsPlan | None, password: str | None, errors: int
    ) -> None:
        self._plan, _ = resolve_here(cls, {})
        self._cls = cls
        self._entry = self._plan.node(self._plan.entry)
        scheme = "http" if tls is None else "https"
        base = f"{scheme}://graphserve" if url.startswith("unix:") else url
        name = self._entry.name
        self._errors = errors
        lost = f"a worker of {name} ended while it executed the call"  # as a hop says it
        self._lane = UrlLane(
            name, base, lambda: httpx_transport.connect(url, tls, password), self._explain, lost
        )
        self._begun = threading.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._live(),), name="graphserve-calls", daemon=True
        )
        self._thread.start()
        self._begun.wait()

    def close(self) -> None:
        """End it; what is still under way fails."""
        self._loop_thread.loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    async def _explain(self, body: bytes) -> bytes:
        return await self._words.explain(body)

    async def _live(self) -> None:
        self._words = Words(self._errors, self._entry.name)
        self._loop_thread = LoopThread.here()
        self._closing = asyncio.Event()
        timeout, slack = (
            self._entry.options.timeout,
            HOP_SLACK + slack_to(self._plan, self._entry.name),
        )
        self.client = TypedClient(self._entry.name, {
            api.name: RemoteApi(self._loop_thread, DependencyApi(
                api, self._entry.name, self._lane, *public_codecs(self._cls, api), timeout, slack
            )) for api in self._entry.apis
        })  # fmt: skip
        self._begun.set()
        await self._closing.wait()
        self._words.close()
        await self._lane.close()
