"""Bodies in chunks: of a few bytes they are held as little more than these, large ones are parsed as
a whole, and nothing that follows them is.
"""

from __future__ import annotations

import sys
from collections import deque

import pytest

from graphserve.wire.costs.bounds import SMALL_CHUNK
from graphserve.worker.http.limits import PORTION
from graphserve.worker.stream.request_body import hold
from tests.worker.test_repeated_heads import place

LARGE = 200_000  # bytes of a body


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


HEAD = (
    b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
SMALL = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def body(size: int, filler: bytes = b"a") -> bytes:
    return b'{"x":"%b"}' % (filler * (size // len(filler)))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_a_large_chunk_is_parsed_as_a_whole() -> None:
    data = body(LARGE)
    async with place(largest=2 * LARGE) as (_, connect):
        client = await connect()
        client.server.data_received(HEAD + chunk(data[:100]) + chunk(data[100:]) + chunk(b""))
        assert len(await client.answer()) > LARGE
        sizes = [size for size, _ in client.server.portions]
        assert max(sizes) > LARGE - 2 * PORTION and len(sizes) < 6
        # … and so is the rest of it, when it comes in a read of its own
        sent = HEAD + chunk(b" ") + chunk(data) + chunk(b"")
        client.server.data_received(sent[:50_000])
        client.server.data_received(sent[50_000:])
        assert len(await client.answer()) > LARGE
        assert len(client.server.portions) - len(sizes) < 8


# What looks like the header of a large chunk where none is, as the first portion sees it, which ends
# at the bar.
LURES = {
    "in the data": b"900\r\nffffff\r\n%b|%b\r\n" % (b" " * 100, b" " * (0x900 - 108)),
    "before the end of the data": b"100\r\nffffff\r\n%b|\r\n" % (b" " * 0xF8),
    "in the end of the data": b"100\r\nffffff\r\n%b\r|\n" % (b" " * 0xF8),
    "behind the data": b"100\r\nffffff\r\n%b\r\n|" % (b" " * 0xF8),
    "in the next header": b"100\r\nffffff\r\n%b\r\n000001|\r\n \r\n" % (b" " * 0xF8),
    "in an extension": b"2;a=ffffff\r\n |}\r\n",
    "in an extension that is cut off": b"1100;a=|ffffff\r\n%b\r\n" % (b" " * 0x1100),
    "in a size that is cut off": b"0|0001100\r\n%b\r\n" % (b" " * 0x1100),
    "in a size of many digits": b"0000000000000002\r\n |}\r\n",
    "in small chunks": chunk(b"ffffff\r\n") * 40 + b"8\r\nffff|ff\r\n\r\n",
}


@pytest.mark.anyio
@pytest.mark.parametrize("lure", LURES)
async def test_what_is_behind_a_chunk_is_parsed_in_portions(lure: str) -> None:
    before, after = LURES[lure].split(b"|")
    padded = [HEAD + chunk(b" " * size) + before for size in range(1, PORTION)]
    (begin, *_) = [padding for padding in padded if len(padding) == PORTION]
    async with place(largest=2 * LARGE) as (_, connect):
        client = await connect()
        client.server.data_received(begin + after + chunk(b"") + SMALL * 4000)
        assert len(client.server.portions) > 1
        most = max(begun for _, begun in client.server.portions)
        assert most <= PORTION // len(SMALL) + 2
