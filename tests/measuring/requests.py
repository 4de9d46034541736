"""Requests that are sent over and over, as bytes, and percentiles of what their answers took."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Request:
    """What is asked, over and over."""

    port: int
    path: str
    body: Any
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)

    @property
    def payload(self) -> str:
        """The body, as text."""
        return json.dumps(self.body)

    def encode(self) -> bytes:
        """The bytes of the request."""
        payload = self.payload.encode()
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"host: 127.0.0.1:{self.port}",
            f"content-length: {len(payload)}",
        ]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "", ""]).encode() + payload


def percentile(ordered: list[float], share: float) -> float:
    """A percentile of ordered values; NaN if there are none."""
    return (
        ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))] if ordered else float("nan")
    )
