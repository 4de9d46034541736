"""Names of the package: wrong ones are errors, and what its functions return has a name for annotations."""

from collections.abc import Iterator

import graphserve
from graphserve import Call, Server, Stream, api, depends, service
from graphserve import servcie  # E: attr-defined | reportAttributeAccessIssue, reportUnknownVariableType, reportUnusedImport


@service
class Leaf:
    @api
    async def run(self, text: str) -> int:
        return len(text)

    @api
    def tokens(self, text: str) -> Iterator[str]:
        yield from text.split()


@service
class Gateway:
    leaf = depends(Leaf)

    @api
    async def run(self, text: str) -> int:
        call: Call[int] = self.leaf.run(text)
        reveal_type(call)  # R: Call[int]
        stream: Stream[str] = self.leaf.tokens(text)
        reveal_type(stream)  # R: Stream[str]
        return await call


def in_hand() -> None:
    request = graphserve.request()
    reveal_type(request)  # R: Request
    reveal_type(request.headers)  # R: Mapping[str, str]
    reveal_type(request.headers.get("a"))  # R: str | None
    reveal_type(request.client)  # R: tuple[str, int] | None
    reveal_type(request.deadline())  # R: float | None
    reveal_type(graphserve.requests())  # R: tuple[BatchedRequest, …]
    reveal_type(graphserve.requests()[0].items)  # R: int
    reveal_type(request.answer.status)  # R: int
    request.answer.status = "201"  # E: assignment | reportAttributeAccessIssue
    request.answer.headers["a"] = 1  # E: assignment | reportArgumentType
    request.answer.set_cookie("a", "b", max_age=5)
    request.method = "GET"  # E: misc | reportAttributeAccessIssue


def wrong_attribute() -> None:
    graphserve.depnds(Leaf)  # E: attr-defined | reportAttributeAccessIssue, reportUnknownMemberType


def fixture() -> Iterator[Server[Gateway]]:
    with graphserve.serve(Gateway, port=0) as server:
        reveal_type(server)  # R: Server[Gateway]
        yield server


def annotated(server: graphserve.Server[Gateway]) -> None:
    reveal_type(server)  # R: Server[Gateway]
    reveal_type(server.url)  # R: str
    reveal_type(server.call.run("a"))  # R: Call[int]


def wrong_result(server: Server[Gateway]) -> int:
    return server.url  # E: return-value | reportReturnType
