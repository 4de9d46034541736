"""Bodies that come in chunks of a few bytes: held as little more than their bytes, and read as they
came.
"""

from __future__ import annotations

import sys
from collections import deque

import pytest

from graphserve.wire.costs.bounds import SMALL_CHUNK
from graphserve.wire.media.text import natural
from graphserve.worker.stream.request_body import hold


@pytest.mark.parametrize("chunks", [[], deque()], ids=["a body", "a stream"])
def test_small_chunks_are_held_as_one(chunks: list[bytes | bytearray]) -> None:
    sent = [number.to_bytes(2, "big") for number in range(50_000)]
    for chunk in sent:
        hold(chunks, chunk)
    size = 2 * len(sent)
    assert sum(map(sys.getsizeof, chunks)) + 8 * len(chunks) < 2 * size
    assert b"".join(chunks) == b"".join(sent)


def test_large_chunks_are_held_as_they_came() -> None:
    chunks: list[bytes | bytearray] = []
    large = bytes(SMALL_CHUNK)
    for chunk in (b"a", large, b"b", b"c", large, large):
        hold(chunks, chunk)
    assert chunks == [b"a", large, b"bc", large, large]
    assert chunks[1] is large and chunks[3] is large


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ('"a"', "a"), ("a", "a"), ("[1]", [1]), ("NaN", "NaN"), ("Infinity", "Infinity"), ("1e999", "1e999"),
        ("[" * 5000, "[" * 5000), ("9" * 5000, "9" * 5000), ('"\\ud800"', '"\\ud800"'), ("", ""),
    ],
)  # fmt: skip
def test_texts_of_a_query(text: str, value: object) -> None:
    assert natural(text) == value
