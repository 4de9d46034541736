"""What failed below is shown at the entry: which call of which node raised what, as a tree."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from graphserve.errors import Problem, RemoteError
from graphserve.logs.tracebacks import linked, tree
from graphserve.wire import problem
from tests.harness import served
from tests.logs.test_logged_errors import Log

APP = """
import asyncio
from graphserve import RemoteError, api, depends, service

@service
class Leaf:
    @api
    async def fails(self, text: str) -> int:
        raise ValueError(text)

@service
class Middle:
    leaf = depends(Leaf)

    @api
    async def passes(self, text: str) -> int:
        return await self.leaf.fails(text)

    @api
    async def wraps(self, text: str) -> int:
        try:
            return await self.leaf.fails(text)
        except RemoteError as exc:
            raise KeyError("wrapped") from exc

@service
class Gate:
    middle = depends(Middle)
    leaf = depends(Leaf)

    @api
    async def passes(self, text: str) -> int:
        return await self.middle.passes(text)

    @api
    async def both(self, text: str) -> None:
        calls = self.middle.wraps(text), self.leaf.fails("second")
        raise ExceptionGroup("both", await asyncio.gather(*calls, return_exceptions=True))

    @api
    async def kept(self, text: str) -> str:
        try:
            await self.leaf.fails(text)
        except RemoteError as exc:
            return exc.remote_traceback
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    folder = tmp_path_factory.mktemp("app")
    (folder / "app.py").write_text(APP)
    with served("app:Gate", "--log-format", "json", "--reload", cwd=folder) as graph:
        graph.url = graph.wait_log(r'serving on ([^\s"]+)').group(1)
        yield Log(graph)


def calls(text: str) -> list[tuple[int, str]]:
    """The calls of a tree: how deep each is, and what it is."""
    branches = re.findall(r"^((?:   )*)└─ (\w+\.\w+): ", text, re.MULTILINE)
    return [(len(indent) // 3 + 1, call) for indent, call in branches]


@pytest.mark.parametrize(
    ("path", "tree"),
    [
        ("passes", [(1, "Middle.passes"), (2, "Leaf.fails")]),
        ("both", [(1, "Middle.wraps"), (2, "Leaf.fails"), (1, "Leaf.fails")]),
    ],
)
def test_the_entry_shows_the_whole_chain(log: Log, path: str, tree: list[tuple[int, str]]) -> None:
    with log.graph.client() as client:
        answer = client.post(f"/{path}", json={"text": "x\n└─ Evil.call: \x1b[2J"})
    record = log.wait(node="Gate", **{"fields": {"request_id": answer.json()["request_id"]}})
    assert calls(record["traceback"]) == tree
    assert "raise ValueError(text)" in record["traceback"]
    assert "graphserve/" not in record["traceback"]
    below = log.wait(node="Middle", **{"fields": {"request_id": answer.json()["request_id"]}})
    assert calls(below["traceback"]) == [], "it is at the entry once"
    told = answer.json()["traceback"]  # under --reload
    assert told.startswith(f"Gate.{path}: ")
    assert calls(told) == tree


def test_user_code_has_it_too(log: Log) -> None:
    with log.graph.client() as client:
        told = client.post("/kept", json={"text": "x"}).json()
    assert told.startswith("Leaf.fails: Leaf raised ValueError: x\nTraceback ")
    assert told.endswith("ValueError: x\n")


def test_one_error_of_several_callers_is_not_changed() -> None:
    below = RemoteError("below", node="Leaf")
    below.remote_traceback = "Leaf.x: below\n"
    first = problem.log("A.x", below, below, "r")
    second = problem.log("A.x", below, below, "r")
    assert below.remote_traceback == "Leaf.x: below\n"
    assert first.remote_traceback == second.remote_traceback == "A.x: below\n└─ Leaf.x: below\n"


@pytest.mark.parametrize(
    ("with_trace", "kind"), [(True, "remote"), (False, "remote"), (True, None)]
)
def test_what_travels(with_trace: bool, kind: str | None) -> None:
    error = RemoteError("failed", node="Leaf")
    error.remote_traceback = "x" * 100_000 + "\ud800"
    status, _, body = problem.encode(
        error, node="Leaf", request_id="r", with_details=True, with_trace=with_trace
    )
    read = problem.decode(status, kind, body, {}, "Leaf")
    assert isinstance(read, RemoteError)
    if with_trace and kind is not None:
        assert 30_000 < len(read.remote_traceback) < 40_000
        assert "characters are left out" in read.remote_traceback
    else:
        assert read.remote_traceback == ""


def test_a_problem_of_a_user_keeps_its_own_traceback() -> None:
    said = Problem(500, "Oh", extensions={"traceback": "mine"})
    status, _, body = problem.encode(
        said, node="A", request_id="r", with_details=True, with_trace=True
    )
    read = problem.decode(status, "problem", body, {}, "A")
    assert isinstance(read, Problem) and read.extensions == {"traceback": "mine"}


def test_what_a_chain_links() -> None:
    one, two, three = ValueError(1), ValueError(2), ValueError(3)
    one.__cause__, two.__context__, three.__context__ = two, three, one  # a circle
    assert [*linked(one)] == [one, two, three]
    two.__suppress_context__ = True
    assert [*linked(one)] == [one, two]
    group = ExceptionGroup("g", [one, three])
    assert {*linked(group)} == {group, one, two, three}
    assert tree("", []) == ""
    assert tree("T\n", ["a\nb\n\nc", "d"]) == "T\n└─ a\n   b\n\n   c\n└─ d\n"
