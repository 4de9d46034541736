"""WebSockets of a graph in one process, over ASGI: Starlette's own client talks to `local()`.

The code, its answers and its end are those of real processes (`tests/port/test_websockets.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

import graphserve
from graphserve import api, depends, service, websocket
from graphserve.errors import GraphError
from graphserve.worker.websockets.conversation import HIGH_BYTES, Conversation
from tests.apps.talking import Speller, Talker
from tests.harness import eventually
from tests.port.test_websockets import DENIED, FALLS, LEAVING, ROOMS, WRONG_FORMS, with_place, words


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(graphserve.local(Talker)) as client:
        yield client


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "words"


def test_messages_and_arguments_are_those_of_the_port(client: TestClient) -> None:
    with client.websocket_connect("/echo") as socket:
        socket.send_text("é")
        assert socket.receive_text() == "é"
        socket.send_bytes(b"\xff")
        assert socket.receive_bytes() == b"\xff"
    for target, said in ROOMS.items():
        with client.websocket_connect(target) as socket:
            assert socket.receive_json() == said
    with client.websocket_connect("/spell", headers={"x-tenant": "acme"}) as socket:
        socket.send_text("ab")
        assert socket.receive_json() == ["a", "b", "acme"]
    with client.websocket_connect("/who?q=1", subprotocols=["a", "b"]) as socket:
        assert socket.accepted_subprotocol == "b"
        assert socket.receive_json()[:3] == ["GET", "/who", "q=1"]


@pytest.mark.parametrize("target", DENIED)
def test_refusals_are_those_of_the_port(client: TestClient, target: str) -> None:
    status, detail = DENIED[target]
    refused = pytest.raises((WebSocketDenialResponse, WebSocketDisconnect))
    with refused as raised, client.websocket_connect(target):
        pass
    if isinstance(raised.value, WebSocketDenialResponse):
        assert raised.value.status_code == status
        assert detail in raised.value.json()["detail"]
    else:  # as Starlette has it: the status is the server's
        assert status in (403, 404)


@pytest.mark.parametrize("how", FALLS)
def test_close_codes_are_those_of_the_port(client: TestClient, how: str) -> None:
    with (
        client.websocket_connect(f"/fall?how={how}") as socket,
        pytest.raises(WebSocketDisconnect) as raised,
    ):
        socket.receive_text()
    assert (raised.value.code, raised.value.reason) == FALLS[how]


def test_limits_are_those_of_the_port(client: TestClient, place: Path) -> None:
    for how, message, code in WRONG_FORMS:
        with client.websocket_connect(f"/fall?how={how}") as socket:
            if isinstance(message, str):
                socket.send_text(message)
            else:
                socket.send_bytes(message)
            with pytest.raises(WebSocketDisconnect) as raised:
                socket.receive_text()
        assert (raised.value.code, raised.value.reason) == code
    ends = {
        "/idle": (1001, "nothing was said for 0.2 s"),
        with_place("/short", place): (1001, "its time is over"),
        "/small": (1009, "a message is longer than 1000 bytes"),
    }
    for target, end in ends.items():
        with client.websocket_connect(target) as socket:
            if target == "/small":
                socket.send_text("é" * 501)
            if "short" in target:
                assert 0 < socket.receive_json() <= 0.3
            with pytest.raises(WebSocketDisconnect) as raised:
                socket.receive_text()
        assert (raised.value.code, raised.value.reason) == end


@pytest.mark.parametrize("target", LEAVING)
def test_code_ends_with_its_client(client: TestClient, place: Path, target: str) -> None:
    path, _, query = target.partition("?")
    with client.websocket_connect(with_place(path, place) + f"&{query}") as socket:
        if path == "/stream":
            assert socket.receive_json() == 0
        else:
            eventually(lambda: "sleep began" in words(place))
    eventually(lambda: set(words(place)) == LEAVING[target])


def test_code_that_hears_of_the_end_may_still_call(client: TestClient, place: Path) -> None:
    with client.websocket_connect(with_place("/saving", place)) as socket:
        socket.send_text("a")
        socket.send_text("b")
        socket.close(3001, "bye")
    eventually(lambda: words(place) == ["saved a+b 3001 bye"])


class Deaf:
    """Stands in for a speller."""

    async def spell(self, text: str) -> list[str]:
        return ["?"]

    async def count(self, until: int, place: str) -> None: ...
    async def sleep(self, place: str) -> None: ...
    async def save(self, text: str, place: str) -> None: ...


def test_services_below_can_be_replaced() -> None:
    app = graphserve.local(Talker, replace={Speller: Deaf})
    with TestClient(app) as client, client.websocket_connect("/spell") as socket:
        socket.send_text("ab")
        assert socket.receive_json() == ["?"]


@service(concurrency=1, queue=1, timeout=600)
class Narrow:
    @websocket
    async def talk(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())

    @api
    async def read(self) -> str:
        return "read"


def test_a_socket_holds_a_slot_and_waits_for_one() -> None:
    with TestClient(graphserve.local(Narrow)) as client:
        with client.websocket_connect("/talk") as first:
            portal = client.portal
            assert portal is not None
            second = portal.start_task_soon(asyncio.to_thread, talk_once, client)
            app = client.app
            node = app._graph.nodes["Narrow"]  # type: ignore[attr-defined]
            eventually(lambda: node.sockets)  # the second one waits
            full = pytest.raises(WebSocketDenialResponse)
            with full as raised, client.websocket_connect("/talk"):
                pass
            assert raised.value.status_code == 503
            assert raised.value.json()["detail"] == "the queue of Narrow is full"
            assert not second.done()
            first.send_text("first")
            assert first.receive_text() == "first"
        assert second.result(60) == "second"
        assert node.take()  # both slots are back
        node.release()


def talk_once(client: TestClient) -> str:
    with client.websocket_connect("/talk") as socket:
        socket.send_text("second")
        return socket.receive_text()


def test_what_is_no_websocket_says_what_to_write() -> None:
    early = pytest.raises(RuntimeError, match=r"with TestClient\(local\(Talker\)\) as client:")
    with early, TestClient(graphserve.local(Talker)).websocket_connect("/echo"):
        pass
    other = pytest.raises(RuntimeError, match="call the APIs as methods")
    with TestClient(graphserve.local(Talker)) as client, other:
        client.get("/hello")


def test_only_the_entry_has_websockets() -> None:
    @service
    class Above:
        narrow = depends(Narrow)

        @api
        async def read(self) -> str:
            return await self.narrow.read()

    with pytest.raises(GraphError, match=r"Narrow\.talk is a @websocket, and only the entry has"):
        graphserve.local(Above)


# --- what is between the two sides, step by step ---


class Script:
    """An application that is steered from outside."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.held = asyncio.Event()
        self.ended: list[BaseException | None] = []
        self.room = 0
        self.conversation = Conversation(
            self.run, {}, self.send, patience=60, on_room=self.has_room, on_end=self.ended.append
        )
        self.conversation.begin()

    async def run(self, scope: object, receive: object, send: object) -> None:
        while True:
            message = await self.conversation.receive()
            self.heard.append(message["type"])
            if message["type"] == "websocket.disconnect":
                return
            await self.held.wait()

    async def send(self, message: object) -> None: ...

    def has_room(self) -> None:
        self.room += 1

    async def over(self) -> BaseException | None:
        async with asyncio.timeout(60):
            while not self.ended:  # noqa: ASYNC110
                await asyncio.sleep(0)
        return self.ended[0]


MESSAGE = {"type": "websocket.receive", "text": "a"}


def test_unread_messages_come_before_the_end_if_the_client_has_said_it() -> None:
    async def main() -> None:
        script = Script()
        for _ in range(3):
            script.conversation.hear(MESSAGE, 1)
        script.conversation.lose(1000, orderly=True)
        script.conversation.lose(1006)  # the first word counts
        script.conversation.hear(MESSAGE, 1)  # nothing comes behind it
        await asyncio.sleep(0.15)  # longer than code has that was told nothing
        assert not script.ended
        script.held.set()
        assert await script.over() is None
        assert script.heard == [
            "websocket.connect",
            *["websocket.receive"] * 3,
            "websocket.disconnect",
        ]

    asyncio.run(main())


def test_code_that_is_told_nothing_is_cancelled() -> None:
    async def main() -> None:
        for orderly in (True, False):
            script = Script()
            script.conversation.lose(1006, orderly=orderly)
            assert isinstance(await script.over(), asyncio.CancelledError)
            assert script.heard == ["websocket.connect"]

    asyncio.run(main())


def test_a_client_is_held_back_by_the_bytes_that_wait() -> None:
    async def main() -> None:
        script = Script()
        assert not script.conversation.full
        script.conversation.hear(MESSAGE, HIGH_BYTES)
        assert script.conversation.full
        script.held.set()
        async with asyncio.timeout(60):
            while not script.room:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert not script.conversation.full
        for _ in range(HIGH_BYTES // 200):  # empty ones take room too
            script.conversation.hear(MESSAGE, 0)
        assert script.conversation.full
        script.conversation.lose(1006)
        await script.over()
        assert not script.conversation.full

    asyncio.run(main())
