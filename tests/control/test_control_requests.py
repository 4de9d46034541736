"""What the control socket takes as a request, byte by byte: h11 parses, our bounds hold.

No process is started.
"""

from __future__ import annotations

import asyncio

import pytest

from graphserve.supervise.control.http import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_TARGET_BYTES,
    ControlRequest,
    HttpError,
    read,
)

HOST = b"host: graph\r\n"


def get(
    target: bytes = b"/ps", *, method: bytes = b"GET", version: bytes = b"1.1", headers: bytes = b""
) -> bytes:
    return method + b" " + target + b" HTTP/" + version + b"\r\n" + HOST + headers + b"\r\n"


def post(headers: bytes, body: bytes = b"") -> bytes:
    return get(b"/scale", method=b"POST", headers=headers + b"\r\n") + body


async def parsed(data: bytes) -> ControlRequest:
    reader = asyncio.StreamReader(limit=MAX_HEAD_BYTES)
    reader.feed_data(data)
    reader.feed_eof()
    return await read(reader)


@pytest.mark.parametrize(
    ("data", "request_"),
    [
        (get(), ControlRequest("GET", "/ps", None, False)),
        (b"GET /ps HTTP/1.0\r\n\r\n", ControlRequest("GET", "/ps", None, False)),
        (get(b"/ps?all=1&%20"), ControlRequest("GET", "/ps", None, False, "all=1&%20")),
        (
            get(b"/" + b"a" * (MAX_TARGET_BYTES - 1)),
            ControlRequest("GET", "/" + "a" * (MAX_TARGET_BYTES - 1), None, False),
        ),
        (get(headers=b"x: \xff\r\n"), ControlRequest("GET", "/ps", None, False)),
        (
            get(headers=b"Accept: a/b, application/x-ndjson\r\n"),
            ControlRequest("GET", "/ps", None, True, "", b"a/b, application/x-ndjson"),
        ),
        (get(headers=b"x: y\r\n" * 2500), ControlRequest("GET", "/ps", None, False)),
        (post(b"content-length: 0"), ControlRequest("POST", "/scale", None, False)),
        (
            post(b"Content-Length: 8", b'{"A": 2}'),
            ControlRequest("POST", "/scale", {"A": 2}, False),
        ),
        (
            post(b"expect: 100-continue\r\ncontent-length: 2", b"{}"),
            ControlRequest("POST", "/scale", {}, False),
        ),
        (
            post(b"content-length: 65536", b" " * 65535 + b"1"),
            ControlRequest("POST", "/scale", 1, False),
        ),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_a_request_is_read(data: bytes, request_: ControlRequest) -> None:
    assert asyncio.run(parsed(data)) == request_


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"\r\n" + get(), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /ps\r\n\r\n", 400),
        (b"GET /ps HTTP/1.1\r\n\r\n", 400),  # without Host
        (get(headers=HOST), 400),  # with two
        (get(version=b"1.2"), 400),
        (get(version=b"2.0"), 400),
        (get(b"/p s"), 400),
        (get(b" /ps"), 400),
        (get(b"/\xff"), 400),
        (get(b"*"), 400),
        (get(b"http://graph/ps"), 400),
        (get(b"x:1", method=b"CONNECT"), 400),
        (get(b"/" + b"a" * MAX_TARGET_BYTES), 400),
        (get(headers=b"no colon\r\n"), 400),
        (get(headers=b": value\r\n"), 400),
        (get(headers=b"name : value\r\n"), 400),
        (get(headers=b"x: a\r\n folded\r\n"), 400),
        (get(headers=b"x: a\rb\r\n"), 400),
        (get(headers=b"x: a\nb: c\r\n"), 400),
        (get(headers=b"x: \x00\r\n"), 400),
        (b"GET /ps HTTP/1.1\nhost: x\n\n\r\n\r\n", 400),
        (get(b"/" + b"a" * MAX_HEAD_BYTES), 431),
        (get(headers=b"x: y\r\n" * 5000), 431),
        (post(b"content-length: -1"), 400),
        (post(b"content-length: +2", b"{}"), 400),
        (post(b"content-length: 0x2", b"{}"), 400),
        (post(b"content-length:"), 400),
        (post(b"content-length: 1\r\ncontent-length: 2", b"[]"), 400),
        (post(b"content-length: 2\r\nx: y\r\nContent-Length: 2", b"[]"), 400),
        (post(b"content-length: 2, 2", b"[]"), 400),
        (post(b"content-length: " + b"9" * 5000), 400),
        (post(b"content-length: %d" % (MAX_BODY_BYTES + 1)), 413),
        (post(b"content-length: " + b"9" * 18), 413),
        (post(b"transfer-encoding: chunked", b"0\r\n\r\n"), 411),
        (post(b"transfer-encoding: gzip"), 411),
        (post(b"transfer-encoding: chunked\r\ncontent-length: 2", b"{}"), 411),
        (post(b"content-length: 10", b"nodes=Leaf"), 400),
        (post(b"content-length: 16", b'{"a": 1, "a": 2}'), 400),
        (post(b"content-length: 60000", b"[" * 60000), 400),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_what_is_no_request_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(HttpError) as refused:
        asyncio.run(parsed(data))
    assert refused.value.status == status
    assert len(refused.value.detail) < 300


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"hello\r\n\r\n", "illegal request line: hello"),
        (get(headers=b'it\'s "b\xff"\r\n'), 'illegal header line: it\'s "b\\xff"'),
    ],
)
def test_a_refusal_quotes_the_line_as_text(data: bytes, line: str) -> None:
    with pytest.raises(HttpError) as refused:
        asyncio.run(parsed(data))
    assert refused.value.detail == f"this is no HTTP/1.1 request: {line}"


@pytest.mark.parametrize(
    "data", [b"", b"GET /ps HTT", get()[:-2], post(b"content-length: 2", b"{")]
)
def test_a_request_that_ends_early_is_not_answered(data: bytes) -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        asyncio.run(parsed(data))
