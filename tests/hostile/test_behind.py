"""What stands behind a request in the same bytes: an offered upgrade, a refusal, the last request
of a connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Served, alive, eventually, served, shared, sockets
from tests.hostile.wire import Answer, address, answers, read_to_end

JSON = b"Content-Type: application/json\r\n"
COUNT = b"POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
LAST = (
    b"POST /counted_so_far HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)
KINDS = ["public", "own", "shared"]


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="gs-test-") as folder:
        limits = (
            "--run-dir",
            f"{folder}/run",
            "--max-body-size",
            "64KiB",
            "--timeout-keep-alive",
            "0.3",
        )
        with served("doors:Doors", *limits, "--log-level", "debug") as graph:
            graph.run_dir = Path(folder, "run")  # type: ignore[attr-defined]
            yield graph


def where(graph: Served, kind: str) -> str | tuple[str, int]:
    """The address of one kind of socket."""
    run: Path = graph.run_dir  # type: ignore[attr-defined]
    if kind == "public":
        return address(graph)
    return shared(run, "Doors") if kind == "shared" else str(sockets(run)[0])


def talk(graph: Served, kind: str, *parts: bytes) -> list[Answer]:
    """Send the parts, and read all answers until the server ends the connection."""
    family = socket.AF_INET if kind == "public" else socket.AF_UNIX
    with socket.socket(family) as sock:
        sock.settimeout(30)
        sock.connect(where(graph, kind))
        with contextlib.suppress(ConnectionError):
            for part in parts:
                sock.sendall(part)
        return answers(read_to_end(sock))


def post(path: bytes, headers: bytes, body: bytes, line: bytes = b"HTTP/1.1") -> bytes:
    length = b"" if b"Transfer-Encoding" in headers else b"Content-Length: %d\r\n" % len(body)
    return b"POST %b %b\r\nHost: localhost\r\n%b%b\r\n%b" % (path, line, headers, length, body)


OFFERS = {
    "h2c": (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    ),
    "websocket": (
        b"Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Version: 13\r\n"
    ),
    "TLS": b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n",
    "several": b"Connection: upgrade\r\nUpgrade: h2c, foo/2\r\nUpgrade: bar\r\n",
    "in two lines": b"Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
    "no Connection": b"Upgrade: h2c\r\n",
    "no Upgrade": b"Connection: Upgrade\r\n",
    "an empty one": b"Connection: Upgrade\r\nUpgrade:\r\n",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS.keys())
def test_the_body_behind_an_offered_upgrade_is_read(graph: Served, kind: str, offer: bytes) -> None:
    path = b"/add_in_turn" if kind == "shared" else b"/add"
    whole = post(path, JSON + offer, b'{"x": 40, "y": 2}')
    chunked = post(
        path,
        JSON + offer + b"Transfer-Encoding: chunked\r\n",
        b'7\r\n{"x": 4\r\n9\r\n0,"y": 2}\r\n0\r\n\r\n',
    )
    for request in (whole, chunked):
        for at in (len(request), request.index(b"{"), request.index(b"\r\n\r\n") + 2, 3):
            found = talk(graph, kind, request[:at], *([request[at:]] if request[at:] else []), LAST)
            assert (found[0].status, found[0].body) == (200, b"42"), "as without the offer"
            assert "upgrade" not in found[0].headers
            if kind != "shared":  # (which has one request a connection)
                assert [answer.status for answer in found[1:]] == [200], (
                    "and what follows is read where it begins"
                )


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS.keys())
def test_an_upload_behind_an_offered_upgrade_is_read(graph: Served, offer: bytes) -> None:
    kind = b"Content-Type: application/octet-stream\r\n"
    for path in (b"/length", b"/upload"):
        answer, last = talk(graph, "public", post(path, kind + offer, b"x" * 50_000) + LAST)
        assert (answer.status, answer.body, last.status) == (200, b"50000", 200)


def test_many_offers_in_one_read(graph: Served) -> None:
    for kind in ("public", "own"):
        request = post(b"/add", JSON + OFFERS["h2c"], b'{"x": 1}')
        found = talk(graph, kind, request * 300 + LAST)
        assert [answer.body for answer in found[:-1]] == [b"1"] * 300


def test_an_offer_with_what_is_refused(graph: Served) -> None:
    before = counted(graph)
    for kind in ("public", "own"):
        for headers, status in (
            (b"Content-Type: text/plain\r\n", 415),
            (JSON + b"X-Request-Timeout: nan\r\n", 400),
        ):
            found = talk(graph, kind, post(b"/add", headers + OFFERS["h2c"], b'{"x": 1}') + COUNT)
            assert [answer.status for answer in found] == [status]
    assert counted(graph) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_tunnel_is_refused(graph: Served, kind: str) -> None:
    (answer,) = talk(graph, kind, b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n" + COUNT)
    assert answer.status == 400 and answer.headers["connection"] == "close"


def test_curl_offers_h2c(graph: Served) -> None:
    said = subprocess.run(
        ["curl", "-sS", "--http2", "--json", '{"x": 40, "y": 2}', f"{graph.url}/add"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert said.stdout == "42"


def counted(graph: Served) -> int:
    """How many calls of `count` were executed."""
    with graph.client() as client:
        return int(client.post("/counted_so_far").json())


REFUSED = {
    "text": (post(b"/add", b"Content-Type: text/plain\r\n", b"{}"), 415),
    "a coding": (post(b"/add", JSON + b"Content-Encoding: gzip\r\n", b"{}"), 415),
    "a coding of an upload": (post(b"/upload", JSON + b"Content-Encoding: gzip\r\n", b"{}"), 415),
    "no timeout": (post(b"/add", JSON + b"X-Request-Timeout: nan\r\n", b"{}"), 400),
    "a timeout of 0": (post(b"/add", JSON + b"X-Request-Timeout: 0\r\n", b"{}"), 400),
    "large": (post(b"/add", JSON, b'"' + b"x" * 70_000 + b'"'), 413),
    "large chunks": (
        post(b"/add", JSON + b"Transfer-Encoding: chunked\r\n", b"11170\r\n%b\r\n0\r\n\r\n" % (b"x" * 70_000)), 413,
    ),
    "HTTP/1.0": (post(b"/add", JSON, b'{"x": 1}', b"HTTP/1.0"), 200),
    "HTTP/1.0 health": (b"GET /livez HTTP/1.0\r\n\r\n", 200),
    "HTTP/1.0 kept alive": (post(b"/add", JSON + b"Connection: keep-alive\r\n", b'{"x": 1}', b"HTTP/1.0"), 200),
    "the last one": (post(b"/add", JSON + b"Connection: close\r\n", b'{"x": 1}'), 200),
    "the last health": (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
    "the last of none": (b"GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
    "an upload that is not read": (post(b"/first", JSON + b"Connection: close\r\n", b"abc"), 200),
    "a length of 5,001 digits": (post(b"/add", JSON, b"{}").replace(b"Length: 2", b"Length: " + b"2".zfill(5001)), 400),
    "a length for none": (post(b"/none", JSON, b"{}").replace(b"Length: 2", b"Length: " + b"2".zfill(5001)), 400),
    "an expectation": (post(b"/add", JSON + b"Expect: a miracle\r\n", b"{}"), 417),
    "garbage": (b"\x00\x01\r\n\r\n", 400),
}  # fmt: skip


# what the run folder has no rule for
PUBLIC_ALONE = {"large", "large chunks", "an expectation", "a length for none"}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("public", name) for name in REFUSED]
    + [("own", name) for name in REFUSED if name not in PUBLIC_ALONE],
)
def test_nothing_behind_the_last_request_is_executed(graph: Served, kind: str, name: str) -> None:
    request_, status = REFUSED[name]
    before = counted(graph)
    found = talk(graph, kind, request_ + COUNT * 3)
    assert [answer.status for answer in found] == [status]
    assert found[0].headers["connection"] == "close"
    found = talk(graph, kind, COUNT + request_ + COUNT)
    assert [answer.status for answer in found] == [200, status], "what stands before it is"
    assert counted(graph) == before + 1


def test_a_refusal_behind_a_call_that_is_under_way(graph: Served, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    hold = post(b"/hold", JSON, json.dumps({"gate": str(gate)}).encode())
    before = counted(graph)
    for name in (
        "text",
        "a timeout of 0",
        "HTTP/1.0",
        "the last one",
        "a length of 5,001 digits",
        "garbage",
    ):
        request, status = REFUSED[name]
        with socket.create_connection(address(graph), 30) as sock:
            sock.sendall(hold + request + COUNT * 2)
            gate.touch()
            assert [answer.status for answer in answers(read_to_end(sock))] == [200, status], name
        gate.unlink()
    assert counted(graph) == before


def test_a_shared_socket_has_one_request(graph: Served) -> None:
    before = counted(graph)
    for request_, status in (
        (post(b"/add_in_turn", JSON, b'{"x": 1}'), 200),
        (post(b"/add_in_turn", b"Content-Type: text/plain\r\n", b"{}"), 415),
        (
            post(b"/add_in_turn", JSON, b"{}").replace(
                b"Length: 2", b"Length: " + b"2".zfill(5001)
            ),
            400,
        ),
        (b"\x00\x01\r\n\r\n", 400),
    ):
        assert [answer.status for answer in talk(graph, "shared", request_ + COUNT)] == [status]
    assert counted(graph) == before


@pytest.mark.parametrize("kind", ["own", "shared"])
@pytest.mark.parametrize("name", ["deadline", "length"])
def test_numbers_of_our_own_callers_are_checked_too(graph: Served, kind: str, name: str) -> None:
    from graphserve.call.request import prepared
    from graphserve.graph.plan import Plan
    from graphserve.wire.trust import PEER

    plan = Plan.from_json((graph.run_dir / "1" / "plan.json").read_text())  # type: ignore[attr-defined]
    node = plan.node("Doors")
    api = next(api for api in node.apis if api.name == ("add" if kind == "own" else "add_in_turn"))
    for digits in (b"9" * 5001, b"x", b"-1"):
        deadline = digits if name == "deadline" else b"9" * 18
        length = digits if name == "length" else b"1"
        head = (
            PEER.opening + prepared(api, node.name)
            if kind == "own"
            else prepared(api, node.name, PEER)
        )
        head += b"x-request-id: x\r\n"
        raw = head + b"x-graphserve-deadline: %b\r\ncontent-length: %b\r\n\r\n\x80" % (
            deadline,
            length,
        )
        assert [answer.status for answer in talk(graph, kind, raw)] == [400]


def test_nothing_of_this_is_an_error_of_ours(graph: Served) -> None:
    assert "Traceback" not in graph.text
    assert "Unsupported upgrade" not in graph.text
    with graph.client() as client:
        assert client.get("/readyz").status_code == 200


def test_the_fallback_server_does_the_same(tmp_path: Path) -> None:
    offer = post(b"/add", JSON + OFFERS["h2c"], b'{"x": 40, "y": 2}')
    cases = [
        (offer + LAST, [200, 200]),
        (post(b"/length", b"Content-Type: application/x-any\r\n" + OFFERS["websocket"], b"abc") + LAST, [200, 200]),
        *((REFUSED[name][0] + COUNT, [REFUSED[name][1]]) for name in (
            "no timeout", "a coding", "HTTP/1.0", "the last one", "a length of 5,001 digits", "garbage",
        )),
    ]  # fmt: skip
    options = {"env": {"FLAGS": str(tmp_path)}}
    with (
        served("doors:Doors", "--log-level", "debug", **options) as graph,
        contextlib.ExitStack() as stack,
    ):
        (tmp_path / "slow").touch()
        (worker,) = graph.workers()
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: not alive(worker))
        eventually(graph.fallback_servers, 30)
        open_ = []
        for raw, _ in cases:
            sock = stack.enter_context(socket.create_connection(address(graph), 60))
            sock.sendall(raw)
            open_.append(sock)
        with graph.client() as client:
            assert client.get("/readyz").status_code == 503
        (tmp_path / "slow").unlink()
        for sock, (raw, statuses) in zip(open_, cases, strict=True):
            found = answers(read_to_end(sock))
            assert [answer.status for answer in found] == statuses, raw
            if raw.startswith(offer):
                assert found[0].body == b"42"
        assert counted(graph) == 0
        assert "Traceback" not in graph.text
