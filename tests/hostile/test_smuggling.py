"""The corpus against a real public port: what is refused, what is accepted, and that nothing is
smuggled in.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import h11
import pytest

from graphserve.worker.http import strict
from tests.harness import Served, served
from tests.hostile.corpus import ACCEPTED, CORPUS, Case, line
from tests.hostile.wire import answers, connected, exchange, read_to_end

SMUGGLED = (
    b"POST /smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\n\r\n{}"
)


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    env = {"HOSTILE_SECRET": "x"}
    limits = ("--max-body-size", "64KiB", "--timeout-keep-alive", "0.1")
    with served("hostile:Gateway", *limits, "--log-level", "debug", env=env) as graph:
        yield graph


REFUSED = [case for case in CORPUS if case.status != ACCEPTED]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_it_is_refused(graph: Served, case: Case) -> None:
    with connected(graph) as sock:
        sock.sendall(case.raw + SMUGGLED)
        (answer,) = answers(read_to_end(sock))  # it ends the connection itself
    assert answer.status == case.status, answer
    assert answer.headers["connection"] == "close"
    assert answer.problem["status"] == case.status
    assert {"type", "title", "detail", "service", "request_id"} <= answer.problem.keys()
    assert answer.problem["request_id"] == answer.headers["x-request-id"]


def test_a_query_that_no_parameter_takes_is_refused_alone(graph: Served) -> None:
    asked = line(b"POST /echo?x=%20{}|[] HTTP/1.1")
    refused, behind = exchange(graph, asked + line(b"POST /echo HTTP/1.1"))
    assert (refused.status, refused.problem["errors"][0]["loc"]) == (422, ["query", "x"])
    assert behind.status == 200, "nothing was wrong with its framing: the next one is read"


@pytest.mark.parametrize(
    "case", [case for case in CORPUS if case.status == ACCEPTED], ids=lambda case: case.name
)
def test_it_is_read_as_h11_reads_it(graph: Served, case: Case) -> None:
    (answer,) = exchange(graph, case.raw)
    assert answer.status == 200, answer
    if case.h11:
        assert base64.b64decode(json.loads(answer.body)) == body(case.raw)


@pytest.mark.parametrize(
    "case", [case for case in REFUSED if case.status == 400], ids=lambda case: case.name
)
def test_the_refusal_comes_behind_the_answers_before_it(graph: Served, case: Case) -> None:
    good = (
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 2\r\n\r\nhi"
    )
    with connected(graph) as sock:
        sock.sendall(good + good + case.raw + SMUGGLED)
        statuses = [answer.status for answer in answers(read_to_end(sock))]
    assert statuses == [200, 200, 400]


def test_another_protocol_is_known_however_it_is_cut(graph: Served) -> None:
    good = (
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 7\r\n\r\n\nRTSP/1"
    )
    other = b"POST /smuggled RTSP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    for at in range(1, 24):
        for before in (b"", good):
            found = exchange(graph, before + other[:at], other[at:] + SMUGGLED)
            assert [answer.status for answer in found] == ([200] if before else []) + [400], at
    (answer,) = exchange(graph, *(other[i : i + 1] for i in range(30)))
    assert answer.status == 400
    (answer,) = exchange(
        graph, b"GET /livez?RTSP/1.0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    assert answer.status == 200, "its name in a target is no protocol"


def test_nothing_was_smuggled_in_and_the_graph_answers(graph: Served) -> None:
    with graph.client() as client:
        assert client.post("/smuggled_so_far").json() == 0
        assert client.post("/smuggled").json() == 1
    assert "a client was refused: 400 " in graph.text
    assert "Traceback" not in graph.text
    assert "Invalid HTTP request received" not in graph.text


def body(raw: bytes) -> bytes:
    """The body of a request, as h11 reads it."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(raw)
    found = b""
    while not isinstance(event := server.next_event(), h11.EndOfMessage):
        assert event is not h11.NEED_DATA
        if isinstance(event, h11.Data):
            found += event.data
    return found


def test_what_h11_refuses_is_refused() -> None:
    """The corpus itself: where it departs from h11, it says so."""
    for case in CORPUS:
        if case.status == ACCEPTED and case.h11:
            assert body(case.raw) is not None, case.name


@pytest.mark.parametrize(
    ("came", "begun"),
    [
        (b"", b""), (b"POST", b"T"), (b"POST ", b"T "), (b"a\r\n\r\nPOST /x RT", b"T /x RT"),
        (b"\n\nRTSP/1POST ", b"T "),  # behind a body that ends without a line end
        (b"{}GET /x", b"T /x"), (b"GET /x HTTP/1.1\r\n", b""), (b"{}", b""), (b"POST /x\r", b"T /x\r"),
    ],
)  # fmt: skip
def test_the_first_line_that_is_incomplete(came: bytes, begun: bytes) -> None:
    assert strict.first_line_begun(came) == begun
