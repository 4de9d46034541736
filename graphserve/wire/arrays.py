"""Reads and writes arrays: as bytes, from lists, and as an annotation demands them.

As bytes, an array is a header with its dtype and shape, then its elements. numpy is imported with
the first array.
"""

from __future__ import annotations

import itertools
import math
import re
import struct
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from graphserve.system import own_json
from graphserve.wire.costs.bounds import (
    ARRAY_FLOOR,
    ARRAY_TIMES,
    AXES,
    AXES_OF_ONE,
    DECODED_TIMES,
    EMPTY_ROWS,
    EMPTY_ROWS_BETWEEN,
    LISTS_FLOOR,
)
from graphserve.wire.exceptions import Misfit
from graphserve.wire.type_hints import Hint

if TYPE_CHECKING:
    from graphserve.wire.type_hints import AnyArray, AnyDtype

_NAME = re.compile(
    r"[A-Za-z][A-Za-z0-9_]*(\[\d*[A-Za-zμ]+\])?\Z|[<>|=]?[A-Za-z?]\d*(\[\d*[A-Za-zμ]+\])?\Z"
)
_NUMBERS = {int, float, type(None)}  # JSON has no NaN: it is written as null, and read again
_LEAF_TYPES = (_NUMBERS, {bool}, {str})

MAX_DIMENSIONS = 64  # numpy's own limit
_SIMPLE = re.compile(r"[<>|][biufcmMSUV]\d+(\[\d*[A-Za-zμ]+\])?\Z")
_HEAD = struct.Struct("<BH")  # dimensions, length of the dtype
_LAST_CHARACTER = 0x10FFFF
_SURROGATES = 0xD800, 0xDFFF  # halves of characters, which no text has


@dataclass(frozen=True)
class Array:
    """Says what an API demands of an array: `page: Annotated[np.ndarray, Array(dtype="uint8",
    shape=(None, None, 3))]`.

    Args:
        dtype: the name of a numpy dtype, such as `"float32"`. Arrays have it exactly; lists of
            numbers in JSON are converted where nothing is lost but a float's precision. None: any.
        shape: the length of each axis, None for any length. None: any shape.

    Raises:
        ValueError: `dtype` is no dtype's name, or a length is negative.

    Example:
        >>> Array(dtype="float32", shape=(None, 3))
        Array(dtype='float32', shape=(None, 3))
    """

    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None and not (isinstance(self.dtype, str) and _NAME.match(self.dtype)):
            raise ValueError(
                "Array(dtype=…) is the name of a numpy dtype, such as 'float32', not"
                f" {self.dtype!r}"
            )
        if self.shape is not None and not (
            isinstance(self.shape, tuple) and all(map(_is_length, self.shape))
        ):
            raise ValueError(
                "Array(shape=…) is a tuple of lengths from 0, None for any length, not"
                f" {self.shape!r}"
            )


@dataclass(frozen=True)
class Demand:
    """Holds what a hint demands of an array, in numpy's own terms; `demand` makes it.

    Args:
        dtype: the exact dtype, or None.
        scalar: the class that the dtype's scalars have (`NDArray[np.floating]`), or None.
        shape: as in `Array`.
    """

    dtype: AnyDtype | None
    scalar: type | None
    shape: tuple[int | None, ...] | None


def demand(hint: Hint, metadata: tuple[object, ...]) -> Demand:
    """Read what an array's hint and its `Annotated` metadata demand.

    Raises:
        TypeError: the dtype does not exist, or cannot cross a socket.
    """
    import numpy as np

    dtype = None
    scalar = None
    shape = None
    for argument in typing.get_args(hint):
        if typing.get_origin(argument) is np.dtype:
            scalar = typing.get_args(argument)[0]
    if not isinstance(scalar, type) or scalar in (np.generic, Any):
        scalar = None
    for extra in metadata:
        if isinstance(extra, Array):
            dtype = np.dtype(extra.dtype) if extra.dtype else dtype
            shape = extra.shape if extra.shape is not None else shape
    if dtype is not None or scalar is np.object_:
        describe(dtype or np.dtype("O"))
    return Demand(dtype, scalar, shape)


def admit(array: AnyArray, wanted: Demand) -> AnyArray:
    """Check an array that arrived; what came as a list (and is still writable) is converted.

    It ends read-only.

    Raises:
        Misfit: its dtype or shape is not what is demanded.
    """
    if array.flags.writeable:
        array = _convert(array, wanted)
        shape = shape_of_empty(array.shape, wanted.shape)
        array = freeze(array if shape == array.shape else array.reshape(shape).copy())
    if wanted.dtype is not None and array.dtype != wanted.dtype:
        raise Misfit(f"Expected an array of dtype {wanted.dtype}, got {array.dtype}")
    if wanted.scalar is not None and not _is_of(array.dtype, wanted.scalar):
        raise Misfit(f"Expected an array of {wanted.scalar.__name__}, got {array.dtype}")
    if wanted.shape is not None:
        check_shape("an array", array.shape, wanted.shape)
    return array


def shape_of_empty(
    found: tuple[int, ...], wanted: tuple[int | None, ...] | None
) -> tuple[int, ...]:
    """Return the shape of an array of lists; empty ones do not say how long the axes are that are
    behind them, so these are as long as is demanded: `[]` can be a table of two columns.
    """
    if wanted is None or found[-1:] != (0,):
        return found
    return found + tuple(n or 0 for n in wanted[len(found) :])


def check_shape(what: str, found: tuple[int, ...], shape: tuple[int | None, ...] | None) -> None:
    """Check the shape of an array, or of what is like one.

    Args:
        what: it is, for messages.
        found: its shape.
        shape: the length of each axis, None for any; None: any shape.

    Raises:
        Misfit: it is another one.
    """
    if shape is not None and (
        len(shape) != len(found)
        or any(n is not None and n != m for n, m in zip(shape, found, strict=True))
    ):
        text = (
            "("
            + ", ".join("any" if n is None else str(n) for n in shape)
            + ("," if len(shape) == 1 else "")
            + ")"
        )
        raise Misfit(f"Expected {what} of shape {text}, got {found}", "value_error")


def from_list(value: object) -> AnyArray:
    """Return a new array from nested lists of numbers, of booleans or of strings; writable until
    `admit` has seen it.

    None among numbers is NaN.

    Raises:
        Misfit: the lists are ragged, or hold something else.
    """
    import numpy as np

    if type(value) not in (list, int, float, bool, str):
        raise Misfit(
            "Expected an array as nested lists, got"
            f" `{'null' if value is None else type(value).__name__}`"
        )
    kinds = _leaf_types(value if type(value) is list else [value])
    if not any(kinds <= allowed for allowed in _LEAF_TYPES):
        names = ", ".join(sorted("null" if kind is type(None) else kind.__name__ for kind in kinds))
        raise Misfit(
            f"Expected an array of numbers, of booleans or of strings, got a list with {names}"
        )
    if kinds == {str}:
        _check_text(value)
    if type(None) in kinds:
        value = _with_nan(value)
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        raise Misfit("Expected an array, got lists of different lengths", "value_error") from None
    if array.dtype.hasobject:
        raise Misfit("Expected an array, got an integer that is too large", "value_error")
    return array


def scalar(kind: type, value: object) -> object:
    """Return one of numpy's scalars, from what arrived for it: a number, string or bytes, or an
    array without axes.

    Raises:
        Misfit: it is of another kind, or out of range.
    """
    import numpy as np

    if value is None and issubclass(kind, np.inexact):
        value = math.nan
    if not isinstance(value, np.ndarray):
        value = np.array(value) if isinstance(value, bytes) else from_list(value)
    if value.ndim:
        raise Misfit(f"Expected `{kind.__name__}`, got an array of shape {value.shape}")
    concrete = _is_concrete(kind) and not issubclass(
        kind, np.flexible | np.datetime64 | np.timedelta64
    )
    if concrete and value.flags.writeable:
        value = _convert(value, Demand(np.dtype(kind), None, None))
    if not _is_of(value.dtype, kind):
        raise Misfit(f"Expected `{kind.__name__}`, got `{value.dtype}`")
    return value.astype(kind)[()] if concrete else value[()]


def _convert(array: AnyArray, wanted: Demand) -> AnyArray:
    dtype = wanted.dtype
    if dtype is None and wanted.scalar is not None:
        dtype = _dtype_for(array, wanted.scalar)
    if dtype is None or array.dtype == dtype:
        return array
    if array.size == 0:
        return array.astype(dtype)
    convert = _CONVERSIONS.get(dtype.kind)
    if convert is None or (converted := convert(array, dtype)) is None:
        raise Misfit(f"Expected an array of dtype {dtype}, got {array.dtype}")
    return converted


def _to_float(array: AnyArray, dtype: AnyDtype) -> AnyArray | None:
    import numpy as np

    if array.dtype.kind not in "iuf":
        return None
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if not np.array_equal(np.isfinite(array), np.isfinite(converted)):
        raise Misfit(
            f"Expected an array of dtype {dtype}, got a number that is too large for it",
            "value_error",
        )
    return converted


def _to_int(array: AnyArray, dtype: AnyDtype) -> AnyArray | None:
    import numpy as np

    if array.dtype.kind not in "iu":
        return None
    bounds = np.iinfo(dtype)
    if int(array.min()) < bounds.min or int(array.max()) > bounds.max:
        raise Misfit(
            f"Expected an array of dtype {dtype}, got a number out of its range", "value_error"
        )
    return array.astype(dtype)


def _to_text(array: AnyArray, dtype: AnyDtype) -> AnyArray | None:
    if array.dtype.kind != "U":
        return None
    converted = None
    number = array.size
    # each has the length that the annotation says
    _check_size(dtype.itemsize * number, number, 0, DECODED_TIMES)
    try:
        converted = array.astype(dtype)
        lost = dtype.kind in "SU" and bool((converted.astype(array.dtype) != array).any())
    except ValueError:
        lost = True
    if lost:
        raise Misfit(
            f"Expected an array of dtype {dtype}, got a string that does not fit it", "value_error"
        )
    return converted


_CONVERSIONS: dict[str, Callable[[AnyArray, AnyDtype], AnyArray | None]] = {
    "f": _to_float,
    "c": _to_float,
    "i": _to_int,
    "u": _to_int,
    "S": _to_text,
    "U": _to_text,
    "M": _to_text,
}


def _dtype_for(array: AnyArray, kind: type) -> AnyDtype | None:
    import numpy as np

    if _is_concrete(kind):
        return None if issubclass(kind, np.timedelta64 | np.void) else np.dtype(kind)
    wants_float = kind in (np.floating, np.inexact)
    return np.dtype("float64") if wants_float and array.dtype.kind in "iu" else None


def _is_of(dtype: AnyDtype, kind: type) -> bool:
    import numpy as np

    if _is_concrete(kind) and not dtype.isnative:
        return False  # as with `Array`: the dtype is meant exactly, its order of bytes too
    # One size of integer has two classes (int64 and longlong); only one arrives.
    return issubclass(dtype.type, kind) or (_is_concrete(kind) and dtype == np.dtype(kind))


def _leaf_types(value: list[Any]) -> set[type]:
    """Return the types of what is in nested lists;
    list itself if they are nested too deeply to be an array.
    """
    found: set[type] = set()
    level = value
    for _ in range(MAX_DIMENSIONS):
        kinds = set(map(type, level))
        if list not in kinds:
            return found | kinds
        found |= kinds - {list}
        inner = level if kinds == {list} else [item for item in level if type(item) is list]
        level = list(itertools.chain.from_iterable(inner))
    return found | set(map(type, level))


def _with_nan(value: object) -> object:
    if type(value) is list:
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value


def _check_text(value: object) -> None:
    # Each element of an array of text has the bytes of the longest one, four a character.
    number, characters, longest = _measure([value])
    _check_size(4 * number * longest, number, characters, ARRAY_TIMES)


def _check_size(made: int, number: int, characters: int, times: int) -> None:
    came = 3 * number + characters  # as JSON, at least
    if made > max(ARRAY_FLOOR, times * came):
        said = (
            f"Expected an array, got texts that would take {made:,} bytes as one: send them as a"
            " list"
        )
        raise Misfit(said, "value_error")


def _measure(value: list[object]) -> tuple[int, int, int]:
    """Return how many strings there are in nested lists, how many characters they have, and the
    longest one has.
    """
    lengths = [len(item) for item in value if type(item) is str]
    number = len(lengths)
    characters = sum(lengths)
    longest = max(lengths, default=0)
    for item in value:
        if type(item) is list:
            more, further, length = _measure(item)
            number += more
            characters += further
            longest = max(longest, length)
    return number, characters, longest


def _is_concrete(kind: type) -> bool:
    return not kind.__subclasses__() or kind.__name__ in ("float64", "str_", "bytes_")


def _is_length(length: object) -> bool:
    return length is None or (
        isinstance(length, int) and not isinstance(length, bool) and length >= 0
    )


def pack(array: AnyArray) -> tuple[bytes, memoryview]:
    """Return an array as a header (dtype and shape) and its elements in C order; elements that lie
    in this order are not copied.

    Raises:
        Misfit: its dtype cannot cross a socket.
    """
    import numpy as np

    if type(array) is not np.ndarray and isinstance(array, np.ma.MaskedArray):
        raise Misfit("a masked array cannot be sent: fill it first (.filled())")
    descr = describe(array.dtype)
    check_rows(array.shape)
    header = (
        _HEAD.pack(array.ndim, len(descr)) + descr + struct.pack(f"<{array.ndim}Q", *array.shape)
    )
    if array.size == 0:
        return header, memoryview(b"")
    flat = np.ascontiguousarray(array).reshape(-1).view(np.ndarray)
    return header, flat.view(np.uint8).data


def unpack(data: memoryview, place: memoryview | None = None, *, public: bool = False) -> AnyArray:
    """Return the read-only array that `pack` described,
    over the bytes behind the header, or over `place`.

    The elements are not copied, unless they lie at an address that their type cannot be read from.

    Args:
        data: the header, and the elements if they are not elsewhere.
        place: where the elements are.
        public: whether it is from a client, who may send fewer rows without elements, fewer axes,
            and no text that no answer could have.

    Raises:
        Misfit: the bytes are no array.
    """
    end = _header_size(data)
    dtype, shape, size = _layout(bytes(data[:end]))
    return over(dtype, shape, size, data[end:] if place is None else place, public=public)


def over(
    dtype: AnyDtype,
    shape: tuple[int, ...],
    size: int,
    elements: memoryview,
    *,
    public: bool = False,
) -> AnyArray:
    """Return a read-only array over its elements, which have `size` bytes, as `unpack` does.

    Raises:
        Misfit: there are more of them, or fewer; or what `unpack` refuses.
    """
    import numpy as np

    if public:
        _check_axes(dtype, shape)
    if size != elements.nbytes:
        raise Misfit(
            f"an array of dtype {dtype} and shape {shape} does not have {elements.nbytes} bytes"
        )
    check_rows(shape, EMPTY_ROWS if public else EMPTY_ROWS_BETWEEN)
    memory: memoryview | AnyArray | None = None
    if size:
        memory = elements = elements.toreadonly()
        if type(elements.obj) is not bytes:
            # Of a memoryview numpy takes the object behind it, and could be told to write there.
            memory = np.frombuffer(elements, np.uint8)
    try:
        array: AnyArray = np.ndarray(shape, dtype, memory)
    except (ValueError, MemoryError) as exc:
        raise Misfit(f"an array of shape {shape} cannot be: {exc}") from None
    if not array.flags.aligned:
        array = array.copy()
    if size and dtype.kind in "bUV":
        _check_elements(array, public)
    return freeze(array) if array.flags.writeable else array


def freeze(array: AnyArray) -> AnyArray:
    """Return a read-only view of a new array;
    unlike the array itself it cannot be made writable again.
    """
    array.flags.writeable = False
    return array.view()


def check_rows(shape: tuple[int, ...], most: int = EMPTY_ROWS_BETWEEN) -> None:
    """Check how many rows an array without elements has: a few bytes can say any number, and
    whoever loops over it is busy for as long.

    Raises:
        Misfit: there are more than `most`.
    """
    if 0 in shape and (rows := math.prod(shape[: shape.index(0)])) > most:
        raise Misfit(
            f"an array of shape {shape} has {rows:,} rows without elements; {most:,} are allowed"
        )


def check_lists(array: AnyArray) -> None:
    """Check how many lists an array from the public becomes where nothing takes an array.

    Raises:
        Misfit: more than it has bytes.
    """
    lists = _lists(array.shape) + array.size * _lists_inside(array.dtype)
    if lists > max(LISTS_FLOOR, array.nbytes):
        raise Misfit(
            f"an array of shape {array.shape} has too many rows for its bytes to be read as lists:"
            " send lists"
        )


def _lists(shape: tuple[int, ...]) -> int:
    return sum(math.prod(shape[:index]) for index in range(len(shape)))


def _lists_inside(dtype: AnyDtype) -> int:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return _lists(shape) + math.prod(shape) * _lists_inside(base)
    return 0 if dtype.names is None else 1 + sum(_lists_inside(dtype[name]) for name in dtype.names)


def _check_axes(dtype: AnyDtype, shape: tuple[int, ...]) -> None:
    inner, of_one = _axes(dtype)
    if len(shape) + inner > AXES:
        raise Misfit(f"an array has more than {AXES} axes, those inside its records included")
    if shape.count(1) + of_one > AXES_OF_ONE:
        raise Misfit(
            f"an array has more than {AXES_OF_ONE} axes of length 1, those inside its records"
            " included"
        )


@lru_cache(maxsize=256)
def _axes(dtype: AnyDtype) -> tuple[int, int]:
    """Return the most axes that an element has inside, and the most of length 1; a record counts as
    one axis, as long as its fields.
    """
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        inner, of_one = _axes(base)
        return len(shape) + inner, shape.count(1) + of_one
    if dtype.names is None:
        return 0, 0
    found = [_axes(dtype[name]) for name in dtype.names]
    return 1 + max(each[0] for each in found), (len(found) == 1) + max(each[1] for each in found)


def _check_elements(array: AnyArray, public: bool) -> None:
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
        if characters.max() > _LAST_CHARACTER or (
            public and ((characters >= first) & (characters <= last)).any()
        ):
            raise Misfit("an array of text has bytes that are no characters")


@lru_cache(maxsize=256)
def describe(dtype: AnyDtype) -> bytes:
    """Return a dtype as bytes; `undescribe` reads them.

    Raises:
        Misfit: arrays of this dtype cannot be sent.
    """
    if dtype.hasobject:
        raise Misfit(
            "an array of objects cannot be sent: give it a dtype of numbers, or send a list"
        )
    if dtype.itemsize == 0:
        raise Misfit(f"an array of dtype {dtype} has elements without bytes and cannot be sent")
    try:
        from numpy.lib.format import dtype_to_descr

        text = dtype.str if dtype.names is None else own_json.dumps(dtype_to_descr(dtype))
        if undescribe(text.encode()) == dtype:
            return text.encode()
    except (TypeError, ValueError):
        pass
    raise Misfit(
        f"an array of dtype {dtype} cannot be sent: view or convert it to one of numpy's own dtypes"
    )


@lru_cache(maxsize=256)
def undescribe(descr: bytes) -> AnyDtype:
    """Return the dtype that `describe` wrote.

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
def _layout(header: bytes) -> tuple[AnyDtype, tuple[int, ...], int]:
    dimensions, length = _HEAD.unpack_from(header)
    if len(header) < _HEAD.size + length + 8 * dimensions:
        raise Misfit("the header of an array is cut off")
    shape = struct.unpack_from(f"<{dimensions}Q", header, _HEAD.size + length)
    dtype = undescribe(header[_HEAD.size : _HEAD.size + length])
    return dtype, shape, math.prod(shape) * dtype.itemsize


def _tuples(descr: str | list[list[Any]]) -> Any:
    if isinstance(descr, str):
        return descr
    return [_field(*field) for field in descr]


def _field(name: object, descr: object, shape: object = None) -> tuple[object, ...]:
    if not isinstance(descr, list) and not (isinstance(descr, str) and _SIMPLE.match(descr)):
        raise Misfit("no such dtype")
    name = tuple(name) if isinstance(name, list) else name
    if shape is None:
        return name, _tuples(descr)
    if not isinstance(shape, list) or 0 in shape:
        # a field without bytes has rows without elements, in each element
        raise Misfit("no such dtype")
    return name, _tuples(descr), tuple(shape)
