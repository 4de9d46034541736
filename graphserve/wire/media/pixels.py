"""Sends pictures between services as their pixels, which are copied once: from Pillow's memory into
that which the services share, where they are read.

| | how | else |
| --- | --- | --- |
| out | Pillow says where they lie, by Arrow's C data interface | strips, by `tobytes` |
| in | `core.map_buffer`, which `Image.frombuffer` calls, for every mode | `Image.frombytes` |

Both ways are tried once, on small pictures: with a Pillow that does something else, the pixels are
copied a second time. Runs in workers; Pillow is imported where an API has a picture.
"""

from __future__ import annotations

import contextlib
import ctypes
import numbers
import struct
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from graphserve.wire.exceptions import Misfit
from graphserve.wire.media.classes import MARKS

if TYPE_CHECKING:
    from PIL.Image import Image

MARK = MARKS["image"]

# How a mode is written, by the name that Pillow's raw codec has for it, and the bytes of a pixel:
# of these modes that is how the pixels lie in Pillow's memory …
_STORED = {
    "L": ("L", 1),
    "P": ("P", 1),
    "I;16": ("I;16", 2),
    "I": ("I", 4),
    "F": ("F", 4),
    "RGB": ("RGBX", 4),
    "RGBX": ("RGBX", 4),
    "RGBA": ("RGBA", 4),
    "RGBa": ("RGBa", 4),
    "CMYK": ("CMYK", 4),
    "YCbCr": ("YCbCrX", 4),
}
# … and of these it is not. A row of mode 1 has eight pixels a byte.
_PACKED = {"1": 0, "LA": 2, "La": 2, "PA": 2, "LAB": 3, "HSV": 3}
MODES = frozenset({*_STORED, *_PACKED})
# What is taken out of an image at a time that cannot be copied as a whole: of more, the memory
# that it passes through costs more than the copy.
_STRIP_BYTES = 256 * 1024
# What is known of a picture besides its pixels and changes what they mean, or where they are from.
_KEPT = ("dpi", "exif", "gamma", "icc_profile", "transparency", "xmp")
_MOST_PIXELS = 2**31 - 1
_PALETTES = ("", "RGB", "RGBA")

_LEAD = struct.Struct("<BI")  # the mark, and the length of the header behind it

_Number = int | float
_Side = Annotated[int, Meta(ge=0, le=_MOST_PIXELS)]


class _Header(msgspec.Struct, array_like=True, frozen=True):
    width: _Side
    height: _Side
    mode: str
    palette_mode: str = ""
    palette: Annotated[bytes, Meta(max_length=1024)] = b""
    info: dict[str, _Number | bytes | list[_Number]] = {}


_read_header = msgspec.msgpack.Decoder(_Header).decode
_write_header = msgspec.msgpack.Encoder().encode


class Pixels:
    """Copies the pixels of a picture into memory: a `BufferSource`.

    Args:
        image: the picture, loaded.
    """

    def __init__(self, image: Image) -> None:
        self._image = image
        self.nbytes = _size(image.mode, image.size)

    def write_into(self, memory: memoryview) -> None:
        """Write them into memory of as many bytes."""
        image = self._image
        whole = _of_memory(image) if image.mode in _STORED and exports() else None
        if whole is not None and whole.size == self.nbytes:
            into = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            ctypes.memmove(into, whole.address, self.nbytes)
            return
        at = 0
        for strip in _strips(image):
            memory[at : at + len(strip)] = strip
            at += len(strip)
        if at != self.nbytes:
            raise Misfit(f"an image of mode {image.mode} has {at} bytes, not {self.nbytes}")


def pack(image: Image) -> tuple[bytes, Pixels]:
    """Return a picture as a header and its pixels, for another service.

    Raises:
        Misfit: its mode cannot be sent.
    """
    image.load()
    mode = image.mode
    if mode not in MODES:
        raise Misfit(f"an image of mode {mode} cannot be sent: convert it first (.convert('RGB'))")
    palette_mode = ""
    palette = b""
    if mode in ("P", "PA"):
        palette_mode = (
            "RGBA" if image.palette is not None and image.palette.mode == "RGBA" else "RGB"
        )
        palette = bytes(image.getpalette(palette_mode) or ())
    info = {name: kept for name in _KEPT if (kept := _plain(image.info.get(name))) is not None}
    header = _write_header(_Header(*image.size, mode, palette_mode, palette, info))
    return _LEAD.pack(MARK, len(header)) + header, Pixels(image)


def unpack(data: memoryview, place: memoryview | None = None) -> Image:
    """Return the picture that `pack` described.

    Args:
        data: the header, and behind it the pixels if they are not elsewhere: they are copied then.
        place: where the pixels are; they stay there, and are copied when somebody changes them.

    Raises:
        Misfit: the bytes are no picture.
    """
    from PIL import Image

    header, pixels = _split(data)
    mode, size = header.mode, (header.width, header.height)
    found = pixels if place is None else place
    if found.nbytes != _size(mode, size):
        raise Misfit(f"an image of mode {mode} and size {size} does not have {found.nbytes} bytes")
    try:
        if not found.nbytes:
            image = Image.new(mode, size)
        elif place is not None and mode in _STORED and maps():
            image = _over(found, mode, size)
        else:
            raw = _STORED[mode][0] if mode in _STORED else mode
            image = Image.frombytes(mode, size, found, "raw", raw)
        image.info.update(
            {name: tuple(v) if isinstance(v, list) else v for name, v in header.info.items()}
        )
        if header.palette:
            image.putpalette(header.palette, header.palette_mode)
    except (ValueError, OSError, MemoryError) as exc:
        raise Misfit(f"an image of mode {mode} and size {size} cannot be read: {exc}") from None
    return image


def keep_in_one_piece() -> None:
    """Have Pillow allocate each picture in one piece, as its users of Arrow do: only then it can be
    copied as a whole.

    A large one is else in blocks of 16 MB. Pillow knows this for the whole process; where somebody
    has told it to keep blocks for reuse, it is left as it is.
    """
    pillow = sys.modules.get("PIL.Image")
    core = getattr(pillow, "core", None)
    with contextlib.suppress(AttributeError, ImportError):  # an older Pillow
        if core is not None and not core.get_blocks_max():
            core.set_use_block_allocator(1)


# --- out ---


class _ArrowArray(ctypes.Structure):
    """Lays out `struct ArrowArray` of Arrow's C data interface, which is stable."""


_ArrowArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


class _Memory:
    """Says where the pixels of an image lie; they stay there while it lives."""

    __slots__ = ("_capsules", "address", "size")

    def __init__(self, capsules: object, address: int, size: int) -> None:
        self._capsules = capsules
        self.address = address
        self.size = size


def _of_memory(image: Image) -> _Memory | None:
    """Return where all pixels of an image lie, or None if they do not lie in one piece."""
    try:
        capsules: Any = image.__arrow_c_array__()
    except (ValueError, AttributeError, MemoryError, OSError):
        return None
    array = _ArrowArray.from_address(_pointer(capsules[1], b"arrow_array"))
    values = array.children[0].contents if array.n_children else array
    if array.n_children > 1 or array.offset or values.offset or values.n_buffers != 2:
        return None
    address = values.buffers[1]
    # Of a pixel with bands each band is a value, of one byte.
    size = values.length if array.n_children else values.length * _STORED[image.mode][1]
    return _Memory(capsules, address, size) if address else None


def _strips(image: Image) -> Iterator[bytes]:
    width, height = image.size
    raw = _STORED[image.mode][0] if image.mode in _STORED else image.mode
    rows = max(1, _STRIP_BYTES // max(1, 4 * width))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows)))
        yield strip.tobytes("raw", raw)


# --- in ---


def _over(pixels: memoryview, mode: str, size: tuple[int, int]) -> Image:
    from PIL import Image

    mapped = Image.core.map_buffer(  # type: ignore[attr-defined]
        pixels, size, "raw", 0, (mode, 0, 1)
    )
    image = Image.new(mode, (0, 0))._new(mapped)
    image.readonly = 1
    return image


# --- whether this Pillow does it ---


@cache
def exports() -> bool:
    """Return whether the memory of this Pillow's images can be found."""
    return _each_mode(_finds)


@cache
def maps() -> bool:
    """Return whether this Pillow makes images over memory, in every mode."""
    return _each_mode(_reads)


def _each_mode(works: Callable[[Image, bytes], bool]) -> bool:
    from PIL import Image

    size = 3, 2
    try:
        for mode, (raw, of_pixel) in _STORED.items():
            pixels = bytes(range(1, 1 + 6 * of_pixel))
            if not works(Image.frombytes(mode, size, pixels, "raw", raw), pixels):
                return False
    except Exception:  # whatever a Pillow raises that has none of it, or other parts
        return False
    return True


def _finds(image: Image, pixels: bytes) -> bool:
    found = _of_memory(image)
    return (
        found is not None
        and found.size == len(pixels)
        and ctypes.string_at(found.address, found.size) == pixels
    )


def _reads(image: Image, pixels: bytes) -> bool:
    found = _over(memoryview(pixels), image.mode, image.size)
    found.copy().putpixel((0, 0), 0)
    return found.mode == image.mode and found.tobytes() == image.tobytes() and bool(found.readonly)


# --- both ---


def _split(data: memoryview) -> tuple[_Header, memoryview]:
    if data.nbytes < _LEAD.size or (end := _LEAD.size + _LEAD.unpack_from(data)[1]) > data.nbytes:
        raise Misfit("the header of an image is cut off")
    try:
        header = _read_header(data[_LEAD.size : end])
    except (msgspec.DecodeError, msgspec.ValidationError) as exc:
        raise Misfit(f"the header of an image cannot be read: {exc}") from None
    if header.mode not in MODES or header.palette_mode not in _PALETTES:
        raise Misfit("the header of an image cannot be read")
    return header, data[end:]


def _size(mode: str, size: tuple[int, int]) -> int:
    """Return how many bytes the pixels of a picture have."""
    width, height = size
    if mode in _STORED:
        return width * height * _STORED[mode][1]
    return height * (width * _PACKED[mode] if _PACKED[mode] else (width + 7) // 8)


def _plain(value: object) -> _Number | bytes | list[_Number] | None:
    """Return what is sent for a value of `Image.info`; None where it stays behind."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, tuple):
        return _number(value)
    found = [number for each in value if (number := _number(each)) is not None]
    return found if len(found) == len(value) else None


def _number(value: object) -> _Number | None:
    if isinstance(value, int):
        return value if abs(value) < 2**63 else None
    return float(value) if isinstance(value, numbers.Real) else None
