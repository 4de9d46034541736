"""The admin port: whose requests it answers, and what strangers can make it do. No process is
started.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from graphserve.config import load
from graphserve.errors import ConfigurationError, StartupError
from graphserve.supervise.control import http
from graphserve.supervise.control.admin import AdminPort, Gatekeeper
from graphserve.supervise.control.http import ControlRequest, ControlResponse, HttpError
from graphserve.wire.api_keys import ApiKeys

KEY = "0123456789abcdef0123"
KEYS = ApiKeys.read("keys", f"alice:{KEY}\n")
LOCAL = (b"host", b"127.0.0.1:9000")
BEARER = (b"authorization", f"Bearer {KEY}".encode())
JSON = (b"content-type", b"application/json")
Fields = list[tuple[bytes, bytes]]


def refusal(
    *fields: tuple[bytes, bytes], host: str = "127.0.0.1", keys: ApiKeys | None = None,
    method: str = "GET",
) -> int | None:  # fmt: skip
    try:
        Gatekeeper(host, lambda: keys).check(method, list(fields))
    except HttpError as exc:
        assert len(exc.detail) < 300
        assert KEY not in exc.detail
        return exc.status
    return None


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9000", None),
        ("localhost", None),
        ("LOCALHOST.:9000", None),
        ("app.localhost:9000", None),
        ("[::1]:9000", None),
        ("127.8.9.10", None),
        ("evil.example", 421),
        ("evil.example:9000", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.nip.io", 421),
        ("192.168.1.1", 421),
        ("", 421),
        ("[", 421),
        ("127.0.0.1@evil.example", 421),
        ("\xff" * 1000, 421),
    ],
)
def test_on_loopback_no_foreign_host_is_answered(host: str, status: int | None) -> None:
    field = (b"host", host.encode("latin-1"))
    assert refusal(field) == status
    assert refusal(field, BEARER, keys=KEYS) == status, "also with a key"
    assert refusal(field, BEARER, host="0.0.0.0", keys=KEYS) is None, "elsewhere the key decides"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(b"origin", b"http://127.0.0.1:9000")], None),
        ([(b"origin", b"HTTP://127.0.0.1:9000")], None),
        ([(b"origin", b"https://127.0.0.1:9000")], None),
        ([(b"sec-fetch-site", b"same-origin")], None),
        ([(b"sec-fetch-site", b"none")], None),
        ([(b"origin", b"http://127.0.0.1:9001")], 403),
        ([(b"origin", b"http://127.0.0.1")], 403),
        ([(b"origin", b"http://evil.example")], 403),
        ([(b"origin", b"null")], 403),
        ([(b"origin", b"")], 403),
        ([(b"origin", b"http://127.0.0.1:9000"), (b"origin", b"http://evil.example")], 403),
        ([(b"sec-fetch-site", b"cross-site")], 403),
        ([(b"sec-fetch-site", b"same-site")], 403),
        ([(b"sec-fetch-site", b"same-origin"), (b"sec-fetch-site", b"cross-site")], 403),
        ([(b"sec-fetch-site", b"same-origin"), (b"origin", b"http://evil.example")], 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_no_page_of_another_site_is_answered(
    fields: Fields, status: int | None, method: str
) -> None:
    assert refusal(LOCAL, *fields, method=method) == status
    assert refusal(LOCAL, BEARER, *fields, method=method, keys=KEYS) == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([BEARER], None),
        ([(b"x-api-key", KEY.encode())], None),
        ([], 401),
        ([(b"authorization", b"Bearer " + KEY[:-1].encode())], 401),
        ([(b"authorization", b"Bearer " + KEY.encode() + b"x")], 401),
        ([(b"authorization", b"Bearer")], 401),
        ([(b"authorization", b"Basic YWxpY2U6eA==")], 401),
        ([(b"authorization", b"Bearer \xff\xff")], 401),
        ([BEARER, BEARER], 401),
        ([(b"x-api-key", b"wrong"), BEARER], 401),
        ([(b"cookie", KEY.encode())], 401),
        ([(b"x-api-key", b"x" * 10000)], 401),
    ],
)
def test_where_there_are_keys_one_is_needed(fields: Fields, status: int | None) -> None:
    assert refusal(LOCAL, *fields, keys=KEYS) == status


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"application/json", None),
        (b"Application/JSON; charset=utf-8", None),
        (b"text/plain", 415),
        (b"application/x-www-form-urlencoded", 415),
        (b"multipart/form-data; boundary=x", 415),
        (b"", 415),
    ],
)
def test_a_body_is_of_a_type_that_no_form_sends(value: bytes, status: int | None) -> None:
    assert refusal(LOCAL, (b"content-type", value), method="POST") == status


def test_new_keys_replace_the_old_ones() -> None:
    keys = [KEYS]
    keeper = Gatekeeper("127.0.0.1", lambda: keys[0])
    keeper.check("GET", [LOCAL, BEARER])
    keys[0] = ApiKeys.read("keys", "bob:ffffffffffffffffffff\n")
    with pytest.raises(HttpError):
        keeper.check("GET", [LOCAL, BEARER])


# --- the configuration ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"admin": "0.0.0.0:9000"}, "is reached from other machines: give --admin-key-file"),
        ({"admin": "[::]:9000"}, "is reached from other machines"),
        ({"admin": "example.com:9000"}, "is reached from other machines"),
        ({"admin": "127.0.0.1.nip.io:1"}, "is reached from other machines"),
        ({"admin": "127.0.0.1:9000", "admin_actions": True}, "every user of this machine"),
        ({"admin_actions": True}, "--admin-actions is about the admin port"),
        ({"admin_key_file": "keys"}, "--admin-key-file is about the admin port"),
        ({"admin": "127.0.0.1:9000", "admin_key_file": "nowhere"}, "--admin-key-file "),
        ({"admin": "9000"}, "a host and a port, such as"),
        ({"admin": "127.0.0.1:"}, "a host and a port, such as"),
        ({"admin": "127.0.0.1:99999"}, "a host and a port, such as"),
        ({"admin": ":9000"}, "a host and a port, such as"),
        ({"admin": "[::1"}, "a host and a port, such as"),
        ({"admin": "::g:1"}, "a host and a port, such as"),
        ({"admin": "a b:1"}, "a host and a port, such as"),
    ],
)
def test_what_would_be_open_to_strangers_is_no_configuration(
    options: dict[str, Any], words: str, tmp_path: Any
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load({"entrypoint": "app:Top", **options}, {}, tmp_path)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("localhost:0", "localhost:0"),
        ("[::1]:9000", "[::1]:9000"),
        ("::1:9000", "[::1]:9000"),
    ],
)
def test_on_loopback_no_key_is_needed_to_look(given: str, address: str, tmp_path: Any) -> None:
    config = load({"entrypoint": "app:Top", "admin": given}, {}, tmp_path)
    assert (config.admin, config.admin_keys, config.admin_actions) == (address, None, False)


def test_keys_are_kept_as_digests(tmp_path: Any) -> None:
    (tmp_path / "keys").write_text(f"alice:{KEY}\n")
    options = {"admin": "0.0.0.0:1", "admin_key_file": "keys", "admin_actions": True}
    config = load({"entrypoint": "app:Top", **options}, {}, tmp_path)
    assert KEY not in config.to_json()
    assert config.admin_actions
    assert str(tmp_path / "keys") in config.files
    again = type(config).from_json(config.to_json())
    assert again.admin_keys is not None
    assert again.admin_keys.reread().names == again.admin_keys.names
    (tmp_path / "keys").unlink()
    with pytest.raises(ConfigurationError, match="--admin-key-file"):
        again.admin_keys.reread()


# --- the port ---


@contextlib.asynccontextmanager
async def serving(keys: ApiKeys | None = None) -> AsyncIterator[tuple[AdminPort, list[str]]]:
    """A port whose requests are noted, and answered with their path."""
    asked: list[str] = []

    async def handle(request: ControlRequest, response: ControlResponse) -> None:
        asked.append(f"{request.method} {request.path}")
        if request.path == "/lines":
            for _ in range(1000):
                await response.lines(b"x" * 65536 + b"\n")
        response.json(request.path)

    port = AdminPort("127.0.0.1:0", handle, lambda: keys)
    port.begin()
    try:
        yield port, asked
    finally:
        await port.close()


async def eventually(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


def address(port: AdminPort) -> tuple[str, int]:
    host, _, number = port.url.removeprefix("http://").rpartition(":")
    return host, int(number)


async def exchange(port: AdminPort, data: bytes) -> bytes:
    """What the port answers until it closes."""
    reader, writer = await asyncio.open_connection(*address(port))
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 60)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def get(path: bytes = b"/a", method: bytes = b"GET", more: bytes = b"") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\nhost: localhost\r\n" + more + b"\r\n"


def test_one_request_is_answered_a_connection() -> None:
    async def play() -> None:
        async with serving() as (port, asked):
            answer = await exchange(port, get() + get(b"/b"))
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"access-control" not in answer.lower()
            head, _, body = (await exchange(port, get(method=b"HEAD"))).partition(b"\r\n\r\n")
            assert (head.partition(b"\r\n")[0], body) == (b"HTTP/1.1 200 OK", b"")
            assert asked == ["GET /a", "HEAD /a"]

    asyncio.run(play())


def test_who_has_no_key_is_refused_before_a_body_is_read() -> None:
    async def play() -> None:
        async with serving(KEYS) as (port, asked):
            answer = await exchange(port, get(method=b"POST", more=b"content-length: 60000\r\n"))
            head = answer.partition(b"\r\n\r\n")[0]
            assert head.startswith(b"HTTP/1.1 401 ")
            assert b"www-authenticate: Bearer" in head
            known = b"authorization: Bearer %b\r\n" % KEY.encode()
            assert (await exchange(port, get(more=known))).startswith(b"HTTP/1.1 200 ")
            assert asked == ["GET /a"]

    asyncio.run(play())


@pytest.mark.parametrize(
    "data",
    [
        b"", b"G", b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", get(b"*"), b"x" * 100_000,
        get(more=b"x: y\r\n" * 5000), get(more=b"transfer-encoding: chunked\r\n"),
        get(method=b"POST", more=b"content-length: 99999999\r\n"),
        get(method=b"POST", more=b"content-length: 10\r\n"),
    ],
    ids=lambda data: repr(data[:24]),
)  # fmt: skip
def test_what_is_no_request_is_refused_or_given_up(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.05)

    async def play() -> None:
        async with serving() as (port, asked):
            answer = await exchange(port, data)
            assert not answer or answer.startswith(b"HTTP/1.1 4")
            assert len(answer) < 1000
            assert asked == []
            monkeypatch.setattr(http, "READ_TIMEOUT", 60.0)
            assert (await exchange(port, get())).startswith(b"HTTP/1.1 200 ")

    asyncio.run(play())


def test_thousands_who_say_nothing_hold_few_connections_and_nobody_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.2)

    async def play() -> None:
        async with serving() as (port, _):
            held = []
            try:
                for _ in range(400):
                    sock = socket.socket()
                    sock.setblocking(False)
                    held.append(sock)
                    with contextlib.suppress(BlockingIOError):
                        sock.connect(address(port))
                    if len(held) % 50 == 0:
                        await asyncio.sleep(0)
                        assert len(port._clients) <= http.MAX_CONNECTIONS
            finally:
                for sock in held:
                    sock.close()
            for _ in range(100):  # the queue of the kernel may be full for a moment yet
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        if (await exchange(port, get())).startswith(b"HTTP/1.1 200 "):
                            return
            raise AssertionError("nobody is served any more")

    asyncio.run(play())


def test_who_takes_nothing_of_an_answer_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphserve.supervise.control.admin.PATIENCE", 0.1)
    monkeypatch.setattr(http, "WRITE_TIMEOUT", 0.1)

    async def play() -> None:
        async with serving() as (port, _):
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(address(port))
                sock.sendall(get(b"/lines"))
                async with asyncio.timeout(60):
                    await eventually(lambda: bool(port._clients))
                    await asyncio.wait(port._clients)

    asyncio.run(play())


def test_an_address_that_is_taken_is_said() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()

        async def handle(request: ControlRequest, response: ControlResponse) -> None: ...

        with pytest.raises(StartupError, match=r"--admin: .* is in use by another process"):
            AdminPort(f"127.0.0.1:{sock.getsockname()[1]}", handle, lambda: None)
