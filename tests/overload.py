"""An open-loop load: calls that come at a steady rate whether or not the ones before were answered.

As a program: `python -m tests.overload [seconds]` prints what 3 times the capacity does to the
graph of `tests/apps/overload.py`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

from tests.apps.overload import CAPACITY
from tests.harness import APPS, Served, served

CALLERS = 16


@dataclass
class Outcome:
    """What came of a load.

    Args:
        seconds: that it went on.
        sent: calls that were made.
        statuses: how many answers had which; 0 for none.
        waits: seconds that each 200 took.
        lateness: seconds past its deadline that the latest answer came.
        health: the longest that a health endpoint took.
        memory: resident bytes of all workers: near the begin and at the end.
    """

    seconds: float
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    lateness: float = -1e9
    health: float = 0.0
    memory: tuple[int, int] = (0, 0)

    @property
    def goodput(self) -> float:
        """Calls a second that were answered with 200 in time."""
        return self.statuses[200] / self.seconds

    def __str__(self) -> str:
        waits = sorted(self.waits) or [0.0]
        return (
            f"goodput {self.goodput:6.1f}/s  p50 {waits[len(waits) // 2] * 1e3:5.0f} ms  latest"
            f" answer {self.lateness * 1e3:+5.0f} ms  health {self.health * 1e3:4.0f} ms  memory"
            f" {self.memory[0] >> 20} to {self.memory[1] >> 20} MiB "
            f" {dict(sorted(self.statuses.items()))}"
        )


class Client(asyncio.Protocol):
    """One kept-alive connection, one request at a time; as cheap as it can be."""

    def __init__(self, load: Load) -> None:
        self.load, self.began, self.left, self.status = load, 0.0, -1, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, request: bytes) -> None:
        self.began, self.left = time.monotonic(), -1
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self.left < 0:
            head, _, body = data.partition(b"\r\n\r\n")
            self.status = int(head[9:12])
            self.left = int(
                head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            ) - len(body)
        else:
            self.left -= len(data)
        if self.left == 0:
            self.load.answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.lost(self)


class Load:
    """Calls of one API at a rate.

    Args:
        graph: whom it calls.
        path: the API.
        rate: calls a second; None: `CALLERS` callers, each with its next call when the last was
            answered.
        timeout: seconds, the deadline of each.
    """

    def __init__(self, graph: Served, path: str, rate: float | None, timeout: float) -> None:
        self.graph, self.path, self.rate, self.timeout = graph, path, rate, timeout
        host, port = graph.url.removeprefix("http://").split(":")
        self.address = host, int(port)
        body = b'{"x": 1}'
        self.request = (
            b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"x-request-timeout: %.3f\r\ncontent-length: %d\r\n\r\n%s"
            % (path.encode(), timeout, len(body), body)
        )
        self.idle: deque[Client] = deque()
        self.busy: set[Client] = set()

    async def run(self, seconds: float) -> Outcome:
        """Keep it up for so long, then wait for what is under way."""
        self.outcome = Outcome(seconds)
        began = time.monotonic()
        health = asyncio.create_task(self._watch_health())
        sent, first = 0, resident(self.graph)
        while (passed := time.monotonic() - began) < seconds:
            while len(self.busy) < CALLERS if self.rate is None else sent < passed * self.rate:
                sent += 1
                await self._send()
            if passed < seconds / 4:
                first = resident(self.graph)
            await asyncio.sleep(0.002)
        self.outcome.sent = sent
        self.outcome.memory = first, resident(self.graph)
        end = time.monotonic() + self.timeout + 5
        while self.busy and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self.outcome.statuses[0] += len(self.busy)
        health.cancel()
        for client in [*self.idle, *self.busy]:
            client.transport.abort()
        return self.outcome

    async def _send(self) -> None:
        if self.idle:
            client = self.idle.pop()
        else:
            _, client = await asyncio.get_running_loop().create_connection(
                lambda: Client(self), *self.address
            )
        self.busy.add(client)
        client.ask(self.request)

    def answered(self, client: Client) -> None:
        """An answer is complete."""
        took = time.monotonic() - client.began
        self.busy.discard(client)
        self.idle.append(client)
        outcome = self.outcome
        outcome.statuses[client.status] += 1
        outcome.lateness = max(outcome.lateness, took - self.timeout)
        if client.status == 200:
            outcome.waits.append(took)

    def lost(self, client: Client) -> None:
        """A connection ended."""
        if client in self.busy:
            self.busy.discard(client)
            self.outcome.statuses[0] += 1
        elif client in self.idle:
            self.idle.remove(client)

    async def _watch_health(self) -> None:
        while True:
            for path in (b"/livez", b"/readyz"):
                began = time.monotonic()
                reader, writer = await asyncio.open_connection(*self.address)
                writer.write(
                    b"GET %s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n" % path
                )
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
                writer.close()
                self.outcome.health = max(self.outcome.health, time.monotonic() - began)
            await asyncio.sleep(0.1)


def resident(graph: Served) -> int:
    """Bytes of resident memory of all workers."""
    return sum(
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in graph.workers()
    )


def measure(
    graph: Served, path: str, rate: float | None, seconds: float, timeout: float
) -> Outcome:
    """See `Load`."""
    return asyncio.run(Load(graph, path, rate, timeout).run(seconds))


def main() -> None:
    """Print what each API of the graph does at its capacity, and at 3 times that."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    with served("tests.apps.overload:Gateway", cwd=APPS.parent.parent) as graph:
        for path in ("/work", "/batched", "/compute"):
            peak = measure(graph, path, None, seconds / 3, 5.0)
            outcome = measure(graph, path, 3 * CAPACITY, seconds, 1.0)
            print(
                f"{path:9} peak  {peak}\n{path:9} 3 x   {outcome} "
                f" {outcome.goodput / peak.goodput:.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
