"""What `Media` says of parameters and results, and what is wrong with it in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from PIL import Image

from graphserve import Media
from graphserve.declare.declaration import ApiDeclaration
from graphserve.declare.service import api
from graphserve.errors import DeclarationError
from graphserve.wire.codec import ResultCodec
from graphserve.wire.formats import Format, MediaFormat, StreamFormat
from graphserve.wire.media.answers import accepts_of, streams_of
from graphserve.wire.media.classes import MARKS
from graphserve.wire.media.kinds import KINDS, PACKED
from graphserve.wire.openapi.document import document
from graphserve.wire.signature import Signature

PICTURE = Image.radial_gradient("L").convert("RGB")
JPEG = Media("image/jpeg", quality=20)


def signature(given: Any = bytes, result: Any = bytes, **options: Any) -> Signature:
    class Service:
        def run(self, x: Any) -> Any: ...

        run.__annotations__ = {"x": given, "return": result}
        run = api(**options)(run)

    return Signature.of(Service, "run")


@dataclass
class Page:
    scan: Annotated[bytes, Media("image/png")]


@pytest.mark.parametrize(
    ("given", "result", "options", "why"),
    [
        (bytes, Annotated[bytes, Media("image/*")], {}, "a result is sent as one media type"),
        (bytes, Annotated[bytes, Media("a/b", "a/c")], {}, "a result is sent as one media type"),
        (bytes, Annotated[bytes, Media("a/b", max_size=1)], {}, "max_size is for a parameter"),
        (bytes, Annotated[bytes, Media("a/b", quality=1)], {}, "is sent as it is, and takes no options"),
        (bytes, Annotated[str, Media("text/html", x=1)], {}, "takes no options"),
        (bytes, Annotated[bytes, Media], {}, "with parentheses"),
        (bytes, Annotated[int, Media("text/plain")], {}, "int is sent as JSON"),
        (bytes, Annotated[list[bytes], Media("a/b")], {}, "is sent as JSON"),
        (bytes, Annotated[bytes | None, Media("a/b")], {}, "is sent as JSON"),
        (bytes, Annotated[Image.Image, Media("image/tiff")], {}, "an image is sent as image/png"),
        (bytes, Annotated[Image.Image, Media("image/jpeg", qualty=90)], {}, "did you mean 'quality'"),
        (bytes, Annotated[Image.Image, Media("image/jpeg", quality=0)], {}, "from 1 to 100"),
        (bytes, Annotated[Image.Image, Media("image/jpeg", quality=True)], {}, "from 1 to 100"),
        (bytes, Annotated[Image.Image, Media("image/webp", lossless=1)], {}, "True or False"),
        (Annotated[bytes, Media("a/b", quality=1)], bytes, {}, "'quality' is for a result"),
        (Annotated[bytes, Media()], bytes, {}, "it says nothing"),
        (Annotated[bytes, Media("a/b"), Media("a/c")], bytes, {}, "write it once"),
        (Annotated[str, Media("text/plain")], bytes, {}, "takes no file"),
        (Annotated[bytes, Media("a/b")], bytes, {"method": "GET"}, "takes no file"),
        (Annotated[Image.Image, Media("audio/wav")], bytes, {}, "takes image/*"),
        (bytes, Annotated[Iterator[int], Media("text/csv")], {}, "a stream of int"),
        (bytes, Annotated[Iterator[Image.Image], Media("image/png")], {}, "a stream of PIL"),
        (bytes, Iterator[Annotated[bytes, Media("image/png")]], {}, "around the iterator"),
        (Page, bytes, {}, "says nothing inside a class"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_words(given: Any, result: Any, options: Any, why: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        signature(given, result, **options)
    assert why in str(caught.value) and caught.value.line is not None


@pytest.mark.parametrize(
    ("types", "options"),
    [(("png",), {}), (("*/png",), {}), (("a/b; c=d",), {}), ((5,), {}), (("a/b",), {"max_size": "1 sack"}), (("a/b",), {"max_size": 0}), (("a/b",), {"max_size": True})],
)  # fmt: skip
def test_what_is_no_media_type_and_no_size(types: Any, options: Any) -> None:
    with pytest.raises(DeclarationError, match=r"Media\("):
        Media(*types, **options)


def test_it_leaves_the_type_as_it_was() -> None:
    described = signature(
        Annotated[bytes, Media("a/b", max_size="2kB")], Annotated[bytes, Media("A/C")]
    )
    (parameter,) = described.parameters
    assert parameter.type is bytes and described.result is bytes  # (or it would not be shared)
    assert parameter.media is not None and parameter.media.max_size == 2000
    assert described.media is not None and described.media.media_types == ("a/c",)
    for hint in (list[Annotated[bytes, Media("a/b")]], Annotated[list[bytes], Media("a/b")], Annotated[bytes, Media("a/b")] | None):  # fmt: skip
        (parameter,) = signature(hint).parameters
        assert parameter.media is not None and "Media" not in str(parameter.type)


@pytest.mark.parametrize(
    ("hint", "media", "accept", "expected"),
    [
        (bytes, Media("audio/wav"), None, "audio/wav"),
        (bytes, Media("audio/wav"), b"*/*", "audio/wav"),
        (bytes, Media("audio/wav"), b"audio/*", "audio/wav"),
        (bytes, Media("audio/wav"), b"text/html, */*;q=0.8", "audio/wav"),
        (bytes, Media("audio/wav"), b"application/octet-stream", "application/octet-stream"),
        (bytes, Media("audio/wav"), b"application/json", "application/json"),
        (bytes, Media("audio/wav"), b"application/json, text/plain, */*", "application/json"),
        (bytes, Media("audio/wav"), Format.TYPED.value, Format.TYPED.value.decode()),
        (Image.Image, JPEG, None, "image/jpeg"),
        (Image.Image, JPEG, b"image/*", "image/jpeg"),
        (Image.Image, JPEG, b"image/webp, image/*;q=0.9", "image/webp"),
        (Image.Image, None, b"application/json, */*", "application/json"),
        (Image.Image, None, b"application/json;q=0.9, */*", "image/png"),
        (Image.Image, None, b"application/json, */*;q=0.1", "application/json"),
        (Image.Image, None, b"*/*, application/json", "application/json"),
        (Image.Image, None, b"image/webp, image/apng, image/*, */*;q=0.8", "image/png"),
        (Image.Image, None, b"image/png;q=0, */*", "image/jpeg"),
        (str, Media("text/html"), None, "text/html; charset=utf-8"),
        (str, Media("text/html"), b"text/html", "text/html; charset=utf-8"),
        (str, Media("text/html"), b"application/json", "application/json"),
        (dict, Media("application/geo+json"), b"application/json, */*;q=0.5", "application/json"),
        (dict, Media("application/geo+json"), b"*/*", "application/geo+json"),
    ],
)  # fmt: skip
def test_what_an_accept_gets(hint: Any, media: Media | None, accept: bytes, expected: str) -> None:
    assert accepts_of(hint, media)(accept).content_type.decode() == expected


@pytest.mark.parametrize(
    ("media", "accept", "expected"),
    [
        (None, None, "application/octet-stream"),
        (None, b"*/*", "application/octet-stream"),
        (None, b"application/x-ndjson", "application/x-ndjson"),
        (None, b"application/json", "application/x-ndjson"),
        (None, b"text/event-stream", "text/event-stream"),
        (None, b"text/event-stream, */*", "text/event-stream"),
        (Media("audio/wav"), b"audio/*", "audio/wav"),
        (Media("audio/wav"), b"text/event-stream;q=0.5, audio/wav", "audio/wav"),
        (Media("audio/wav"), StreamFormat.FRAMES.value, StreamFormat.FRAMES.value.decode()),
    ],
)
def test_what_an_accept_gets_of_a_stream(media: Media | None, accept: bytes, expected: str) -> None:
    assert streams_of(bytes, media)(accept).content_type.decode() == expected
    assert streams_of(int)(accept) in StreamFormat


def test_options_decide_how_it_is_written() -> None:
    codec = ResultCodec(Image.Image, "S.f", JPEG)
    small = codec.encode(PICTURE, accepts_of(Image.Image, JPEG)(None))
    assert small[:2] == b"\xff\xd8"
    assert len(small) < len(codec.encode(PICTURE, MediaFormat(b"image/jpeg"))) / 2


def test_the_document_has_it() -> None:
    given = Annotated[bytes, Media("audio/wav", "audio/ogg", max_size=5000)]
    described = signature(given, Annotated[Image.Image, JPEG])
    declared = ApiDeclaration("run", "/run", ("POST",), None, False, None, "app.py", 1)
    operation = document("S", None, "1", [(declared, described, None)])["paths"]["/run"]["post"]
    body = operation["requestBody"]["content"]
    assert body["audio/wav"]["schema"]["format"] == "binary" and "audio/ogg" in body
    form = body["multipart/form-data"]
    assert form["encoding"] == {"x": {"contentType": "audio/wav, audio/ogg"}}
    assert "At most 5,000 bytes." in form["schema"]["properties"]["x"]["description"]
    assert next(iter(operation["responses"]["200"]["content"])) == "image/jpeg"


def test_each_kind_has_a_mark_of_its_own() -> None:
    marks = list(MARKS.values())
    assert len(set(marks)) == len(marks) and all(0xF0 <= mark <= 0xFF for mark in marks)
    assert MARKS.keys() == {*PACKED, "registered"}


@pytest.mark.parametrize("name", KINDS)
def test_each_line_of_the_table_leads_to_a_kind(name: str) -> None:
    kind = KINDS[name]
    assert kind.offers and kind.schema and kind is KINDS[name]
