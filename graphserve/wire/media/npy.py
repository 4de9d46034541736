"""Arrays as files of numpy's own format (`.npy`): nothing in one is run, and its header is believed
only if it fits the length of the file.
"""

from __future__ import annotations

import ast
import io
import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphserve.system import own_json
from graphserve.wire import arrays, type_hints
from graphserve.wire.exceptions import Misfit
from graphserve.wire.media.octets import no_options
from graphserve.wire.media.received import ReceivedFile

if TYPE_CHECKING:
    from graphserve.wire.media.kinds import MediaKind
    from graphserve.wire.type_hints import AnyArray, AnyDtype

NPY = "application/x-npy"
_UNKNOWN = frozenset({"", "application/octet-stream"})
_MAGIC = b"\x93NUMPY"
_HEAD = struct.Struct("<6sBB")
_LENGTHS = {1: struct.Struct("<H"), 2: struct.Struct("<I"), 3: struct.Struct("<I")}  # by version
_LONGEST = 4096  # bytes of a header; numpy pads them to 128
_KEYS = {"descr", "fortran_order", "shape"}


class ArrayFiles:
    """Arrays as a kind of value: lists in JSON, and an extension type of ours in msgpack."""

    received = (NPY,)
    offers = (NPY,)
    json_first = True
    is_slow = False
    by_type = True
    schema: Mapping[str, object] = {"type": "array"}  # (OpenAPI knows the array's own)

    @staticmethod
    def read(value: object) -> AnyArray:
        """Return the array in a file that a client sent, or in lists.

        Raises:
            Misfit: it is none, or would cost too much.
        """
        if isinstance(value, ReceivedFile):
            return read_file(value)
        return value if type_hints.is_array_value(value) else arrays.from_list(value)

    @staticmethod
    def takes(media_type: str) -> bool:
        """Return whether it is said to be a file of an array, or nothing is said."""
        return media_type == NPY or media_type in _UNKNOWN

    @staticmethod
    def fault(media_type: str, options: Mapping[str, object]) -> str | None:
        """Return what is wrong with it: an array has one type of file."""
        if media_type != NPY:
            return f"an array can be sent as {NPY}, not as {media_type}"
        return no_options(media_type, options)

    @staticmethod
    def write(value: object, media_type: str, options: Mapping[str, object]) -> bytes:
        """Return an array as a file.

        Raises:
            TypeError: it is none, or has objects in it.
        """
        if not type_hints.is_array_value(value):
            raise TypeError(f"Expected `numpy.ndarray`, got `{type(value).__name__}`")
        return write_file(value)


def read_file(file: ReceivedFile) -> AnyArray:
    """Return the array in a file, read-only, over the bytes of the file if they lie as they should.

    Raises:
        Misfit: it is none, or has more elements than bytes for them.
    """
    if not ArrayFiles.takes(file.media_type):
        said = f"Expected an array as {NPY}, got {file.media_type[:80]}"
        raise Misfit(said, "value_error")
    data = memoryview(file.data)
    dtype, shape, fortran, begin = _header(data)
    # (in the order of Fortran the elements are those of the array with its axes turned round)
    lying = shape[::-1] if fortran else shape
    size = math.prod(shape) * dtype.itemsize
    array = arrays.over(dtype, lying, size, data[begin:], public=True)
    array = array.T if fortran else array
    if dtype.isnative:
        return array
    return arrays.freeze(array.astype(dtype.newbyteorder("=")))


def write_file(array: AnyArray) -> bytes:
    """Return an array as a file.

    Raises:
        TypeError: it has objects in it, or is masked.
    """
    import numpy as np

    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("a masked array cannot be sent: fill it first (.filled())")
    arrays.describe(array.dtype)
    written = io.BytesIO()
    np.lib.format.write_array(written, np.asanyarray(array), allow_pickle=False)
    return written.getvalue()


def _header(data: memoryview) -> tuple[AnyDtype, tuple[int, ...], bool, int]:
    """Return the dtype, the shape, whether it lies in the order of Fortran, and where it begins."""
    if data.nbytes < _HEAD.size:
        raise _broken("it is cut off")
    magic, major, _ = _HEAD.unpack_from(data)
    length = _LENGTHS.get(major)
    if magic != _MAGIC or length is None:
        raise _broken("it does not begin as one")
    begin = _HEAD.size + length.size
    if data.nbytes < begin:
        raise _broken("it is cut off")
    (size,) = length.unpack_from(data, _HEAD.size)
    if size > _LONGEST or begin + size > data.nbytes:
        raise _broken("its header is cut off, or too long")
    try:
        said = ast.literal_eval(bytes(data[begin : begin + size]).decode().strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise _broken("its header cannot be read") from None
    if type(said) is not dict or said.keys() != _KEYS:
        raise _broken("its header is none")
    shape, fortran = said["shape"], said["fortran_order"]
    if type(shape) is not tuple or len(shape) > arrays.MAX_DIMENSIONS:
        raise _broken("its shape is none")
    if any(type(length) is not int or not 0 <= length < 2**63 for length in shape):
        raise _broken("its shape is none")
    if type(fortran) is not bool:
        raise _broken("its header is none")
    return _dtype(said["descr"]), shape, fortran, begin + size


def _dtype(descr: object) -> AnyDtype:
    """Return a dtype, of those that an array may have that is no file."""
    if type(descr) is not str and type(descr) is not list:
        raise _broken("its dtype is none")
    try:
        text = descr if isinstance(descr, str) else own_json.dumps(descr)
        return arrays.undescribe(text.encode())
    except (ValueError, TypeError, RecursionError) as exc:
        said = str(exc) if isinstance(exc, Misfit) else "its dtype is none"
        raise _broken(said) from None


def _broken(why: str) -> Misfit:
    return Misfit(f"it is no array in numpy's format: {why}", "value_error")


ARRAY_FILES: MediaKind = ArrayFiles()
