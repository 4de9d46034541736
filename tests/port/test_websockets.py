"""WebSockets at the public port: what is said both ways, what a client may do, and what becomes of
code whose client is gone. The same over ASGI, in one process, is in `tests/run/test_local_sockets.py`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
import urllib.parse
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from websockets.sync.client import ClientConnection, connect

from tests.harness import APPS, Served, eventually, served
from tests.hostile.wire import answers, connected, read_to_end

ROOT = APPS.parent.parent
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file: while it is there, the entry starts slowly."""
    return tmp_path_factory.mktemp("slow") / "slow"


@pytest.fixture(scope="module")
def graph(slow: Path) -> Iterator[Served]:
    arguments = ("--access-log", "--timeout-client", "1")
    with served(
        "tests.apps.talking:Talker", *arguments, cwd=ROOT, env={"SLOW": str(slow)}
    ) as graph:
        yield graph


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A file where the code of a socket leaves words."""
    return tmp_path / "words"


def talk(graph: Served, target: str, **options: Any) -> ClientConnection:
    options = {"proxy": None, "max_size": None, **options}
    return connect(graph.url.replace("http", "ws") + target, **options)


def with_place(target: str, place: Path, **more: object) -> str:
    return f"{target}?{urllib.parse.urlencode({'place': place, **more})}"


def words(place: Path) -> list[str]:
    return place.read_text().splitlines() if place.exists() else []


def closed(socket: ClientConnection) -> tuple[int, str]:
    """How the other side closes, behind all that it says."""
    try:
        while True:
            socket.recv(timeout=30)
    except websockets.ConnectionClosed as exc:
        assert exc.rcvd is not None
        return exc.rcvd.code, exc.rcvd.reason


def told_apart() -> dict[str, str]:
    """A header by which the log tells one client from all others."""
    return {"x-request-id": uuid.uuid4().hex}


def is_blameless(graph: Served, headers: dict[str, str]) -> bool:
    """Whether the log says nothing of a failure, of a client that is gone."""
    name = headers["x-request-id"]
    graph.wait_log(rf"WEBSOCKET .*{name}")
    return not [line for line in list(graph.log) if "ERROR" in line and name in line]


# --- what is said ---

MESSAGES: list[Any] = [
    "text", "", "é" * 1000, "\U0001f600" * 20_000, "\0", b"bytes", b"", bytes(range(256)) * 4000, b"\xff\xfe",
    ["in", "", "three", "é parts"], [b"in", b"two"],
]  # fmt: skip


@pytest.mark.parametrize("target", ["/echo", "/plain"])
def test_messages_come_and_go_as_they_are(graph: Served, target: str) -> None:
    with talk(graph, target) as client:
        agreed = client.response and "sec-websocket-extensions" in client.response.headers
        assert agreed is (target == "/echo")
        for message in MESSAGES:
            client.send(message)
            whole = message[0][:0].join(message) if isinstance(message, list) else message
            assert client.recv(timeout=30) == whole
        assert client.ping().wait(30)
        client.close(3000, "enough")
    assert (client.close_code, client.close_reason) == (3000, "enough")


ROOMS = {
    "/rooms/a/1": ["a", 1, False, {"room": "a", "number": "1"}, {}],
    "/rooms/a%2Fb/01?loud=yes": ["a/b", 1, True, {"room": "a/b", "number": "01"}, {"loud": "yes"}],
    "/%72ooms/%C3%A9/1?other=2": ["é", 1, False, {"room": "é", "number": "1"}, {"other": "2"}],
}


@pytest.mark.parametrize("target", ROOMS)
def test_the_url_says_the_arguments(graph: Served, target: str) -> None:
    with talk(graph, target) as client:
        assert json.loads(client.recv(timeout=30)) == ROOMS[target]
        assert closed(client) == (1000, "")


def test_code_calls_dependencies_and_has_the_request_in_hand(graph: Served) -> None:
    with talk(graph, "/spell", additional_headers={"x-tenant": "acme"}) as client:
        client.send("ab")
        assert json.loads(client.recv(timeout=30)) == ["a", "b", "acme"]
    headers = {"cookie": "a=1", "x-request-id": "mine"}
    with talk(graph, "/who?q=1", subprotocols=["a", "b"], additional_headers=headers) as client:
        said = json.loads(client.recv(timeout=30))
        assert said == ["GET", "/who", "q=1", "mine", {"a": "1"}, "/who", True]
        assert client.subprotocol == "b"
        assert client.response is not None
        assert client.response.headers["set-cookie"].startswith("seen=1;")
        assert client.response.headers["x-request-id"] == "mine"
    graph.wait_log(r"GET /who 101 .*mine")
    graph.wait_log(r"WEBSOCKET /who 1000 .*mine")


# --- what it is answered with ---

DENIED = {
    "/deny?how=close": (403, "not you"),
    "/deny?how=problem": (402, "it costs 1"),
    "/deny?how=http": (418, "a teapot"),
    "/deny?how=socket": (403, "no"),
    "/deny?how=raise": (500, "Talker failed; the log says more under request id "),
    "/deny?how=receive": (500, "Talker failed; "),
    "/deny?how=nothing": (500, "Talker failed; "),
    "/deny": (422, "arguments of Talker.deny: query.how: missing argument 'how'"),
    "/rooms/a/x": (422, "arguments of Talker.rooms: path.number: Expected `int`, got `str`"),
    "/rooms/a": (404, "there is no API at /rooms/a"),
    "/rooms//1": (404, "there is no API at /rooms//1"),
}


@pytest.mark.parametrize("target", DENIED)
def test_a_handshake_is_refused_with_a_problem(graph: Served, target: str) -> None:
    status, detail = DENIED[target]
    with pytest.raises(websockets.InvalidStatus) as raised, talk(graph, target):
        pass
    answer = raised.value.response
    assert answer.headers["content-type"] == "application/problem+json"
    said = json.loads(bytes(answer.body or b""))
    assert (answer.status_code, said["status"]) == (status, status)
    assert detail in said["detail"] and "secret" not in str(said)
    assert said["request_id"] == answer.headers["x-request-id"]
    if target.endswith("=problem"):
        assert answer.headers["x-price"] == "1"


def test_code_answers_with_a_response_of_its_own(graph: Served) -> None:
    with pytest.raises(websockets.InvalidStatus) as raised, talk(graph, "/deny?how=response"):
        pass
    answer = raised.value.response
    assert (answer.status_code, bytes(answer.body or b"")) == (409, b'{"no":1}')
    assert answer.headers["x-why"] == "not"


FALLS = {
    "problem": (1008, "Pay First"),
    "raise": (1011, "Internal Server Error"),
    "socket": (4001, "no"),
    "cancel": (1011, "Internal Server Error"),
    "exit": (1011, "Internal Server Error"),
    "close": (4002, "é" * 61),
    "below": (1011, "Bad Gateway"),
    "nothing": (1000, ""),
}


@pytest.mark.parametrize("how", FALLS)
def test_what_code_raises_becomes_a_close_code(graph: Served, how: str) -> None:
    with talk(graph, f"/fall?how={how}") as client:
        assert closed(client) == FALLS[how]


WRONG_FORMS = [
    ("text", b"bytes", (1003, "messages are text here")),
    ("bytes", "text", (1003, "messages are bytes here")),
    ("json", b"{}", (1003, "messages are text here")),
    ("json", "{", (1007, "a message is no valid JSON")),
    ("json", "[" * 100_000, (1007, "a message is no valid JSON")),
]


@pytest.mark.parametrize("how, message, code", WRONG_FORMS)
def test_a_message_in_the_wrong_form_is_its_clients_fault(
    graph: Served, how: str, message: Any, code: tuple[int, str]
) -> None:
    headers = told_apart()
    with talk(graph, f"/fall?how={how}", additional_headers=headers) as client:
        client.send(message)
        assert closed(client) == code
    assert is_blameless(graph, headers)


# --- a client that is gone ---

LEAVING = {
    "/stream?until=1000000": {"count was cancelled"},
    "/asleep?": {"sleep began", "sleep was cancelled", "the socket was cancelled"},
    "/aside?": {
        "sleep began",
        "sleep was cancelled",
        "the socket was cancelled",
        "the reader ended",
    },
}


@pytest.mark.parametrize("how", ["close", "vanish"])
@pytest.mark.parametrize("target", LEAVING)
def test_code_ends_with_its_client_and_so_does_what_it_called(
    graph: Served, place: Path, target: str, how: str
) -> None:
    path, _, query = target.partition("?")
    headers = told_apart()
    url = with_place(path, place) + f"&{query}"
    with talk(graph, url, additional_headers=headers) as client:
        if target.startswith("/stream"):
            assert client.recv(timeout=30) == "0"
        else:
            eventually(lambda: "sleep began" in words(place))
        if how == "vanish":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close_socket()
    eventually(lambda: set(words(place)) == LEAVING[target])
    assert is_blameless(graph, headers)


def test_code_that_hears_of_the_end_may_still_call(graph: Served, place: Path) -> None:
    with talk(graph, with_place("/saving", place)) as client:
        client.send("a")
        client.send("b")
        client.close(3001, "bye")
    eventually(lambda: words(place) == ["saved a+b 3001 bye"])


# --- limits ---


def test_a_message_that_is_too_long_ends_the_connection(graph: Served) -> None:
    for message in ("x" * 1001, ["x" * 600, "x" * 600], "0" * 1_000_000):
        with talk(graph, "/small") as client:
            client.send("x" * 1000)
            assert client.recv(timeout=30) == "x" * 1000
            with pytest.raises(websockets.ConnectionClosed):
                client.send(message)
                client.recv(timeout=30)
            assert client.close_code == 1009


def test_silence_and_time_end_it(graph: Served, place: Path) -> None:
    with talk(graph, "/idle") as client:
        assert closed(client) == (1001, "nothing was said for 0.2 s")
    with talk(graph, with_place("/short", place)) as client:
        assert 0 < json.loads(client.recv(timeout=30)) <= 0.3
        assert closed(client) == (1001, "its time is over")
    eventually(lambda: "sleep was cancelled" in words(place))


def test_a_client_that_answers_no_ping_is_gone(graph: Served) -> None:
    with talk(graph, "/pinged") as client:  # this one answers
        assert client.ping().wait(30)
        client.send("still here")
        assert client.recv(timeout=30) == "still here"
    with opened(graph, "/pinged") as sock:  # this one does not
        _, rest = read_frames(sock)
        assert rest == (1011, "nothing came, not even an answer to a ping")


def test_who_takes_nothing_holds_the_code_back_and_is_ended(graph: Served, place: Path) -> None:
    with opened(graph, with_place("/flood", place)):
        eventually(lambda: "the flood ended" in words(place))  # by --timeout-client
    assert len(words(place)) < 100


def test_a_client_that_sends_more_than_is_read_is_held_back(graph: Served, place: Path) -> None:
    sent: list[int] = []
    total = 64 * 1024 * 1024
    message = bytes(1024 * 1024)

    with talk(graph, with_place("/slow", place), compression=None) as client:

        def send() -> None:
            for _ in range(total // len(message)):
                client.send(message)
                sent.append(len(message))
            client.send(b"")

        thread = threading.Thread(target=send)
        thread.start()
        workers = graph.workers("n1")
        eventually(lambda: sent)
        eventually(lambda: len(sent) == len_later(sent))
        assert sum(sent) < total / 2
        assert max(map(resident, workers)) < 150 * 1024 * 1024
        place.touch()
        assert json.loads(client.recv(timeout=60)) == total
        thread.join()


def len_later(sent: list[int]) -> int:
    """How many there are when the machine has had time for more."""
    threading.Event().wait(0.3)
    return len(sent)


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


# --- who is no client of WebSockets ---


def head(target: str = "/echo", **changes: str | None) -> bytes:
    """A handshake, with other headers or without some."""
    headers: dict[str, str | None] = {
        "host": "127.0.0.1", "upgrade": "websocket", "connection": "Upgrade", "sec-websocket-key": KEY,
        "sec-websocket-version": "13",
    }  # fmt: skip
    headers |= {
        name.replace("_", "-"): value for name, value in changes.items() if name != "method"
    }
    lines = [f"{changes.get('method') or 'GET'} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode()


HANDSHAKES = {
    "no upgrade": (head(upgrade=None, connection=None), 426),
    "no connection": (head(connection="keep-alive"), 426),
    "another protocol": (head(upgrade="h2c"), 426),
    "two protocols": (head(upgrade="websocket, h2c"), 426),
    "no key": (head(sec_websocket_key=None), 400),
    "a short key": (head(sec_websocket_key="c2hvcnQ="), 400),
    "no base64": (head(sec_websocket_key="!" * 24), 400),
    "no version": (head(sec_websocket_version=None), 426),
    "version 8": (head(sec_websocket_version="8"), 426),
    "version 13 twice": (head(sec_websocket_version="13, 13"), 426),
    "a bad extension": (head(sec_websocket_extensions=";;="), 400),
    "a bad subprotocol": (head(sec_websocket_protocol="a b"), 400),
    "a body": (head(content_length="5") + b"hello", 400),
    "chunks": (head(transfer_encoding="chunked") + b"0\r\n\r\n", 400),
    "HTTP/1.0": (head().replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    "POST": (head(method="POST"), 405),
    "HEAD": (head(method="HEAD"), 405),
    "no host": (head(host=None), 400),
    "a foreign host": (head(host="evil.example"), 421),
    "a page of another site": (head(origin="http://evil.example"), 403),
    "a page of no site": (head(origin="null"), 403),
    "a page of another scheme": (head(origin="https://127.0.0.1"), 403),
    "another site, says the browser": (head(sec_fetch_site="cross-site"), 403),
    "another target": (head("http://evil.example/echo"), 400),
    "a long target": (head("/echo?" + "x" * 9000), 414),
    "many extensions": (head(sec_websocket_extensions="a," * 14_000), 101),
    "an early frame": (head() + b"\x81\x80abcd", 101),
    "our own page": (head(origin="http://127.0.0.1", sec_fetch_site="same-origin"), 101),
    "an absolute target": (head("http://127.0.0.1/echo"), 101),
}  # fmt: skip


@pytest.mark.parametrize("name", HANDSHAKES)
def test_a_handshake_is_checked(graph: Served, name: str) -> None:
    sent, status = HANDSHAKES[name]
    with connected(graph) as sock:
        sock.sendall(sent)
        if status == 101:
            assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")
            return
        sock.shutdown(socket.SHUT_WR)
        received = read_to_end(sock)
        if name == "HEAD":  # whose answer has no body
            assert received.startswith(b"HTTP/1.1 405 ")
            return
        answer = answers(received)[0]
    assert answer.status == status, answer
    if status == 426:
        assert answer.headers["upgrade"] == "websocket"
    if name == "version 8":
        assert answer.headers["sec-websocket-version"] == "13"


def test_an_ordinary_request_is_told_of_the_websocket(graph: Served) -> None:
    with graph.client() as client:
        answer = client.get("/echo")
        assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
        assert client.post("/echo", json={}).headers["allow"] == "GET"
        assert client.get("/hello").json() == "hello"


def test_a_handshake_may_follow_a_request_and_not_overtake_it(graph: Served) -> None:
    get = b"GET /hello HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    with connected(graph) as sock:
        sock.sendall(get)
        assert b'"hello"' in sock.recv(65536)
        sock.sendall(head())
        assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")
    with connected(graph) as sock:
        sock.sendall(
            b"POST /docs HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n" + head()
        )
        first, second = answers(read_to_end(sock))
        assert (first.status, second.status) == (405, 400)


# --- who sends what no client would ---


def frame(
    opcode: int,
    data: bytes = b"",
    *,
    fin: bool = True,
    mask: bool = True,
    rsv: int = 0,
    says: int | None = None,
) -> bytes:
    """A frame, as a client sends it unless it is told otherwise."""
    length = len(data) if says is None else says
    first = bytes([(fin << 7) | (rsv << 4) | opcode])
    if length < 126:
        sizes = bytes([(mask << 7) | length])
    elif length < 65536:
        sizes = bytes([(mask << 7) | 126]) + struct.pack(">H", length)
    else:
        sizes = bytes([(mask << 7) | 127]) + struct.pack(">Q", length)
    return first + sizes + (b"\0\0\0\0" if mask else b"") + data  # (a mask that changes nothing)


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
BOMB = deflated(bytes(64 * 1024 * 1024))
HOSTILE = {
    # what is sent: the close code
    "no mask": (frame(TEXT, b"a", mask=False), 1002),
    "an unknown opcode": (frame(3), 1002),
    "an unknown control frame": (frame(11), 1002),
    "a reserved bit": (frame(TEXT, b"a", rsv=1), 1002),
    "compressed, where that was not agreed": (frame(TEXT, b"a", rsv=4), 1002),
    "a rest of nothing": (frame(0, b"a"), 1002),
    "a message in a message": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"a"), 1002),
    "a ping in parts": (frame(PING, fin=False), 1002),
    "a long ping": (frame(PING, bytes(126)), 1002),
    "a close code that none may send": (frame(CLOSE, b"\x03\xed"), 1002),
    "a close code of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a reason that is no text": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "text that is no text": (frame(TEXT, b"\xff"), 1007),
    "text that is no text, in parts": (frame(TEXT, b"\xc3", fin=False) + frame(0, b"a", fin=False), 1007),
    "text that ends in the midst of a letter": (frame(TEXT, b"\xc3"), 1007),
    "likewise, in parts": (frame(TEXT, b"a", fin=False) + frame(0, b"\xc3"), 1007),
    "a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "a message of 2 MB": (frame(BINARY, says=2_000_000), 1009),
    "a message of 16 EB": (frame(BINARY, says=2**63 - 1), 1009),
    "a length with its highest bit": (frame(BINARY, says=2**64 - 1), 1009),
    "parts without end": (frame(TEXT, b"a" * 30_000, fin=False) + frame(0, b"a" * 30_000, fin=False) * 40, 1009),
    "a close behind a part": (frame(TEXT, b"a", fin=False) + frame(CLOSE, b"\x03\xe8"), 1002),
    "a message behind the close": (frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"a"), 1000),
    "a close without a code": (frame(CLOSE), None),
    "a bomb": (frame(BINARY, BOMB, rsv=4), 1009),
    "a bomb in parts": (frame(BINARY, BOMB[:40_000], rsv=4, fin=False) + frame(0, BOMB[40_000:]), 1009),
    "what is not compressed, though it says so": (frame(BINARY, b"\xff" * 100, rsv=4), 1002),
    "a request": (b"GET / HTTP/1.1\r\n\r\n", 1002),
    "a message that stops": (frame(BINARY, bytes(50_000), says=100_000), 1008),
}  # fmt: skip


def opened(
    graph: Served, target: str, *, compressed: bool = False, **headers: str
) -> socket.socket:
    """A raw connection behind its handshake; its operations have a deadline."""
    host, _, port = graph.url.partition("://")[2].rpartition(":")
    sock = socket.create_connection((host, int(port)), 30)
    extensions = "permessage-deflate" if compressed else None
    sock.sendall(head(target, sec_websocket_extensions=extensions, **headers))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return sock


def read_frames(sock: socket.socket) -> tuple[list[tuple[int, bytes]], tuple[int | None, str]]:
    """All frames up to the end of the connection, and what the close frame says."""
    data = read_to_end(sock)
    frames: list[tuple[int, bytes]] = []
    while data:
        opcode, length, begin = data[0] & 15, data[1], 2
        if length == 126:
            (length,), begin = struct.unpack(">H", data[2:4]), 4
        elif length == 127:
            (length,), begin = struct.unpack(">Q", data[2:10]), 10
        payload = data[begin : begin + length]
        data = data[begin + length :]
        if opcode == CLOSE:
            assert not data, "nothing comes behind a close frame"
            code = struct.unpack(">H", payload[:2])[0] if payload else None
            return frames, (code, payload[2:].decode())
        frames.append((opcode, payload))
    raise AssertionError(f"there was no close frame behind {frames}")


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_client_would_send_ends_the_connection(graph: Served, name: str) -> None:
    sent, code = HOSTILE[name]
    compressed = "bomb" in name or "though it says so" in name
    headers = told_apart()
    with opened(graph, "/echo", compressed=compressed, **headers) as sock:
        try:
            sock.sendall(sent)
        except ConnectionError:  # it has been ended already
            pass
        frames, (said, _) = read_frames(sock)
    assert said == code
    assert not [each for each in frames if each[0] in (TEXT, BINARY)]
    assert is_blameless(graph, headers)


def test_floods_of_what_costs_nothing_are_borne(graph: Served) -> None:
    """Pings that nobody reads the answers of, empty parts, pongs: others are served meanwhile."""
    floods = {
        "pings": frame(PING, bytes(125)) * 30_000,
        "pongs": frame(PONG) * 300_000,
        "empty parts": frame(TEXT, fin=False) + frame(0, fin=False) * 300_000,
    }
    workers = graph.workers("n1")
    before = {pid: resident(pid) for pid in workers}
    for flood in floods.values():
        with opened(graph, "/echo") as sock:
            thread = threading.Thread(target=pour, args=(sock, flood))
            thread.start()
            with talk(graph, "/echo") as client:
                for _ in range(20):
                    client.send("a")
                    assert client.recv(timeout=30) == "a"
            sock.shutdown(socket.SHUT_RDWR)
            thread.join()
    for pid in workers:
        assert resident(pid) - before[pid] < 40 * 1024 * 1024


def pour(sock: socket.socket, flood: bytes) -> None:
    try:
        sock.sendall(flood)
    except OSError:
        pass  # it was ended


# --- the worker ends ---


def test_a_drain_ends_it_when_the_grace_is_over(graph: Served, place: Path) -> None:
    with talk(graph, "/echo") as client, talk(graph, with_place("/saving", place)) as saving:
        saving.send("kept")
        client.send("a")
        assert client.recv(timeout=30) == "a"
        after = len(graph.log)
        graph.signal(signal.SIGHUP)  # a reload, which replaces the workers
        graph.wait_log("reloaded in", after=after)
        client.send("in the grace")
        assert client.recv(timeout=30) == "in the grace"
        assert closed(client) == (1001, "it stops")
        assert closed(saving) == (1001, "it stops")
    eventually(lambda: words(place) == ["saved kept 1001 it stops"])
    with talk(graph, "/echo") as client:  # of a new worker
        client.send("b")
        assert client.recv(timeout=30) == "b"
    eventually(lambda: len(graph.workers("n1")) == 1)
    assert not httpx.get(graph.url + "/readyz", trust_env=False).is_error


def test_without_a_worker_there_is_no_websocket_for_now(graph: Served, slow: Path) -> None:
    slow.touch()
    (worker,) = graph.workers("n1")
    after = len(graph.log)
    with talk(graph, "/echo") as client:
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(websockets.ConnectionClosedError):
            client.recv(timeout=30)
    graph.wait_log("a fallback server is at the public port", after=after)
    with pytest.raises(websockets.InvalidStatus) as raised, talk(graph, "/echo"):
        pass
    answer = raised.value.response
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
    detail = json.loads(bytes(answer.body or b""))["detail"]
    assert detail == "/echo is for Talker, which takes no calls now"
    assert httpx.get(graph.url + "/echo", trust_env=False).status_code == 426
    slow.unlink()
    eventually(lambda: answers_again(graph))


def answers_again(graph: Served) -> bool:
    try:
        with talk(graph, "/echo") as client:
            client.send("again")
            return client.recv(timeout=30) == "again"
    except websockets.InvalidStatus:
        return False
