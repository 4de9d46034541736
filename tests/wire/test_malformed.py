"""A body that cannot be read: the refusal says what is wrong, and where, whoever would have read
it.
"""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from graphserve.wire.codec import Format, MalformedBody
from tests.codecs import codec


class Model(pydantic.BaseModel):
    x: Any = None


CASES = [
    (rb'"\ud800"', r"half of a character \ud800, a surrogate without the other one (byte 1)"),
    (rb'["\ud83d\ude00", "\ud83d"]', r"half of a character \ud83d, a surrogate without the other one (byte 18)"),
    (rb'"\ud800\u0041"', "half of a character, a surrogate without the other one (byte 13)"),
    (rb'"\udc00" ', "half of a character, a surrogate without the other one (byte 7)"),
    (b'"\xff"', "it is not UTF-8, at byte 1"),
    (b'"a\nb"', r"a control character must be written as \u000a (byte 2)"),
    (b"NaN", "JSON has no NaN: write null (byte 0)"),
    (b"-Infinity", "JSON has no Infinity: write null (byte 1)"),
    (b"01", "invalid number (byte 1)"),
    (b"1.", "invalid number (byte 2)"),
    (b"+1", "'+' cannot stand here (byte 0)"),
    (b"tru", "'r' cannot stand here (byte 1)"),
    (rb'"\x"', "invalid escaped character (byte 2)"),
    (b"[1,]", "trailing comma in array (byte 3)"),
]  # fmt: skip


@pytest.mark.parametrize("hint", [Any, str, int, list[str], set[float], Model], ids=str)
@pytest.mark.parametrize(("value", "said"), CASES, ids=[said for _, said in CASES])
def test_what_is_wrong_is_named_with_its_place(hint: Any, value: bytes, said: str) -> None:
    before, after = (b'{"x":{"x":', b"}}") if hint is Model else (b'{"x":', b"}")
    place = said.rstrip(")").rpartition(" ")[2]
    moved = said.replace(f"byte {place}", f"byte {int(place) + len(before)}")
    with pytest.raises(MalformedBody) as caught:
        decode(hint, before + value + after)
    assert str(caught.value).endswith(moved)


@pytest.mark.parametrize("body", [b'{"x":1', b'{"x":"abc', b'{"x":["a\\\\ud800'])
def test_what_ends_too_early_does(body: bytes) -> None:
    with pytest.raises(MalformedBody, match=f"it ends too early, at byte {len(body)}"):
        decode(Any, body)


def test_a_byte_order_mark_is_named() -> None:
    with pytest.raises(MalformedBody, match="a byte order mark cannot stand here"):
        decode(Any, b'\xef\xbb\xbf{"x":1}')


def decode(hint: Any, body: bytes) -> None:
    codec(x=hint).decode(body, Format.JSON)
