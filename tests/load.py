"""Steady load on a graph, for tests: every answer is counted, every failure kept."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx


class Load:
    """Requests from several clients, half of them on connections that are kept, half on a new one
    each.

    Args:
        url: the entry.
        path: the API.
        body: its arguments.
        clients: how many ask at once.
        verify: what httpx checks certificates with.
    """

    def __init__(
        self, url: str, path: str, body: Any, clients: int = 4, verify: Any = True
    ) -> None:
        self.url, self.path, self.body, self.verify = url, path, body, verify
        self.answers: list[Any] = []
        self.failures: list[str] = []
        self.worst = 0.0  # seconds that the slowest answer took
        self._on = True
        self._threads = [
            threading.Thread(target=self._ask, args=(index % 2 == 0,)) for index in range(clients)
        ]

    def _ask(self, keep: bool) -> None:
        limits = httpx.Limits(max_keepalive_connections=None if keep else 0)
        options: Any = {"timeout": 60, "trust_env": False, "limits": limits, "verify": self.verify}
        with httpx.Client(base_url=self.url, **options) as client:
            while self._on:
                began = time.monotonic()
                try:
                    answer = client.post(self.path, json=self.body)
                except httpx.HTTPError as exc:
                    self.failures.append(repr(exc))
                    continue
                self.worst = max(self.worst, time.monotonic() - began)
                (self.answers if answer.status_code == 200 else self.failures).append(
                    answer.json() if answer.status_code == 200 else answer.text
                )

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._on = False
        for thread in self._threads:
            thread.join()
