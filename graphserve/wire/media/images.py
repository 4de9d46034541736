"""Pictures (`PIL.Image.Image`): read from a file of a client and written to one.

Only this file and `pixels` know Pillow, which is imported where an API has a picture. Nothing is
ever fetched: a text is base64, or a `data:` URL that has the file in it.
"""

from __future__ import annotations

import binascii
import io
import re
import sys
import warnings
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, TypeGuard

from graphserve.errors import closest
from graphserve.wire.costs.bounds import IMAGE_FLOOR, IMAGE_MOST, IMAGE_TIMES
from graphserve.wire.exceptions import Misfit
from graphserve.wire.media import pixels

if TYPE_CHECKING:
    from PIL.Image import Image

    from graphserve.wire.media.kinds import PackedKind

# What is read of a client: none of these runs a program, or reads another file. (Among JPEG are the
# files of phones with two pictures, MPO.)
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_READ = "PNG, JPEG, WebP, GIF, BMP or TIFF"
_DATA_URL = re.compile(r"data:[\w.+/-]*(?:;[\w.+-]+=[^;,]{0,100})*;base64,", re.IGNORECASE)
PNG = b"image/png"
SMALL = 64 * 1024  # pixels
# What `Media` may say of how a file is written, by the media type: the numbers that there are, from
# and to; bool is both.
_OPTIONS: dict[str, dict[str, tuple[int, int]]] = {
    "image/png": {"compress_level": (0, 9)},
    "image/jpeg": {"quality": (1, 100)},
    "image/webp": {"quality": (1, 100), "lossless": (0, 1)},
}
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


def is_image_value(value: object) -> TypeGuard[Image]:
    """Return whether a value is an image of Pillow's; Pillow is not imported for it."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


class Images:
    """Pictures as a kind of value."""

    received = ("image/*",)
    offers = tuple(media_type.decode() for media_type in MEDIA_TYPES)
    json_first = False
    is_slow = True
    by_type = False
    schema = {
        "type": "string",
        "contentEncoding": "base64",
        "contentMediaType": "image/png",
        "description": "An image, as base64.",
    }

    @staticmethod
    def read(value: object) -> Image:
        """Return the picture in what a client sent."""
        return from_public(value)

    @staticmethod
    def takes(media_type: str) -> bool:
        """Return True: it is read whatever its type is said to be."""
        return True

    @staticmethod
    def fault(media_type: str, options: Mapping[str, object]) -> str | None:
        """Return what is wrong with a media type that no picture is written as, or its options."""
        if media_type not in _OPTIONS:
            return f"an image is sent as {', '.join(_OPTIONS)}"
        known = _OPTIONS[media_type]
        for name, value in options.items():
            if name not in known:
                guess = closest(name, list(known))
                hint = f"did you mean {guess!r}?" if guess else f"it has {', '.join(known)}"
                return f"{media_type} has no option {name!r}; {hint}"
            least, most = known[name]
            is_switch = known[name] == (0, 1)
            if isinstance(value, bool) != is_switch or not isinstance(value, int):
                wanted = "True or False" if is_switch else f"a whole number from {least} to {most}"
                return f"{name} is {wanted}"
            if not least <= value <= most:
                return f"{name} is a whole number from {least} to {most}"
        return None

    @staticmethod
    def write(value: object, media_type: str, options: Mapping[str, object]) -> bytes:
        """Return a picture as a file."""
        return to_public(_checked(value), media_type.encode(), options)

    @staticmethod
    def plain(value: object) -> bytes:
        """Return a picture as PNG, which is base64 in JSON."""
        return to_public(_checked(value))

    @staticmethod
    def packs_quickly(value: object) -> bool:
        """Return whether its pixels are so few."""
        return is_image_value(value) and value.width * value.height <= SMALL

    @staticmethod
    def pack(value: object) -> tuple[bytes, pixels.Pixels]:
        """Return a picture as a header and its pixels."""
        return pixels.pack(_checked(value))

    @staticmethod
    def unpack(header: memoryview, payload: memoryview | None = None) -> Image:
        """Return the picture that these are of."""
        return pixels.unpack(header, payload)


def _checked(value: object) -> Image:
    if is_image_value(value):
        return value
    raise TypeError(f"Expected an image, got `{type(value).__name__}`")


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


def to_public(
    image: Image, media_type: bytes = PNG, said: Mapping[str, object] | None = None
) -> bytes:
    """Return a picture as a file.

    Args:
        image: the picture.
        media_type: which file.
        said: options of the format, in place of ours.

    Raises:
        TypeError: Pillow cannot write it.
    """
    name, modes, options = _WRITTEN[media_type]
    written = io.BytesIO()
    if image.mode in _NUMBERS:
        why = f"an image of mode {image.mode} has numbers that {name} has no place for"
        raise TypeError(f"{why}: convert it first (.convert('L'))")
    try:
        image = image.convert(_PLAIN[image.mode]) if image.mode in _PLAIN else image
        if image.mode not in modes:
            alpha = "A" in image.getbands() or "transparency" in image.info
            image = image.convert("RGBA" if alpha and "RGBA" in modes else "RGB")
        image.save(written, name, **{**options, **(said or {})})
    except (OSError, ValueError, KeyError) as exc:
        raise TypeError(
            f"an image of mode {image.mode} cannot be written as {name}: {exc}"
        ) from None
    return written.getvalue()


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


IMAGES: PackedKind = Images()
