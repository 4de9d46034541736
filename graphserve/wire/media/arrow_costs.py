"""Bounds what a few bytes of a client can become as a table: they are looked at before Arrow reads
them, and again after.

Before: what Arrow would unpack. Parquet's pages say in their headers how large they are unpacked,
and how many values they have; all headers are read here, in Thrift's compact protocol. Of an Arrow
stream only whether it is compressed: the rest is read where it lies. After: how many cells there
are and what is in them, since a dictionary, a view or nothing at all may stand for very many.

Only this file and `tables` know pyarrow, which is imported where an API has a table.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from graphserve.wire.costs.bounds import (
    TABLE_CELL,
    TABLE_COLUMNS,
    TABLE_DEPTH,
    TABLE_FLOOR,
    TABLE_NESTED,
    TABLE_TEXT,
    TABLE_TIMES,
)
from graphserve.wire.exceptions import Misfit

if TYPE_CHECKING:
    import pyarrow as pa


def most_bytes(came: int) -> int:
    """Return how many bytes a table may take of which so many have come."""
    return max(TABLE_FLOOR, TABLE_TIMES * came)


def out_of_proportion(came: int) -> Misfit:
    """Return the refusal of a table that would be out of proportion to what has come."""
    return Misfit(
        f"a table of {came:,} bytes would become more than {most_bytes(came):,} bytes: that is more"
        " than is allowed",
        "value_error",
    )


# --- a table that has been read ---


def check_table(table: pa.Table, came: int) -> None:
    """Check what is in a table of a client.

    Args:
        table: the table, whose buffers have been validated.
        came: how many bytes it was made of.

    Raises:
        Misfit: it would take too much memory as somebody uses it, or has a type that is not taken.
    """
    check_columns(table.column_names)
    for field in table.schema:
        _check_names(field.type, TABLE_DEPTH + 1)
    left = most_bytes(came)
    for name, column in zip(table.column_names, table.columns, strict=True):
        for chunk in column.chunks:
            try:
                left -= _weight(chunk, TABLE_DEPTH)
            except Misfit as exc:
                raise Misfit(f"column {_short(name)}: {exc}", exc.kind) from None
            if left < 0:
                raise out_of_proportion(came)


def check_columns(names: list[str]) -> None:
    """Check the names of the columns of a client's table.

    Raises:
        Misfit: there are too many, or one is there twice.
    """
    if len(names) > TABLE_COLUMNS:
        raise Misfit(
            f"a table has {len(names):,} columns; {TABLE_COLUMNS:,} are allowed", "value_error"
        )
    seen: set[str] = set()
    for name in names:
        _check_name(name)
        if name in seen:
            raise Misfit(f"a table has two columns {_short(name)}", "value_error")
        seen.add(name)


def _check_names(kind: pa.DataType, depth: int) -> None:
    """Check the names inside a type, of which there may be some without a row."""
    if not depth:
        raise Misfit("a column is nested too deeply", "value_error")
    for index in range(kind.num_fields):
        field = kind.field(index)
        _check_name(field.name)
        _check_names(field.type, depth - 1)


def _check_name(name: str) -> None:
    if "\0" in name:  # (of which polars makes a string of C's)
        raise Misfit("the name of a column has a character NUL", "value_error")


def _weight(array: pa.Array, depth: int) -> int:
    """Return about how many bytes an array takes as its users have it: a cell of text is a string
    then, one with a list an array.
    """
    import pyarrow as pa
    from pyarrow import types

    kind = array.type
    rows = len(array)
    if isinstance(kind, pa.BaseExtensionType):
        raise Misfit("a type of an extension is not accepted", "value_error")
    if types.is_dictionary(kind):
        if types.is_nested(kind.value_type) or types.is_dictionary(kind.value_type):
            raise Misfit(f"type {_short(str(kind))} is not accepted", "value_error")
        return TABLE_CELL * rows + _weight(array.dictionary, depth) + _said(array)
    if types.is_temporal(kind) and not types.is_interval(kind):
        _check_times(array)
    if types.is_null(kind) or types.is_boolean(kind) or types.is_primitive(kind):
        plain = types.is_null(kind) or types.is_boolean(kind) or not types.is_date(kind)
        return (TABLE_CELL if plain else TABLE_TEXT) * rows
    if types.is_decimal(kind):
        return TABLE_TEXT * rows
    if _is_text(kind):
        return TABLE_TEXT * rows + _characters(array)
    if not depth:
        raise Misfit("it is nested too deeply", "value_error")
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _weight(array.values, depth - 1)
    elif types.is_map(kind):
        inner = _weight(array.keys, depth - 1) + _weight(array.items, depth - 1)
    elif types.is_struct(kind) and kind.num_fields:
        fields = (array.field(index) for index in range(kind.num_fields))
        inner = sum(_weight(field, depth - 1) for field in fields)
    else:
        raise Misfit(f"type {_short(str(kind))} is not accepted", "value_error")
    return TABLE_NESTED * rows + inner


_DAY = 86_400  # seconds
_FIRST_DAY = -719_162 + 1  # of Python's dates, counted from 1970, and the last; a day less, since
_LAST_DAY = 2_932_896 - 1  # in its time zone a moment may be one of the day beside it
_MOST_DAYS = 999_999_999  # of a timedelta
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_OFFSET_OF_ZONE = re.compile(r"[+-](?:[01]\d|2[0-3]):[0-5]\d\Z")


def _check_times(array: pa.Array) -> None:
    """Check that all moments and durations are such as Python has."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    kind = array.type
    if types.is_date(kind):
        unit = 1_000 * _DAY if types.is_date64(kind) else 1  # of a day
        least, most = _FIRST_DAY * unit, _LAST_DAY * unit
    else:
        unit = _PER_SECOND[kind.unit] * _DAY
        if types.is_timestamp(kind):
            least, most = _FIRST_DAY * unit, _LAST_DAY * unit
            _check_zone(kind.tz)
        elif types.is_duration(kind):
            least, most = -_MOST_DAYS * unit, _MOST_DAYS * unit
        else:
            least, most = 0, unit - 1
    found = pc.min_max(array.view(pa.int32() if kind.bit_width == 32 else pa.int64()))
    if found["min"].is_valid and (found["min"].as_py() < least or found["max"].as_py() > most):
        raise Misfit("a time in it is out of range: years 1 to 9999 are accepted", "value_error")


def _check_zone(name: str | None) -> None:
    if name is None or _OFFSET_OF_ZONE.match(name):
        return
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise Misfit(f"time zone {_short(name)} is not known", "value_error") from None


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_string_view(kind)
        or types.is_binary_view(kind)
    )


def _characters(array: pa.Array) -> int:
    """Return how many bytes the texts of an array have, each as often as it is there."""
    import pyarrow.compute as pc
    from pyarrow import types

    if types.is_string_view(array.type) or types.is_binary_view(array.type):
        # (of a view, 16 bytes, the first four are the length)
        views = array.buffers()[1]
        lengths = memoryview(views).cast("B").cast("i") if views is not None else []
        return sum(lengths[4 * array.offset : 4 * (array.offset + len(array)) : 4])
    return int(pc.sum(pc.binary_length(array)).as_py() or 0)


def _said(array: pa.DictionaryArray) -> int:
    """Return how many bytes more an array of a dictionary's values would have without it."""
    import pyarrow.compute as pc

    if not _is_text(array.dictionary.type):
        return 0
    if array.dictionary.type.id not in _measured():
        return len(array) * _characters(array.dictionary)  # (at most)
    lengths = pc.binary_length(array.dictionary)
    return int(pc.sum(pc.take(lengths, array.indices)).as_py() or 0)


def _measured() -> set[int]:
    import pyarrow as pa

    return {pa.string().id, pa.large_string().id, pa.binary().id, pa.large_binary().id}


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:59] + "…")


# --- a stream of Arrow's ---

_MESSAGE = struct.Struct("<Ii")  # what every message begins with, and the length of its metadata
_CONTINUES = 0xFFFFFFFF
_HEADER_TYPE = 1  # fields of the table `Message`, and
_HEADER = 2
_BODY_LENGTH = 3
_DICTIONARY_BATCH = 2  # kinds of header
_RECORD_BATCH = 3
_DATA = 1  # of the table `DictionaryBatch`
_COMPRESSION = 3  # of the table `RecordBatch`


def check_stream(data: memoryview) -> None:
    """Check that nothing in a stream of Arrow's is compressed, whose size nobody knows before.

    Raises:
        Misfit: something is, or it is no such stream.
    """
    at = 0
    while at < data.nbytes:
        begins, length = _unpacked(_MESSAGE, data, at)
        if begins != _CONTINUES:
            raise Misfit("it is no stream of Arrow's, or one of before version 0.15", "value_error")
        if length == 0:
            return
        end = at + _MESSAGE.size + length
        if length < 0 or end > data.nbytes:
            raise _cut_off()
        message = _root(data[at + _MESSAGE.size : end])
        header = message.table(_HEADER)
        kind = message.number(_HEADER_TYPE, _BYTE)
        if kind == _DICTIONARY_BATCH and header is not None:
            header = header.table(_DATA)
        if kind in (_DICTIONARY_BATCH, _RECORD_BATCH) and (
            header is None or header.place(_COMPRESSION) is not None
        ):
            raise Misfit("the stream is compressed: send it without compression", "value_error")
        body = message.number(_BODY_LENGTH, _LONG)
        if body < 0:
            raise _cut_off()
        at = end + body


_OFFSET = struct.Struct("<I")
_BACK = struct.Struct("<i")
_SHORT = struct.Struct("<H")
_BYTE = struct.Struct("<B")
_LONG = struct.Struct("<q")


class _Flat:
    """A table of FlatBuffers: its fields are found by a list of places in front of it."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: memoryview, at: int) -> None:
        self._data = data
        self._at = at

    def place(self, field: int) -> int | None:
        """Return where a field is, None if it is not there."""
        places = self._at - _unpacked(_BACK, self._data, self._at)[0]
        (size,) = _unpacked(_SHORT, self._data, places)
        at = 4 + 2 * field
        if at + 2 > size:
            return None
        (found,) = _unpacked(_SHORT, self._data, places + at)
        return self._at + found if found else None

    def number(self, field: int, kind: struct.Struct) -> int:
        """Return a number, 0 if it is not there."""
        place = self.place(field)
        return 0 if place is None else int(_unpacked(kind, self._data, place)[0])

    def table(self, field: int) -> _Flat | None:
        """Return a table inside."""
        place = self.place(field)
        if place is None:
            return None
        return _Flat(self._data, place + _unpacked(_OFFSET, self._data, place)[0])


def _root(data: memoryview) -> _Flat:
    return _Flat(data, _unpacked(_OFFSET, data, 0)[0])


def _unpacked(kind: struct.Struct, data: memoryview, at: int) -> tuple[int, ...]:
    if at < 0 or at + kind.size > data.nbytes:
        raise _cut_off()
    return kind.unpack_from(data, at)


def _cut_off() -> Misfit:
    return Misfit("it is cut off, or no table", "value_error")


# --- a Parquet file ---

_ENCODINGS = frozenset({0, 2, 3, 5, 6, 8, 9})  # all but DELTA_BYTE_ARRAY, where each value may
# repeat the one before without a byte of its own
_DATA_PAGE = 0  # types of pages, and where their headers have what is looked at
_DICTIONARY_PAGE = 2
_DATA_PAGE_V2 = 3
_TYPE = 1
_UNPACKED_SIZE = 2
_PACKED_SIZE = 3
_OF_TYPE = {_DATA_PAGE: 5, _DICTIONARY_PAGE: 7, _DATA_PAGE_V2: 8}
_VALUES = 1
_ENCODING = {_DATA_PAGE: 2, _DICTIONARY_PAGE: 2, _DATA_PAGE_V2: 4}
_PARQUET = b"PAR1"
_ENDS = struct.Struct("<I4s")  # how it ends: the length of what is said in front of it
_GROUPS = 4  # fields of `FileMetaData`, …
_COLUMNS = 1  # of `RowGroup`,
_ROWS = 3
_OTHER_FILE = 1  # of `ColumnChunk`,
_METADATA = 3
_KIND = 1  # of `ColumnMetaData`
_PATH = 3
_COMPRESSED = 7
_FIRST_PAGE = 9
_DICTIONARY_AT = 11
_TEXT = 6  # kinds of columns
_FIXED_TEXT = 7


def check_parquet(data: memoryview) -> None:
    """Check what a Parquet file would be unpacked; its end is read here too, since pyarrow has it
    end the process where something in it is wrong.

    Raises:
        Misfit: it would be too large, or is broken.
    """
    came = data.nbytes
    left = most_bytes(came)
    for columns, rows in _groups(data):
        if rows < 0 or rows * TABLE_CELL * max(1, len(columns)) > left:
            raise out_of_proportion(came)
        for column in columns:
            left -= _chunk(data, column, left, came)
            if left < 0:
                raise out_of_proportion(came)


class _Column(NamedTuple):
    kind: int
    depth: int  # of its name
    size: int
    first_page: int
    dictionary: int


def _groups(data: memoryview) -> Iterator[tuple[list[_Column], int]]:
    """Yield the columns of each group of rows, and how many these are."""
    end = data.nbytes - _ENDS.size
    if end < len(_PARQUET):
        raise _cut_off()
    length, ends = _ENDS.unpack_from(data, end)
    if ends != _PARQUET or length > end:
        raise _cut_off()
    said = _Thrift(data, end - length, end).struct()
    for group in _structs(said.get(_GROUPS)):
        columns = [_column(each) for each in _structs(group.get(_COLUMNS))]
        if len(columns) > TABLE_COLUMNS:
            raise Misfit(f"a table has more than {TABLE_COLUMNS:,} columns", "value_error")
        yield columns, _integer(group, _ROWS)


def _column(chunk: _Fields) -> _Column:
    said = chunk.get(_METADATA)
    if _OTHER_FILE in chunk or not isinstance(said, dict):
        raise Misfit("its columns are not in the file itself", "value_error")
    path = said.get(_PATH)
    return _Column(
        _integer(said, _KIND),
        len(path) if isinstance(path, list) else 1,
        _integer(said, _COMPRESSED),
        _integer(said, _FIRST_PAGE),
        _integer(said, _DICTIONARY_AT),
    )


def _structs(found: object) -> Iterator[_Fields]:
    for each in found if isinstance(found, list) else ():
        if not isinstance(each, dict):
            raise _cut_off()
        yield each


def _integer(fields: _Fields, number: int) -> int:
    found = fields.get(number, 0)
    if not isinstance(found, int):
        raise _cut_off()
    return found


def _chunk(data: memoryview, column: _Column, left: int, came: int) -> int:
    """Return how many bytes a column of a group of rows has, unpacked."""
    begin = column.first_page
    if 0 < column.dictionary < begin:
        begin = column.dictionary
    size = values = dictionary = 0
    for page in _pages(data, begin, begin + column.size):
        size += page.size
        if page.kind == _DICTIONARY_PAGE:
            dictionary = max(dictionary, page.size)
        else:
            values += page.values
        if size + TABLE_CELL * values > left:
            raise out_of_proportion(came)
    # A flat column of text is read with its dictionary, and looked at then; of others each value is
    # written out.
    if column.kind == _FIXED_TEXT or (column.kind == _TEXT and column.depth > 1):
        size += values * dictionary
    return size + TABLE_CELL * values


class _Page(NamedTuple):
    kind: int
    size: int
    values: int


def _pages(data: memoryview, begin: int, end: int) -> Iterator[_Page]:
    if not 0 <= begin <= end <= data.nbytes:
        raise _cut_off()
    thrift = _Thrift(data, begin, end)
    while thrift.at < end:
        header = thrift.struct()
        kind, size, packed = (_integer(header, n) for n in (_TYPE, _UNPACKED_SIZE, _PACKED_SIZE))
        if size < 0 or packed < 0 or thrift.at + packed > end:
            raise _cut_off()
        thrift.at += packed
        if kind not in _OF_TYPE:
            yield _Page(kind, size, 0)
            continue
        said = header.get(_OF_TYPE[kind])
        values = said.get(_VALUES, 0) if isinstance(said, dict) else None
        encoding = said.get(_ENCODING[kind], 0) if isinstance(said, dict) else None
        if not isinstance(values, int) or values < 0:
            raise _cut_off()
        if encoding not in _ENCODINGS:
            raise Misfit("an encoding in it is not accepted: write it with another", "value_error")
        yield _Page(kind, size, values)


_Fields = dict[int, object]  # numbers, structs, lists of these, and None for all else
_DEEPEST = 16  # structs and lists inside each other


class _Thrift:
    """Reads Thrift's compact protocol: of a struct the numbers in it, the structs and lists."""

    def __init__(self, data: memoryview, at: int, end: int) -> None:
        self.at = at
        self._data = data
        self._end = end

    def struct(self, depth: int = _DEEPEST) -> _Fields:
        """Return the fields of a struct, by their numbers."""
        if not depth:
            raise _cut_off()
        fields: _Fields = {}
        number = 0
        while kind := self._byte():
            step = kind >> 4
            number = number + step if step else self._number()
            fields[number] = self._value(kind & 0xF, depth)
        return fields

    def _value(self, kind: int, depth: int) -> object:
        if kind in (1, 2):  # a boolean, which the kind says
            return 2 - kind
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._number()
        if kind == 7:
            self._skip(8)
        elif kind == 8:
            self._skip(self._length())
        elif kind in (9, 10):
            return self._list(depth)
        elif kind == 12:
            return self.struct(depth - 1)
        else:  # no header of a page has a map
            raise _cut_off()
        return None

    def _list(self, depth: int) -> list[object]:
        head = self._byte()
        count = head >> 4
        if count == 0xF:
            count = self._length()
        if count > self._end - self.at or not depth:
            raise _cut_off()
        kind = head & 0xF
        if kind in (1, 2):  # in a list a boolean is a byte
            self._skip(count)
            return []
        return [self._value(kind, depth - 1) for _ in range(count)]

    def _byte(self) -> int:
        if self.at >= self._end:
            raise _cut_off()
        self.at += 1
        return self._data[self.at - 1]

    def _skip(self, length: int) -> None:
        if length > self._end - self.at:
            raise _cut_off()
        self.at += length

    def _length(self) -> int:
        found = shift = 0
        while True:
            byte = self._byte()
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return found
            shift += 7
            if shift > 63:
                raise _cut_off()

    def _number(self) -> int:
        found = self._length()  # zigzag
        return (found >> 1) ^ -(found & 1)
