"""The response parser: whatever comes, however it is cut, it answers once or is lost once, and
reads as h11 does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket

import h11
import pytest
from hypothesis import given, settings, strategies as st

from graphserve.call.connection import Connection


class Waiting:
    """Who waits for the answer."""

    streams = False

    def __init__(self, *, bodiless: bool = False) -> None:
        self.bodiless = bodiless
        self.answers: list[tuple[int, list[tuple[bytes, bytes]], bytes]] = []
        self.losses: list[tuple[str, bool]] = []
        self.over = asyncio.Event()

    def head(self, headers: list[tuple[bytes, bytes]], status: int = 200) -> None:
        raise AssertionError("this one takes no stream")

    def chunk(self, data: bytes) -> None:
        raise AssertionError("this one takes no stream")

    def answered(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.answers.append((status, headers, body))
        self.over.set()

    def lost(self, reason: str, unread: bool) -> None:
        self.losses.append((reason, unread))
        self.over.set()


async def feed(pieces: list[bytes], method: str = "POST") -> Waiting:
    """Give a connection these bytes, piece by piece, then the end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    waiting = Waiting(bodiless=method == "HEAD")
    connection = Connection(ours, lambda _: None, lambda _: None)
    connection.send(f"{method} /x HTTP/1.1\r\n\r\n".encode(), waiting)
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        await loop.sock_recv(theirs, 65536)
        for piece in pieces:
            await loop.sock_sendall(theirs, piece)
            await asyncio.sleep(0)
    theirs.close()
    await asyncio.wait_for(waiting.over.wait(), 10)
    for _ in range(3):
        await asyncio.sleep(0)
    connection.close()
    return waiting


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data cut at these places."""
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:stop] for start, stop in itertools.pairwise(marks)]


def as_h11_reads(data: bytes, method: str = "POST") -> tuple[int, bytes] | None:
    """Status and body as h11 reads them; None if it is no complete answer for it."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method=method, target="/x", headers=[("host", "x")]))
    reader.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        reader.receive_data(data)
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return status, body
            elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return None
    except h11.RemoteProtocolError:
        return None


places = st.lists(st.integers(0, 5_000), max_size=12)
tokens = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).filter(
    lambda name: (
        name not in ("content-length", "transfer-encoding", "connection", "upgrade", "trailer")
    )
)
values = st.text("abcXYZ 0123456789/;=,.", max_size=30).map(str.strip)


@given(st.binary(max_size=2_000), places)
@settings(max_examples=150, deadline=None)
def test_any_bytes_end_in_one_answer_or_one_loss(data: bytes, at: list[int]) -> None:
    waiting = asyncio.run(feed(cut(data, at)))
    assert len(waiting.answers) + len(waiting.losses) == 1


@given(st.integers(0, 40), st.binary(max_size=30), places)
@settings(max_examples=150, deadline=None)
def test_a_spoiled_answer_ends_in_one_answer_or_one_loss(
    where: int, junk: bytes, at: list[int]
) -> None:
    good = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    waiting = asyncio.run(feed(cut(good[:where] + junk + good[where:], at)))
    assert len(waiting.answers) + len(waiting.losses) == 1


@given(
    st.sampled_from([200, 201, 400, 404, 422, 500, 503]),
    st.lists(st.tuples(tokens, values), max_size=6),
    st.binary(max_size=3_000), st.booleans(), places,
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_answers_read_as_h11_reads_them(
    status: int, headers: list[tuple[str, str]], body: bytes, chunked: bool, at: list[int]
) -> None:
    writer = h11.Connection(h11.SERVER)
    writer.receive_data(b"POST /x HTTP/1.1\r\nhost: x\r\n\r\n")
    writer.next_event()
    writer.next_event()
    framing = ("transfer-encoding", "chunked") if chunked else ("content-length", str(len(body)))
    data = writer.send(h11.Response(status_code=status, headers=[*headers, framing])) or b""
    for piece in cut(body, at):
        data += writer.send(h11.Data(data=piece)) or b""
    data += writer.send(h11.EndOfMessage()) or b""
    waiting = asyncio.run(feed(cut(data, at)))
    assert as_h11_reads(data) == (status, body)
    ((got, got_headers, got_body),) = waiting.answers
    assert (got, got_body) == (status, body)
    assert set(got_headers) >= {(name.encode(), value.encode()) for name, value in headers}


PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.graphserve+msgpack\r\ncontent-length: "


@given(st.binary(max_size=3_000), st.booleans(), places)
@settings(max_examples=150, deadline=None)
def test_the_answers_of_our_workers_read_as_h11_reads_them(
    body: bytes, close: bool, at: list[int]
) -> None:
    last = b"\r\nconnection: close" if close else b""
    data = PLAIN + b"%d" % len(body) + last + b"\r\n\r\n" + body
    for pieces in ([data], cut(data, at)):  # in one piece it needs no parser
        ((status, headers, got),) = asyncio.run(feed(pieces)).answers
        assert (status, got) == as_h11_reads(data)
        assert (b"connection", b"close") in headers or not close
        assert {
            (b"content-type", b"application/vnd.graphserve+msgpack"),
            (b"content-length", b"%d" % len(body)),
        } <= set(headers)


@given(st.text("0123456789 +-_\r\nabc:", max_size=24), st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_a_spoiled_length_reads_as_h11_reads_it(length: str, body: bytes) -> None:
    data = PLAIN + length.encode() + b"\r\n\r\n" + body
    waiting = asyncio.run(feed([data]))
    assert len(waiting.answers) + len(waiting.losses) == 1
    if waiting.answers and (read := as_h11_reads(data)) is not None:
        assert (waiting.answers[0][0], waiting.answers[0][2]) == read


def test_an_end_without_an_answer_may_have_been_executed() -> None:
    waiting = asyncio.run(feed([]))
    assert [unread for _, unread in waiting.losses] == [False]


def test_a_reset_before_the_request_was_read_may_be_sent_again() -> None:
    async def run() -> Waiting:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        waiting = Waiting()
        Connection(ours, lambda _: None, lambda _: None).send(b"x" * 1000, waiting)
        theirs.close()  # with 1,000 unread bytes: the kernel resets
        await asyncio.wait_for(waiting.over.wait(), 10)
        return waiting

    assert [unread for _, unread in asyncio.run(run()).losses] == [True]


def test_an_answer_that_is_cut_is_lost() -> None:
    waiting = asyncio.run(feed([b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhal"]))
    assert not waiting.answers
    assert [unread for _, unread in waiting.losses] == [False]


@given(
    st.sampled_from([200, 204, 304, 404, 504]), st.sampled_from(["POST", "HEAD"]),
    st.sampled_from([b"", b"content-length: 0\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n"]),
    st.booleans(), places,
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_answers_without_a_body_are_whole_with_their_head(
    status: int, method: str, framing: bytes, hints: bool, at: list[int]
) -> None:
    """Whatever their headers say of a body, which is that of another answer."""
    data = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" if hints else b""
    data += b"HTTP/1.1 %d X\r\n%b\r\n" % (status, framing)
    read = as_h11_reads(data, method)
    waiting = asyncio.run(feed(cut(data, at), method))
    assert [(got, body) for got, _, body in waiting.answers] == ([] if read is None else [read])
    assert read is not None or (method == "POST" and status not in (204, 304))


def test_what_comes_behind_an_answer_without_a_body_is_not_read() -> None:
    body = b"content-length: 4\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno"
    for method, status in (("HEAD", 200), ("POST", 304), ("POST", 204)):
        waiting = asyncio.run(feed([b"HTTP/1.1 %d X\r\n" % status + body], method))
        assert [(got, body) for got, _, body in waiting.answers] == [(status, b"")]
        assert not waiting.losses


def test_interim_answers_are_passed_over() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    waiting = asyncio.run(feed([hints + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]))
    assert [(status, body) for status, _, body in waiting.answers] == [(200, b"ok")]


def test_an_answer_in_another_protocol_is_lost() -> None:
    for more in (b"", b"content-length: 2\r\n"):
        switch = (
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n%b\r\nxx"
            % more
        )
        waiting = asyncio.run(feed([switch]))
        assert len(waiting.answers) + len(waiting.losses) == 1


def test_a_length_of_many_digits_ends_in_an_answer_or_a_loss() -> None:
    for length in (b"2".zfill(5001), b"9" * 5001):
        waiting = asyncio.run(feed([PLAIN + length + b"\r\n\r\nhi"]))
        assert len(waiting.answers) + len(waiting.losses) == 1


def test_what_a_receiver_raises_is_logged_and_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(Waiting):
        streams = True

        def head(self) -> None:
            raise ZeroDivisionError

    async def run() -> Failing:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        waiting = Failing()
        Connection(ours, lambda _: None, lambda _: None).send(b"x", waiting)
        theirs.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        await asyncio.wait_for(waiting.over.wait(), 10)
        theirs.close()
        return waiting

    waiting = asyncio.run(run())
    assert len(waiting.losses) == 1 and not waiting.answers
    assert "an answer could not be read" in caplog.text
