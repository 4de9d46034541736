"""Mutated requests, split anywhere, against a real public port: no request gets two answers, or
none, or a 5xx.

`FUZZ_EXAMPLES` says how many; `nox -s fuzz` sends many more than the tests, and other ones each
time.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.harness import Served, served
from tests.hostile.corpus import CORPUS
from tests.hostile.wire import Answer, address, answers

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
SEEDS = [case.raw for case in CORPUS if len(case.raw) < 2000]
BITS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"-1", b"\xff", b"\x0b", b"%", b"POST",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n",
    b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"HTTP/1.0", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\r\n\r\n", b"0\r\n\r\n", b"x" * 5000,
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> list[bytes]:
    """A few requests of the corpus behind each other, with some bytes changed, in parts."""
    raw = b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(raw)))
        gone = draw(st.integers(0, 4))
        raw = (
            raw[:place]
            + draw(st.sampled_from([b"", *BITS]) | st.binary(max_size=3))
            + raw[place + gone :]
        )
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=3)))
    return [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True) if a < b]


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    limits = ("--timeout-client", "0.2", "--timeout-keep-alive", "0.05", "--max-body-size", "64KiB")
    with served("hostile:Gateway", *limits, env={"HOSTILE_SECRET": "x"}) as graph:
        yield graph


@pytest.mark.timeout(EXAMPLES * 3 + 60)
def test_mutated_requests(graph: Served) -> None:
    # What is begun in the last part but not ended is answered 408 after a while.
    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 150, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(mutated())
    def send(parts: list[bytes]) -> None:
        found = talk(graph, parts)
        raw = b"".join(parts)
        assert all(answer.status < 500 for answer in found), found
        lines = len(re.findall(rb"HTTP/|RTSP/|ICE/", raw))
        assert len(found) <= lines + 1, (
            "each request line gets one answer, and the rest one refusal"
        )
        refusals = [
            i for i, answer in enumerate(found) if answer.headers.get("connection") == "close"
        ]
        assert refusals in (
            [],
            [len(found) - 1],
        ), "nothing comes behind an answer that ends the connection"

    send()
    with graph.client() as client:
        assert client.get("/readyz").status_code == 200
        assert client.post("/smuggled_so_far").json() == 0
    assert "Traceback" not in graph.text


def talk(graph: Served, parts: list[bytes]) -> list[Answer]:
    """Send the parts, and read until the server ends the connection."""
    with socket.create_connection(address(graph), 30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):
            for part in parts:
                sock.sendall(part)
        received = b""
        while data := sock.recv(65536):
            received += data
    return answers(received)
