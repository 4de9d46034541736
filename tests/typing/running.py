"""`graphserve.local` and `graphserve.serve`: calls from outside of a graph check like those inside."""

import asyncio

import graphserve
from graphserve import api, depends, service
from services import Model, Page, Query, Tuned
from starlette.testclient import TestClient


@service
class Gateway:
    model = depends(Model)

    @api
    async def ocr(self, pages: list[Page]) -> list[str]:
        counts = await asyncio.gather(*(self.model.count(page.text) for page in pages))
        return [str(count) for count in counts]


class FakeModel:
    async def count(self, text: str) -> int:
        return 1


def local_is_an_application() -> None:
    with TestClient(graphserve.local(Gateway)) as client:
        client.websocket_connect("/talk")


async def local() -> None:
    async with graphserve.local(Gateway) as gateway:
        reveal_type(gateway)  # R: type[Gateway]
        reveal_type(await gateway.ocr([Page(1)]))  # R: list[str]
        await gateway.ocr(Page(1))  # E: arg-type | reportArgumentType


async def local_with_a_stand_in() -> None:
    async with graphserve.local(Gateway, replace={Model: FakeModel}) as gateway:
        reveal_type(await gateway.ocr(pages=[]))  # R: list[str]


async def local_stream() -> None:
    async with graphserve.local(Model) as model:
        async for token in model.tokens("a b"):
            reveal_type(token)  # R: str


def local_needs_a_class() -> None:
    graphserve.local("app:Gateway")  # E: arg-type | reportArgumentType


def serve() -> None:
    with graphserve.serve(Gateway, port=0) as server:
        reveal_type(server.url)  # R: str
        reveal_type(server.call)  # R: type[Gateway]
        reveal_type(server.call.ocr([Page(1)]).result())  # R: list[str]
        server.call.ocr(["page"]).result()  # E: list-item | reportArgumentType
        server.call.orc([]).result()  # E: attr-defined | reportAttributeAccessIssue, reportUnknownMemberType
        server.wait()


async def serve_on_a_loop() -> None:
    with graphserve.serve(Tuned) as server:
        answer = await server.call.search(Query(text="a"))
        reveal_type(answer.hits)  # R: list[str]


def serve_without_with() -> None:
    reveal_type(graphserve.serve(Gateway).wait())  # R: None


def serve_an_import_string() -> None:
    with graphserve.serve("app:Gateway") as server:
        reveal_type(server.call.ocr([]))  # R: Any
