"""Bodies that come in chunks of a few bytes are held as little more than their bytes."""

from __future__ import annotations

import sys
from collections import deque

import pytest

from graphserve.wire.costs.bounds import SMALL_CHUNK
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
