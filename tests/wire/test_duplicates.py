"""Arguments that are given twice, and what only looks like it: in every format, at the top of the
body.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from graphserve import InvalidArguments, api, service
from graphserve.wire.codec import ArgumentsCodec, Format
from graphserve.wire.signature import Signature


@service
class Doubled:
    @api
    async def run(self, name: Any, other: Any = None, größe: Any = 0) -> int:
        return 1

    @api
    async def strict(self, x: int = 0, y: int = 0) -> int:
        return x + y


ANY, STRICT = (ArgumentsCodec(Signature.of(Doubled, method)) for method in ("run", "strict"))


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"name": 1, "name": 1}', "name"),
        (b'{"name": 1, "other": {"name": 2}, "name": {"name": 3}}', "name"),
        (b'{"name": {"name": [1]}, "name": 2}', "name"),
        (b'{"other": "name", "name": "other", "other": 1}', ""),
        (b'{"name":1,"\\u006eame":2}', ""),
        (b'{"\\u006eame":1,"\\u006Eame":2}', ""),
        (b'{"name":1,"gr\\u00f6\\u00dfe":1,"gr\\u00f6\\u00dfe":2}', ""),
        ('{"name":1,"größe":1,"größe":2}'.encode(), "größe"),
        ('{"name":1,"größe":1,"gr\\u00f6ße":2}'.encode(), ""),
        (b' { "name" : "\\"name\\"" , "name" : "\\\\" } ', "name"),
    ],
)
def test_json_with_an_argument_twice(body: bytes, name: str) -> None:
    with pytest.raises(InvalidArguments, match="given twice") as caught:
        ANY.decode(body, Format.JSON)
    assert caught.value.errors[0]["loc"] == ([name] if name else [])
    assert caught.value.errors[0]["type"] == "duplicate_argument"


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": {"name": {"name": 1}, "other": [{"name": 2}, {"name": 3}]}, "other": "name"}',
        b'{"name": "\\"name\\": 1, \\"name\\": 2", "other": "\\u006eame"}',
        b'{"\\u006eame": "\\u0022name\\u0022"}',
        b'{"name": "a\\\\", "other": "\\\\\\"name"}',
        b'{"name": [], "gr\\u00f6\\u00dfe": "\\u00f6"}',
    ],
)
def test_json_that_only_looks_like_it(body: bytes) -> None:
    assert ANY.decode(body, Format.JSON) == json.loads(body)


@given(st.dictionaries(st.sampled_from(["name", "other", "größe"]), st.recursive(
    st.sampled_from(["name", '"name"', "other\\", "größe", 1, None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "x", "größe"]), inner),
), min_size=1), st.booleans())  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_each_once_is_taken_and_any_again_is_not(arguments: dict[str, Any], escaped: bool) -> None:
    arguments = {"name": 1, **arguments}
    text = json.dumps(arguments, ensure_ascii=escaped)
    assert ANY.decode(text.encode(), Format.JSON) == arguments
    for name in arguments:
        again = f"{text[:-1]}, {json.dumps(name, ensure_ascii=not escaped)}: 1}}"
        with pytest.raises(InvalidArguments, match="given twice"):
            ANY.decode(again.encode(), Format.JSON)


@pytest.mark.parametrize("codec", [ANY, STRICT])
def test_msgpack_with_an_argument_twice(codec: ArgumentsCodec) -> None:
    names = ("name", "other") if codec is ANY else ("x", "y")
    pairs = b"".join(msgspec.msgpack.encode(name) + b"\x01" for name in (*names, names[0]))
    for head in (b"\x83", b"\xde\x00\x03", b"\xdf\x00\x00\x00\x03"):
        with pytest.raises(InvalidArguments, match="given twice"):
            codec.decode(head + pairs, Format.MSGPACK)
    pairs = b"".join(msgspec.msgpack.encode(name) + b"\x01" for name in names)
    for head in (b"\x82", b"\xde\x00\x02", b"\xdf\x00\x00\x00\x02"):
        assert codec.decode(head + pairs, Format.MSGPACK) == dict.fromkeys(names, 1)
    assert STRICT.decode(b"", Format.MSGPACK) == STRICT.decode(b"\x80", Format.MSGPACK) == {}


def test_a_large_integer_beside_a_doubled_one() -> None:
    large = msgspec.msgpack.encode(msgspec.msgpack.Ext(3, b"1" + b"0" * 30))
    body = b"\x82" + b"\xa4name" + large + b"\xa4name" + large
    with pytest.raises(InvalidArguments):
        ANY.decode(body, Format.MSGPACK)
