"""Connections of a fallback server before the graph is resolved, in one process: probes, and what
waits how long.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from graphserve import api, service
from graphserve.call.membership import Membership
from graphserve.graph.builder import resolve_here
from graphserve.graph.plan import ListenPlan, Settings
from graphserve.supervise.revision import provisional_plan
from graphserve.worker.fallback import FallbackServer
from graphserve.worker.http.limits import HEAD_BYTES
from graphserve.worker.http.public.early import EarlyConnection

PROBE = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
FIELDS = b"host: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"
CALL = b"POST /one HTTP/1.1\r\n" + FIELDS + b"\r\n{}"


@service(name="front")
class Entry:
    @api
    async def one(self) -> int:
        return 1


class Early:
    """A fallback server without a Plan, and its clients."""

    def __init__(self, folder: Path, **listen: Any) -> None:
        self._settings = Settings("app:Entry", listen=ListenPlan(**listen))
        self._folder, self._writers = folder, list[asyncio.StreamWriter]()
        self.deadlines: list[int | None] = []

    async def __aenter__(self) -> Early:
        plan = provisional_plan(self._settings)
        self.fallback = FallbackServer(
            plan, plan.node("Entry"), self._folder, Membership(), resolving=True
        )
        await self.fallback.start()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self._address = listening.getsockname()
            await self.fallback.listen(listening.dup())
        return self

    async def __aexit__(self, *exc: object) -> None:
        for writer in self._writers:
            writer.close()
        await self.fallback.drain(last=True)

    async def client(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self._address)
        self._writers.append(writer)
        writer.write(data)
        return reader, writer

    def connections(self) -> list[EarlyConnection]:
        return [each for each in self.fallback.listener.open() if isinstance(each, EarlyConnection)]

    def holding(self) -> int:
        return sum(len(each._held) > 0 for each in self.connections())

    async def held(self, size: int) -> EarlyConnection:
        """Wait until a connection holds so much; that one."""
        while True:
            for connection in self.connections():
                if len(connection._held) >= size:
                    return connection
            await asyncio.sleep(0.001)

    def resolve(self) -> None:
        """There is a Plan; what the deadline of a call is passed on with is noted."""
        plan = dataclasses.replace(resolve_here(Entry, {})[0], listen=self._settings.listen)
        self.fallback.resolve(plan, plan.node("front"))

        def take(api: Any, body: bytes, format: Any, accept: Any, request: Any) -> None:
            self.deadlines.append(request.context.deadline_ns)
            request.respond(b"1")

        relay: Any = self.fallback.listener.relay
        relay.take = take


async def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    while not holds():  # noqa: ASYNC110 - of a connection, whose callbacks tell nobody
        await asyncio.sleep(0.001)


def scene(play: Callable[[Early], Awaitable[None]], folder: Path, **listen: Any) -> None:
    """Run a scene."""

    async def run() -> None:
        async with asyncio.timeout(20), Early(folder, **listen) as early:
            await play(early)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """One answer: status and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


@pytest.mark.parametrize("ahead", [b"", b"\r\n", PROBE, PROBE + PROBE])
def test_probes_in_pieces_and_ahead_of_a_call(tmp_path: Path, ahead: bytes) -> None:
    async def play(early: Early) -> None:
        reader, writer = await early.client(ahead + PROBE[:8])
        for _ in range(ahead.count(b"GET")):
            assert (await answer(reader))[0] == 200
        await early.held(8)
        writer.write(PROBE[8:] + CALL + CALL)
        assert (await answer(reader))[0] == 200
        await early.held(2 * len(CALL))
        early.resolve()
        assert [await answer(reader), await answer(reader)] == [(200, b"1"), (200, b"1")]
        writer.write(PROBE)
        status, body = await answer(reader)
        assert status == 200 and b"front" in body

    scene(play, tmp_path)


def test_a_probe_with_a_body_is_one_request(tmp_path: Path) -> None:
    async def play(early: Early) -> None:
        body = b"POST /one HTTP/1.1\r\n\r\n"
        head = b"GET /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
        reader, _ = await early.client(head + body + CALL)
        assert (await answer(reader))[0] == 200
        await early.held(len(CALL))
        early.resolve()
        assert await answer(reader) == (200, b"1")

    scene(play, tmp_path)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /nope HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
        (b"POST /livez HTTP/1.1\r\nhost: localhost\r\n\r\n", 405),
        (b"GET /livez HTTP/9.9\r\nhost: localhost\r\n\r\n", 400),
        (b"GET /livez RTSP/1.0\r\nhost: localhost\r\n\r\n", 400),
        (b"GET /one HTTP/1.1\r\nhost: elsewhere.example\r\n\r\n", 421),
        (b"POST /one HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}", 415),
        (b"POST /one HTTP/1.1\r\nx: " + b"y" * HEAD_BYTES, 431),
        (b"\0\1\2\r\n\r\n", 400),
    ],
)
def test_what_is_no_call_is_refused_as_ever_when_there_is_a_plan(
    tmp_path: Path, request_: bytes, status: int
) -> None:
    async def play(early: Early) -> None:
        reader, _ = await early.client(request_)
        await early.held(len(request_))
        early.resolve()
        assert (await answer(reader))[0] == status

    scene(play, tmp_path)


def test_a_probe_for_a_foreign_host_is_refused_at_once(tmp_path: Path) -> None:
    async def play(early: Early) -> None:
        reader, _ = await early.client(PROBE.replace(b"localhost", b"elsewhere.example"))
        assert (await answer(reader))[0] == 421

    scene(play, tmp_path)


def test_who_waits_longer_than_the_call_may_take_gets_504(tmp_path: Path) -> None:
    async def play(early: Early) -> None:
        for said in (b"x-request-timeout: 0.05\r\n", b"X-Request-Timeout:0.05\r\n"):
            reader, _ = await early.client(b"POST /one HTTP/1.1\r\n" + said + FIELDS + b"\r\n{}")
            status, body = await answer(reader)
            assert status == 504 and b'"service":"Entry"' in body and b"modules" in body
            assert await reader.read() == b""
        waiting, _ = await early.client(CALL)
        connection = await early.held(len(CALL))
        connection._deadline = 1e-9  # the clock is turned
        connection.release()
        assert (await answer(waiting))[0] == 504
        waiting, _ = await early.client(CALL)
        connection = await early.held(len(CALL))
        connection._time_out()  # a timer may come a moment before its time
        assert (await answer(waiting))[0] == 504

    scene(play, tmp_path)


def test_the_time_that_a_call_has_waited_is_of_its_deadline(tmp_path: Path) -> None:
    async def play(early: Early) -> None:
        reader, writer = await early.client(CALL)
        connection = await early.held(len(CALL))
        connection._waits_since -= 50.0  # the clock is turned
        early.resolve()
        assert await answer(reader) == (200, b"1")
        writer.write(CALL)
        assert await answer(reader) == (200, b"1")
        first, second = early.deadlines
        assert first is not None and second is not None
        assert second - first > 49e9, "of the first one alone"

    scene(play, tmp_path)


def test_half_a_head_has_the_time_that_a_head_has(tmp_path: Path) -> None:
    async def play(early: Early) -> None:
        for begun in (b"", PROBE):
            reader, _ = await early.client(begun + CALL[:30])
            if begun:
                assert (await answer(reader))[0] == 200
            assert (await answer(reader))[0] == 408

    scene(play, tmp_path, timeout_client=0.2)


def test_what_is_held_is_bounded_and_ends_with_its_client(tmp_path: Path) -> None:
    async def play(early: Early) -> None:
        _, writer = await early.client(CALL[:-4].replace(b"length: 2", b"length: 90000000"))
        connection = await early.held(len(CALL) - 4)
        writer.write(b"x" * 20_000_000)
        before = len(connection._held)
        reader, _ = await early.client(PROBE)
        assert (await answer(reader))[0] == 200, "the loop has had its turns"
        assert len(connection._held) - before <= 1 << 18
        _, leaving = await early.client(CALL)
        await until(lambda: early.holding() == 2)
        leaving.transport.abort()
        await until(lambda: early.holding() == 1)

    scene(play, tmp_path)


def test_beyond_the_limit_of_connections_probes_are_answered_and_others_told_no(
    tmp_path: Path,
) -> None:
    async def play(early: Early) -> None:
        for count in (1, 2):
            await early.client(CALL)
            await until(lambda count=count: early.holding() == count)
        reader, _ = await early.client(PROBE)
        assert (await answer(reader))[0] == 200
        reader, _ = await early.client(CALL)
        status, body = await answer(reader)
        assert status == 503 and b"connections" in body

    scene(play, tmp_path, limit_connections=2)


def test_a_graph_that_will_not_be_answers_whoever_waits(tmp_path: Path) -> None:
    async def play(early: Early) -> None:
        waiting, _ = await early.client(CALL)
        behind, _ = await early.client(PROBE + CALL)
        half, _ = await early.client(CALL[:-1])
        assert (await answer(behind))[0] == 200
        await until(lambda: early.holding() == 3)
        draining = asyncio.ensure_future(early.fallback.drain(last=True))
        for reader in (waiting, behind, half):
            status, body = await answer(reader)
            assert status == 503 and b"does not start" in body
            assert await reader.read() == b""
        await draining

    scene(play, tmp_path)
