"""`@service` and `@api`, bare and with options: what they leave of the class, and which options exist."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator
from typing import Any

from graphserve import Batch, api, depends, service, websocket
from services import Model
from starlette.websockets import WebSocket


@service
class Bare:
    @api
    async def run(self, text: str) -> int:
        return len(text)

    @api
    def anything(self, data: Any) -> Any:
        return data


@service()
class Called:
    @api()
    async def run(self, text: str) -> int:
        return len(text)


@service(name="child", workers=2)
class Child(Bare):
    extra: int = 1

    @api
    async def run(self, text: str, times: int = 1) -> int:
        return await super().run(text) * times


@service
class Caller:
    child = depends(Child)

    @api
    async def twice(self, text: str) -> AsyncIterator[int]:
        yield await self.child.run(text, times=2)

    @api
    async def generated(self) -> AsyncGenerator[int, None]:
        yield 1

    @api
    def generated_in_a_thread(self) -> Generator[str, None, None]:
        yield "a"


def service_bare() -> None:
    bare: type[Bare] = Bare
    reveal_type(bare())  # R: Bare


def service_called() -> None:
    reveal_type(Called())  # R: Called


async def service_with_options_keeps_its_class() -> None:
    reveal_type(Child().extra)  # R: int
    reveal_type(await Child().run("a", 2))  # R: int
    async for item in Caller().twice("a"):
        reveal_type(item)  # R: int


def generators_are_streams() -> None:
    reveal_type(Caller.generated())  # R: Stream[int]
    reveal_type(Caller.generated_in_a_thread())  # R: Stream[str]


async def an_inherited_api() -> None:
    reveal_type(await Child.anything(1))  # R: Any


def service_unknown_option() -> None:
    service(wrokers=2)  # E: call-overload | reportCallIssue


def service_wrong_option() -> None:
    service(workers="all")  # E: call-overload | reportArgumentType
    service(env={"A": 1})  # E: dict-item | reportArgumentType
    service(timeout="5")  # E: call-overload | reportArgumentType


def service_of_a_function() -> None:
    @service  # E: call-overload | reportArgumentType, reportUntypedFunctionDecorator
    def function() -> None: ...


def api_wrong_options() -> None:
    api(rout="/a")  # E: call-overload | reportCallIssue
    api(batch=8)  # E: call-overload | reportArgumentType
    api(idempotent="yes")  # E: call-overload | reportArgumentType


def batch_arguments() -> None:
    Batch(max_size="8")  # E: arg-type | reportArgumentType
    Batch(size=8)  # E: call-arg | reportCallIssue


def api_with_a_batch() -> None:
    class Batched:
        @api(batch=Batch(max_size=8))
        def read(self, crops: list[bytes]) -> list[str]:
            return ["" for _ in crops]

    reveal_type(Batched.read([b"a"]).result())  # R: list[str]
    reveal_type(Batched().read([b"a"]))  # R: list[str]


def a_helper_is_no_api() -> None:
    reveal_type(Model().helper())  # R: int
    Model.helper()  # E: call-arg | reportCallIssue


@service
class Room:
    @websocket
    async def talk(self, socket: WebSocket) -> None:
        await socket.accept()

    @websocket(route="/rooms/{room}", max_size=1000, ping=None, idle=60, timeout=3600.0, compress=False)
    async def enter(self, socket: WebSocket, room: str, loud: bool = False) -> None:
        await self.talk(socket)


@service
class Hall:
    room = depends(Room, url="http://127.0.0.1:1")

    @api
    async def look(self) -> None:
        reveal_type(self.room.talk)  # R: OnlyAtThePort
        self.room.talk("a")  # E: operator | reportCallIssue


async def websocket_is_a_method_of_its_instance(socket: WebSocket) -> None:
    reveal_type(await Room().enter(socket, "a", loud=True))  # R: None
    await Room().enter(socket, 1)  # E: arg-type | reportArgumentType
    await Room().enter(socket)  # E: call-arg | reportCallIssue


def websocket_awaits() -> None:
    def talk(self: Room, socket: WebSocket) -> None: ...

    async def enter(self: Room, socket: WebSocket) -> None: ...

    websocket(talk)  # E: arg-type | reportArgumentType
    websocket(max_sise=1)  # E: call-overload | reportCallIssue
    websocket(route="/enter")(enter)
    websocket(route="/talk")(talk)  # E: arg-type | reportArgumentType
