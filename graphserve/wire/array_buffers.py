"""Arrays as bytes: a header with dtype and shape, then the elements. numpy is imported with the first array."""

from __future__ import annotations

import math
import re
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from graphserve.system import own_json
from graphserve.wire.costs.bounds import AXES, AXES_OF_ONE, EMPTY_ROWS, EMPTY_ROWS_BETWEEN, LISTS_FLOOR
from graphserve.wire.validation_errors import Misfit

if TYPE_CHECKING:
    import numpy as np

MAX_DIMENSIONS = 64  # numpy's own limit
_SIMPLE = re.compile(r"[<>|][biufcmMSUV]\d+(\[\d*[A-Za-zμ]+\])?\Z")
_HEAD = struct.Struct("<BH")  # dimensions, length of the dtype
_LAST_CHARACTER = 0x10FFFF
_SURROGATES = 0xD800, 0xDFFF  # halves of characters, which no text has


def pack(array: np.ndarray[Any, Any]) -> tuple[bytes, memoryview]:
    """An array as a header (dtype and shape) and its elements in C order; elements are not copied where they lie so.

    Raises:
        Misfit: its dtype cannot cross a socket.
    """
    import numpy as np

    if type(array) is not np.ndarray and isinstance(array, np.ma.MaskedArray):
        raise Misfit("a masked array cannot be sent: fill it first (.filled())")
    descr = describe(array.dtype)
    check_rows(array.shape)
    header = _HEAD.pack(array.ndim, len(descr)) + descr + struct.pack(f"<{array.ndim}Q", *array.shape)
    if array.size == 0:
        return header, memoryview(b"")
    flat = np.ascontiguousarray(array).reshape(-1).view(np.ndarray)
    return header, flat.view(np.uint8).data


def unpack(data: memoryview, place: memoryview | None = None, *, public: bool = False) -> np.ndarray[Any, Any]:
    """The read-only array that `pack` described, over the bytes behind the header, or over `place`.

    The elements are not copied, unless they lie at an address that their type cannot be read from.

    Args:
        data: the header, and the elements if they are not elsewhere.
        place: where the elements are.
        public: whether it is from a client, who may send fewer rows without elements, fewer axes, and no text that no
            answer could hold.

    Raises:
        Misfit: the bytes are no array.
    """
    import numpy as np

    end = _header_size(data)
    dtype, shape, size = _layout(bytes(data[:end]))
    if public:
        _check_axes(dtype, shape)
    elements = data[end:] if place is None else place
    if size != elements.nbytes:
        raise Misfit(f"an array of dtype {dtype} and shape {shape} does not have {elements.nbytes} bytes")
    check_rows(shape, EMPTY_ROWS if public else EMPTY_ROWS_BETWEEN)
    memory: Any = elements.toreadonly() if size else None
    if size and type(memory.obj) is not bytes:
        # Of a memoryview numpy takes the object behind it, and could be told to write there.
        memory = np.frombuffer(memory, np.uint8)
    try:
        array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, memory)
    except (ValueError, MemoryError) as exc:
        raise Misfit(f"an array of shape {shape} cannot be: {exc}") from None
    if not array.flags.aligned:
        array = array.copy()
    if size and dtype.kind in "bUV":
        _check_elements(array, public)
    return freeze(array) if array.flags.writeable else array


def freeze(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A read-only view of a new array; unlike the array itself it cannot be made writable again."""
    array.flags.writeable = False
    return array.view()


def check_rows(shape: tuple[int, ...], most: int = EMPTY_ROWS_BETWEEN) -> None:
    """Check how many rows an array without elements has: a few bytes can say any number, and whoever loops over it is
    busy for as long.

    Raises:
        Misfit: there are more than `most`.
    """
    if 0 in shape and (rows := math.prod(shape[: shape.index(0)])) > most:
        raise Misfit(f"an array of shape {shape} has {rows:,} rows without elements; {most:,} are allowed")


def check_lists(array: np.ndarray[Any, Any]) -> None:
    """Check how many lists an array from the public becomes where nothing takes an array.

    Raises:
        Misfit: more than it has bytes.
    """
    lists = _lists(array.shape) + array.size * _lists_inside(array.dtype)
    if lists > max(LISTS_FLOOR, array.nbytes):
        raise Misfit(f"an array of shape {array.shape} has too many rows for its bytes to be read as lists: send lists")


def _lists(shape: tuple[int, ...]) -> int:
    return sum(math.prod(shape[:index]) for index in range(len(shape)))


def _lists_inside(dtype: np.dtype[Any]) -> int:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return _lists(shape) + math.prod(shape) * _lists_inside(base)
    return 0 if dtype.names is None else 1 + sum(_lists_inside(dtype[name]) for name in dtype.names)


def _check_axes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    inner, of_one = _axes(dtype)
    if len(shape) + inner > AXES:
        raise Misfit(f"an array has more than {AXES} axes, those inside its records included")
    if shape.count(1) + of_one > AXES_OF_ONE:
        raise Misfit(f"an array has more than {AXES_OF_ONE} axes of length 1, those inside its records included")


@lru_cache(maxsize=256)
def _axes(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The most axes that an element has inside, and the most of length 1: a record is one, as long as its fields."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        inner, of_one = _axes(base)
        return len(shape) + inner, shape.count(1) + of_one
    if dtype.names is None:
        return 0, 0
    found = [_axes(dtype[name]) for name in dtype.names]
    return 1 + max(each[0] for each in found), (len(found) == 1) + max(each[1] for each in found)


def _check_elements(array: np.ndarray[Any, Any], public: bool) -> None:
    """Check elements of which some bytes mean nothing: booleans, and text, in records too."""
    import numpy as np

    kind = array.dtype.kind
    if kind == "V":
        for name in array.dtype.names or ():
            _check_elements(array[name], public)
    elif kind == "b" and array.size and np.ascontiguousarray(array).view(np.uint8).max() > 1:
        raise Misfit("an array of bool has bytes other than 0 and 1")
    elif kind == "U" and array.size:
        order = array.dtype.str[0]
        characters = np.ascontiguousarray(array).reshape(-1).view(f"{order}u4")
        first, last = _SURROGATES
        if characters.max() > _LAST_CHARACTER or (public and ((characters >= first) & (characters <= last)).any()):
            raise Misfit("an array of text has bytes that are no characters")


@lru_cache(maxsize=256)
def describe(dtype: np.dtype[Any]) -> bytes:
    """A dtype as bytes; `undescribe` reads them.

    Raises:
        Misfit: arrays of this dtype cannot be sent.
    """
    if dtype.hasobject:
        raise Misfit("an array of objects cannot be sent: give it a dtype of numbers, or send a list")
    if dtype.itemsize == 0:
        raise Misfit(f"an array of dtype {dtype} has elements without bytes and cannot be sent")
    try:
        from numpy.lib.format import dtype_to_descr

        text = dtype.str if dtype.names is None else own_json.dumps(dtype_to_descr(dtype))
        if undescribe(text.encode()) == dtype:
            return text.encode()
    except (TypeError, ValueError):
        pass
    raise Misfit(f"an array of dtype {dtype} cannot be sent: view or convert it to one of numpy's own dtypes")


@lru_cache(maxsize=256)
def undescribe(descr: bytes) -> np.dtype[Any]:
    """The dtype that `describe` wrote.

    Raises:
        Misfit: there is no such dtype.
    """
    import numpy as np

    try:
        text = descr.decode()
        if text.startswith("["):
            from numpy.lib.format import descr_to_dtype

            dtype = descr_to_dtype(_tuples(own_json.loads(text)))
        elif _SIMPLE.match(text):
            dtype = np.dtype(text)
        else:
            raise Misfit("no such dtype")
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, SyntaxError):
        raise Misfit(f"{descr[:80]!r} is no dtype") from None
    if dtype.hasobject or dtype.itemsize == 0:
        raise Misfit(f"arrays of dtype {dtype} are not accepted")
    return dtype


def _header_size(data: memoryview) -> int:
    if data.nbytes < _HEAD.size:
        raise Misfit("the header of an array is cut off")
    dimensions, length = _HEAD.unpack_from(data)
    if dimensions > MAX_DIMENSIONS:
        raise Misfit(f"an array has {dimensions} dimensions, more than {MAX_DIMENSIONS}")
    return int(_HEAD.size + length + 8 * dimensions)


@lru_cache(maxsize=256)
def _layout(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    dimensions, length = _HEAD.unpack_from(header)
    if len(header) < _HEAD.size + length + 8 * dimensions:
        raise Misfit("the header of an array is cut off")
    shape = struct.unpack_from(f"<{dimensions}Q", header, _HEAD.size + length)
    dtype = undescribe(header[_HEAD.size : _HEAD.size + length])
    return dtype, shape, math.prod(shape) * dtype.itemsize


def _tuples(descr: Any) -> Any:
    if isinstance(descr, str):
        return descr
    return [_field(*field) for field in descr]


def _field(name: Any, descr: Any, shape: Any = None) -> tuple[Any, ...]:
    if not isinstance(descr, list) and not (isinstance(descr, str) and _SIMPLE.match(descr)):
        raise Misfit("no such dtype")
    if shape is not None and 0 in (shape if isinstance(shape, list) else [shape]):
        raise Misfit("no such dtype")  # a field without bytes has rows without elements, in each element
    name = tuple(name) if isinstance(name, list) else name
    return (name, _tuples(descr)) if shape is None else (name, _tuples(descr), tuple(shape))
