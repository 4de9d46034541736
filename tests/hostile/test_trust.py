"""Nobody is more than a client for what he sends: whichever way a public request goes, and whatever
it holds.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from graphserve import local
from graphserve.errors import InvalidArguments
from graphserve.wire import arrays, extensions, shared_buffers
from graphserve.wire.trust import MADE, PEER, PEER_BY_SOCKET, RELAYED
from tests.apps import trust
from tests.harness import APPS, Served, children, eventually, served, shared, sockets, waiting
from tests.hostile.wire import answers, exchange, read_to_end
from tests.relaying import Post, free_or_relayed, to_one_worker

ROOT = APPS.parent.parent
TEXT = "a text of an exception"
MSGPACK = "application/msgpack"
TYPED = "application/vnd.graphserve+msgpack"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("t") / "run"


@pytest.fixture(scope="module")
def graph(folder: Path) -> Iterator[Served]:
    with served("tests.apps.trust:Gateway", "--run-dir", str(folder), cwd=ROOT) as graph:
        yield graph


@pytest.fixture(scope="module", params=["at once", "relayed"])
def post(
    request: pytest.FixtureRequest, graph: Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Post]:
    with free_or_relayed(request.param, graph, tmp_path_factory.mktemp("gate")) as post:
        yield post


def codes(body: bytes) -> set[int]:
    """The extension types in a body."""
    found = set()
    msgspec.msgpack.decode(body, ext_hook=lambda code, data: found.add(code))
    return found


@pytest.fixture(scope="module")
def sender() -> Iterator[shared_buffers.MemorySender]:
    """Memory of this process, as a service of the graph has it: whoever follows a reference to it
    reads it.
    """
    with closing(shared_buffers.MemorySender(1 << 24)) as sender:
        yield sender


def references(graph: Served, sender: shared_buffers.MemorySender) -> list[bytes]:
    """Good ones, and such that name what processes have open."""
    good = sender.place(memoryview(bytes(shared_buffers.MIN_SIZE)))
    assert good is not None
    pid, descriptor, inode, length, generation = shared_buffers.REFERENCE.unpack(good)
    pack = shared_buffers.REFERENCE.pack
    strange = [
        pack(pid, descriptor, inode, 2**63, generation),
        pack(pid, descriptor, 0, length, generation),
    ]
    for process in (graph.pid, *graph.workers()):
        inode = os.stat(f"/proc/{process}/fd/2").st_ino
        strange.append(pack(process, 2, inode, 8, 0))
    return [good, *strange]


def test_references_are_followed_nowhere(
    post: Post, graph: Served, sender: shared_buffers.MemorySender
) -> None:
    array = arrays.pack(np.zeros(shared_buffers.MIN_SIZE, "u1"))[0]
    for reference in references(graph, sender):
        plain, shaped = extensions.reference(reference), extensions.reference(reference, array)
        for path, value in (
            ("/size", plain), ("/sizes", {"a": [plain]}), ("/together", [plain]), ("/anything", plain),
            ("/anything", [{"a": plain}]), ("/total", shaped), ("/anything", shaped), ("/is_admin", plain),
        ):  # fmt: skip
            for kind in (MSGPACK, TYPED):
                answer = post(
                    path,
                    content=msgspec.msgpack.encode({"x": value}),
                    headers={"content-type": kind},
                )
                assert answer.status_code == 422, (path, answer.text)
    assert sender.in_transit() >= 1, "nobody has touched it"


def test_internal_values_are_refused(post: Post) -> None:
    for code, data in (
        (3, b'{"name":"a","admin":true}'),
        (3, b"1"),
        (4, (2**70).to_bytes(10, "little")),
        (9, b""),
    ):
        value = msgspec.msgpack.Ext(code, data)
        for path, said in (
            ("/is_admin", value),
            ("/anything", value),
            ("/anything", {"a": [value]}),
        ):
            for kind in (MSGPACK, TYPED):
                answer = post(
                    path,
                    content=msgspec.msgpack.encode({"x": said}),
                    headers={"content-type": kind},
                )
                assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("kind", [MSGPACK, TYPED, "application/json"])
def test_fields_go_by_their_aliases(post: Post, kind: str) -> None:
    write = msgspec.json.encode if kind == "application/json" else msgspec.msgpack.encode
    for path, wrap in (
        ("/is_admin", lambda value: value),
        ("/holds_admin", lambda value: {"account": value}),
    ):
        for field, expected in (("admin", b"false"), ("x-admin", b"true")):
            said = {"x": wrap({"name": "a", field: True})}
            answer = post(path, content=write(said), headers={"content-type": kind})
            assert (answer.status_code, answer.content) == (200, expected)


@pytest.mark.parametrize("accept", [MSGPACK, TYPED])
def test_large_results_come_whole_and_keep_no_memory(
    post: Post, graph: Served, accept: str
) -> None:
    for _ in range(3):
        answer = post("/large", json={"size": 100_000}, headers={"accept": accept})
        assert answer.headers["content-type"] == accept
        assert len(answer.content) > 800_000 and codes(answer.content) == {1}
    frames = post(
        "/larges", json={"size": 100_000}, headers={"accept": "application/vnd.graphserve.stream"}
    )
    assert len(frames.content) > 800_000
    for pid in graph.workers("n1"):
        assert not memory_files(pid)
    plain = post("/account", json={}, headers={"accept": MSGPACK})
    assert msgspec.msgpack.decode(plain.content) == {"name": "a", "x-admin": True}


def memory_files(pid: int) -> list[str]:
    """What a process has in shared memory of its own."""
    links = (os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink())
    return [link for link in links if link.startswith("/memfd:graphserve ")]


def test_internal_headers_do_not_count(post: Post) -> None:
    for headers in (
        {"x-graphserve-deadline": "1"}, {"x-graphserve-deadline": "none"}, {"x-graphserve-public": "0"},
        {"x-graphserve-sent": "1"}, {"x-graphserve-sent": "none"},
        {"x-graphserve-peer": "1"}, {"x-graphserve-error": "problem"},
    ):  # fmt: skip
        assert post("/pid", json={}, headers=headers).status_code == 200
        answer = post("/size", json={"x": 1}, headers=headers)
        assert answer.status_code == 422
        assert not [name for name in answer.headers if name.startswith("x-graphserve")]


@pytest.mark.parametrize(
    "accept", ["application/x-ndjson", "text/event-stream", "application/vnd.graphserve.stream"]
)
def test_a_stream_that_fails_late_tells_no_text_and_no_header(post: Post, accept: str) -> None:
    try:
        answer = post("/raises_late", json={}, headers={"accept": accept}).content
    except httpx.RemoteProtocolError:  # NDJSON is cut off
        return
    assert b"urn:graphserve:problem:remote" in answer
    assert TEXT.encode() not in answer and b"x-graphserve-" not in answer


def test_the_public_port_knows_no_openings(graph: Served) -> None:
    request = (
        b"POST /pid HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 2\r\n\r\n{}"
    )
    for kind in (PEER, PEER_BY_SOCKET, RELAYED, MADE):
        (answer,) = exchange(graph, kind.opening + request)
        assert answer.status == 400
    prepared = request.replace(b"application/json", TYPED.encode()).replace(b"{}", b"\x80 ")
    exchange(graph, prepared)


def test_a_call_that_does_not_fit_holds_no_slot_for_a_batch(graph: Served) -> None:
    with ExitStack() as stack:
        client, _ = to_one_worker(stack, graph)
        mine = client.post("/pid", json={}).json()
        for wrong in ({"x": 1}, {"x": [1]}, {"y": []}):
            assert client.post("/together", json=wrong).status_code == 422
            assert client.post("/pid", json={}).json() == mine, (
                "its slot is taken, so the call went to its sibling"
            )


def test_a_call_that_does_not_fit_holds_no_slot_in_one_process() -> None:
    async def ask() -> None:
        async with local(trust.Gateway) as gateway:
            wrong: Any = gateway.together([1])  # type: ignore[list-item]
            with pytest.raises(InvalidArguments):
                await wrong
            assert await asyncio.wait_for(gateway.pid(), 10) == os.getpid()

    asyncio.run(ask())


# --- injected clients, which user code may hand a client's bytes to ---


def test_an_injected_client_makes_nobody_a_service(
    graph: Served, sender: shared_buffers.MemorySender
) -> None:
    with graph.client() as client:
        for reference in references(graph, sender)[:2]:
            body = msgspec.msgpack.encode({"x": extensions.reference(reference)}).hex()
            status, text = client.post("/made", json={"body": body}).json()
            assert status == 422 and "not accepted here" in text
        for headers in ({"x-graphserve-deadline": "1"}, {"x-graphserve-deadline": "none"}):
            headers = {**headers, "content-type": "application/json"}
            assert client.post("/left", json={"headers": headers}).json() == [200, '"int"']
        for path in ("/large", "/large_in_turn"):
            status, size = client.post("/made_large", json={"path": path}).json()
            assert status == 200 and size > 800_000


# --- sockets of the run folder ---


@pytest.fixture(params=["own", "shared"])
def place(request: pytest.FixtureRequest, graph: Served, folder: Path) -> str:
    if request.param == "shared":
        return shared(folder, "Model")
    (model,) = graph.workers("n0")
    return next(str(path) for path in sockets(folder) if path.name == f"{model}.sock")


def ask(
    path: str, opening: bytes, target: str, value: Any, *, kind: str = TYPED, more: bytes = b""
) -> Any:
    body = (
        json.dumps(value).encode() if kind == "application/json" else msgspec.msgpack.encode(value)
    )
    head = b"POST %b HTTP/1.1\r\nhost: x\r\naccept: %b\r\nconnection: close\r\n" % (
        target.encode(),
        kind.encode(),
    )
    rest = b"content-type: %b\r\ncontent-length: %d\r\n\r\n" % (kind.encode(), len(body))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(path)
        for byte in opening:  # it may come in pieces
            sock.sendall(bytes([byte]))
        sock.sendall(head + more + rest + body)
        (answer,) = answers(read_to_end(sock))
    return answer


@pytest.mark.parametrize("who", [None, RELAYED, MADE, PEER_BY_SOCKET, PEER])
def test_a_connection_is_what_it_opens_as(graph: Served, place: str, who: Any) -> None:
    opening = who.opening if who is not None else b""
    peer = who in (PEER, PEER_BY_SOCKET)
    large = msgspec.msgpack.Ext(4, (2**70).to_bytes(10, "little"))
    assert ask(place, opening, "/anything", {"x": large}).status == (200 if peer else 422)
    field = {"x": {"name": "a", "admin": True}}
    assert ask(place, opening, "/is_admin", field).body == (b"\xc3" if peer else b"\xc2")
    late = ask(
        place,
        opening,
        "/anything",
        {"x": 1},
        more=b"x-graphserve-deadline: %d\r\n" % time.monotonic_ns(),
    )
    assert late.status == (200 if who is None else 504)
    raised = ask(place, opening, "/raises", {})
    assert raised.status == 500
    assert (TEXT in raised.problem["detail"]) == (peer or who is MADE)
    assert ("x-graphserve-error" in raised.headers) == (who is not None)
    result = ask(place, opening, "/large", {"size": 100_000}).body
    assert codes(result) == ({2} if who is PEER else {1})
    raised = ask(place, opening, "/size", {"x": 1}, kind="application/json")
    assert raised.status == 422 and ("x-graphserve-error" in raised.headers) == (who is not None)


# --- a fallback server ---


def test_a_fallback_server_makes_nobody_a_service(
    tmp_path: Path, run_dir: Path, sender: shared_buffers.MemorySender
) -> None:
    (tmp_path / "ready").touch()
    with served("entry:Entry", "--run-dir", str(run_dir), env={"FLAGS": str(tmp_path)}) as graph:
        (tmp_path / "slow").touch()
        (worker,) = graph.workers()
        os.kill(worker, 9)
        eventually(
            lambda: [pid for pid in children(graph.pid) if pid in graph.fallback_servers()], 30
        )
        graph.wait_log("a fallback server is at the public port")
        found: list[int] = []
        good = references(graph, sender)[0]

        def call(path: str, name: str, value: Any) -> None:
            with graph.client() as client:
                body = msgspec.msgpack.encode({name: value})
                found.append(
                    client.post(path, content=body, headers={"content-type": MSGPACK}).status_code
                )

        def upload(query: dict[str, str]) -> None:
            with graph.client() as client:
                kind = {"content-type": "application/octet-stream"}
                found.append(
                    client.post("/size", params=query, content=b"x", headers=kind).status_code
                )

        number, plain = msgspec.msgpack.Ext(4, b"\1"), extensions.reference(good)
        cases = [
            ("/double", "x", number),
            ("/doubles", "xs", [number]),
            ("/length", "body", plain),
        ]
        calls = [threading.Thread(target=call, args=case) for case in cases]
        for each in calls:
            each.start()
        query = {"times": msgspec.msgpack.encode(plain).decode("latin-1")}
        calls.append(threading.Thread(target=upload, args=(query,)))
        calls[-1].start()
        eventually(lambda: waiting(shared(run_dir, "Entry")) == 2)
        (tmp_path / "slow").unlink()
        for each in calls:
            each.join()
        assert found == [422] * 4
