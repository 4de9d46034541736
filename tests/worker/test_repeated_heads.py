"""Heads that come again on their connection: known without the parser, and never taken for what
they are not.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest

from graphserve import api, service
from graphserve.graph.builder import resolve_here
from graphserve.worker.dispatch.executor import Executor, bind
from graphserve.worker.dispatch.slots import Slots
from graphserve.worker.http.browsers import AllowedHosts
from graphserve.worker.http.fast_parser import LESSONS
from graphserve.worker.http.limits import PORTION, Limits
from graphserve.worker.http.listener import Listener, routes
from graphserve.worker.http.public.connection import PublicConnection
from graphserve.worker.http.public.early import EarlyConnection
from graphserve.worker.http.public.timeouts import Timeouts
from graphserve.worker.http.response import Responder
from graphserve.worker.pages.application import WorkerApp
from graphserve.worker.pages.health import Health

pytestmark = pytest.mark.anyio

LARGEST = 200  # bytes of a body
_OF_EACH = re.compile(rb'(date: |x-request-id: |"request_id":")[^\r"]*')


@service
class Echo:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.inside = 0
        self.ran = 0

    @api
    async def echo(self, x: Any = None, y: int = 0) -> Any:
        self.ran += 1
        return [x, y]

    @api
    async def other(self) -> str:
        return "other"

    @api
    async def hold(self, x: int) -> int:
        self.inside += 1
        await self.gate.wait()
        return x


class Watched(PublicConnection):
    """A public connection that counts what its parser read, in all and at once."""

    parsed = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.portions: list[tuple[int, int]] = []  # bytes, and messages that begin in them

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.parsed += 1

    def _feed(self, data: bytes | memoryview) -> None:
        before = self.parsed
        super()._feed(data)
        self.portions.append((len(data), self.parsed - before))


class Place:
    """A public port in this loop."""

    def __init__(self, address: tuple[str, int], listener: Listener, instance: Echo) -> None:
        self.address, self.listener, self.instance = address, listener, instance
        self.connections: list[Watched] = []


class Client:
    """A connection to it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Watched
    ) -> None:
        self.reader, self.writer, self.server = reader, writer, server

    async def ask(self, data: bytes) -> bytes:
        """The body of the answer to this, which is a 200."""
        self.writer.write(data)
        return await self.answer()

    async def answer(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        found = re.search(rb"content-length: (\d+)", head)
        assert found is not None
        return await self.reader.readexactly(int(found[1]))

    async def rest(self, data: bytes) -> bytes:
        """All answers to this and nothing more, without what is of each."""
        self.writer.write(data)
        self.writer.write_eof()
        return _OF_EACH.sub(rb"\1", await self.reader.read())


@asynccontextmanager
async def place(
    hosts: tuple[str, ...] = ("localhost",), largest: int = LARGEST
) -> AsyncIterator[tuple[Place, Callable[[], Any]]]:
    plan, classes = resolve_here(Echo, {})
    node = plan.node("Echo")
    instance = classes["Echo"][0]()
    apis = bind(node, instance)
    app = WorkerApp(Health(node.name, list), apis)
    executor = Executor(node, ThreadPoolExecutor(1))
    relay: Any = None
    responder = Responder(node.name, public=True, debug=False)
    listener = Listener(
        app, routes(apis.values()), executor, Slots(1), responder, relay, {}, keep_alive=5.0, max_body_size=largest,
        hosts=AllowedHosts(hosts),
    )  # fmt: skip
    timeouts = Timeouts(listener, Limits(connections=100, patience=60.0, keep_alive=60.0))
    writers: list[asyncio.StreamWriter] = []

    def made() -> Watched:
        found.connections.append(Watched(listener, timeouts))
        return found.connections[-1]

    async def connect() -> Client:
        number = len(found.connections)
        reader, writer = await asyncio.open_connection(*found.address)
        writers.append(writer)
        await until(lambda: len(found.connections) > number)
        return Client(reader, writer, found.connections[-1])

    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
    found = Place(server.sockets[0].getsockname(), listener, instance)
    try:
        async with asyncio.timeout(60):
            yield found, connect
    finally:
        for writer in writers:
            writer.transport.abort()
        server.close()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def call(
    body: bytes = b'{"x":1}',
    *,
    path: bytes = b"/echo",
    more: bytes = b"",
    length: bytes | None = None,
) -> bytes:
    said = b"%d" % len(body) if length is None else length
    return (
        b"POST %b HTTP/1.1\r\nHost: localhost\r\n%bContent-Type: application/json\r\n"
        b"Content-Length: %b\r\nAccept: */*\r\n\r\n%b" % (path, more, said, body)
    )


async def learned(connect: Callable[[], Any]) -> Client:
    client: Client = await connect()
    for number in range(3):
        assert await client.ask(call(b'{"x":%d}' % number)) == b"[%d,0]" % number
    assert client.server.parsed == 2, "the third head is known"
    return client


async def test_a_head_that_comes_again_is_known_whatever_its_body_is() -> None:
    async with place() as (_, connect):
        client = await learned(connect)
        for body, result in (
            (b'{"x":"a"}', b'["a",0]'), (b"{}", b"[null,0]"), (b"", b"[null,0]"),
            (b'{"x":"' + b"z" * 150 + b'","y":7}', b'["' + b"z" * 150 + b'",7]'), (b'{"y": 2, "x": []}', b"[[],2]"),
        ):  # fmt: skip
            assert await client.ask(call(body)) == result
        assert client.server.parsed == 2


PLAIN = call()
SECOND = [
    PLAIN, call(b'{"x":1,"x":2}'), call(b'{"z":1}'), call(b"{"), call(b'{"x":"\xff"}'), call(b'{"y":"a"}'),
    call(b'"' + b"a" * LARGEST + b'"'), PLAIN * 2, PLAIN * 3, PLAIN + call(path=b"/other"), PLAIN + b"X",
    *[call(length=length) for length in (
        b"5", b"6", b"8", b"9", b"07", b"0000000007", b"00000000000000000007", b"+7", b"-7", b"0x7", b"7 ", b" 7",
        b"7, 7", b"7\r\nContent-Length: 7", b"7\r\nContent-Length: 8", b"\xd9\xa7", b"", b"9" * 8, b"9" * 30, b"7;",
    )],
    call(path=b"/other"), call(path=b"/missing"), call(path=b"/echo?x=1"), call(path=b"/%65cho"),
    PLAIN.replace(b"POST", b"GET"), PLAIN.replace(b"POST", b"post"), PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    PLAIN.replace(b"HTTP/1.1", b"RTSP/1.0"), PLAIN.replace(b"HTTP/1.1", b"HTTP/1.2"), b"\r\n" + PLAIN,
    PLAIN.replace(b"localhost", b"evil.test"), PLAIN.replace(b"localhost", b"localhos\0"),
    PLAIN.replace(b"application/json", b"text/plain"), PLAIN.replace(b"Content-Type: application/json\r\n", b""),
    PLAIN.replace(b"application/json", b"application/msgpack"), PLAIN.replace(b"*/*", b"application/msgpack"),
    PLAIN.replace(b"\r\n", b"\n"), PLAIN.replace(b"Accept: */*\r\n\r\n", b"Accept: */*\r\n \r\n"),
    PLAIN.replace(b"Content-Length: 7\r\n", b""), PLAIN.replace(b"Accept", b"accept"),
    *[call(more=more) for more in (
        b"Connection: close\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Origin: http://evil.test\r\n", b"Sec-Fetch-Site: cross-site\r\n",
        b"Content-Encoding: gzip\r\n", b"Host: localhost\r\n", b"X-Request-Timeout: nan\r\n", b"X-A: b\r\n",
    )],
]  # fmt: skip


async def test_what_comes_behind_a_known_head_is_answered_as_on_a_fresh_connection() -> None:
    async with place() as (found, connect):
        instance = found.instance
        for second in SECOND:
            fresh: Client = await connect()
            before = instance.ran
            expected = await fresh.rest(second)
            ran = instance.ran - before
            client = await learned(connect)
            before = instance.ran
            assert await client.rest(second) == expected, second
            assert instance.ran - before == ran, second


async def test_a_body_that_looks_like_a_request_teaches_nothing() -> None:
    evil = call().replace(b"localhost", b"evil.test")
    async with place() as (_, connect):
        for head_first in (True, False):
            client = await connect()
            assert await client.ask(call()) == b"[1,0]"
            body = b'{"x":"' + b"a" * 7
            whole = call(body + evil + b'"}', length=b"%d" % len(evil))
            head, _, _ = whole.partition(b"\r\n\r\n")
            if head_first:  # the body is `evil` alone, in a read of its own
                client.writer.write(head + b"\r\n\r\n")
                await until(
                    lambda client=client: client.server.receiving and client.server.head_complete
                )
                client.writer.write(evil)
                answer = await client.reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 400"), "it is no JSON"
                found = re.search(rb"content-length: (\d+)", answer)
                assert found is not None
                await client.reader.readexactly(int(found[1]))
            assert (await client.rest(evil)).startswith(b"HTTP/1.1 421")


async def test_the_end_of_a_body_and_a_request_in_one_read_teach_nothing() -> None:
    # `POST / HTTP/1.1\r\nContent-Length: 7\r\n` as the end of a body: with the next head it would
    # be one head.
    tail = b'POST /echo HTTP/1.1\r\nContent-Length: 7\r\n"'
    async with place() as (found, connect):
        client = await connect()
        assert await client.ask(call()) == b"[1,0]"
        body = b'"' + tail
        client.writer.write(call(body)[: -len(tail)])
        await until(lambda: client.server.receiving and client.server.head_complete)
        client.writer.write(tail + call())
        await until(lambda: found.instance.ran == 2)
        assert client.server._repeated is None


async def test_two_requests_in_one_read_teach_nothing() -> None:
    async with place() as (_, connect):
        client = await connect()
        assert await client.ask(call()) == b"[1,0]"
        assert await client.ask(call(b"{}") + call(b"{}", path=b"/other")) == b"[null,0]"
        assert await client.answer() == b'"other"'
        assert await client.ask(call(b"{}")) == b"[null,0]"


async def test_heads_that_need_a_closer_look_are_read_each_time() -> None:
    absolute = PLAIN.replace(b" /echo", b" http://localhost/echo")
    async with place() as (_, connect):
        for whole, answered in (
            (call(more=b"Expect: 100-continue\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n"),
            (call(more=b"Origin: http://localhost\r\n"), b""),
            (call(more=b"Sec-Fetch-Site: same-origin\r\n"), b""),
            (call(more=b"Connection: upgrade\r\nUpgrade: h2c\r\n"), b""),
            (call(more=b"X-A: b\r\nX-A: b\r\n"), b""),
            (absolute, b""),
        ):
            client: Client = await connect()
            for number in range(1, 5):
                client.writer.write(whole)
                assert await client.reader.readexactly(len(answered)) == answered, whole
                assert await client.answer() == b"[1,0]"
                assert client.server.parsed >= number, whole


async def test_a_request_in_two_reads_teaches_nothing_wherever_it_is_cut() -> None:
    async with place() as (_, connect):
        for cut in range(1, len(PLAIN)):
            client: Client = await connect()
            assert await client.ask(PLAIN) == b"[1,0]"
            client.server.data_received(PLAIN[:cut])
            client.server.data_received(PLAIN[cut:])
            assert await client.answer() == b"[1,0]"
            assert [await client.ask(PLAIN), await client.ask(PLAIN)] == [b"[1,0]"] * 2
            assert client.server.parsed == 3, "the third is learned, and the fourth is known"


async def test_requests_in_one_large_read_teach_nothing() -> None:
    # The parser gets a large read in portions: the second portion is one request, from its first
    # byte to its last.
    pad = PORTION - len(call(more=b"X-Pad: \r\n"))
    first = call(more=b"X-Pad: %b\r\n" % (b"a" * pad))
    assert len(first) == PORTION
    async with place() as (_, connect):
        client: Client = await connect()
        assert await client.ask(PLAIN) == b"[1,0]"
        client.server.data_received(first + PLAIN)
        assert [await client.answer(), await client.answer()] == [b"[1,0]"] * 2
        assert [await client.ask(PLAIN), await client.ask(PLAIN)] == [b"[1,0]"] * 2
        assert client.server.parsed == 4, "the fourth is learned, and the fifth is known"


async def test_an_empty_line_between_requests_teaches_nothing_and_a_known_head_stays_known() -> (
    None
):
    async with place() as (_, connect):
        client = await learned(connect)
        for _ in range(LESSONS):
            client.server.data_received(b"\r\n")
            assert await client.ask(PLAIN) == b"[1,0]"
        assert client.server.parsed == 2


async def test_a_known_head_waits_for_the_answer_before_it() -> None:
    async with place() as (found, connect):
        client = await connect()
        found.instance.gate.set()
        for number in range(3):
            assert await client.ask(call(b'{"x":%d}' % number, path=b"/hold")) == b"%d" % number
        found.instance.gate.clear()
        client.writer.write(call(b'{"x":10}', path=b"/hold"))
        await until(lambda: found.instance.inside == 4)
        assert client.server.parsed == 2
        client.writer.write(call(b'{"x":11}', path=b"/hold"))
        await until(lambda: client.server.parsed == 3)
        found.instance.gate.set()
        assert [await client.answer(), await client.answer()] == [b"10", b"11"]


async def test_heads_that_always_differ_are_learned_a_few_times() -> None:
    async with place() as (_, connect):
        client = await connect()
        for number in range(LESSONS + 3):
            assert await client.ask(call(more=b"X-Number: %d\r\n" % number)) == b"[1,0]"
        assert (client.server.parsed, client.server._lessons) == (LESSONS + 3, 0)
        assert await client.ask(call(more=b"X-Number: %d\r\n" % LESSONS)) == b"[1,0]"
        assert client.server.parsed == LESSONS + 3, "the last one that was learned is known"


async def test_heads_with_an_id_or_a_trace_are_read_each_time() -> None:
    async with place() as (_, connect):
        for more in (
            b"X-Request-ID: a\r\n",
            b"Traceparent: 00-%b-%b-01\r\n" % (b"a" * 32, b"b" * 16),
            b"Baggage: a=b\r\n",
        ):
            client = await connect()
            for _ in range(3):
                assert await client.ask(call(more=more)) == b"[1,0]"
            assert client.server.parsed == 3


async def test_a_known_head_knows_the_apis_that_are_there_now_and_that_the_port_closes() -> None:
    async with place() as (found, connect):
        client, leaving = await learned(connect), await learned(connect)
        listener = found.listener
        others = {b"/echo": listener.apis[b"/other"]}
        listener.serve(others, listener.executor, listener.responder, listener.relay)
        assert await client.ask(call(b"{}")) == b'"other"'
        found.listener.closing = True
        answer = await leaving.rest(call(b"{}"))
        assert b"connection: close\r\n" in answer
        assert answer.endswith(b'"other"')


def test_where_there_is_no_plan_no_head_is_known() -> None:
    assert PublicConnection.repeats
    assert not EarlyConnection.repeats, "its request may have to wait"
