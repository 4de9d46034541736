"""What a client may ask of the connection: HTTP/1.0, 100-continue, HEAD, OPTIONS, upgrades; and
memory references.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from graphserve.wire.extensions import MODEL, REFERENCE
from tests.harness import Served, eventually, served
from tests.hostile.wire import answers, connected, exchange, read_to_end

ECHO = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    limits = ("--max-body-size", "64KiB", "--timeout-keep-alive", "0.2")
    with served("hostile:Gateway", *limits, env={"HOSTILE_SECRET": "x"}) as graph:
        yield graph


def test_http_1_0_is_answered_and_closed(graph: Served) -> None:
    old = b"POST /echo HTTP/1.0\r\nContent-Type: text/plain\r\n%bContent-Length: 2\r\n\r\nhi"
    for more in (b"", b"Connection: keep-alive\r\n"):
        (answer,) = exchange(graph, old % more * 2)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert answer.body == b'"aGk="', "the body was read"


def test_a_stream_to_http_1_0_has_no_chunks(graph: Served) -> None:
    with connected(graph) as sock:
        sock.sendall(
            b"POST /leak_late HTTP/1.0\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        )
        head, _, body = read_to_end(sock).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head and b"connection: close" in head
    assert body.splitlines()[0] == b"1"


def test_a_client_that_waits_is_told_to_go_on(graph: Served) -> None:
    with connected(graph) as sock:
        sock.sendall(ECHO + b"Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
        assert sock.recv(1000) == CONTINUE
        sock.sendall(b"hi")
        received = sock.recv(1000)
        assert received.startswith(b"HTTP/1.1 200 ") and received.endswith(b'"aGk="')


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (ECHO + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n", b"413"),
        (
            ECHO.replace(b"/echo", b"/total") + b"Expect: 100-continue\r\nContent-Length: 2\r\n",
            b"415",
        ),
        (
            ECHO.replace(b"/echo", b"/nothing") + b"Expect: 100-continue\r\nContent-Length: 2\r\n",
            b"404",
        ),
        (ECHO + b"Expect: 200-ok\r\nContent-Length: 2\r\n", b"417"),
    ],
    ids=["large", "type", "path", "other"],
)
def test_a_body_that_nobody_will_read_is_not_asked_for(
    graph: Served, head: bytes, status: bytes
) -> None:
    with connected(graph) as sock:
        sock.sendall(head + b"\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 " + status)


def test_http_1_0_is_never_told_to_go_on(graph: Served) -> None:
    with connected(graph) as sock:
        sock.sendall(
            ECHO.replace(b"1.1", b"1.0") + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
        )
        received = read_to_end(sock)
    assert received.startswith(b"HTTP/1.1 200 ") and received.endswith(b'"aGk="')


def test_nothing_comes_between_two_answers(graph: Served, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    body = b'{"gate": "%b"}' % str(gate).encode()
    with connected(graph) as sock:
        sock.sendall(
            b"POST /hold HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        sock.sendall(
            ECHO + b"Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
        )
        gate.touch()
        received = read_to_end(sock)
    assert received.startswith(b"HTTP/1.1 200 "), (
        "not 100, which would be read as belonging to the first"
    )
    assert [answer.body for answer in answers(received)] == [b'"held"', b'"aGk="']


def test_head_is_answered_without_a_body(graph: Served) -> None:
    with connected(graph) as sock:
        sock.sendall(
            b"HEAD /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
            b"HEAD /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        live, echo, rest = read_to_end(sock).split(b"\r\n\r\n")
    assert live.startswith(b"HTTP/1.1 200 ") and echo.startswith(b"HTTP/1.1 405 ") and rest == b""


def test_options_says_what_there_is(graph: Served) -> None:
    for target, allow in (
        (b"/echo", "POST"),
        (b"/livez", "GET, HEAD"),
        (b"/", "GET, HEAD"),
        (b"/docs", "GET, HEAD"),
        (b"/openapi.json", "GET, HEAD"),
        (b"*", "GET, HEAD, POST"),
    ):
        (answer,) = exchange(graph, b"OPTIONS %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
        assert (answer.status, answer.headers["allow"], answer.body) == (204, allow, b"")
    assert exchange(graph, b"OPTIONS /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")[0].status == 404


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.0"])
def test_no_other_protocol_is_taken_up(graph: Served, protocol: bytes) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % protocol
    last = ECHO + b"Connection: close\r\nContent-Length: 4\r\n\r\nlast"
    for raw, status, body in (
        (ECHO + b"Content-Length: 2\r\n" + upgrade + b"hi", 200, b'"aGk="'),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + upgrade, 200, b'"status": "ok"'),
        (b"GET /ws HTTP/1.1\r\nHost: localhost\r\n" + upgrade, 404, b"no API at /ws"),
    ):
        answer, behind = exchange(graph, raw + last)
        assert answer.status == status and body in answer.body, (
            "an answer in HTTP/1.1, as without the offer"
        )
        assert "upgrade" not in answer.headers
        assert (behind.status, behind.body) == (
            200,
            b'"bGFzdA=="',
        ), "and what follows is a request of its own"


def test_the_body_of_a_request_that_is_for_no_api_is_bounded(graph: Served) -> None:
    for framing, body in (
        (b"Content-Length: 99999999\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n", b"1000\r\n%b\r\n" % (b"x" * 4096) * 40),
    ):
        with connected(graph) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(b"POST /livez HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n" + body)
            assert [answer.status for answer in answers(read_to_end(sock))] in ([413], [405])


@pytest.mark.parametrize(
    "value",
    [
        msgspec.msgpack.Ext(REFERENCE, bytes(4) + bytes(40)),
        msgspec.msgpack.Ext(REFERENCE, b"\x10\0\0\0" + b"\x93" + bytes(80)),
        msgspec.msgpack.Ext(MODEL, b"{"),
        msgspec.msgpack.Ext(1, b"\xff" * 9),
        msgspec.msgpack.Ext(99, b"x"),
        [msgspec.msgpack.Ext(REFERENCE, bytes(44))],
    ],
)
def test_a_reference_to_memory_is_refused(graph: Served, value: object) -> None:
    with graph.client() as client:
        for path, name in (("/total", "values"), ("/echo", "body"), ("/large", "size")):
            body = msgspec.msgpack.encode({name: value})
            answer = client.post(
                path, content=body, headers={"content-type": "application/msgpack"}
            )
            assert answer.status_code in (400, 422), answer.text
            assert answer.headers["content-type"] == "application/problem+json"


def test_headers_of_the_run_folder_mean_nothing(graph: Served) -> None:
    for name in ("deadline", "public", "error"):
        (answer,) = exchange(
            graph, ECHO + b"X-GraphServe-%b: 1\r\nContent-Length: 2\r\n\r\nhi" % name.encode()
        )
        assert (answer.status, answer.body) == (200, b'"aGk="')
        assert not [header for header in answer.headers if header.startswith("x-graphserve")]


def test_it_is_the_same_on_a_unix_socket(run_dir: Path) -> None:
    import socket

    path = str(run_dir.parent / "public.sock")
    with served(
        "hostile:Gateway", "--uds", path, "--timeout-client", "0.3", env={"HOSTILE_SECRET": "x"}
    ):
        cases = (
            (ECHO + b"X-GraphServe-Deadline: 1\r\nContent-Length: 2\r\n\r\nhi", b"200"),
            (ECHO, b"408"),
            (b"x\r\n", b"400"),
        )
        for raw, status in cases:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(30)
                sock.connect(path)
                sock.sendall(raw)
                assert sock.recv(1000).startswith(b"HTTP/1.1 " + status)


def test_a_client_that_comes_and_goes_leaves_nothing(graph: Served) -> None:
    (entry,) = graph.workers("n1")
    before = len(list(Path(f"/proc/{entry}/fd").iterdir()))
    for cut in range(0, len(ECHO), 5):
        with connected(graph) as sock:
            sock.sendall(ECHO[:cut])
    eventually(lambda: len(list(Path(f"/proc/{entry}/fd").iterdir())) <= before)
