"""Bodies that are files or forms become arguments, or are refused, and cost little."""

from __future__ import annotations

import datetime as dt
import logging
import tracemalloc
from functools import cache
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
import pytest
from hypothesis import given, strategies as st

from graphserve.errors import InvalidArguments
from graphserve.wire.codec import ArgumentsCodec, MalformedBody
from graphserve.wire.costs.bounds import BESIDE, FORM_PARTS, FORM_TEXT
from graphserve.wire.exceptions import Misfit
from graphserve.wire.formats import Format, MediaFormat, accept_format, is_form, is_multipart
from graphserve.wire.media.answers import accepts_of
from graphserve.wire.media.bodies import BodyReader
from graphserve.wire.media.multipart import FormPart
from graphserve.wire.media.received import RECEIVED, CallFolder, ReceivedFile, ReceivedFiles
from graphserve.wire.media.urlencoded import pairs
from graphserve.wire.signature import Signature
from tests.apps.files import Files

FORM = b"multipart/form-data; boundary=BOUND"
URLENCODED = b"application/x-www-form-urlencoded"
# how some say a name that is not ASCII, though RFC 7578 forbids it
PLAIN_NAME = (
    b"--BOUND\r\nContent-Disposition: form-data; name=image; filename*=UTF-8''a%20%C3%BC.png"
)
PNG = b"image/png"


def part(name: str, content: bytes, *headers: bytes, file: str | None = None) -> bytes:
    said = f'Content-Disposition: form-data; name="{name}"'
    said += f'; filename="{file}"' if file is not None else ""
    return b"\r\n".join((b"--BOUND", said.encode(), *headers, b"", content, b""))


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--BOUND--\r\n"


def read(api: str, body: bytes, content_type: bytes = FORM, query: bytes = b"") -> dict[str, Any]:
    codec, reader = readers(api)
    if not is_form(content_type):
        return codec.decode_beside_file(query, body, content_type)
    return codec.decode(*reader.compose(body, content_type))


@cache
def readers(api: str) -> tuple[ArgumentsCodec, BodyReader]:
    signature = Signature.of(Files, api)
    return ArgumentsCodec(signature), BodyReader(signature)


FILE = bytes(range(256)) + b"\r\n--BOUN\r\n\r\n--"


@pytest.mark.parametrize(
    ("api", "content_type", "query", "body", "expected"),
    [
        ("describe", PNG, b"", FILE, {"image": FILE}),
        ("describe", PNG, b"times=2&name=5&wide=true", b"", {"image": b"", "times": 2, "name": "5", "wide": True}),
        ("describe", PNG, b"name=%22a%22&tags=1&tags=b", FILE, {"image": FILE, "name": '"a"', "tags": ["1", "b"]}),
        ("describe", PNG, b"tags=x", FILE, {"image": FILE, "tags": ["x"]}),
        ("describe", PNG, b"tags=%5B%22x%22%5D", FILE, {"image": FILE, "tags": ["x"]}),
        ("describe", PNG, b"name=&tags=null", FILE, {"image": FILE, "name": "", "tags": ["null"]}),
        ("describe", PNG, f"times={10**30}".encode(), FILE, {"image": FILE, "times": 10**30}),
        ("describe", FORM, b"", form(part("image", FILE, file="a.png")), {"image": FILE}),
        ("describe", FORM, b"", form(part("image", FILE)), {"image": FILE}),
        ("describe", FORM, b"", form(part("image", b"{}", b"Content-Type: application/json", file="a.json")), {"image": b"{}"}),
        ("describe", FORM, b"", form(part("image", b'"/w=="', b"Content-Type: application/json")), {"image": b"\xff"}),
        ("describe", FORM, b"", form(part("tags", b"5"), part("image", b"", file="a")), {"tags": ["5"], "image": b""}),
        ("optional", FORM, b"", form(part("data", b"", file="")), {}),
        ("optional", FORM, b"", form(part("data", b"x", file="")), {"data": b"x"}),
        ("optional", FORM, b"", form(part("data", b"", file=""), part("data", b"x", file="a")), {"data": b"x"}),
        ("optional", FORM, b"", form(part("_charset_", b"UTF-8"), part("data", b"x")), {"data": b"x"}),
        ("optional", URLENCODED, b"", b"", {}),
        ("optional", URLENCODED, b"", b"data=%ff+%2B&_charset_=utf-8", {"data": b"\xff +"}),
        ("describe", FORM, b"", form(part("image", b"x"), part("name", "ü".encode(), b"Content-Type: text/plain; charset=UTF-8")), {"image": b"x", "name": "ü"}),
        ("describe", FORM, b"", form(part("image", b"x", b"Content-Type: text/plain; charset=latin-1", file="a.txt")), {"image": b"x"}),
        ("describe", FORM, b"", form(PLAIN_NAME + b"\r\n\r\nx\r\n"), {"image": b"x"}),
        ("values", URLENCODED, b"", b"count=007&on=yes&words=a&words=b&words=%5B&none=&day=2024-01-02", {"count": 7, "on": True, "words": ["a", "b", "["], "none": "", "day": dt.date(2024, 1, 2)}),
        ("values", URLENCODED, b"", b"count=1&on=&words=&none=&day=&place=", {"count": 1, "words": [""], "none": ""}),
        ("values", URLENCODED, b"", b"&count=1&&words=%5B%22a%22%5D&", {"count": 1, "words": ["a"]}),
        ("values", b"Application/X-WWW-Form-Urlencoded; charset=UTF-8", b"", b"count=1&none=a%26b%3Dc%25+d=e", {"count": 1, "none": "a&b=c% d=e"}),
        ("values", URLENCODED, b"", b"count=1&none=%C3%BC%zz%2", {"count": 1, "none": "ü%zz%2"}),
        ("values", URLENCODED, b"", b"count=1&place=%7B%22near%22%3A%20%22a%22%7D", {"count": 1, "place": {"near": "a"}}),
        ("values", FORM, b"", form(part("count", b"1"), part("none", b"x"), part("words", b"", file="")), {"count": 1, "none": "x"}),
        ("describe", FORM, b"", form(part("tags", b"5"), part("tags", b"6"), part("image", b"x")), {"tags": ["5", "6"], "image": b"x"}),
        ("describe", FORM, b"", form(part("name", "ü".encode(), b"content-type: text/plain"), part("image", b"x")), {"name": "ü", "image": b"x"}),
        ("describe", FORM, b"", form(part("times", b"3", b"Content-Type: APPLICATION/json; x=y"), part("image", b"x")), {"times": 3, "image": b"x"}),
        ("describe", b'Multipart/Form-Data; boundary="BOUND"', b"", form(part("image", b"x")), {"image": b"x"}),
        ("describe", FORM, b"", form(part("image", b"x")) + b"epilogue", {"image": b"x"}),
        ("sizes", FORM, b"", form(part("pages", b"1", file="a"), part("pages", FILE, file="b"), part("names", b"n")), {"pages": [b"1", FILE], "names": ["n"]}),
        ("sizes", FORM, b"", form(part("pages", b"1", file="a"), part("names", b'["n"]', b"Content-Type: application/json")), {"pages": [b"1"], "names": ["n"]}),
        ("optional", FORM, b"", form(part("data", b"x")), {"data": b"x"}),
        ("optional", PNG, b"", b"x", {"data": b"x"}),
    ],
)  # fmt: skip
def test_files_and_forms_become_arguments(
    api: str, content_type: bytes, query: bytes, body: bytes, expected: dict[str, object]
) -> None:
    assert read(api, body, content_type, query) == expected
    if is_multipart(content_type):
        assert read_as_it_comes(api, body, content_type) == expected


def read_as_it_comes(api: str, body: bytes, content_type: bytes, step: int = 1) -> dict[str, Any]:
    codec, reader = readers(api)
    spooled = reader.spooled(content_type, CallFolder(""))
    assert spooled is not None
    for start in range(0, len(body), step):
        spooled.feed(body[start : start + step])
    return codec.decode(*spooled.finish())


@pytest.mark.parametrize("piece", [b"%", b"%41", b"%41ab", b"%zz"])
def test_escapes_cost_little(piece: bytes) -> None:
    """urllib's reader takes nearly 200 times the bytes of a field of percent signs."""
    body = b"data=" + piece * (FORM_TEXT // 4 // len(piece))
    tracemalloc.start()
    try:
        found = read("optional", body, URLENCODED)["data"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == unquote_to_bytes(body[5:].replace(b"+", b" "))
    assert peak < 8 * len(body)


@given(st.binary(max_size=12), st.text("%aF09zg+&=", max_size=12))
def test_escapes_are_read_as_everybody_reads_them(some: bytes, more: str) -> None:
    text = (some + more.encode()).replace(b"&", b"").replace(b"=", b"")
    ((name, value),) = pairs(b"a" + text + b"=" + text)
    expected = unquote_to_bytes(text.replace(b"+", b" "))
    assert (name, value) == (b"a" + expected, expected)


def test_a_large_file_is_held_once() -> None:
    large = bytes(range(256)) * (BESIDE // 256)
    for content in (large, large[:-1]):
        body = form(part("image", content, file="a"), part("times", str(10**18).encode()))
        for found in (read("describe", body), read_as_it_comes("describe", body, FORM, 10**5)):
            assert found == {"image": content, "times": 10**18}
    pages = form(
        *[part("pages", each, file="a") for each in (large, b"b", large)], part("names", b"a")
    )
    for found in (read("sizes", pages), read_as_it_comes("sizes", pages, FORM, 10**5)):
        assert found["pages"] == [large, b"b", large]
    maybe = form(part("data", large, file="a"))
    assert read("optional", maybe) == read_as_it_comes("optional", maybe, FORM, 10**6)
    loud = read_as_it_comes("louder", form(part("sound", large, file="a")), FORM, 10**6)
    assert loud["sound"].samples == large
    spooled = BodyReader(Signature.of(Files, "optional")).spooled(FORM, CallFolder(""))
    assert spooled is not None
    spooled.feed(maybe)
    composed = spooled.finish()
    assert len(composed.body) < 100, "it is beside the other arguments"


def test_a_large_file_is_refused_while_it_comes() -> None:
    spooled = BodyReader(Signature.of(Files, "wav")).spooled(FORM, CallFolder(""))
    assert spooled is not None
    begun = part("audio", b"x" * 900, b"Content-Type: audio/a", file="a")
    spooled.feed(begun)
    with pytest.raises(InvalidArguments, match="larger than 1000 bytes"):
        spooled.feed(b"x" * 200)
    other = BodyReader(Signature.of(Files, "wav")).spooled(FORM, CallFolder(""))
    assert other is not None
    with pytest.raises(InvalidArguments, match="takes audio"):
        other.feed(part("audio", b"x", b"Content-Type: text/plain", file="a"))


@pytest.mark.parametrize("content", [FILE, b"x" * (FORM_TEXT + 1)], ids=["small", "large"])
def test_a_file_under_a_wrong_name_is_told_the_names_that_there_are(content: bytes) -> None:
    with pytest.raises(InvalidArguments) as caught:
        read("describe", form(part("imag", content, file="a.png")))
    told = {error["loc"][0]: error["msg"] for error in caught.value.errors}
    assert told["imag"].startswith("unexpected argument 'imag'; known are: image, ")
    assert told["image"] == "missing argument 'image'"


@pytest.mark.parametrize(
    ("body", "content_type", "query", "loc", "said"),
    [
        (b"x", PNG, b"times=x", ["query", "times"], "Expected `int`, got `str`"),
        (b"x", PNG, b"times=1&times=2", ["query", "times"], "'times' is given twice"),
        (b"x", PNG, b"image=y", ["query", "image"], "unexpected argument 'image'; known are: times"),
        (b"x", PNG, b"nobody=1", ["query", "nobody"], "unexpected argument 'nobody'"),
        (b"x", PNG, b"name=%ff", ["query", "name"], "it is not UTF-8"),
        (form(part("times", b"1")), FORM, b"", ["image"], "missing argument 'image'"),
        (form(part("image", b"1"), part("image", b"2")), FORM, b"", ["image"], "given twice"),
        (form(part("image", b"1"), part("nobody", b"2")), FORM, b"", ["nobody"], "unexpected argument"),
        (form(part("image", b"1"), part("name", b"\xff")), FORM, b"", ["name"], "it is not UTF-8"),
        (form(part("image", b"1"), part("times", b"{", b"Content-Type: application/json")), FORM, b"", ["times"], "not valid JSON"),
        (form(part("image", b"1"), part("times", b"[" * 10_000, b"Content-Type: application/json")), FORM, b"", ["times"], "not"),
        (form(part("image", b'"/w"', b"Content-Type: application/json")), FORM, b"", ["image"], "base64"),
        (form(part("image", b"1"), part("n" * 4000, b"2")), FORM, b"", ["n" * 64], "unexpected"),
        (form(part("image", b"1"), part("times", b""), part("times", b"1")), FORM, b"", ["times"], "given twice"),
        (form(part("image", b"", file="")), FORM, b"", ["image"], "no file was chosen for 'image'"),
        (form(part("image", b"1"), part("nobody", b"", file=""), part("nobody", b"x", file="a")), FORM, b"", ["nobody"], "unexpected"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(
    body: bytes, content_type: bytes, query: bytes, loc: list[str], said: str
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        read("describe", body, content_type, query)
    (error,) = [each for each in caught.value.errors if said in each["msg"]]
    assert [str(step)[:60] for step in error["loc"]] == [step[:60] for step in loc]
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", FORM),
        (b"abc", FORM),
        (b"--BOUND", FORM),
        (b"--BOUND\r\n", FORM),
        (form()[:-2], b"multipart/form-data"),
        (part("image", b"x"), FORM),
        (form(part("image", b"x"))[:-6], FORM),
        (form(part("image", b"x")), b"multipart/form-data; boundary=" + b"x" * 5000),
        (form(b"--BOUND\r\n\r\nx\r\n"), FORM),
        (form(b"--BOUND\r\nContent-Disposition: attachment\r\n\r\nx\r\n"), FORM),
        (form(b"--BOUND\r\nContent-Disposition: form-data\r\n\r\nx\r\n"), FORM),
        (form(part("image", b"eA==", b"Content-Transfer-Encoding: base64")), FORM),
        (form(part("image", b"x", b"X: " + b"y" * 100_000)), FORM),
        (form(part("image", b"x", *[b"X: y"] * 1000)), FORM),
        (form(*[part("tags", b"")] * (FORM_PARTS + 1)), FORM),
        (form(part("image", b"x"), part("name", b"y" * (FORM_TEXT + 1))), FORM),
        (form(b'--BOUND\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n'), FORM),
        (form(part("image", b"x"), part("_charset_", b"iso-8859-1")), FORM),
        (
            form(
                part("image", b"x"), part("name", b"x", b"Content-Type: text/plain; charset=koi8-r")
            ),
            FORM,
        ),
        (
            form(
                part("image", b"x"),
                part("times", b"1", b"Content-Type: application/json; charset=utf-16"),
            ),
            FORM,
        ),
        (b"name=a&" * (FORM_PARTS + 1), URLENCODED),
        (b"&" * FORM_TEXT, URLENCODED),
        (b"name=" + b"x" * FORM_TEXT, URLENCODED),
        (b"%ff=1", URLENCODED),
        (b"_charset_=windows-1252&name=a", URLENCODED),
    ],
)
def test_what_is_no_form_is_malformed_and_writes_no_line(
    body: bytes, content_type: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(MalformedBody) as caught:
        read("describe", body, content_type)
    assert not caplog.records
    assert len(str(caught.value)) < 500


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_anything_is_read_or_refused(body: bytes, query: bytes) -> None:
    for sent in (body, form(body), form(part("image", body)), part("image", body) + body):
        for content_type in (FORM, PNG):
            try:
                read("describe", sent, content_type, query.replace(b"\xff", b"="))
            except (MalformedBody, InvalidArguments):
                pass


@given(st.binary(max_size=300))
def test_a_file_arrives_byte_by_byte(content: bytes) -> None:
    assert b"\r\n--BOUND" in content or read("describe", form(part("image", content))) == {
        "image": content
    }


def test_a_default_is_not_a_file_and_types_say_what_is() -> None:
    described = {name: Signature.of(Files, name) for name in ("describe", "sizes", "plain")}
    assert described["describe"].files == {"image"} and described["describe"].raw_body
    assert described["sizes"].files == {"pages"} and not described["sizes"].raw_body
    assert not described["plain"].files and not described["plain"].raw_body
    assert Signature.of(Files, "twice").only_raw_body
    assert not Signature.of(Files, "optional").only_raw_body


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (b"application/octet-stream", MediaFormat(b"application/octet-stream")),
        (b"application/json;q=0.5, application/octet-stream", MediaFormat(b"application/octet-stream")),
        (b"application/json, application/octet-stream", None),
        (b"*/*", None), (b"", None), (None, None), (b"text/html", None),
        (b"application/msgpack", None),
        (b"application/vnd.graphserve+msgpack", None),
    ],
)  # fmt: skip
def test_bytes_leave_as_they_are_when_asked(
    accept: bytes | None, expected: MediaFormat | None
) -> None:
    assert accepts_of(bytes)(accept) == (expected or accept_format(accept))
    assert accepts_of(str)(accept) == accept_format(accept)


def test_nobody_but_us_refers_to_files_of_a_request() -> None:
    forged = msgspec.msgpack.encode({"image": msgspec.msgpack.Ext(RECEIVED, b"0")})
    with pytest.raises(InvalidArguments, match="extension type 6 is not accepted"):
        ArgumentsCodec(Signature.of(Files, "describe")).decode(forged, Format.MSGPACK)
    files = ReceivedFiles()
    stands = files.add(ReceivedFile(b"a", "text/plain"))
    assert files[memoryview(stands.data)].data == b"a"
    for wrong in (b"", b"1", b"-1", b"9" * 5000, b"\xb2"):
        with pytest.raises(Misfit):
            files[memoryview(wrong)]


@pytest.mark.parametrize(
    ("said", "name", "media_type"),
    [
        (b"audio/wav", "a.png", "audio/wav"),
        (b"", "a.png", "image/png"),
        (b"application/octet-stream", "a.png", "image/png"),
        (b"application/octet-stream", "A.B.PNG", "image/png"),
        (b"application/octet-stream", "a.csv.gz", "application/octet-stream"),
        (b"application/octet-stream", "png", "application/octet-stream"),
        (b"application/octet-stream", "http://[.png", "image/png"),
        (b"application/octet-stream", "data:text/html,.", "application/octet-stream"),
        (b"", "", ""),
    ],
)
def test_a_file_is_what_its_type_says_or_its_suffix(
    said: bytes, name: str, media_type: str
) -> None:
    assert FormPart("file", said, is_file=True, filename=name).media_type == media_type
