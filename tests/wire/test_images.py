"""Pictures are read and written as files for clients, sent as their pixels between services, and
refused when they are none or too large.
"""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from graphserve.errors import InvalidArguments
from graphserve.wire.codec import ArgumentsCodec, Format, ResultCodec, UntypedCodec
from graphserve.wire.costs.bounds import IMAGE_FLOOR
from graphserve.wire.exceptions import Misfit
from graphserve.wire.extensions import BufferSource, inlined, no_memory, written
from graphserve.wire.formats import MediaFormat
from graphserve.wire.media import images, pixels
from graphserve.wire.media.answers import accepts_of
from graphserve.wire.media.bodies import BodyReader
from graphserve.wire.signature import Signature
from tests.apps.pictures import Page, Pictures

SIZE = 31, 17
PICTURE = Image.frombytes("RGB", SIZE, bytes(range(256)) * 6 + bytes(45))


def file(kind: str = "PNG", picture: Image.Image = PICTURE) -> bytes:
    written = io.BytesIO()
    picture.save(written, kind)
    return written.getvalue()


def codec(api: str) -> ArgumentsCodec:
    return ArgumentsCodec(Signature.of(Pictures, api))


def in_mode(mode: str) -> Image.Image:
    steps = {"La": ["LA"], "RGBa": ["RGBA"], "I;16": ["L", "I"], "PA": ["P"]}.get(mode, [])
    picture = PICTURE
    for step in [*steps, mode]:
        picture = picture.convert(step)
    return picture


@pytest.fixture(params=["as it lies", "in strips"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How pixels are copied: by what this Pillow can do, or as an older one would."""
    assert pixels.exports() and pixels.maps()
    if request.param == "in strips":
        monkeypatch.setattr(pixels, "exports", lambda: False)
        monkeypatch.setattr(pixels, "maps", lambda: False)
        monkeypatch.setattr(pixels, "_STRIP_BYTES", 500)
    return str(request.param)


@pytest.mark.parametrize("mode", sorted(pixels.MODES))
@pytest.mark.usefixtures("way")
def test_every_mode_arrives_as_it_was(mode: str) -> None:
    picture = in_mode(mode)
    for found in (
        ResultCodec(Image.Image, "S.f").decode(
            ResultCodec(Image.Image, "S.f").encode(picture, Format.TYPED), no_memory
        ),
        UntypedCodec().decode(UntypedCodec().encode({"x": picture}), no_memory),
        through_memory(picture),
    ):
        if isinstance(found, dict):
            found = found["x"]
        assert isinstance(found, Image.Image)
        assert (found.mode, found.size) == (mode, SIZE)
        assert found.tobytes() == picture.tobytes()
        assert found.getpalette() == picture.getpalette()


def through_memory(picture: Image.Image) -> object:
    kept: list[bytes] = []

    def place(source: memoryview | BufferSource) -> bytes:
        assert not isinstance(source, memoryview)
        kept.append(bytes(written(b"", source)))
        return b"reference %d" % (len(kept) - 1)

    def fetch(reference: bytes) -> memoryview:
        return memoryview(kept[int(reference.split()[1])])

    result = ResultCodec(Image.Image, "S.f")
    body = result.encode(picture, Format.TYPED, place)
    assert len(kept) == 1 and len(body) < 1000
    again = inlined(body, fetch)
    assert result.decode(again, no_memory) == result.decode(body, fetch)
    return result.decode(body, fetch)


def sent(picture: Image.Image) -> Image.Image:
    """A picture as it arrives where its pixels are read in place."""
    header, source = pixels.pack(picture)
    return pixels.unpack(memoryview(header), memoryview(bytes(written(b"", source))))


@pytest.mark.parametrize("size", [(0, 0), (5, 0), (1, 1), (3000, 700), (4000, 1100)])
@pytest.mark.usefixtures("way")
def test_every_size_arrives(size: tuple[int, int]) -> None:
    found = sent(Image.new("RGB", size, (1, 2, 3)))
    assert found.size == size and found.getcolors() == (
        [(size[0] * size[1], (1, 2, 3))] if all(size) else []
    )


def test_a_picture_in_blocks_arrives() -> None:
    before = Image.core.get_block_size()
    Image.core.set_block_size(64 * 1024)
    try:
        picture = Image.effect_noise((700, 300), 90).convert("RGBA")
        assert not picture.im.isblock() and sent(picture).tobytes() == picture.tobytes()
    finally:
        Image.core.set_block_size(before)


@pytest.mark.parametrize("transparency", [3, b"\x00\x80\xff", None])
@pytest.mark.parametrize("palette_mode", ["RGB", "RGBA"])
def test_a_palette_arrives_with_what_is_transparent_in_it(
    palette_mode: str, transparency: object
) -> None:
    picture = Image.frombytes("P", SIZE, bytes(527))
    picture.putpalette(bytes(range(240)), palette_mode)
    if transparency is not None:
        picture.info["transparency"] = transparency
    found = sent(picture)
    assert found.mode == "P" and found.info == picture.info
    assert found.getpalette("RGBA") == picture.getpalette("RGBA")
    assert found.convert("RGBA").tobytes() == picture.convert("RGBA").tobytes()
    assert images.to_public(found) == images.to_public(picture)


def test_what_is_known_of_a_picture_arrives() -> None:
    exif = Image.Exif()
    exif[274] = 6  # it lies on its side
    written = io.BytesIO()
    PICTURE.save(written, "JPEG", exif=exif, dpi=(300, 300), icc_profile=b"profile")
    found = sent(Image.open(written))
    assert found.getexif()[274] == 6
    assert found.info["dpi"] == (300, 300) and found.info["icc_profile"] == b"profile"
    picture = PICTURE.copy()
    picture.info = {
        "transparency": (1, 2, 3),
        "gamma": 0.5,
        "x": object(),
        "dpi": object(),
        "exif": 2**80,
    }
    assert sent(picture).info == {"transparency": (1, 2, 3), "gamma": 0.5}


def test_what_arrives_can_be_changed() -> None:
    header, source = pixels.pack(PICTURE)
    memory = bytes(written(b"", source))
    found = pixels.unpack(memoryview(header), memoryview(memory))
    found.putpixel((0, 0), (9, 9, 9))
    found.paste((1, 1, 1), (2, 2, 9, 9))
    assert memory == bytes(written(b"", pixels.pack(PICTURE)[1]))
    assert found.getpixel((0, 0)) == (9, 9, 9)


def header_of(*parts: object) -> bytes:
    header = msgspec.msgpack.encode(parts)
    return struct.pack("<BI", pixels.MARK, len(header)) + header


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff", b"\xff" * 30, pixels.pack(PICTURE)[0], pixels.pack(PICTURE)[0] + b"x" * 100,
        header_of(), header_of(1, 1), header_of(1, 1, "XYZ") + b"1", header_of(-1, 1, "L"),
        header_of(2**31, 1, "L"), header_of(2**31 - 1, 2**31 - 1, "RGBA"), header_of(1, 1, "P", "XX", b"123") + b"1",
        header_of(1, 1, "P", "RGB", b"1" * 2000) + b"1", header_of(1, 1, "L", "RGB", b"", {"dpi": {}}) + b"1",
    ],
)  # fmt: skip
def test_pixels_that_are_none(data: bytes) -> None:
    with pytest.raises(Misfit):
        pixels.unpack(memoryview(data))
    with pytest.raises(Misfit):
        pixels.unpack(memoryview(data), memoryview(b"12"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "MPO"])
def test_a_file_comes_in_every_way(kind: str) -> None:
    data = file(kind)
    text = base64.b64encode(data).decode()
    expected = Image.open(io.BytesIO(data)).convert("RGB").tobytes()
    reader = BodyReader(Signature.of(Pictures, "known"))
    bodies: list[tuple[bytes, Format]] = [
        (b'{"image": "%s"}' % text.encode(), Format.JSON),
        (b'{"image": "data:image/png;base64,%s"}' % text.encode(), Format.JSON),
        (b'{"image": "data:;charset=x;base64,%s"}' % text.encode(), Format.JSON),
        reader.compose(
            b'--B\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            + data + b"\r\n--B--\r\n",
            b"multipart/form-data; boundary=B",
        ),
    ]  # fmt: skip
    read = [codec("known").decode(*body) for body in bodies]
    read.append(codec("known").decode_beside_file(b"", data, b"image/anything"))
    for arguments in read:
        found: Any = arguments["image"]
        assert found.size == SIZE and found.convert("RGB").tobytes() == expected


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min(1_000_000, (1 + (width + 7) // 8) * height)), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1, "Expected an image, got `int`"), (None, "got `null`"), ([1], "got `list`"), ({}, "got `dict`"),
        ("", "no image that can be read"), ("!", "nothing is fetched"),
        ("http://127.0.0.1:1/a.png", "nothing is fetched"), ("file:///etc/passwd", "nothing is fetched"),
        ("data:image/png,abc", "nothing is fetched"), ("/etc/passwd", "nothing is fetched"),
        (b"", "no image that can be read"), (b"GIF89a", "no image"), (file()[:-40], "no image"),
        (file("JPEG")[:200], "no image"), (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image"), (b"P6 9 9 255\n" + bytes(243), "no image"),
        (bomb(5000, 5000), "5000 x 5000 pixels"), (bomb(30_000, 30_000), "pixels"), (bomb(2**31 - 1, 2**31 - 1), "pixels"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused(value: object, said: str) -> None:
    with pytest.raises(Misfit, match=said):
        images.from_public(value)


def test_a_small_file_has_few_pixels() -> None:
    side = int(IMAGE_FLOOR**0.5)
    assert images.from_public(bomb(side, 1)).size == (side, 1)
    with pytest.raises(InvalidArguments) as caught:
        codec("known").decode(
            b'{"image": "%s"}' % base64.b64encode(bomb(side + 1, side)), Format.JSON
        )
    assert caught.value.errors[0]["loc"] == ["image"]


@given(st.binary(max_size=200), st.integers(0, len(file())))
def test_broken_files_are_refused(noise: bytes, at: int) -> None:
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        data = file(kind)
        try:
            images.from_public(data[:at] + noise + data[at + len(noise) :])
        except Misfit:
            pass


def test_the_public_sends_no_pixels() -> None:
    body = UntypedCodec().encode({"image": PICTURE})
    assert isinstance(codec("known").decode(body, Format.TYPED, no_memory)["image"], Image.Image)
    with pytest.raises(InvalidArguments):
        codec("known").decode(body, Format.TYPED)


@pytest.mark.parametrize("mode", sorted(pixels.MODES - {"I", "F"}))
@pytest.mark.parametrize("media_type", images.MEDIA_TYPES)
def test_every_mode_can_be_written(mode: str, media_type: bytes) -> None:
    found = images.from_public(images.to_public(in_mode(mode), media_type))
    assert found.size == SIZE and found.get_format_mimetype() == media_type.decode()


def test_results_for_the_public() -> None:
    result = ResultCodec(Image.Image, "S.f")
    png = result.encode(PICTURE, MediaFormat(images.PNG))
    assert images.from_public(png).tobytes() == PICTURE.tobytes()
    assert result.encode(PICTURE, Format.JSON) == b'"%s"' % base64.b64encode(png)
    assert UntypedCodec().decode(result.encode(PICTURE, Format.MSGPACK)) == png
    pages = ResultCodec(list[Page], "S.f").encode([Page(PICTURE, 1)], Format.JSON)
    assert pages.startswith(b'[{"image":"iVBOR')
    for value in ("x", None, b"x"):
        with pytest.raises(ValueError, match="does not fit its annotation"):
            result.encode(value, MediaFormat(images.PNG))
    with pytest.raises(TypeError, match="convert it first"):
        result.encode(PICTURE.convert("F"), Format.JSON)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "image/png"), (b"", "image/png"), (b"*/*", "image/png"), (b"image/*", "image/png"),
        (b"image/avif,image/webp,image/apng,image/*,*/*;q=0.8", "image/png"),
        (b"image/jpeg", "image/jpeg"), (b"image/webp;q=0.9, image/png;q=0.1", "image/webp"),
        (b"application/json", "application/json"), (b"application/json, */*;q=0.1", "application/json"),
        (b"application/msgpack", "application/msgpack"), (b"text/html", "image/png"),
        (b"application/vnd.graphserve+msgpack", "application/vnd.graphserve+msgpack"),
    ],
)  # fmt: skip
def test_how_an_image_leaves(accept: bytes | None, expected: str) -> None:
    assert accepts_of(Image.Image)(accept).content_type == expected.encode()
