"""Pictures (`PIL.Image.Image`): read from a file of a client and written to one, and sent between
services as their pixels.

Only this file knows Pillow, which is imported where an API has a picture. Nothing is ever fetched:
a text is base64, or a `data:` URL that has the file in it.
"""

from __future__ import annotations

import binascii
import io
import re
import struct
import sys
import warnings
from functools import cache
from typing import TYPE_CHECKING, TypeGuard

from graphserve.wire.costs.bounds import IMAGE_FLOOR, IMAGE_MOST, IMAGE_TIMES
from graphserve.wire.exceptions import Misfit

if TYPE_CHECKING:
    from PIL.Image import Image

# What is read of a client: none of these runs a program, or reads another file. (Among JPEG are the
# files of phones with two pictures, MPO.)
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_READ = "PNG, JPEG, WebP, GIF, BMP or TIFF"
_DATA_URL = re.compile(r"data:[\w.+/-]*(?:;[\w.+-]+=[^;,]{0,100})*;base64,", re.IGNORECASE)
PNG = b"image/png"
# By the media type: the name of the format, the modes that it has, and how it is written.
_WRITTEN: dict[bytes, tuple[str, frozenset[str], dict[str, int]]] = {
    PNG: (
        "PNG",
        frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"}),
        {"compress_level": 1},  # three times as fast as 6, for a tenth more bytes
    ),
    b"image/jpeg": ("JPEG", frozenset({"L", "RGB", "CMYK"}), {"quality": 90}),
    b"image/webp": ("WEBP", frozenset({"RGB", "RGBA"}), {"quality": 90}),
}
MEDIA_TYPES = tuple(_WRITTEN)
_NUMBERS = {"I", "F"}
_PLAIN = {"La": "LA", "RGBa": "RGBA"}  # modes that no file has, and which lead to nothing else

# Between services: a mark that begins no array (those begin with their number of axes), width,
# height, and the lengths of mode and palette, which follow; then the pixels.
MARK = 0xFF
_HEAD = struct.Struct("<BIIBH")
_MODES = {"1", "L", "LA", "La", "P", "RGB", "RGBA", "RGBa", "RGBX", "CMYK"}
_MODES |= {"YCbCr", "LAB", "HSV", "I", "F", "I;16"}
# What is taken out of an image at a time: of more, the memory that it passes through costs more
# than the copy.
_STRIP_BYTES = 256 * 1024


def is_image(kind: object) -> bool:
    """Return whether a class is Pillow's image; Pillow is not imported for it."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and kind is pillow.Image


def is_image_value(value: object) -> TypeGuard[Image]:
    """Return whether a value is an image of Pillow's; Pillow is not imported for it."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def from_public(value: object) -> Image:
    """Return the picture in what a client sent: a file, its base64, or a `data:` URL.

    Raises:
        Misfit: it is none, or has more pixels than so many bytes may have.
    """
    if is_image_value(value):
        return value
    if isinstance(value, str):
        value = _decoded(value)
    if not isinstance(value, bytes):
        raise Misfit(
            f"Expected an image, got `{'null' if value is None else type(value).__name__}`"
        )
    from PIL import Image, ImageFile

    _know_formats()
    most = min(IMAGE_MOST, max(IMAGE_FLOOR, IMAGE_TIMES * len(value)))
    try:
        image: ImageFile.ImageFile = Image.open(io.BytesIO(value), formats=_FORMATS)
        _check_pixels(image.size, most)
        image.load()
        _check_pixels(image.size, most)
    except (Misfit, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise Misfit(f"an image has more than {most:,} pixels", "value_error") from None
    except Exception:  # readers of formats raise whatever a broken file leads to
        raise Misfit(f"it is no image that can be read: {_READ}", "value_error") from None
    return image


def to_public(image: Image, media_type: bytes = PNG) -> bytes:
    """Return a picture as a file.

    Raises:
        TypeError: Pillow cannot write it.
    """
    name, modes, options = _WRITTEN[media_type]
    written = io.BytesIO()
    if image.mode in _NUMBERS:
        said = f"an image of mode {image.mode} has numbers that {name} has no place for"
        raise TypeError(f"{said}: convert it first (.convert('L'))")
    try:
        image = image.convert(_PLAIN[image.mode]) if image.mode in _PLAIN else image
        if image.mode not in modes:
            alpha = "A" in image.getbands() or "transparency" in image.info
            image = image.convert("RGBA" if alpha and "RGBA" in modes else "RGB")
        image.save(written, name, **options)
    except (OSError, ValueError, KeyError) as exc:
        raise TypeError(
            f"an image of mode {image.mode} cannot be written as {name}: {exc}"
        ) from None
    return written.getvalue()


def pack(image: Image) -> tuple[bytes, memoryview]:
    """Return a picture as a header and its pixels, for another service.

    Raises:
        Misfit: its mode cannot be sent.
    """
    image.load()
    if image.mode in ("P", "PA") and (image.mode == "PA" or "transparency" in image.info):
        image = image.convert("RGBA")  # (a palette is sent without what is transparent in it)
    mode = image.mode
    if mode not in _MODES:
        raise Misfit(f"an image of mode {mode} cannot be sent: convert it first (.convert('RGB'))")
    palette = bytes(image.getpalette("RGB") or ()) if mode == "P" else b""
    name = mode.encode()
    header = _HEAD.pack(MARK, *image.size, len(name), len(palette)) + name + palette
    return header, memoryview(_pixels(image))


def unpack(data: memoryview, place: memoryview | None = None) -> Image:
    """Return the picture that `pack` described, over the pixels behind the header, or over `place`.

    Raises:
        Misfit: the bytes are no picture.
    """
    from PIL import Image

    size, mode, palette, end = _header(data)
    pixels = data[end:] if place is None else place
    try:
        if 0 in size:
            image = Image.new(mode, size)
        else:  # (any buffer will do)
            image = Image.frombuffer(mode, size, pixels, "raw", mode, 0, 1)  # type: ignore[arg-type]
        if palette:
            image.putpalette(palette)
    except (ValueError, OSError) as exc:
        raise Misfit(f"an image of mode {mode} and size {size} cannot be read: {exc}") from None
    return image


def is_packed(header: memoryview) -> bool:
    """Return whether a header is of a picture, and not of an array."""
    return header.nbytes > 0 and header[0] == MARK


def _header(data: memoryview) -> tuple[tuple[int, int], str, bytes, int]:
    if data.nbytes < _HEAD.size:
        raise Misfit("the header of an image is cut off")
    _, width, height, mode_length, palette_length = _HEAD.unpack_from(data)
    middle = _HEAD.size + mode_length
    end = middle + palette_length
    mode = bytes(data[_HEAD.size : middle]).decode("latin-1")
    if data.nbytes < end or mode not in _MODES:
        raise Misfit("the header of an image cannot be read")
    return (width, height), mode, bytes(data[middle:end]), end


def _pixels(image: Image) -> bytes | bytearray:
    width, height = image.size
    rows = max(1, _STRIP_BYTES // max(1, 4 * width))
    if rows >= height:
        return image.tobytes()
    pixels = bytearray()
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows)))
        pixels += strip.tobytes()
    return pixels


@cache
def _know_formats() -> None:
    """Import the formats that Pillow knows only when it looks for all of them."""
    from PIL import TiffImagePlugin, WebPImagePlugin

    assert TiffImagePlugin and WebPImagePlugin
    # A broken file would be a line in the log for each of its tags.
    warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")


def _check_pixels(size: tuple[int, int], most: int) -> None:
    width, height = size
    if width * height > most:
        said = f"an image has {width} x {height} pixels; of so many bytes, {most:,} are allowed"
        raise Misfit(said, "value_error")


def _decoded(text: str) -> bytes:
    if found := _DATA_URL.match(text):
        text = text[found.end() :]
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise Misfit(
            "Expected an image as base64 or as a data: URL with base64 in it; nothing is fetched",
            "value_error",
        ) from None
