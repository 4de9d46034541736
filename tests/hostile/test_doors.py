"""Mutated requests to every door of an entry: forms, files and ranges, mounts, middleware, keys,
handshakes and frames of WebSockets. No 5xx, nothing left in memory or on disk, nothing in the log.

`FUZZ_EXAMPLES` says how many of each kind; `nox -s fuzz` sends many more, and other ones each time.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.harness import Served, eventually, received, served
from tests.hostile.wire import address
from tests.measuring.processes import pss

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150")) // 5
LONG = EXAMPLES > 30
KEY = "k" * 40
GROWTH = 48 * 1024  # KB that all processes may have grown by together, however many were sent
# What the log may say: where it serves, and that a client was too slow or wrong.
FINE = re.compile(
    r"starting|ready|serving on|keys of|CORS|unread|fallback|^\s*$|WebSocket|closed|API keys"
)
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def head(line: str, *fields: str, key: bool = True) -> bytes:
    known = ["Host: localhost", *([f"X-API-Key: {KEY}"] if key else []), *fields]
    return "\r\n".join([f"{line} HTTP/1.1", *known, "", ""]).encode()


def key_of(scheme: str) -> str:
    return f"Authorization: {scheme} {KEY}"


def post(path: str, body: bytes, *fields: str) -> bytes:
    return head(f"POST {path}", f"Content-Length: {len(body)}", *fields) + body


def part(name: str, data: bytes, *fields: str) -> bytes:
    said = "".join(f"{field}\r\n" for field in fields).encode()
    return b'--B\r\nContent-Disposition: form-data; name="%b"\r\n%b\r\n%b\r\n' % (
        name.encode(),
        said,
        data,
    )


def array_file() -> bytes:
    written = io.BytesIO()
    np.save(written, np.zeros((3, 2)))
    return written.getvalue()


FORM = "Content-Type: multipart/form-data; boundary=B"
WORDS = "Content-Type: application/x-www-form-urlencoded"
UPGRADE = (
    "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)  # fmt: skip
PLACE = 'Content-Disposition: form-data; name="pages"; filename="../../etc/x\\"; y=\'z\'.bin"'
END = b"--B--\r\n"


def frame(data: bytes, code: int = 1, last: bool = True, masked: bool = True) -> bytes:
    first = (0x80 if last else 0) | code
    mask = 0x80 if masked else 0
    if len(data) < 126:
        begin = struct.pack(">BB", first, mask | len(data))
    else:
        begin = struct.pack(">BBH", first, mask | 126, len(data))
    return begin + (b"\0\0\0\0" if masked else b"") + data


KINDS: dict[str, list[bytes]] = {
    "forms": [
        post("/form", part("pages", b"%PDF", "Content-Type: application/pdf") + part("title", b"a") + END, FORM),
        post("/form", part("title", b"a") + part("pages", b"1") + part("pages", b"2") + part("ratio", b"nan") + END, FORM),
        post("/form", part("title", b'{"a":1}', "Content-Type: application/json") + part("words", b"x") * 20 + END, FORM),
        post("/form", part("pages", b"x" * 2000) + part("title", b"") + END, FORM),
        post("/form", (part("title", b"a") + END).replace(b'Disposition: form-data; name="title"',
                                                          PLACE.encode()[8:]), FORM),
        post("/keep", part("file", b"x" * 5000, "Content-Type: a/b") + part("title", b"t") + END, FORM),
        post("/keep", part("file", b"x" * 5000) + part("file", b"y") + END, FORM),
        post("/matrix", part("rows", array_file(), "Content-Type: application/x-npy") + END, FORM),
        post("/text", part("title", b"a") + part("count", b"3") + part("on", b"true") + END, FORM),
        post("/text", b"title=a&count=3&on=true", WORDS),
        post("/text", b"title=%C3%BC+%zz&&=&count=1e3&on=1&title=2", WORDS),
    ],
    "files": [
        head("GET /pages/1", "Range: bytes=0-9"),
        head("GET /pages/1", "Range: bytes=-5,0-1,3-4,2-"),
        head("GET /pages/2", "Range: bytes=999-99999999999999999999", 'If-Range: "x"'),
        head("GET /pages/3", 'If-None-Match: W/"a", "b", *', "If-Modified-Since: Mon, 30 Nov 2026 00:00:00 GMT"),
        head("HEAD /pages/4", "If-Match: *", "If-Unmodified-Since: x"),
        head("GET /static/index.html", "Range: bytes=1-2,4-5", 'If-Range: "x"'),
        head("GET /static/../../apps/keyed.py"), head("GET /static/sub/%2e%2e/%2e%2e/x"),
        head("GET /static/style.css", "If-None-Match: *", "Accept-Encoding: gzip, br;q=0"),
        post("/keep", b"raw" * 100, "Content-Type: a/b"), post("/keep?times=2", b"", "Content-Type: a/b"),
        post("/matrix", array_file(), "Content-Type: application/x-npy", "Accept: application/x-npy;q=0.5, */*"),
    ],
    "doors": [
        head("GET /ui/a/b?x=1&y=%ff"), post("/ui/up", b"abc", "Expect: 100-continue"),
        head("POST /ui/up", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\nX: y\r\n\r\n",
        head("GET /wsgi/a%00b"), post("/wsgi/x?y", b"abcdef"), head("OPTIONS /ui/x", "Origin: https://elsewhere.example"),
        head("OPTIONS /text", "Origin: https://elsewhere.example", "Access-Control-Request-Method: POST"),
        head("GET /ticks?to=5", "Accept: text/event-stream", "Last-Event-ID: 2"),
        head("POST /upload?name=x", "Transfer-Encoding: chunked", "Content-Type: a/b") + b"5\r\nhello\r\n0\r\n\r\n",
        post("/upload?name=%22", b"hello", "Content-Type: a/b"), head("GET /docs"), head("GET /openapi.json", "Accept-Encoding: gzip"),
        head("GET /readyz", key=False), head("GET /ui/x", key=False), post("/text", b"{}", key_of("Bearer")),
        post("/text", b'{"title":"a"}', key_of("Basic"), "Content-Type: application/json"),
    ],
    "sockets": [
        head("GET /talk", *UPGRADE) + frame(b"hello") + frame(b"", 8),
        head("GET /talk?times=3", *UPGRADE) + frame(b"a" * 300) + frame(b"p", 9) + frame(b"", 10) + frame(b"\x03\xe8", 8),
        head("GET /talk", *UPGRADE) + frame(b"he", last=False) + frame(b"p", 9) + frame(b"llo", 0),
        head("GET /talk?times=x", *UPGRADE) + frame(b"\xff\xfe", 2),
        head("GET /talk", *UPGRADE, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=9")
        + b"\xc1\x85\0\0\0\0\xf2\x48\xcd\xc9\xc9",
        head("GET /talk", *UPGRADE, "Origin: https://other.example") + frame(b"x", masked=False),
        head("GET /talk", *UPGRADE[:3], "Sec-WebSocket-Version: 8"), head("GET /talk", *UPGRADE[:2]),
        head("GET /talk", *UPGRADE, key=False),
        head("GET /talk", *UPGRADE) + b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0abc",
    ],
}  # fmt: skip
# how each of them is answered as it is
UNCHANGED = {
    "forms": [200, 422, 422, 413, 422, 200, 422, 200, 200, 200, 422],
    "files": [206, 200, 200, 200, 200, 200, 404, 404, 304, 200, 200, 200],
    "doors": [200, 200, 200, 200, 200, 405, 200, 200, 200, 200, 200, 200, 200, 401, 415, 200],
    "sockets": [101, 101, 101, 422, 101, 403, 426, 426, 401, 101],
}
BITS = [
    b"\r\n", b"\n", b"\0", b" ", b":", b";", b",", b"-", b"=", b"&", b"%", b'"', b"\xff", b"--B", b"--B--", b"..", b"/",
    b"bytes=", b"0-", b"99999999999999999999", b"*", b"gzip", b"\x81", b"\x88\x80", b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Type: multipart/form-data\r\n", b"Range: bytes=1-\r\n", b"{", b"[[[[",
    b"x" * 3000, b"a=" * 500, part("title", b"x") * 30,
]  # fmt: skip


def mutated(kind: str) -> st.SearchStrategy[list[bytes]]:
    """One or two requests of a kind, with some bytes changed, in parts."""

    @st.composite
    def made(draw: st.DrawFn) -> list[bytes]:
        raw = b"".join(draw(st.lists(st.sampled_from(KINDS[kind]), min_size=1, max_size=2)))
        for _ in range(draw(st.integers(0, 4))):
            place, gone = draw(st.integers(0, len(raw))), draw(st.integers(0, 4))
            more = draw(st.sampled_from([b"", *BITS]) | st.binary(max_size=3))
            raw = raw[:place] + more + raw[place + gone :]
        cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=3)))
        return [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True) if a < b]

    return made()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("doors")


@pytest.fixture(scope="module")
def graph(place: Path) -> Iterator[Served]:
    (place / "keys").write_text(f"tester:{KEY}\n")
    (place / "keys").chmod(0o600)
    (place / "tmp").mkdir()
    options = (
        "--timeout-client", "0.2", "--timeout-keep-alive", "0.05", "--max-body-size", "64KiB",
        "--api-key-file", str(place / "keys"), "--run-dir", str(place / "run"),
    )  # fmt: skip
    with served("many_doors:Doors", *options, env={"TMPDIR": str(place / "tmp")}) as graph:
        for raw in (raw for kind in KINDS for raw in KINDS[kind]):
            talk(graph, [raw])  # each worker has imported what it needs
        yield graph


@pytest.mark.parametrize("kind", KINDS)
def test_every_door_opens(graph: Served, kind: str) -> None:
    found = [int(STATUS.findall(talk(graph, [raw]))[-1]) for raw in KINDS[kind]]
    assert found == UNCHANGED[kind]


@pytest.mark.timeout(EXAMPLES * 5 + 60)
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_requests_of_every_kind(graph: Served, place: Path, kind: str) -> None:
    found: Counter[int] = Counter()
    before, files = held(graph), on_disk(place)

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=not LONG, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(mutated(kind))
    def send(parts: list[bytes]) -> None:
        statuses = [int(status) for status in STATUS.findall(talk(graph, parts))]
        assert all(status < 500 for status in statuses), statuses
        found.update(statuses)

    send()
    print(f"{kind}: {sum(found.values())} answers, {dict(sorted(found.items()))}")
    assert found.keys() & {200, 101, 206}, "some get through"
    with graph.client(headers={"x-api-key": KEY}) as client:
        answer = client.post("/keep", content=b"x" * 100, headers={"content-type": "a/b"})
        assert answer.json() == [100, "", 1], answer.text
    eventually(lambda: not received(place / "run"))
    eventually(lambda: on_disk(place) <= files)
    assert held(graph) < before + GROWTH
    strange = [line for line in graph.log if not FINE.search(line)]
    assert strange == []


def talk(graph: Served, parts: list[bytes]) -> bytes:
    """Send the parts, and read until the server ends the connection, or is silent for long."""
    received = b""
    with socket.create_connection(address(graph), 30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):
            for part in parts:
                sock.sendall(part)
        if b"websocket" in b"".join(parts).lower():
            with contextlib.suppress(OSError):  # it is refused already, and reset
                sock.shutdown(socket.SHUT_WR)  # a WebSocket would wait, as long as it is silent
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(65536):
                received += data
    return received


def held(graph: Served) -> int:
    """KB that the processes of a graph hold."""
    return sum(map(pss, [graph.pid, *graph.workers()]))


def on_disk(place: Path) -> set[Path]:
    """The files that a graph has, but for those of its own house."""
    return {path for path in (place / "tmp").rglob("*") if path.is_file()}
