"""Errors that cannot be written out as they are: each call is answered all the same, and its slot
is free again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

import graphserve
from graphserve.call.context import CallContext
from graphserve.errors import CallError, Problem
from graphserve.graph.builder import resolve_here
from graphserve.wire import problem
from graphserve.worker.dispatch.executor import Executor, bind
from tests.apps import unwritable
from tests.apps.unwritable import FAILURES, SHOWN
from tests.harness import APPS, Served, served

ROOT = APPS.parent.parent
APIS = ["limited", "unlimited", "batched", "batched_items", "items", "items_in_thread"]


@pytest.fixture(scope="module")
def graphs() -> Iterator[dict[str, Served]]:
    with (
        served("tests.apps.unwritable:Leaf", "--timeout", "5", cwd=ROOT) as entry,
        served("tests.apps.unwritable:Gateway", "--timeout", "5", cwd=ROOT) as hop,
    ):
        yield {"entry": entry, "hop": hop}


def body(api: str, kind: str, before: int = 0) -> dict[str, Any]:
    if api.startswith("batched"):
        return {"kinds": [kind]}
    return {"kind": kind, "before": before} if api.startswith("items") else {"kind": kind}


def expected(kind: str, *, hop: bool) -> tuple[int, str]:
    _, status, title = FAILURES[kind]
    return (502, "Bad Gateway") if hop and status == 500 else (status, title)


@pytest.mark.parametrize("way", ["entry", "hop"])
@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("kind", FAILURES)
def test_it_is_answered_and_the_next_call_too(
    graphs: dict[str, Served], way: str, api: str, kind: str
) -> None:
    with graphs[way].client() as client:
        answer = client.post(f"/{api}", json=body(api, kind))
        assert (answer.status_code, answer.json()["title"]) == expected(kind, hop=way == "hop"), (
            answer.text
        )
        assert answer.headers["content-type"] == "application/problem+json"
        assert "set-cookie" not in answer.headers
        assert client.post(f"/{api}", json=body(api, "fine")).status_code == 200


@pytest.mark.parametrize("way", ["entry", "hop"])
@pytest.mark.parametrize("api", ["items", "items_in_thread"])
@pytest.mark.parametrize("kind", FAILURES)
def test_a_stream_that_has_begun_ends_with_it(
    graphs: dict[str, Served], way: str, api: str, kind: str
) -> None:
    with graphs[way].client(headers={"accept": "text/event-stream"}) as client:
        text = client.post(f"/{api}", json=body(api, kind, before=2)).text
        assert text.startswith('id: 1\ndata: "0"\n\nid: 2\ndata: "1"\n\nevent: error\ndata: {'), (
            text
        )
        _, title = expected(kind, hop=way == "hop")
        assert f'"title":"{title}"'.replace("\\", "\\\\") in text
        assert client.post(f"/{api}", json=body(api, "fine")).status_code == 200


@pytest.mark.parametrize("way", ["entry", "hop"])
@pytest.mark.parametrize("api", APIS)
def test_a_result_that_is_no_text(graphs: dict[str, Served], way: str, api: str) -> None:
    with graphs[way].client() as client:
        assert client.post(f"/{api}", json=body(api, "result")).status_code == (
            502 if way == "hop" else 500
        )
        assert client.post(f"/{api}", json=body(api, "fine")).status_code == 200


def test_the_text_is_kept_as_far_as_it_can_be(graphs: dict[str, Served]) -> None:
    with graphs["entry"].client() as client:
        said = client.post("/limited", json={"kind": "problem"}).json()
    assert (said["title"], said["detail"], said["type"], said[SHOWN]) == (
        SHOWN,
        SHOWN,
        SHOWN,
        [{SHOWN: SHOWN}],
    )
    with graphs["hop"].client() as client:
        said = client.post("/caught", json={"kind": "mute"}).json()
        assert said == {
            "class": "RemoteError", "title": "Bad Gateway", "detail": "Leaf raised Mute", "node": "Leaf",
        }  # fmt: skip
        said = client.post("/caught", json={"kind": "other"}).json()
        assert said["detail"] == f"Leaf raised ValueError: {SHOWN}"


def test_what_cannot_be_written_is_in_the_log(graphs: dict[str, Served]) -> None:
    graph = graphs["entry"]
    for kind, words in [
        ("mute", r"Leaf\.limited: Leaf raised Mute\b"),
        ("number", r"the header 'Retry-After' of a Problem is a str, not int"),
        ("arguments", r"Leaf\.limited: Leaf raised InvalidArguments: caf"),
        ("circular", r"Leaf answered with a Problem that cannot be written"),
    ]:
        before = len(graph.log)
        with graph.client() as client:
            client.post("/limited", json={"kind": kind})
        graph.wait_log(words, after=before)


@pytest.mark.slow
@pytest.mark.parametrize("api", APIS)
def test_the_stop_is_quick(api: str) -> None:
    patient = ("--timeout", "5", "--timeout-graceful-shutdown", "600")
    with served("tests.apps.unwritable:Gateway", *patient, cwd=ROOT) as graph:
        with graph.client() as client:
            for kind in ("mute", "other", "header", "tampered"):
                client.post(f"/{api}", json=body(api, kind))
        assert graph.stop() == 0, "no slot is held: it would be waited for"


@pytest.mark.parametrize("api", APIS)
def test_in_this_process(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest-xdist cannot send such text
    monkeypatch.setattr(logging.getLogger("graphserve.calls"), "propagate", False)

    async def call(gateway: Any, kind: str) -> Any:
        found = getattr(gateway, api)(**body(api, kind))
        return [item async for item in found] if api.startswith("items") else await found

    async def main() -> None:
        async with graphserve.local(unwritable.Gateway) as gateway:
            for kind in [*FAILURES, "result"]:
                with pytest.raises(CallError) as caught:
                    await asyncio.wait_for(call(gateway, kind), 20)
                if kind != "result":
                    assert (caught.value.status, caught.value.title) == expected(kind, hop=True)
                assert await asyncio.wait_for(call(gateway, "fine"), 20) in ("fine", ["fine"])

    asyncio.run(main())


def test_a_client_that_speaks_json_is_understood(graphs: dict[str, Served]) -> None:
    """The problem of a failed call is valid JSON in UTF-8, for any reader."""
    answer = httpx.post(f"{graphs['entry'].url}/limited", json={"kind": "problem"}, trust_env=False)
    assert answer.content.decode("utf-8").isascii()


REFUSED: list[tuple[Any, Any, type[Exception]]] = [
    ("X-Split", "b\r\nSet-Cookie: x", ValueError),
    ("X-Split: a\r\nSet-Cookie", "x", ValueError),
    ("X-Nul", "a\0", ValueError),
    ("X-Wide", "\u20ac", ValueError),
    ("", "x", ValueError),
    ("Content-Length", "0", ValueError),
    ("transfer-encoding", "chunked", ValueError),
    ("Connection", "close", ValueError),
    ("X-Graphserve-Error", "http", ValueError),
    ("Retry-After", 3, TypeError),
    (b"Retry-After", "3", TypeError),
]


@pytest.mark.parametrize(("name", "value", "kind"), REFUSED)
def test_a_problem_refuses_headers_that_no_answer_can_have(
    name: Any, value: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        Problem(409, "Taken", headers={name: value})


def test_headers_of_a_peer_that_no_answer_can_have_are_left_out() -> None:
    sent = {name.lower(): value for name, value, kind in REFUSED if kind is ValueError} | {
        "x-seat": "4"
    }
    found = problem.decode(409, "problem", b'{"title": "Taken"}', sent, "Peer")
    assert isinstance(found, Problem)
    assert found.headers == {"x-seat": "4"}


def test_results_of_a_cut_call_that_do_not_go_together(graphs: dict[str, Served]) -> None:
    with graphs["entry"].client() as client:
        answer = client.post("/uneven", json={"values": [1, 2, 3]})
        assert answer.status_code == 500, answer.text
        assert client.post("/uneven", json={"values": [1]}).json() == [[0.0]]


def test_the_slot_is_free_though_the_answer_raises() -> None:
    """Whatever comes of the answer: nothing that we know of raises there."""

    def broken(*_: Any) -> None:
        raise LookupError("no answer")

    async def main(name: str) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        plan, _ = resolve_here(unwritable.Leaf, {})
        node = plan.node(plan.entry)
        with ThreadPoolExecutor(1) as threads:
            executor, free = Executor(node, threads), asyncio.Event()
            executor.start(
                bind(node, unwritable.Leaf())[name],
                {"kind": "fine"},
                CallContext(),
                broken,
                free.set,
            )
            await asyncio.wait_for(free.wait(), 10)
            assert not executor.executing

    for name in ("limited", "unlimited"):
        asyncio.run(main(name))
