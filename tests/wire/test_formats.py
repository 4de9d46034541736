"""Which format a Content-Type names, and which one an Accept asks for."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from graphserve.wire.codec import Format, accept_format, content_format

JSON, MSGPACK, RAW = Format.JSON, Format.MSGPACK, Format.RAW


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, JSON),
        (b"", JSON),
        (b"application/json", JSON),
        (b"Application/JSON; Charset=UTF-8", JSON),
        (b'application/json;charset="utf-8"', JSON),
        (b"application/json; charset=latin-1", None),
        (b"application/vnd.api+json", JSON),
        (b"application/msgpack", MSGPACK),
        (b"application/x-msgpack", MSGPACK),
        (b" application/vnd.msgpack ;a=b", MSGPACK),
        (b"application/octet-stream", RAW),
        (b"text/plain; charset=latin-1", RAW),
        (b"image/png", RAW),
        (b"\xff;=;;", RAW),
    ],
)
def test_content_types(header: bytes | None, expected: Format | None) -> None:
    assert content_format(header) is expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, JSON),
        (b"", JSON),
        (b"*/*", JSON),
        (b"application/*", JSON),
        (b"application/msgpack", MSGPACK),
        (b"application/x-msgpack;q=0.1", MSGPACK),
        (b"application/json, application/msgpack", JSON),
        (b"application/json;q=0.5, application/msgpack", MSGPACK),
        (b"application/json;q=0.5, application/msgpack;q=0.4", JSON),
        (b"application/msgpack, */*", JSON),
        (b"application/msgpack, */*;q=0.1", MSGPACK),
        (b"application/vnd.graphserve+msgpack", Format.TYPED),
        (b"application/vnd.graphserve+msgpack, application/msgpack;q=0.9", Format.TYPED),
        (
            b"application/vnd.graphserve+msgpack;checked=1, application/msgpack;q=0.9",
            Format.CHECKED,
        ),
        (b"application/vnd.graphserve+msgpack; checked=0", Format.TYPED),
        (b"application/json;q=0, */*", MSGPACK),
        (b"application/msgpack;q=none", JSON),
        (b"application/msgpack;q=nan", JSON),
        (b"text/html", JSON),
    ],
)
def test_accepts(header: bytes | None, expected: Format) -> None:
    assert accept_format(header) is expected


@given(st.binary())
def test_any_header_is_read(header: bytes) -> None:
    assert content_format(header) in (None, *Format)
    assert accept_format(header) in (JSON, MSGPACK, Format.TYPED, Format.CHECKED)
