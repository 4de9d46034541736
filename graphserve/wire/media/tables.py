"""Tables (`pandas.DataFrame`, `polars.DataFrame`, `pyarrow.Table`): read from CSV, Arrow, Parquet
or JSON of a client and written to one, and sent between services as Arrow.

All three are an Arrow table on their way: pyarrow reads and writes everything, and each library
makes its own of it. What a client may send is bounded in `arrow_costs`; that, and this file, know
pyarrow, which is imported where an API has a table.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import importlib.util
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from graphserve.wire import type_hints
from graphserve.wire.costs.bounds import TABLE_COLUMNS, TABLE_DEPTH, TABLE_SPARSE
from graphserve.wire.exceptions import Misfit
from graphserve.wire.media import arrow_costs
from graphserve.wire.media.classes import MARKS, KindName, name_of_kind
from graphserve.wire.media.octets import no_options
from graphserve.wire.media.received import ReceivedFile

if TYPE_CHECKING:
    import pyarrow as pa

    from graphserve.wire.media.kinds import PackedKind

    Table: TypeAlias = pa.Table

CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
JSON = "application/json"
ROWS = "rows"  # how a table is in JSON
COLUMNS = "columns"
_AS_PARQUET = frozenset({PARQUET, "application/x-parquet", "application/parquet"})
_AS_CSV = frozenset({CSV, "text/plain", "application/csv", "application/vnd.ms-excel"})
_UNKNOWN = frozenset({"", "application/octet-stream"})
_STREAM_BEGINS = b"\xff\xff\xff\xff"
_PARQUET_BEGINS = b"PAR1"
_READ = "CSV, a stream of Arrow or Parquet"
_THRIFT_STRINGS = 16 * 1024 * 1024  # bytes of all text at the end of a Parquet file
_THRIFT_ITEMS = 1_000_000
_MESSAGE_CHARACTERS = 200  # of what Arrow says of a broken file
_HEADER_BYTES = 1024 * 1024  # of the names of a CSV's columns

_SCHEMA: Mapping[str, object] = {
    "anyOf": [
        {"type": "array", "items": {"type": "object"}, "title": "rows"},
        {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {}},
            "title": "columns",
        },
    ],
    "description": "A table: an object for each row, or a list for each column.",
}


class ArrowStream:
    """Writes a table as a stream of Arrow's, straight into memory: a `BufferSource`.

    Args:
        table: the table.
    """

    def __init__(self, table: Table) -> None:
        import pyarrow as pa

        self._table = table
        counted = pa.MockOutputStream()
        _write_stream(counted, table)
        self.nbytes = int(counted.size())

    def write_into(self, memory: memoryview) -> None:
        """Write it into memory of as many bytes."""
        import pyarrow as pa

        with pa.FixedSizeBufferWriter(pa.py_buffer(memory)) as sink:
            _write_stream(sink, self._table)


class Tables:
    """Tables of one library as a kind of value.

    Args:
        key: the kind's name in `classes`.
        name: how users write the class.
        to_arrow: returns the Arrow table of a value; told whether it is for a service, where
            nothing of it may be lost, or for everybody.
        from_arrow: returns the value of an Arrow table; told the same.
    """

    received = (CSV, ARROW, PARQUET)
    offers = (CSV, ARROW, PARQUET)
    json_first = True
    is_slow = True
    by_type = True
    schema = _SCHEMA

    def __init__(
        self,
        key: KindName,
        name: str,
        to_arrow: Callable[[Any, bool], Table],
        from_arrow: Callable[[Table, bool], object],
    ) -> None:
        self.name = name
        self._key = key
        self._to_arrow = to_arrow
        self._from_arrow = from_arrow

    def read(self, value: object) -> object:
        """Return the table that a client sent: as a file, as a list of rows, or as an object of
        columns.

        Raises:
            Misfit: it is none, or would cost too much.
        """
        key = name_of_kind(value)
        if key == self._key:
            return value
        if key is not None and key in _BY_KEY:  # of a service that has no annotations
            table = _BY_KEY[key]._arrow(value, False)
        else:
            table = _read_file(value) if isinstance(value, ReceivedFile) else _of_json(value)
        with _told(f"it cannot be a {self.name}"):
            return self._from_arrow(table, False)

    @staticmethod
    def takes(media_type: str) -> bool:
        """Return whether it is said to be a file of a table, or nothing is said."""
        return media_type == ARROW or media_type in _UNKNOWN | _AS_CSV | _AS_PARQUET

    def fault(self, media_type: str, options: Mapping[str, object]) -> str | None:
        """Return what is wrong with it: a table has three types of files, without options, and
        JSON, whose `layout` is rows or columns.
        """
        if media_type == JSON:
            layout = options.get("layout", ROWS)
            if options.keys() <= {"layout"} and layout in (ROWS, COLUMNS):
                return None
            return (
                "a table as JSON has the option layout: 'rows' (an object for each) or 'columns' (a"
                " list for each)"
            )
        if media_type not in self.offers:
            known = ", ".join((*self.offers, JSON))
            return f"a table can be sent as {known}, not as {media_type}"
        return no_options(media_type, options)

    def write(self, value: object, media_type: str, options: Mapping[str, object]) -> bytes:
        """Return a table as a file.

        Raises:
            TypeError: it cannot be written so.
        """
        table = self._arrow(value, False)
        if media_type == JSON:
            as_columns = options.get("layout", ROWS) == COLUMNS
            return msgspec.json.encode(_columns(table) if as_columns else _rows(table))
        sink = io.BytesIO()
        try:
            _WRITE[media_type](sink, table)
        except (ValueError, TypeError, NotImplementedError, OSError) as exc:
            raise TypeError(f"a table cannot be written as {media_type}: {exc}") from None
        return sink.getvalue()

    def plain(self, value: object) -> object:
        """Return the rows of a table, which are objects in JSON."""
        return _rows(self._arrow(value, False))

    def packs_quickly(self, value: object) -> bool:
        """Return False: it may be of any size."""
        return False

    def pack(self, value: object) -> tuple[bytes, ArrowStream]:
        """Return a table as a header and a stream of Arrow's, for another service."""
        return bytes([MARKS[self._key]]), ArrowStream(self._arrow(value, True))

    def unpack(self, header: memoryview, payload: memoryview | None = None) -> object:
        """Return the table of a stream, whose columns stay where they are if the payload is not
        behind the header.
        """
        import pyarrow as pa

        # (behind the header nothing is aligned)
        data = pa.py_buffer(bytes(header[1:]) if payload is None else payload)
        with _told("a table between services cannot be read"):
            return self._from_arrow(pa.ipc.open_stream(data).read_all(), True)

    def _arrow(self, value: object, for_service: bool) -> Table:
        try:
            return self._to_arrow(value, for_service)
        except MemoryError:
            raise
        except BaseException as exc:  # (`_is_panic`)
            if not isinstance(exc, Exception) and not _is_panic(exc):
                raise
            raise TypeError(f"a {self.name} cannot be sent: {_first_line(exc)}") from None


@cache
def is_installed() -> bool:
    """Return whether tables can be sent here."""
    return importlib.util.find_spec("pyarrow") is not None


# --- the libraries ---


def _pandas_to_arrow(frame: Any, for_service: bool) -> Table:
    import pyarrow as pa

    if for_service:
        return pa.Table.from_pandas(frame)
    # For everybody an index is a column if it has a name, and nothing if it only counts.
    named = [name for name in frame.index.names if name is not None]
    return pa.Table.from_pandas(
        frame.reset_index(level=named) if named else frame, preserve_index=False
    )


def _pandas_from_arrow(table: Table, from_service: bool) -> object:
    return table.to_pandas(ignore_metadata=not from_service)


def _polars_to_arrow(frame: Any, for_service: bool) -> Table:
    import polars

    if any(map(_has_objects, frame.dtypes)):  # (Arrow would get their addresses)
        raise TypeError("a column of objects has nothing that can be sent")
    # (not every library reads Arrow's newest types)
    level = polars.CompatLevel.newest() if for_service else polars.CompatLevel.oldest()
    return frame.to_arrow(compat_level=level)


def _has_objects(kind: Any) -> bool:
    import polars

    inner = [field.dtype for field in getattr(kind, "fields", ())]
    if hasattr(kind, "inner"):
        inner.append(kind.inner)
    return kind == polars.Object or any(map(_has_objects, inner))


def _polars_from_arrow(table: Table, from_service: bool) -> object:
    import polars

    return polars.from_arrow(table)


def _as_it_is(table: Any, for_service: bool) -> Any:
    return table


_PANDAS = Tables("pandas", "pandas.DataFrame", _pandas_to_arrow, _pandas_from_arrow)
_POLARS = Tables("polars", "polars.DataFrame", _polars_to_arrow, _polars_from_arrow)
_ARROW = Tables("arrow", "pyarrow.Table", _as_it_is, _as_it_is)
_BY_KEY = {"pandas": _PANDAS, "polars": _POLARS, "arrow": _ARROW}
PANDAS: PackedKind = _PANDAS
POLARS: PackedKind = _POLARS
ARROW_TABLES: PackedKind = _ARROW


# --- files of clients ---


def _read_file(file: ReceivedFile) -> Table:
    data = file.data
    is_unknown = file.media_type in _UNKNOWN
    begins = data[:4]
    if file.media_type in _AS_PARQUET or (is_unknown and begins == _PARQUET_BEGINS):
        read = _read_parquet
    elif file.media_type == ARROW or (is_unknown and begins == _STREAM_BEGINS):
        read = _read_stream
    elif is_unknown or file.media_type in _AS_CSV:
        read = _read_csv
    else:
        raise Misfit(f"Expected a table as {_READ}, got {file.media_type[:80]}", "value_error")
    with _told("the table cannot be read"):
        table = read(data)
        table.validate(full=True)
        arrow_costs.check_table(table, len(data))
        # (what a client says of a column to some library is not passed on to it)
        return _bare(table)


def _bare(table: Table) -> Table:
    import pyarrow as pa

    fields = [pa.field(field.name, field.type, field.nullable) for field in table.schema]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))


def _read_stream(data: bytes) -> Table:
    import pyarrow as pa

    arrow_costs.check_stream(memoryview(data))
    return pa.ipc.open_stream(pa.py_buffer(data)).read_all()


def _read_parquet(data: bytes) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def opened(**more: Any) -> pq.ParquetFile:
        return pq.ParquetFile(
            pa.BufferReader(data),
            thrift_string_size_limit=_THRIFT_STRINGS,
            thrift_container_size_limit=_THRIFT_ITEMS,
            **more,
        )

    arrow_costs.check_parquet(memoryview(data))
    known = opened()
    arrow_costs.check_columns(known.schema_arrow.names)
    texts = {
        field.name: field.type
        for field in known.schema_arrow
        if not pa.types.is_nested(field.type) and not pa.types.is_dictionary(field.type)
    }
    # With its dictionary a column of text has each text once: how much it is without is looked at
    # before it is written out.
    table = opened(metadata=known.metadata, read_dictionary=list(texts)).read(use_threads=False)
    table.validate(full=True)
    arrow_costs.check_table(table, len(data))
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) and field.name in texts:
            column = table.column(index).cast(texts[field.name])
            table = table.set_column(index, field.name, column)
    return table


def _read_csv(data: bytes) -> Table:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names, begin = _names_of_csv(data)
    arrow_costs.check_columns(names)
    rows = memoryview(data)[begin:]
    if not bytes(rows[:1024]).strip() and not bytes(rows).strip():
        return pa.table({name: pa.nulls(0) for name in names})
    table = arrow_csv.read_csv(
        pa.BufferReader(pa.py_buffer(rows)),
        # One block, from all of which the types are found; threads are ours.
        read_options=arrow_csv.ReadOptions(
            use_threads=False, block_size=min(rows.nbytes, 2**31 - 1), column_names=names
        ),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        # Nothing is null, and "" an empty text: the writer of Arrow tells them apart so.
        convert_options=arrow_csv.ConvertOptions(
            null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    for name, column in zip(names, table.columns, strict=True):
        if pa.types.is_binary(column.type):
            raise Misfit(f"column {name[:60]!r} is not UTF-8", "value_error")
    return table


def _names_of_csv(data: bytes) -> tuple[list[str], int]:
    """Return the names of the columns, and where the rows begin."""
    import csv

    source = io.BytesIO(data)
    begins = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    source.seek(begins)

    def lines() -> Iterator[str]:
        while line := source.readline(_HEADER_BYTES):
            if source.tell() > _HEADER_BYTES:
                raise Misfit("the first line of the CSV is too long", "value_error")
            yield line.decode()

    for names in csv.reader(lines(), strict=True):
        if names:
            return names, source.tell()
    raise Misfit("the CSV has no line with the names of its columns", "value_error")


# --- JSON and msgpack of clients ---

_CELLS = frozenset(
    {
        type(None), bool, int, float, str, bytes,
        datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal,
    }
)  # fmt: skip
_FEW_CELLS = 65_536  # that may always be there, whether a record has them or not


def _of_json(value: object) -> Table:
    import pyarrow as pa

    if isinstance(value, list):
        columns: Mapping[Any, object] = _of_records(value)
    elif isinstance(value, dict):
        columns = value
    else:
        raise Misfit(
            "Expected a table as a list of objects, one a row, or an object of lists, one a column,"
            f" got `{'null' if value is None else type(value).__name__}`"
        )
    names = list(columns)
    if not all(isinstance(name, str) for name in names):
        raise Misfit("the name of a column is no text")
    arrow_costs.check_columns(names)
    arrays = {name: _column(name, values) for name, values in columns.items()}
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) > 1:
        said = f"from {min(lengths)} to {max(lengths)} values"
        raise Misfit(f"the columns of a table have as many values each, not {said}", "value_error")
    return pa.table(arrays)


def _of_records(rows: list[Any]) -> dict[str, list[object]]:
    names: dict[str, None] = {}
    values = 0
    for index, row in enumerate(rows):
        if type(row) is not dict:
            exc = Misfit(f"Expected `object`, got `{type(row).__name__}`")
            exc.within(index)
            raise exc
        names.update(dict.fromkeys(row))
        values += len(row)
        if len(names) > TABLE_COLUMNS:
            break
    if len(names) > TABLE_COLUMNS or len(names) * len(rows) > max(
        _FEW_CELLS, TABLE_SPARSE * values
    ):
        raise Misfit(
            f"the rows have {len(names):,} different names, and most rows have few of them: send"
            " columns",
            "value_error",
        )
    return {name: [row.get(name) for row in rows] for name in names}


def _column(name: str, values: object) -> pa.Array:
    import pyarrow as pa

    try:
        if type_hints.is_array_value(values):
            if values.ndim != 1 or values.dtype.kind not in "biufMmU":
                raise Misfit("Expected an array of one axis, of numbers or text", "value_error")
        elif type(values) is list:
            _check_cells(values, TABLE_DEPTH)
        else:
            raise Misfit(f"Expected `array`, got `{type(values).__name__}`")
        with _told("its values do not fit each other"):
            return pa.array(values)
    except Misfit as exc:
        exc.within(name)
        raise


def _check_cells(cells: Iterable[Any], depth: int) -> None:
    kinds = set(map(type, cells))
    if kinds <= _CELLS:
        return
    others = kinds - _CELLS - {list}
    if others or not depth:
        said = "a list that is nested too deeply"
        if others:
            named = sorted("object" if kind is dict else kind.__name__ for kind in others)
            said = f"`{named[0]}`"
        raise Misfit(f"Expected numbers, texts or lists of them, got {said}")
    inner = itertools.chain.from_iterable(cell for cell in cells if type(cell) is list)
    _check_cells(list(inner), depth - 1)


# --- for everybody ---


def _rows(table: Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _of_plain_cells(table).to_pylist()
    return rows


def _columns(table: Table) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = _of_plain_cells(table).to_pydict()
    return columns


def _of_plain_cells(table: Table) -> Table:
    """Return a table whose cells are of Python's own classes."""
    import pyarrow as pa

    if len(set(table.column_names)) < len(table.column_names):
        raise TypeError("a table with two columns of one name cannot be sent in JSON")
    for index, field in enumerate(table.schema):
        # (of nanoseconds Python has no class: pandas' would be in their place)
        if (wanted := _in_microseconds(field.type)) is not None:
            column = table.column(index).cast(wanted, safe=False)
            table = table.set_column(index, pa.field(field.name, wanted), column)
    return table


def _in_microseconds(kind: pa.DataType) -> pa.DataType | None:
    import pyarrow as pa

    if getattr(kind, "unit", None) != "ns":
        return None
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.duration("us") if pa.types.is_duration(kind) else pa.time64("us")


def _write_stream(sink: Any, table: Table) -> None:
    import pyarrow as pa

    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def _write_parquet(sink: Any, table: Table) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, sink)


def _write_csv(sink: Any, table: Table) -> None:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = table.column(index).cast(field.type.value_type)
            table = table.set_column(index, field.name, column)
    arrow_csv.write_csv(table, sink)


_WRITE: Mapping[str, Callable[[Any, Table], None]] = {
    CSV: _write_csv,
    ARROW: _write_stream,
    PARQUET: _write_parquet,
}


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Have who sent it be told what a library says of it."""
    try:
        yield
    except (Misfit, MemoryError):
        raise
    except BaseException as exc:  # pyarrow raises whatever a broken file leads to
        if not isinstance(exc, Exception) and not _is_panic(exc):
            raise
        raise Misfit(f"{what}: {_first_line(exc)}", "value_error") from None


def _is_panic(exc: BaseException) -> bool:
    """Return whether polars, which is written in Rust, has met what it did not expect; what it
    raises then is no Exception.
    """
    return type(exc).__name__ == "PanicException"


def _first_line(exc: BaseException) -> str:
    return str(exc).partition("\n")[0][:_MESSAGE_CHARACTERS]
