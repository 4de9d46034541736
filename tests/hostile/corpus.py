"""Requests that two readers may read in two ways, and their like: the bytes, and what becomes of
them.

A case that is refused says with which status. One that is accepted is read as h11 reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

ACCEPTED = 200
LINE, OLD = b"POST /echo HTTP/1.1", b"POST /echo HTTP/1.0"


@dataclass(frozen=True)
class Case:
    """One request.

    Args:
        name: what is wrong with it.
        raw: its bytes.
        status: what it is answered with; a refusal also ends the connection.
        h11: whether h11 takes it too.
    """

    name: str
    raw: bytes
    status: int = 400
    h11: bool = True


def post(
    headers: bytes, body: bytes = b"{}", line: bytes = LINE, host: bytes = b"Host: localhost\r\n"
) -> bytes:
    """A request with these header lines."""
    return (
        line
        + b"\r\n"
        + host
        + b"Content-Type: application/octet-stream\r\n"
        + headers
        + b"\r\n"
        + body
    )


def chunks(body: bytes) -> bytes:
    """A chunked request with this body."""
    return post(b"Transfer-Encoding: chunked\r\n", body)


def line(line: bytes) -> bytes:
    """A request with this first line and no body."""
    return post(b"Content-Length: 0\r\n", b"", line)


LENGTHS = [
    Case(
        "length and chunks",
        post(b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    ),
    Case(
        "chunks and length",
        post(b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", b"0\r\n\r\n"),
    ),
    Case(
        "length 0 and chunks",
        post(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    ),
    Case("two lengths", post(b"Content-Length: 2\r\nContent-Length: 3\r\n")),
    Case("one length twice", post(b"Content-Length: 2\r\nContent-Length: 2\r\n")),
    Case("lengths in a list", post(b"Content-Length: 2, 2\r\n")),
    Case("length with a sign", post(b"Content-Length: +2\r\n")),
    Case("negative length", post(b"Content-Length: -2\r\n")),
    Case("length in hexadecimal", post(b"Content-Length: 0x2\r\n")),
    Case("length with a fraction", post(b"Content-Length: 2.0\r\n")),
    Case("length with an underscore", post(b"Content-Length: 0_2\r\n")),
    Case("length that overflows", post(b"Content-Length: 18446744073709551618\r\n")),
    Case("length of many digits", post(b"Content-Length: " + b"9" * 400 + b"\r\n")),
    Case("empty length", post(b"Content-Length:\r\n")),
    Case("length with a space in it", post(b"Content-Length: 2 0\r\n")),
    Case("length behind a vertical tab", post(b"Content-Length: \x0b2\r\n")),
    Case("length in other digits", post("Content-Length: ٢\r\n".encode())),
    Case("length above the limit", post(b"Content-Length: 99999999\r\n"), 413),
    Case("length in the trailer", chunks(b"2\r\n{}\r\n0\r\nContent-Length: 7\r\n\r\n")),
    Case("length with spaces around", post(b"Content-Length: \t 2 \t\r\n"), ACCEPTED),
    Case("length with zeros", post(b"Content-Length: 0002\r\n"), ACCEPTED),
]

CODINGS = [
    Case("coding xchunked", post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n")),
    Case("coding gzip, chunked", post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n")),
    Case("coding chunked, gzip", post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n")),
    Case(
        "coding chunked, identity", post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n")
    ),
    Case("coding identity", post(b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n")),
    Case(
        "coding chunked twice",
        post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    ),
    Case("coding chunked, chunked", post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n")),
    Case(
        "two codings", post(b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n")
    ),
    Case("coding ,chunked", post(b"Transfer-Encoding: ,chunked\r\n", b"0\r\n\r\n")),
    Case("coding chunked,", post(b"Transfer-Encoding: chunked,\r\n", b"0\r\n\r\n")),
    Case("coding with a parameter", post(b"Transfer-Encoding: chunked;q=1\r\n", b"0\r\n\r\n")),
    Case("coding in quotes", post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n")),
    Case("coding behind a vertical tab", post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n")),
    Case("coding before a NUL", post(b"Transfer-Encoding: chunked\0\r\n", b"0\r\n\r\n")),
    Case("empty coding", post(b"Transfer-Encoding:\r\nContent-Length: 2\r\n")),
    Case("space before the colon", post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n")),
    Case("tab before the colon", post(b"Transfer-Encoding\t: chunked\r\n", b"0\r\n\r\n")),
    Case("folded coding", post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n")),
    Case("coding behind a bare CR", post(b"X: y\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n")),
    Case("coding behind a bare LF", post(b"X: y\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n")),
    Case(
        "coding in HTTP/1.0",
        post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"POST /echo HTTP/1.0"),
    ),
    Case("coding in the trailer", chunks(b"2\r\n{}\r\n0\r\nTransfer-Encoding: x\r\n\r\n")),
    Case(
        "coding in capitals",
        post(b"TRANSFER-ENCODING: ChunKed\r\n", b"2\r\n{}\r\n0\r\n\r\n"),
        ACCEPTED,
    ),
    Case(
        "other name, with an underscore",
        post(b"Transfer_Encoding: chunked\r\nContent-Length: 2\r\n"),
        ACCEPTED,
    ),
]

CHUNKS = [
    Case("size with a plus", chunks(b"+2\r\n{}\r\n0\r\n\r\n")),
    Case("size with a minus", chunks(b"-2\r\n{}\r\n0\r\n\r\n")),
    Case("size with 0x", chunks(b"0x2\r\n{}\r\n0\r\n\r\n")),
    Case("size with an underscore", chunks(b"0_2\r\n{}\r\n0\r\n\r\n")),
    Case("size behind a space", chunks(b" 2\r\n{}\r\n0\r\n\r\n")),
    Case("size before a space", chunks(b"2 \r\n{}\r\n0\r\n\r\n")),
    Case("size with junk", chunks(b"2g\r\n{}\r\n0\r\n\r\n")),
    Case("empty size", chunks(b"\r\n{}\r\n0\r\n\r\n")),
    Case("size that overflows", chunks(b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n")),
    Case("size that overflows to 2", chunks(b"10000000000000002\r\n{}\r\n0\r\n\r\n")),
    Case("no line end behind the data", chunks(b"2\r\n{}0\r\n\r\n")),
    Case("data longer than its size", chunks(b"2\r\n{}x\r\n0\r\n\r\n")),
    Case("bare LF behind the size", chunks(b"2\n{}\r\n0\r\n\r\n")),
    Case("bare CR behind the size", chunks(b"2\r{}\r\n0\r\n\r\n")),
    Case("bare LF behind the data", chunks(b"2\r\n{}\n0\r\n\r\n")),
    Case("bare LF behind the last size", chunks(b"2\r\n{}\r\n0\n\r\n")),
    Case("bare LF at the end", chunks(b"2\r\n{}\r\n0\r\n\n")),
    Case("two CR", chunks(b"2\r\n{}\r\r\n0\r\n\r\n")),
    Case("bare LF in an extension", chunks(b"2;a\nb\r\n{}\r\n0\r\n\r\n")),
    Case("bare CR in an extension", chunks(b"2;a\rb\r\n{}\r\n0\r\n\r\n")),
    Case("NUL in an extension", chunks(b"2;a\0b\r\n{}\r\n0\r\n\r\n")),
    Case("an extension that does not end", chunks(b'2;a="b\r\n{}\r\n0\r\n\r\n')),
    Case("a large extension", chunks(b"2;a=" + b"b" * 100_000 + b"\r\n{}\r\n0\r\n\r\n")),
    Case(
        "many extensions",
        chunks(b"".join(b"1;%b\r\nx\r\n" % (b"y" * 300) for _ in range(400)) + b"0\r\n\r\n"),
    ),
    Case("many zeros before a size", chunks(b"0" * 100_000 + b"2\r\n{}\r\n0\r\n\r\n")),
    Case("bare LF in the trailer", chunks(b"2\r\n{}\r\n0\r\nX: y\n\r\n")),
    Case("folded trailer", chunks(b"2\r\n{}\r\n0\r\nX: y\r\n z\r\n\r\n")),
    Case("a large trailer", chunks(b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n")),
    Case(
        "chunks above the limit",
        chunks(b"".join(b"1000\r\n%b\r\n" % (b"x" * 4096) for _ in range(20)) + b"0\r\n\r\n"),
        413,
    ),
    Case("a size above the limit", chunks(b"ffffffff\r\n" + b"x" * 100_000), 413),
    Case("a small extension", chunks(b"2;a=b\r\n{}\r\n0\r\n\r\n"), ACCEPTED),
    Case("sizes in capitals with zeros", chunks(b"00A\r\n0123456789\r\n0\r\n\r\n"), ACCEPTED),
    Case("a trailer", chunks(b"2\r\n{}\r\n0\r\nX: y\r\n\r\n"), ACCEPTED),
    Case("many small chunks", chunks(b"1\r\nx\r\n" * 3000 + b"0\r\n\r\n"), ACCEPTED),
]

HEADS = [
    Case("bare LF everywhere", post(b"Content-Length: 2\r\n").replace(b"\r\n", b"\n")),
    Case(
        "bare LF behind the first line",
        b"POST /echo HTTP/1.1\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
    ),
    Case("bare LF behind a header", b"POST /echo HTTP/1.1\r\nHost: x\nContent-Length: 2\r\n\r\n{}"),
    Case(
        "bare LF behind the headers",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\n{}",
    ),
    Case("bare CR in a value", post(b"X: a\rb\r\nContent-Length: 2\r\n")),
    Case("folded value", post(b"X: a\r\n b\r\nContent-Length: 2\r\n")),
    Case("folded value with a tab", post(b"X: a\r\n\tb\r\nContent-Length: 2\r\n")),
    Case(
        "space before the first header",
        post(b"Content-Length: 2\r\n", host=b" Host: localhost\r\n"),
    ),
    Case("space before the colon of Host", post(b"Content-Length: 2\r\n", host=b"Host : x\r\n")),
    Case("NUL in a value", post(b"X: a\0b\r\nContent-Length: 2\r\n")),
    Case("control character in a value", post(b"X: a\x01b\r\nContent-Length: 2\r\n")),
    Case("DEL in a value", post(b"X: a\x7fb\r\nContent-Length: 2\r\n")),
    Case("NUL in a name", post(b"X\0: a\r\nContent-Length: 2\r\n")),
    Case("empty name", post(b": a\r\nContent-Length: 2\r\n")),
    Case("bracket in a name", post(b"X(: a\r\nContent-Length: 2\r\n")),
    Case("other letters in a name", post("Ünit: a\r\nContent-Length: 2\r\n".encode())),
    Case("no colon", post(b"nothing\r\nContent-Length: 2\r\n")),
    Case("no Host", post(b"Content-Length: 2\r\n", host=b"")),
    Case("two Hosts", post(b"Content-Length: 2\r\n", host=b"Host: localhost\r\nHost: y\r\n")),
    Case(
        "one Host twice",
        post(b"Content-Length: 2\r\n", host=b"Host: localhost\r\nHost: localhost\r\n"),
    ),
    Case("Host with a space", post(b"Content-Length: 2\r\n", host=b"Host: a b\r\n")),
    Case("Host with a path", post(b"Content-Length: 2\r\n", host=b"Host: x/y\r\n")),
    Case("Host with a user", post(b"Content-Length: 2\r\n", host=b"Host: a@x\r\n")),
    Case("Hosts in a list", post(b"Content-Length: 2\r\n", host=b"Host: x, y z\r\n")),
    Case("long header", post(b"X: " + b"y" * 40_000 + b"\r\nContent-Length: 2\r\n"), 431),
    Case("many headers", post(b"X: y\r\n" * 200 + b"Content-Length: 2\r\n"), 431),
    Case("headers that do not end", post(b"X: y\r\n" * 20_000 + b"X"), 431),
    Case("unknown expectation", post(b"Expect: 200-ok\r\nContent-Length: 2\r\n"), 417),
    Case(
        "two Hosts, HTTP/1.0",
        post(b"Content-Length: 2\r\n", line=OLD, host=b"Host: localhost\r\nHost: y\r\n"),
    ),
    Case("tab in a value", post(b"X: a\tb\r\nContent-Length: 2\r\n"), ACCEPTED),
    Case("other letters in a value", post("X: ü\r\nContent-Length: 2\r\n".encode()), ACCEPTED),
    Case("Host with a port", post(b"Content-Length: 2\r\n", host=b"Host: [::1]:80\r\n"), ACCEPTED),
    Case("empty Host", post(b"Content-Length: 2\r\n", host=b"Host:\r\n"), ACCEPTED),
    Case(
        "no Host in HTTP/1.0",
        post(b"Content-Length: 2\r\n", line=b"POST /echo HTTP/1.0", host=b""),
        ACCEPTED,
    ),
    Case(
        "empty lines before it", b"\r\n\r\n" + post(b"Content-Length: 2\r\n"), ACCEPTED, h11=False
    ),
    Case(
        "two spaces behind the method",
        post(b"Content-Length: 2\r\n", line=b"POST  /echo HTTP/1.1"),
        ACCEPTED,
        h11=False,
    ),
]

LINES = [
    Case("absolute target with another host", line(b"POST http://y/echo HTTP/1.1")),
    Case("absolute target with another port", line(b"POST http://localhost:80/echo HTTP/1.1")),
    Case("absolute target with a user", line(b"POST http://u@localhost/echo HTTP/1.1")),
    Case("absolute target without a host", line(b"POST http:///echo HTTP/1.1")),
    Case("absolute target of another scheme", line(b"POST gopher://x/echo HTTP/1.1")),
    Case("absolute target", line(b"POST http://localhost/echo HTTP/1.1"), ACCEPTED),
    Case("authority as target", line(b"POST x:80 HTTP/1.1")),
    Case("tunnel", line(b"CONNECT x:80 HTTP/1.1")),
    Case("star", line(b"POST * HTTP/1.1")),
    Case("relative target", line(b"POST echo HTTP/1.1")),
    Case("empty target", line(b"POST  HTTP/1.1")),
    Case("space in the target", line(b"POST /echo x HTTP/1.1")),
    Case("fragment", line(b"POST /echo#x HTTP/1.1")),
    Case("NUL in the target", line(b"POST /echo?\0 HTTP/1.1")),
    Case("control character in the target", line(b"POST /echo?\x01 HTTP/1.1")),
    Case("other letters in the target", line("POST /echo?ü HTTP/1.1".encode())),
    Case("tabs in the line", line(b"POST\t/echo\tHTTP/1.1")),
    Case("space before the method", line(b" POST /echo HTTP/1.1")),
    Case("method in small letters", line(b"post /echo HTTP/1.1")),
    Case("unknown method", line(b"SMUGGLE /echo HTTP/1.1")),
    Case("method of another protocol", line(b"DESCRIBE /echo RTSP/1.0")),
    Case("another protocol", line(b"POST /echo RTSP/1.0")),
    Case("another protocol in version 1.1", line(b"POST /echo RTSP/1.1")),
    Case("another protocol, two spaces", line(b"POST  /echo  RTSP/1.1")),
    Case("another protocol for a page", b"GET /docs RTSP/1.0\r\nHost: localhost\r\n\r\n"),
    Case("another protocol for options", b"OPTIONS /echo RTSP/1.0\r\nHost: localhost\r\n\r\n"),
    Case("a third protocol", line(b"POST /echo ICE/1.0")),
    Case(
        "the name of another protocol in a body",
        post(b"Content-Length: 22\r\n", b"\nPOST /echo RTSP/1.0\r\n"),
        ACCEPTED,
    ),
    Case(
        "the name of another protocol in a header",
        post(b"X: POST /echo RTSP/1.0\r\nContent-Length: 2\r\n"),
        ACCEPTED,
    ),
    Case(
        "the name of another protocol in the first header",
        b"POST /echo HTTP/1.1\r\nX: GET /y RTSP/1.0\r\n"
        b"Host: localhost\r\nContent-Type: a/b\r\nContent-Length: 0\r\n\r\n",
        ACCEPTED,
    ),
    Case("method of yet another protocol", line(b"SOURCE /echo HTTP/1.1")),
    Case("HTTP/2 as a version", line(b"POST /echo HTTP/2.0")),
    Case("HTTP/1.2", line(b"POST /echo HTTP/1.2")),
    Case("HTTP/0.9 as a version", line(b"POST /echo HTTP/0.9")),
    Case("HTTP/0.9", b"GET /livez\r\n\r\n"),
    Case("HTTP/1.10", line(b"POST /echo HTTP/1.10")),
    Case("version in small letters", line(b"POST /echo http/1.1")),
    Case("space behind the version", line(b"POST /echo HTTP/1.1 ")),
    Case("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Case("TLS where there is none", bytes.fromhex("16030100f8010000f40303") + bytes(240)),
    Case("long target", line(b"POST /echo?" + b"x" * 10_000 + b" HTTP/1.1"), 414),
    Case("target that does not end", b"POST /" + b"x" * 100_000, 414),
    Case("an empty query", line(b"POST /echo? HTTP/1.1"), ACCEPTED),
]

CORPUS = [*LENGTHS, *CODINGS, *CHUNKS, *HEADS, *LINES]
