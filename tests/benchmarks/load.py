"""Load on a server: callers that ask again as soon as they have their answer, for a bounded time.

`wrk` does it where the rate is high and only figures are wanted; our own generator where answers
are looked at (which worker gave it), and where there is no wrk.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from tests.measuring.requests import Request, percentile

LUA = Path(__file__).with_name("post.lua")
PATIENCE = 20.0  # seconds that an answer may take beyond the end of the load
MOST = 2_000_000  # calls in one load


def by_wrk(request: Request, callers: int, seconds: float) -> dict[str, float]:
    """The figures of a load by wrk: `rate` (good answers a second), `p50_ms`, `p99_ms`, `errors`,
    `calls`.
    """
    command = [
        "wrk", "-t1", f"-c{callers}", f"-d{max(1, round(seconds))}s", f"--timeout={PATIENCE:.0f}s", "-s", str(LUA),
        f"http://127.0.0.1:{request.port}{request.path}", "--", request.payload,
        *(f"{name}={value}" for name, value in request.headers),
    ]  # fmt: skip
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 3 * PATIENCE, check=True
    )
    line = next(line for line in run.stdout.splitlines() if line.startswith("JSON "))
    raw = json.loads(line.removeprefix("JSON "))
    good = max(0, raw["requests"] - raw["errors"])
    figures = {name: raw[name] for name in ("p50_ms", "p99_ms", "errors")}
    return figures | {"rate": good / raw["seconds"], "calls": raw["requests"]}


def by_ourselves(request: Request, callers: int, seconds: float) -> dict[str, Any]:
    """The same figures by our own generator, and `shares`: how many answers had which body."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        load = runner.run(_run(request.encode(), request.port, callers, seconds))
    took = sorted(load.took)
    figures: dict[str, Any] = {
        "rate": len(took) / (load.ended - load.began), "errors": load.errors, "calls": len(took) + load.errors,
        "p50_ms": percentile(took, 50) * 1e3, "p99_ms": percentile(took, 99) * 1e3,
    }  # fmt: skip
    return figures | {"shares": dict(load.bodies)}


def measure(
    request: Request, callers: int, seconds: float, *, bodies: bool = False
) -> dict[str, Any]:
    """The figures of a load, by whichever generator fits.

    Args:
        request: what is asked.
        callers: connections that ask side by side.
        seconds: how long.
        bodies: whether the answers matter.
    """
    if bodies or seconds < 1 or shutil.which("wrk") is None:
        return by_ourselves(request, callers, seconds)
    return by_wrk(request, callers, seconds)


@dataclass
class _Load:
    """One load: what its callers share, and what they count."""

    request: bytes
    until: float
    began: float
    ended: float = 0.0
    errors: int = 0
    took: list[float] = field(default_factory=list)
    bodies: Counter[str] = field(default_factory=Counter)


class _Caller(asyncio.Protocol):
    """One kept-alive connection, one call at a time."""

    def __init__(self, load: _Load, over: asyncio.Future[None]) -> None:
        self.load, self.over = load, over
        self.buffer = b""
        self.transport: Any = None
        self.waiting = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        answer = _whole(self.buffer)
        if answer is not None:
            self.buffer = b""
            self._answered(*answer)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting:
            self.load.errors += 1
        if not self.over.done():
            self.over.set_result(None)

    def _ask(self) -> None:
        self.waiting = True
        self.asked = time.perf_counter()
        self.transport.write(self.load.request)

    def _answered(self, good: bool, body: bytes) -> None:
        now, load = time.perf_counter(), self.load
        self.waiting = False
        if good:
            load.took.append(now - self.asked)
            load.ended = now
            load.bodies[body.decode() if len(body) < 24 else "…"] += 1
        else:
            load.errors += 1
        if now < load.until and len(load.took) + load.errors < MOST:
            self._ask()
        else:
            self.transport.close()


def _whole(data: bytes) -> tuple[bool, bytes] | None:
    """Whether the answer is a 2xx, and its body, as soon as all of it is here."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return None
    good, lower = head[9:10] == b"2", head.lower()
    at = lower.find(b"\r\ncontent-length:")
    if at < 0:
        return (good, body) if body.endswith(b"0\r\n\r\n") else None
    length = int(lower[at + 17 :].partition(b"\r\n")[0])
    return (good, body) if len(body) >= length else None


async def _run(request: bytes, port: int, callers: int, seconds: float) -> _Load:
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    load = _Load(request, began + seconds, began)
    await asyncio.gather(*[_call(loop, load, port) for _ in range(callers)])
    load.ended = load.ended or time.perf_counter()
    return load


async def _call(loop: asyncio.AbstractEventLoop, load: _Load, port: int) -> None:
    """One caller: connects again when a server closes, until the time is over."""
    while time.perf_counter() < load.until:
        over = loop.create_future()
        try:
            transport, _ = await loop.create_connection(
                lambda over=over: _Caller(load, over), "127.0.0.1", port
            )
        except OSError:
            load.errors += 1
            await asyncio.sleep(0.01)  # a server that refuses is asked 100 times a second, no more
            continue
        try:
            await asyncio.wait_for(over, max(0.0, load.until - time.perf_counter()) + PATIENCE)
        except TimeoutError:
            transport.abort()
            load.errors += 1


def ask(request: Request, patience: float = 10 * PATIENCE) -> Any:
    """One answer, as JSON, or as text if it is a stream of lines.

    Raises:
        OSError: there was none.
        ValueError: it is no JSON, or not a 2xx.
    """
    connection = http.client.HTTPConnection("127.0.0.1", request.port, timeout=patience)
    try:
        connection.request("POST", request.path, request.payload, dict(request.headers))
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"answered {answer.status}: {body[:200].decode(errors='replace')}")
    return (
        json.loads(body)
        if ("accept", "application/x-ndjson") not in request.headers
        else body.decode()
    )


def succeeds(request: Request) -> bool:
    """Whether one call is answered."""
    try:
        ask(request, patience=5.0)
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True
