"""Load that tells the truth about waiting: requests at a steady rate, whether or not earlier ones
are answered.

What an answer took counts from the moment at which its request was due, so a stall counts for every
request that fell into it. Connections are kept and used again as HTTP clients do; one request in
ten comes on a new one. No request is ever sent twice. Runs on a thread of its own.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import uvloop

from tests.measuring.requests import Request, percentile

IDLE = 2.0  # seconds that a connection is kept without use: shorter than the server keeps it
NEW_ONE_IN = 10
PATIENCE = 20.0  # seconds that an answer may take before it counts as lost
REFUSED, LOST = 0, -1  # in place of a status: no connection; a connection, and no answer


@dataclass(frozen=True)
class Answer:
    """What came of one request.

    Args:
        id: its number.
        due: when it should have been sent.
        ended: when its answer was complete, or it was clear that there would be none.
        status: of the answer; `REFUSED` or `LOST` if there is none.
        body: of the answer, or why there is none.
    """

    id: int
    due: float
    ended: float
    status: int
    body: bytes

    @property
    def took(self) -> float:
        """Seconds from the moment at which it was due."""
        return self.ended - self.due

    @property
    def problem(self) -> dict[str, Any]:
        """The body as a problem; empty if it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def __str__(self) -> str:
        if self.status in (REFUSED, LOST):
            return f"{'refused' if self.status == REFUSED else 'lost'}: {self.body.decode()}"
        return (
            f"{self.status} {self.problem.get('service', '')}:"
            f" {self.problem.get('detail', self.body[:80])}"
        )


Send = Callable[[int], Request]
Expect = Callable[[Answer], bool]


def numbered(port: int, path: str, **headers: str) -> Send:
    """Calls with the number of the request as `id`."""
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return lambda id: Request(
        port, path, {"id": id}, (("content-type", "application/json"), *named)
    )


def echoed(answer: Answer) -> bool:
    """A 200 whose body is the number of the request."""
    return answer.status == 200 and answer.body == b"%d" % answer.id


@dataclass
class Results:
    """Every answer of one load."""

    answers: list[Answer] = field(default_factory=list)
    expect: Expect = echoed

    @property
    def failures(self) -> list[Answer]:
        """What was not as expected, lost ones included."""
        return [answer for answer in self.answers if not self.expect(answer)]

    @property
    def lost(self) -> list[Answer]:
        """What was sent and has no answer."""
        return [answer for answer in self.answers if answer.status == LOST]

    @property
    def worst(self) -> float:
        """Seconds that the slowest answer took."""
        return max((answer.took for answer in self.answers if answer.status > 0), default=0.0)

    def between(self, begin: float, end: float) -> Results:
        """Those that were due in this time."""
        return Results(
            [answer for answer in self.answers if begin <= answer.due < end], self.expect
        )

    def percentile(self, share: float) -> float:
        """A percentile of what the expected answers took, in seconds."""
        return percentile(
            sorted(answer.took for answer in self.answers if self.expect(answer)), share
        )

    def reasons(self) -> Counter[str]:
        """What the failures said, counted."""
        return Counter(str(answer) for answer in self.failures)


class Load:
    """Requests while the `with` block lasts.

    Args:
        port: where they go.
        send: the request of each number.
        rate: requests a second, whatever happens; or, with `callers`, as many as are answered.
        callers: how many wait for an answer before they ask again; None: an open load at `rate`.
        expect: whether an answer is as it should be.
        first: the first number.
    """

    def __init__(
        self, port: int, send: Send, *, rate: float = 200.0, callers: int | None = None, expect: Expect = echoed,
        first: int = 0,
    ) -> None:  # fmt: skip
        self.send, self.rate, self.callers = send, rate, callers
        self.results = Results(expect=expect)
        self.client = Client(port)
        self.lag = 0.0  # seconds by which a request was sent too late, at most
        self._next = first
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Load:
        self.began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        self.ended = time.monotonic()

    @property
    def running(self) -> bool:
        """Whether requests are still made: callers end when there is nobody to connect to."""
        return self._thread.is_alive()

    def _run(self) -> None:
        work = self._open() if self.callers is None else self._closed(self.callers)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._finish(work))

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        await work
        self.client.close()

    async def _open(self) -> None:
        loop, asked, sent = asyncio.get_running_loop(), set[asyncio.Task[None]](), 0
        began = time.monotonic()
        while not self._over.is_set():
            due = began + sent / self.rate
            if (pause := due - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            task = loop.create_task(self._ask(due, new=sent % NEW_ONE_IN == 0))
            asked.add(task)
            task.add_done_callback(asked.discard)
            sent += 1
        await asyncio.gather(*asked)

    async def _closed(self, callers: int) -> None:
        async def call(index: int) -> None:
            status = 200
            while not self._over.is_set() and status != REFUSED:
                status = await self._ask(time.monotonic(), new=index % 4 == 0)

        await asyncio.gather(*(call(index) for index in range(callers)))

    async def _ask(self, due: float, *, new: bool) -> int:
        id = self._next
        self._next += 1
        self.lag = max(self.lag, time.monotonic() - due)
        status, body = await self.client.ask(self.send(id).encode(), new=new)
        self.results.answers.append(Answer(id, due, time.monotonic(), status, body))
        return status


class Client:
    """Connections to one port, kept while they are used; the latest used is used first.

    Args:
        port: of 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: deque[Connection] = deque()

    async def ask(self, request: bytes, *, new: bool = False) -> tuple[int, bytes]:
        """The status and the body of the answer; `REFUSED` or `LOST`, and why."""
        loop = asyncio.get_running_loop()
        self._expire(loop.time())
        if self._idle and not new:
            connection = self._idle.pop()
        else:
            try:
                _, connection = await loop.create_connection(
                    lambda: Connection(self._closed), "127.0.0.1", self.port
                )
            except OSError as exc:
                return REFUSED, str(exc).encode()
        try:
            async with asyncio.timeout(PATIENCE):
                status, body = await connection.ask(request)
        except TimeoutError:
            connection.transport.abort()
            return LOST, f"no answer within {PATIENCE:g} s".encode()
        if connection.keep:
            connection.used = loop.time()
            self._idle.append(connection)
        else:
            connection.transport.close()
        return status, body

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().transport.close()

    def _expire(self, now: float) -> None:
        while self._idle and now - self._idle[0].used > IDLE:
            self._idle.popleft().transport.close()

    def _closed(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)


class Connection(asyncio.Protocol):
    """One connection, one request at a time.

    Args:
        on_closed: called when it has ended.
    """

    def __init__(self, on_closed: Callable[[Connection], None]) -> None:
        self.transport: Any = None
        self.keep = False
        self.used = 0.0
        self._on_closed = on_closed
        self._data = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; what comes of it."""
        self.keep, self._data = False, b""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        at = lower.find(b"\r\ncontent-length:")
        if at >= 0:
            if len(body) < int(lower[at + 17 :].partition(b"\r\n")[0]):
                return
        elif not body.endswith(b"0\r\n\r\n"):
            return
        self.keep = b"\r\nconnection: close" not in lower
        self._settle(int(head[9:12]), body)

    def connection_lost(self, exc: Exception | None) -> None:
        self.keep = False
        self._settle(LOST, f"{exc or 'closed'} after {len(self._data)} bytes".encode())
        self._on_closed(self)

    def _settle(self, status: int, body: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, body))
