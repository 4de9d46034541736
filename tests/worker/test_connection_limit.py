"""More connections than there may be: everybody is told, nobody is closed without a word, and it is
logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest

from graphserve import api, service
from graphserve.graph.builder import resolve_here
from graphserve.worker.dispatch.executor import Executor, bind
from graphserve.worker.dispatch.slots import Slots
from graphserve.worker.http.limits import Limits
from graphserve.worker.http.listener import Listener, routes
from graphserve.worker.http.public import acceptor, timeouts
from graphserve.worker.http.public.acceptor import BEYOND, Acceptor
from graphserve.worker.http.public.timeouts import SPARE, Timeouts
from graphserve.worker.http.response import Responder
from graphserve.worker.pages.application import WorkerApp
from graphserve.worker.pages.health import Health
from tests.hostile.wire import answers
from tests.port.test_tls import Authority

pytestmark = pytest.mark.anyio
LIMIT = 20
CALL = b"POST /one HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
HOLD = CALL.replace(b"/one", b"/hold")


@service
class Crowded:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.inside = 0

    @api
    async def one(self) -> int:
        return 1

    @api
    async def hold(self) -> int:
        self.inside += 1
        await self.gate.wait()
        return 1


class Place:
    """A public port in this loop, and who comes there."""

    def __init__(
        self,
        address: tuple[str, int],
        port: Acceptor,
        instance: Crowded,
        client: ssl.SSLContext | None,
    ) -> None:
        self.address = address
        self.port = port
        self.timeouts: Timeouts = port.timeouts
        self.instance = instance
        self._client = client
        self._open: list[asyncio.StreamWriter] = []

    async def come(self, number: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect all at once, and wait until all were seen."""
        name = "localhost" if self._client is not None else None
        pairs = await asyncio.gather(
            *(
                asyncio.open_connection(*self.address, ssl=self._client, server_hostname=name)
                for _ in range(number)
            )
        )
        self._open += [writer for _, writer in pairs]
        return pairs

    def leave(self) -> None:
        for writer in self._open:
            writer.transport.abort()


@asynccontextmanager
async def place(authority: Authority | None = None) -> AsyncIterator[Place]:
    plan, classes = resolve_here(Crowded, {})
    node = plan.node("Crowded")
    cls, _ = classes["Crowded"]
    instance = cls()
    apis = bind(node, instance)
    app = WorkerApp(Health(node.name, list), apis)
    executor = Executor(node, ThreadPoolExecutor(1))
    relay: Any = None
    responder = Responder(node.name, public=True, debug=False)
    listener = Listener(
        app,
        routes(apis.values()),
        executor,
        Slots(1),
        responder,
        relay,
        {},
        keep_alive=5.0,
        access_log=True,
    )
    tls = client = None
    if authority is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(f"{authority.folder}/server.pem")
        client = authority.client_context()
    port = Acceptor(listener, Limits(connections=LIMIT, patience=60.0, keep_alive=60.0), tls)
    sock = socket.create_server(("127.0.0.1", 0))
    found = Place(sock.getsockname(), port, instance, client)
    await port.open(sock, backlog=1000)
    try:
        async with asyncio.timeout(60):
            yield found
    finally:
        found.leave()
        port.close()


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def statuses(
    pairs: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]],
) -> list[list[int]]:
    """The statuses of all answers on each connection, until the server ends it."""
    return [[answer.status for answer in answers(await reader.read())] for reader, _ in pairs]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def all_are_fresh(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    # seconds; a loaded machine may be slow between two connections
    monkeypatch.setattr(timeouts, "FRESH", 3600.0)
    monkeypatch.setattr(acceptor, "LONGEST_HANDSHAKE", 3600.0)  # likewise, in a handshake
    caplog.set_level(logging.INFO, "graphserve.access")


@pytest.mark.parametrize("beyond", [1, 10, 70, 300])
async def test_each_client_of_a_burst_has_an_answer(
    beyond: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with place() as port:
        pairs = await port.come(LIMIT + beyond)
        for _, writer in pairs:
            writer.write(CALL)
        found = await statuses(pairs)
    assert all(each in ([200], [503]) for each in found), found
    assert found[:LIMIT] == [[200]] * LIMIT, "who was first has a place"
    lines = [record.getMessage() for record in caplog.records]
    assert sum(" 503 " in line for line in lines) == found.count([503])
    assert sum(" 200 " in line for line in lines) == found.count([200])


@pytest.mark.parametrize(
    "crowd", [timeouts.CROWD, SPARE + 50], ids=["a few", "too many to be asked"]
)
async def test_while_all_are_busy_all_others_are_told(
    crowd: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "CROWD", crowd)
    async with place() as port:
        busy = await port.come(LIMIT)
        for _, writer in busy:
            writer.write(HOLD)
        await until(lambda: port.instance.inside == LIMIT)
        others = await port.come(SPARE + 100)
        for _, writer in others:
            writer.write(CALL)
        assert await statuses(others) == [[503]] * (SPARE + 100)
        assert port.timeouts.spares == 0, "who was told holds no place"
        (probe,) = await port.come(1)
        probe[1].write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert await statuses([probe]) == [[200]], "a probe is answered"
        port.instance.gate.set()
        assert await statuses(busy) == [[200]] * LIMIT
    lines = [record.getMessage() for record in caplog.records if " 503 " in record.getMessage()]
    assert len(lines) == SPARE + 100
    assert any(line.startswith("POST /one 503 ") for line in lines)
    unread = any(line.startswith("- - 503 ") for line in lines)  # told before they asked
    assert unread == (crowd == SPARE + 50)


async def test_half_a_request_makes_room_and_is_told() -> None:
    async with place() as port:
        halves = await port.come(LIMIT)
        for _, writer in halves:
            writer.write(CALL[:30])
        await until(lambda: sum(one.receiving for one in port.timeouts.connections) == LIMIT)
        whole = await port.come(LIMIT // 2)
        for _, writer in whole:
            writer.write(CALL)
        assert await statuses(whole) == [[200]] * (LIMIT // 2)
        assert await statuses(halves[:2]) == [[503]] * 2, "the oldest went, with a word"


async def test_who_says_nothing_for_long_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with place() as port:
        silent = await port.come(LIMIT)
        await until(lambda: len(port.timeouts.connections) == LIMIT)
        monkeypatch.setattr(timeouts, "FRESH", -1.0)
        whole = await port.come(2)
        for _, writer in whole:
            writer.write(CALL)
        assert await statuses(whole) == [[200]] * 2
        assert await silent[0][0].read() == b""


REFUSALS = {
    b"GET /x y\r\n\r\n": "GET /x 400",
    b"\0\r\n\r\n": "- - 400",
    b"POST /one HTTP/1.1\r\nContent-Length: 0\r\n\r\n": "POST /one 400",
    b"POST /one HTTP/1.1\r\nHost: a b\r\nContent-Length: 0\r\n\r\n": "POST /one 400",
    b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n": "GET /xxx",
    b"GET /y HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 200 + b"\r\n": "GET /y 431",
    b"POST /one HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.test\r\nContent-Length: 0\r\n\r\n": (
        "POST /one 403"
    ),
    b"POST /one?a=%0A HTTP/1.1\r\nHost: localhost\r\nExpect: x\r\nContent-Length: 0\r\n\r\n": (
        "POST /one 417"
    ),
}


@pytest.mark.parametrize("raw", REFUSALS)
async def test_each_refusal_is_in_the_access_log(
    raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with place() as port:
        pairs = await port.come(1)
        pairs[0][1].write(raw)
        (found,) = await statuses(pairs)
    (line,) = [
        record.getMessage() for record in caplog.records if record.name == "graphserve.access"
    ]
    assert line.startswith(REFUSALS[raw]) and f" {found[0]} " in line


async def test_a_slow_head_and_a_slow_body_are_in_the_access_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with place() as port:
        port.timeouts.limits = Limits(connections=LIMIT, patience=0.05, keep_alive=60.0)
        pairs = await port.come(2)
        pairs[0][1].write(b"GET /slow HTTP/1.1\r\n")
        pairs[1][1].write(
            b"POST /one HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/json\r\n"
            b"Content-Length: 9\r\n\r\n{"
        )
        await asyncio.gather(*(reader.readuntil(b"\r\n\r\n") for reader, _ in pairs))
    lines = [record.getMessage() for record in caplog.records if record.name == "graphserve.access"]
    assert len([line for line in lines if line.startswith("GET /slow 408")]) == 1
    assert len(lines) == 2


@pytest.mark.parametrize("beyond", [1, 10, 90])
async def test_each_client_of_a_burst_has_an_answer_by_tls(
    beyond: int, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with place(authority) as port:
        busy = await port.come(LIMIT)
        for _, writer in busy:
            writer.write(HOLD)
        await until(lambda: port.instance.inside == LIMIT)
        others = await port.come(beyond)
        for _, writer in others:
            writer.write(CALL)
        assert await statuses(others) == [[503]] * beyond
        (probe,) = await port.come(1)
        probe[1].write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert await statuses([probe]) == [[200]], "a probe is answered"
        port.instance.gate.set()
        assert await statuses(busy) == [[200]] * LIMIT
    lines = [record.getMessage() for record in caplog.records if record.name == "graphserve.access"]
    assert sum(" 503 " in line for line in lines) == beyond


async def test_handshakes_that_stay_unfinished_end_for_who_waits(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "graphserve.tls")
    monkeypatch.setattr(acceptor, "LONGEST_HANDSHAKE", 0.1)
    monkeypatch.setattr(acceptor, "SHORTEST_HANDSHAKE", 0.001)
    async with place(authority) as port:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            for _ in range(10 * LIMIT):
                silent = stack.enter_context(socket.socket())
                silent.setblocking(False)
                await loop.sock_connect(silent, port.address)
                await loop.sock_sendall(silent, b"\x16\x03\x01")
            (pair,) = await port.come(1)
            assert len(port.port._handshakes) <= LIMIT + BEYOND
            pair[1].write(CALL)
            assert await statuses([pair]) == [[200]]
    (line,) = [record.getMessage() for record in caplog.records if record.name == "graphserve.tls"]
    assert (
        line == "no TLS with 127.0.0.1: there are too many connections, and its handshake was slow"
    )


async def test_who_waits_for_the_place_of_a_handshake_has_it_when_that_is_over(
    authority: Authority,
) -> None:
    async with place(authority) as port:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            for _ in range(LIMIT + BEYOND):
                silent = stack.enter_context(socket.socket())
                silent.setblocking(False)
                await loop.sock_connect(silent, port.address)
            await until(lambda: len(port.port._handshakes) == LIMIT + BEYOND)
            coming = asyncio.ensure_future(port.come(1))
            await until(lambda: port.port._pause is not None)
            assert not coming.done()
            silent.close()
            (pair,) = await coming
            pair[1].write(CALL)
            assert await statuses([pair]) == [[200]]
