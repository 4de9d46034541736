"""Clients that are slow, idle, many, or never read: they end, and cost nobody else anything."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphserve.wire.costs.bounds import LARGE_FORM
from tests.harness import Served, eventually, served
from tests.hostile.wire import answers, connected, exchange, read_to_end

PATIENCE, LIMIT = 0.5, 40  # seconds, connections
HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    limits = (
        "--timeout-client",
        str(PATIENCE),
        "--limit-connections",
        str(LIMIT),
        "--timeout-keep-alive",
        "60",
    )
    with served("hostile:Gateway", *limits, env={"HOSTILE_SECRET": "x"}) as graph:
        yield graph


@pytest.fixture(autouse=True)
def no_connections(graph: Served) -> Iterator[None]:
    yield
    # what a test left open must not be in the way of the next one
    with contextlib.suppress(AssertionError):
        eventually(lambda: connections(graph) == 0, 5)


def connections(graph: Served) -> int:
    """Public connections that the entry's worker holds."""
    port = f":{int(graph.url.rpartition(':')[2]):04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[1].endswith(port) and fields[3] in ("01", "08") for fields in lines)


def healthy(graph: Served) -> bool:
    with graph.client() as client:
        return client.get("/livez").status_code == 200


def test_headers_that_do_not_come_to_an_end(graph: Served) -> None:
    began = time.monotonic()
    with connected(graph) as sock:
        sock.sendall(HEAD)
        (answer,) = answers(read_to_end(sock))
    assert answer.status == 408
    assert "headers" in answer.problem["detail"]
    assert time.monotonic() - began >= PATIENCE


@pytest.mark.slow
def test_headers_that_trickle(graph: Served) -> None:
    began = time.monotonic()
    with connected(graph) as sock:
        sock.settimeout(0.05)
        received = b""
        sock.sendall(HEAD)
        while time.monotonic() - began < 20:
            with contextlib.suppress(ConnectionError):
                sock.sendall(b"X")
            with contextlib.suppress(TimeoutError):
                received += (data := sock.recv(65536))
                if not data:
                    break
    (answer,) = answers(received)
    assert answer.status == 408, "each byte in time is not enough"


@pytest.mark.slow
def test_a_second_request_has_its_own_time(graph: Served) -> None:
    with connected(graph) as sock:
        sock.sendall(HEAD + b"Content-Length: 1\r\n\r\nx")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        sock.sendall(HEAD)
        (answer,) = answers(read_to_end(sock))
    assert answer.status == 408


@pytest.mark.slow
def test_a_connection_that_says_nothing_is_closed_without_a_word(graph: Served) -> None:
    with connected(graph) as sock:
        assert read_to_end(sock) == b""


def test_a_body_that_does_not_come(graph: Served) -> None:
    for framing in (b"Content-Length: 100000\r\n", b"Transfer-Encoding: chunked\r\n"):
        with connected(graph) as sock:
            sock.sendall(HEAD + framing + b"\r\n")
            (answer,) = answers(read_to_end(sock))
        assert answer.status == 408
        assert "1024 bytes a second" in answer.problem["detail"]


def test_a_form_that_does_not_come(graph: Served) -> None:
    """One that is taken apart as it comes, and one whose file the API would read."""
    begun = b'--B\r\nContent-Disposition: form-data; name="%b"; filename="a"\r\n\r\nx'
    for path, size, name in ((b"echo", LARGE_FORM, b"body"), (b"upload", 10**6, b"nobody")):
        with connected(graph) as sock:
            sock.sendall(
                b"POST /%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nContent-Type:"
                b" multipart/form-data; boundary=B\r\n\r\n" % (path, size) + begun % name
            )
            (answer,) = answers(read_to_end(sock))
        assert answer.status == 408
        assert "1024 bytes a second" in answer.problem["detail"]


@pytest.mark.slow
def test_a_body_that_comes_steadily_is_taken(graph: Served) -> None:
    with connected(graph) as sock:
        sock.sendall(HEAD + b"Content-Length: 20000\r\n\r\n")
        began = time.monotonic()
        for _ in range(20):  # 1,000 bytes each 0.1 s: longer than the patience, but never behind
            sock.sendall(b"x" * 1000)
            pause(0.1)
        assert time.monotonic() - began > PATIENCE
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow
def test_a_body_has_to_come_before_the_deadline(graph: Served) -> None:
    with connected(graph) as sock:
        sock.sendall(HEAD + b"X-Request-Timeout: 0.3\r\nContent-Length: 1000000\r\n\r\n")
        sock.settimeout(0.05)
        received = b""
        while b"\r\n\r\n" not in received:
            with contextlib.suppress(ConnectionError):
                sock.sendall(b"x" * 1000)
            with contextlib.suppress(TimeoutError):
                received += sock.recv(65536)
    assert b" 408 " in received and b"deadline" in received


@pytest.mark.slow
def test_an_upload_that_an_api_reads_as_it_comes_may_be_slow(graph: Served) -> None:
    with connected(graph) as sock:
        sock.sendall(
            b"POST /upload HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\nx\r\n"
        )
        pause(3 * PATIENCE)
        sock.sendall(b"1\r\nx\r\n0\r\n\r\n")
        assert sock.recv(65536).endswith(b"\r\n\r\n2")
    with connected(graph) as sock:
        form = b'--B\r\nContent-Disposition: form-data; name="parts"; filename="a"\r\n\r\nx'
        end = b"x\r\n--B--\r\n"
        sock.sendall(
            b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nContent-Type:"
            b" multipart/form-data; boundary=B\r\n\r\n" % len(form + end) + form
        )
        pause(3 * PATIENCE)
        sock.sendall(end)
        assert sock.recv(65536).endswith(b"\r\n\r\n2")


@pytest.mark.parametrize("path", [b"/large", b"/items"], ids=["large", "stream"])
def test_a_client_that_never_reads_is_dropped(graph: Served, path: bytes) -> None:
    body = b'{"size": 30000000}' if path == b"/large" else b'{"size": 10000}'
    with connected(graph) as sock:
        sock.sendall(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (path, len(body), body)
        )
        eventually(lambda: connections(graph) == 0, 60)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            got = read_to_end(sock)
        assert not got.endswith((b'x"', b"0\r\n\r\n")), "it is cut off"
    assert healthy(graph)


@pytest.mark.slow
def test_a_client_that_reads_slowly_but_steadily_gets_it_all(graph: Served) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * 1024)
        sock.settimeout(30)
        host, port = graph.url.partition("://")[2].split(":")
        sock.connect((host, int(port)))
        sock.sendall(
            b"POST /large HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 18\r\n\r\n{"size": 30000000}'
        )
        received, began = 0, time.monotonic()
        while received < 30_000_000:
            data = sock.recv(50_000)
            assert data, f"cut off after {received} bytes"
            received += len(data)
            if time.monotonic() - began < 4 * PATIENCE:
                pause(0.02)
    assert time.monotonic() - began > 2 * PATIENCE


@pytest.mark.slow
def test_one_that_pipelines_and_never_reads_is_not_served_on(graph: Served) -> None:
    request = (
        b"POST /large HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b'Content-Length: 16\r\n\r\n{"size": 100000}'
    )
    (entry,) = graph.workers("n1")
    before = resident(entry)
    with connected(graph) as sock:
        sock.settimeout(1)
        with pytest.raises((TimeoutError, ConnectionError)):
            sock.sendall(request * 100_000)
        assert resident(entry) - before < 64 * 1024 * 1024
    assert healthy(graph)


@pytest.mark.slow
def test_many_pipelined_requests_are_all_answered_in_order(graph: Served) -> None:
    one = (
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 20\r\n\r\n"
    )
    requests = b"".join(one + b'{"body": "%04daaaa"}' % x for x in range(3000))
    wrong = (
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1\r\n\r\n{" * 3000
    )
    for sent, status in ((requests, 200), (wrong, 400)):
        with connected(graph) as sock:
            sock.sendall(
                sent + b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            found = answers(read_to_end(sock))
        assert [answer.status for answer in found] == [status] * 3000 + [200]
        if status == 200:
            assert [answer.body[1:5] for answer in found[:-1]] == [b"%04d" % x for x in range(3000)]


@pytest.mark.slow
def test_idle_connections_make_room(graph: Served) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(graph)) for _ in range(LIMIT)]
        for sock in idle:
            sock.sendall(HEAD + b"Content-Length: 1\r\n\r\nx")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        for _ in range(5):
            assert healthy(graph)
        ended = select.select(idle, [], [], 0)[0]
        assert len(ended) == 1
        # a clock of milliseconds decides
        assert ended[0] in idle[: LIMIT // 2], "it was idle longer than others"
        idle[-1].sendall(HEAD + b"Content-Length: 1\r\n\r\nx")
        assert idle[-1].recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow
def test_a_flood_of_half_requests_starves_nobody(graph: Served, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    body = b'{"gate": "%b"}' % os.fsencode(gate)
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(connected(graph))
        running.sendall(
            b"POST /hold HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        for _ in range(500):
            stack.enter_context(connected(graph)).sendall(HEAD)
            if _ % 50 == 0:
                assert healthy(graph)
        assert connections(graph) <= LIMIT + 64
        gate.touch()
        assert b'"held"' in running.recv(65536), "a request in progress is never dropped for others"


@pytest.mark.slow
def test_more_requests_than_connections_are_told_so(graph: Served, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    body = b'{"gate": "%b"}' % os.fsencode(gate)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connected(graph)) for _ in range(LIMIT)]
        for sock in held:
            sock.sendall(
                b"POST /hold HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
        eventually(lambda: exchange(graph, HEAD + b"Content-Length: 1\r\n\r\nx")[0].status == 503)
        for refused in (
            b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n",
            HEAD + b"Content-Length: 1\r\n\r\nx",
        ):
            (answer,) = exchange(graph, refused)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert answer.problem["detail"] == "there are too many connections"
        for _ in range(2):  # and while 500 others want something
            for path in (b"/livez", b"/readyz"):
                (answer,) = exchange(
                    graph, b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
                )
                assert (answer.status, answer.headers["connection"]) == (
                    200,
                    "close",
                ), "a probe is answered"
            for _ in range(500):
                stack.enter_context(connected(graph))
        eventually(lambda: connections(graph) <= LIMIT + 64)
        gate.touch()
        for sock in held:
            assert b'"held"' in sock.recv(65536)


def pause(seconds: float) -> None:
    """Be a slow client."""
    end = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= end, seconds + 5)


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
