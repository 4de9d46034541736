"""Tables are read and written as files and as JSON for clients, sent as Arrow between services, and
refused when they are broken, or would become far more than what came.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import struct
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

import pyarrow.parquet as pq  # noqa: E402

from graphserve import Media  # noqa: E402
from graphserve.errors import DeclarationError, InvalidArguments  # noqa: E402
from graphserve.wire.codec import ArgumentsCodec, Format, ResultCodec, UntypedCodec  # noqa: E402
from graphserve.wire.costs.bounds import TABLE_COLUMNS, TABLE_FLOOR  # noqa: E402
from graphserve.wire.exceptions import Misfit  # noqa: E402
from graphserve.wire.extensions import BufferSource, inlined, no_memory, written  # noqa: E402
from graphserve.wire.formats import MediaFormat  # noqa: E402
from graphserve.wire.media import classes, tables  # noqa: E402
from graphserve.wire.media.answers import accepts_of  # noqa: E402
from graphserve.wire.media.kinds import PACKED  # noqa: E402
from graphserve.wire.media.received import ReceivedFile  # noqa: E402
from graphserve.wire.media.tables import ARROW, CSV, PARQUET  # noqa: E402
from graphserve.wire.signature import Signature  # noqa: E402

KINDS = [pd.DataFrame, pl.DataFrame, pa.Table]
DAY = datetime.datetime(2026, 11, 30, 12, 0, 0, 500)
COLUMNS: dict[str, list[Any]] = {
    "n": [1, 2, 3], "x": [0.5, None, -1.0], "s": ["a", "", 'b"\n,'], "b": [True, False, True],
    "t": [DAY, DAY, DAY],
}  # fmt: skip
TABLE = pa.table(COLUMNS)


def of(kind: Any, table: Any = TABLE) -> Any:
    """A table as one of a library."""
    if kind is pd.DataFrame:
        return table.to_pandas()
    return pl.from_arrow(table) if kind is pl.DataFrame else table


def arrow(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        return pa.Table.from_pandas(value, preserve_index=False)
    return value if isinstance(value, pa.Table) else value.to_arrow()


def columns(value: Any) -> dict[str, list[Any]]:
    """What is in a table, of whichever library."""
    return arrow(value).to_pydict()


def stream(table: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def parquet(table: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def read(data: bytes, media_type: str = "", kind: str = "arrow") -> Any:
    return PACKED[kind].read(ReceivedFile(data, media_type))


def through_memory(value: Any, kind: Any) -> Any:
    kept: list[bytes] = []

    def place(source: memoryview | BufferSource) -> bytes:
        assert not isinstance(source, memoryview)
        kept.append(bytes(written(b"", source)))
        return b"reference %d" % (len(kept) - 1)

    def fetch(reference: bytes) -> memoryview:
        return memoryview(kept[int(reference.split()[1])])

    result = ResultCodec(kind, "S.f")
    body = result.encode(value, Format.TYPED, place)
    assert len(kept) == 1 and len(body) < 200
    again = result.decode(inlined(body, fetch), no_memory)
    assert columns(again) == columns(result.decode(body, fetch))
    return result.decode(body, fetch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "table",
    [
        TABLE, TABLE.slice(1, 1), TABLE.slice(0, 0), pa.table({}),
        pa.table({"d": pa.array(["u", "v", "u"]).dictionary_encode(), "l": [[1], [], None]}),
        pa.concat_tables([TABLE, TABLE]), pa.table({"n": pa.nulls(4), "z": [{"k": 1}] * 4}),
    ],
    ids=["plain", "slice", "no rows", "no columns", "nested", "chunks", "nulls"],
)  # fmt: skip
def test_a_table_arrives_as_it_was(kind: Any, table: Any) -> None:
    value = of(kind, table)
    for found in (
        ResultCodec(kind, "S.f").decode(
            ResultCodec(kind, "S.f").encode(value, Format.TYPED), no_memory
        ),
        UntypedCodec().decode(UntypedCodec().encode({"x": value}), no_memory),
        through_memory(value, kind),
    ):
        found = found["x"] if isinstance(found, dict) else found
        assert type(found) is kind and found.equals(value)


def test_an_index_and_types_of_pandas_arrive() -> None:
    index = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["k", None])
    frame = pd.DataFrame({"c": pd.Categorical(["x", "y"]), "n": [1, 2]}, index=index)
    found = through_memory(frame, pd.DataFrame)
    pd.testing.assert_frame_equal(found, frame)
    found.iloc[0, 1] = 7  # it is its own
    assert PACKED["pandas"].plain(frame) == [
        {"k": "a", "c": "x", "n": 1},
        {"k": "b", "c": "y", "n": 2},
    ]
    assert PACKED["pandas"].plain(pd.DataFrame({5: [1]})) == [{"5": 1}]
    plain = pd.DataFrame({"a": [1, 2]}, index=[7, 8])
    assert PACKED["pandas"].plain(plain) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("media_type", [CSV, ARROW, PARQUET])
@pytest.mark.parametrize("said", [True, False])
def test_a_file_is_read_as_it_was_written(kind: Any, media_type: str, said: bool) -> None:
    result = ResultCodec(kind, "S.f")
    data = result.encode(of(kind), MediaFormat(media_type.encode()))
    found = PACKED[tables.name_of_kind(of(kind)) or ""].read(
        ReceivedFile(data, media_type if said else "application/octet-stream")
    )
    assert type(found) is kind and columns(found) == COLUMNS


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_columns_of_json(kind: Any) -> None:
    reader = PACKED[tables.name_of_kind(of(kind)) or ""]
    rows = [{"a": 1, "b": "x"}, {"b": None, "c": [1, 2.5]}, {}]
    assert columns(reader.read(rows)) == columns(
        reader.read({"a": [1, None, None], "b": ["x", None, None], "c": [None, [1, 2.5], None]})
    )
    assert reader.read([]).shape == (0, 0) and reader.read({}).shape == (0, 0)
    text = ResultCodec(kind, "S.f").encode(of(kind), Format.JSON)
    assert json.loads(text) == [
        {"n": 1, "x": 0.5, "s": "a", "b": True, "t": DAY.isoformat()},
        {"n": 2, "x": None, "s": "", "b": False, "t": DAY.isoformat()},
        {"n": 3, "x": -1.0, "s": 'b"\n,', "b": True, "t": DAY.isoformat()},
    ]
    again = msgspec.msgpack.decode(ResultCodec(kind, "S.f").encode(of(kind), Format.MSGPACK))
    assert again[2]["x"] == -1.0


def test_what_is_no_number_is_read_again() -> None:
    frame = pl.DataFrame({"x": [float("nan"), float("inf"), 1.0]})
    written = ResultCodec(pl.DataFrame, "S.f").encode(frame, Format.JSON)
    assert PACKED["polars"].read(json.loads(written))["x"].to_list() == [None, None, 1.0]
    for media_type in (CSV, ARROW, PARQUET):
        found = PACKED["polars"].read(
            ReceivedFile(PACKED["polars"].write(frame, media_type, {}), media_type)
        )
        assert str(found["x"].to_list()) == "[nan, inf, 1.0]"


def test_nanoseconds_and_decimals_leave() -> None:
    table = pa.table(
        {"t": pa.array([1_000_000], pa.timestamp("ns")), "d": pa.array([2000], pa.duration("ns"))}
    )
    assert json.loads(ResultCodec(pa.Table, "S.f").encode(table, Format.JSON)) == [
        {"t": "1970-01-01T00:00:00.001000", "d": "PT0.000002S"}
    ]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1, "got `int`"), (None, "got `null`"), ("a,b", "got `str`"), ([1], "Expected `object`, got `int`"),
        ({"a": 1}, "Expected `array`"), ({"a": [1], "b": []}, "from 0 to 1 values"), ({1: [1]}, "no text"),
        ({"a": [1, "x"]}, "do not fit each other"), ({"a": [True, 1]}, "do not fit"), ({"a": [{}]}, "got `object`"),
        ([{"a": {"b": 1}}], "got `object`"), ({"a": [2**70]}, "do not fit"), ({"a": [[[[[[[[[[1]]]]]]]]]]}, "too deeply"),
        ({"a": [[1], 1]}, "do not fit"), ({str(n): [] for n in range(TABLE_COLUMNS + 1)}, "columns"),
        ([{str(n): 1} for n in range(TABLE_COLUMNS + 1)], "different names"), ([{str(n): 1} for n in range(3000)], "different names"),
    ],
)  # fmt: skip
def test_json_that_is_no_table(value: object, said: str) -> None:
    for kind in (PACKED[name] for name in classes.TABLES):
        with pytest.raises(Misfit, match=said):
            kind.read(value)


def one(array: Any) -> Any:
    return pa.table({"c": array})


def dictionary(text: str, rows: int) -> Any:
    return one(pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [text]))


def views(text: str, rows: int) -> Any:
    whole = pa.array([text], pa.string_view()).buffers()
    view = whole[1].to_pybytes()
    return one(
        pa.Array.from_buffers(pa.string_view(), rows, [None, pa.py_buffer(view * rows), whole[2]])
    )


def many_nulls(rows: int) -> bytes:
    return stream(one(pa.nulls(12_345))).replace(struct.pack("<q", 12_345), struct.pack("<q", rows))


LONG = "x" * 20_000
HOSTILE_STREAMS: list[tuple[Any, str]] = [
    (lambda: stream(one(pa.nulls(10**7))), "more than"),
    (lambda: many_nulls(2**31 - 1), "more than"), (lambda: many_nulls(2**62), "more than"),
    (lambda: stream(dictionary(LONG, 2_000)), "more than"),
    (lambda: stream(views(LONG, 2_000)), "more than"),
    (lambda: stream(TABLE, compression="zstd"), "compressed"),
    (lambda: stream(TABLE, compression="lz4"), "compressed"),
    (lambda: stream(dictionary("a", 3), compression="zstd"), "compressed"),
    (lambda: stream(one(pa.FixedSizeListArray.from_arrays(pa.nulls(2**23), 2**20))), "more than"),
    (lambda: stream(one(pa.RunEndEncodedArray.from_arrays([2**31 - 1], [1]))), "not accepted"),
    (lambda: stream(one(pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]))), "not accepted"),
    (lambda: stream(one(pa.array([[1]], pa.list_view(pa.int64())))), "not accepted"),
    (lambda: stream(one(pa.array([{}], pa.struct([])))), "not accepted"),
    (lambda: stream(pa.Table.from_arrays([pa.array([1])] * 2, ["a", "a"])), "two columns 'a'"),
    (lambda: stream(pa.table({str(n): [1] for n in range(TABLE_COLUMNS + 1)})), "columns"),
    (lambda: stream(pa.table({"a\0": [1]})), "NUL"),
    (lambda: stream(one(pa.array([{"a\0": 1}]))), "NUL"),
    (lambda: stream(one(pa.array([[{"a\0": 1}]])).slice(0, 0)), "NUL"),
    (lambda: stream(one(pa.array([{"field": 1}]))).replace(b"field", b"fi\xfeld"), "cannot be read"),
    (lambda: stream(TABLE)[:-100], "cut off|cannot be read"),
    (lambda: stream(TABLE)[:40], "cut off"),
    (lambda: stream(TABLE, use_legacy_format=True), "0.15"),
    (lambda: b"\xff\xff\xff\xff\xff\xff\xff\x7f", "cut off"),
    (lambda: b"\xff\xff\xff\xff\xf0\xff\xff\xff", "cut off"),
    (lambda: b"\xff\xff\xff\xff", "cut off"),
    (lambda: b"", "cut off|cannot be read"),
    (lambda: b"ARROW1\0\0", "no stream"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "said"), HOSTILE_STREAMS)
def test_hostile_streams(made: Callable[[], bytes], said: str) -> None:
    data = made()
    assert len(data) < 1_000_000
    with pytest.raises(Misfit, match=said):
        read(data, ARROW)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (2**60, pa.timestamp("s")), (-(2**60), pa.timestamp("ms")), (2**31 - 1, pa.date32()), (2**60, pa.date64()),
        (2**62, pa.duration("s")), (86_400, pa.time32("s")), (-1, pa.time64("us")), (1, pa.timestamp("s", "Nowhere/Land")),
        (1, pa.timestamp("s", "../../etc/passwd")), (1, pa.timestamp("s", "+99:99")), (253_402_300_799, pa.timestamp("s", "+14:00")),
    ],
)  # fmt: skip
def test_times_that_python_does_not_have(value: int, kind: Any) -> None:
    integers = pa.array([value, None], pa.int32() if kind.bit_width == 32 else pa.int64())
    for table in (
        one(integers.view(kind)),
        one(pa.ListArray.from_arrays([0, 1, 2], integers.view(kind))),
    ):
        with pytest.raises(Misfit, match=r"range|time zone|whole number of days"):
            read(stream(table), ARROW)
    ends = pa.array(
        [datetime.datetime(1, 1, 3), datetime.datetime(9999, 12, 29)],
        pa.timestamp("us", "Asia/Tokyo"),
    )
    assert len(PACKED["arrow"].plain(read(stream(one(ends)), ARROW))) == 2  # type: ignore[arg-type]


def test_offsets_that_lead_elsewhere() -> None:
    offsets = struct.pack("<4i", 0, 4, 8, 12)
    data = stream(one(["aaaa", "bbbb", "cccc"]))
    assert data.count(offsets) == 1
    for broken in ((0, 4, 8, 2**30), (0, 4, -8, 12), (0, 8, 4, 12), (-4, 4, 8, 12)):
        with pytest.raises(Misfit):
            read(data.replace(offsets, struct.pack("<4i", *broken)), ARROW)
    index = pa.DictionaryArray.from_arrays(pa.array([0, 9], pa.int8()), ["a"], safe=False)
    for array in (index, pa.array([b"\xff"]).view(pa.string())):
        with pytest.raises(Misfit):
            read(stream(one(array)), ARROW)


def repeated(rows: int) -> Any:
    return one([1]).take(pa.array([0] * rows))


HOSTILE_PARQUET: list[tuple[Any, str]] = [
    (lambda: parquet(repeated(3_000_000)), "more than"),
    (lambda: parquet(repeated(3_000_000), row_group_size=1_000_000), "more than"),
    (lambda: parquet(one(pa.nulls(5_000_000))), "more than"),
    (lambda: parquet(one(["x" * 20_000_000]), compression="zstd"), "more than"),
    (lambda: parquet(one(["x" * 20_000_000]), compression="gzip", use_dictionary=False), "more than"),
    (lambda: parquet(one([LONG] * 2_000), compression="zstd"), "more than"),
    (lambda: parquet(one([[LONG] * 2_000]), compression="zstd"), "more than"),
    (lambda: parquet(one(pa.array([LONG.encode()] * 2_000, pa.binary(len(LONG)))), compression="zstd"), "more than"),
    (lambda: parquet(one([LONG] * 100), use_dictionary=False, column_encoding={"c": "DELTA_BYTE_ARRAY"}), "encoding"),
    (lambda: parquet(pa.Table.from_arrays([pa.array([1])] * 2, ["a", "a"])), "two columns|cannot be read"),
    (lambda: parquet(pa.table({str(n): [1] for n in range(TABLE_COLUMNS + 1)})), "columns"),
    (lambda: parquet(TABLE)[:-20], "cut off"),
    (lambda: b"PAR1", "cut off"), (lambda: b"PAR1" * 3, "cut off"), (lambda: b"", "cut off"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "said"), HOSTILE_PARQUET)
def test_hostile_parquet(made: Callable[[], bytes], said: str) -> None:
    data = made()
    assert len(data) < 1_200_000
    with pytest.raises(Misfit, match=said):
        read(data, PARQUET)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
@pytest.mark.parametrize("encoded", [True, False])
def test_parquet_of_every_kind_is_read(version: str, compression: str, encoded: bool) -> None:
    table = pa.table(
        {
            **COLUMNS,
            "l": [["a", None], [], None], "d": pa.array(["u", "v", "u"]).dictionary_encode(),
            "m": [{"k": [1.5]}, None, {"k": []}], "f": pa.array([b"ab", b"cd", None], pa.binary(2)),
        }
    )  # fmt: skip
    table = pa.concat_tables([table] * 50)
    data = parquet(
        table, data_page_version=version, compression=compression, use_dictionary=encoded,
        row_group_size=40, data_page_size=100,
    )  # fmt: skip
    found = read(data, PARQUET)
    assert found.to_pydict() == table.to_pydict()
    assert found.schema.field("d").type == table.schema.field("d").type
    assert found.schema.field("s").type == pa.string()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a,b\n1,x\n", {"a": [1], "b": ["x"]}), (b"\xef\xbb\xbfa\r\n1\r\n", {"a": [1]}),
        (b'\n"a\n,b",c\n1,2', {"a\n,b": [1], "c": [2]}), (b"a,b\n", {"a": [], "b": []}),
        (b'a\n"x\ny"\n', {"a": ["x\ny"]}), (b"a,b\n,\n1,\n", {"a": [None, 1], "b": [None, None]}),
        (b'a,b\n,""\n', {"a": [None], "b": [""]}), (b"a\nNA\nnull\n", {"a": ["NA", "null"]}),
        (b"a\ntrue\nfalse", {"a": [True, False]}), (b"a\n1\n2.5\nnan", {"a": [1.0, 2.5, float("nan")]}),
        (b"d\n2026-11-30\n", {"d": [datetime.date(2026, 11, 30)]}),
    ],
)  # fmt: skip
def test_csv(data: bytes, expected: dict[str, list[Any]]) -> None:
    assert str(read(data, CSV).to_pydict()) == str(expected)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no line with the names"), (b"\n\n", "no line"), (b"a,a\n1,2", "two columns"), (b"a,b\n1\n", "cannot be read"),
        (b"a\n1,2\n", "cannot be read"), (b"," * 5000 + b"\n", "columns"), (b"a" * 2_000_000, "too long|cannot be read"),
        (b'"' + b"\n" * 2_000_000, "too long|cannot be read"), (b"a\n\xff\n", "not UTF-8"), (b"\xff\n1\n", "cannot be read"),
        (b'"a\n1\n', "cannot be read"), (b"a\x00b\n1\n", "NUL"),
    ],
)  # fmt: skip
def test_csv_that_is_none(data: bytes, said: str) -> None:
    with pytest.raises(Misfit, match=said):
        read(data, CSV)


def test_what_is_of_another_type() -> None:
    for media_type in ("image/png", "application/json", "application/pdf"):
        with pytest.raises(Misfit, match="Expected a table as CSV"):
            read(b"a\n1", media_type)
    with pytest.raises(Misfit, match="cut off"):
        read(b"a\n1", PARQUET)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=20), st.integers(0, 3000), st.sampled_from([CSV, ARROW, PARQUET]))
def test_broken_files_are_refused(noise: bytes, at: int, media_type: str) -> None:
    data = {CSV: b"a,b\n1,x\n", ARROW: stream(TABLE), PARQUET: parquet(TABLE)}[media_type]
    at %= len(data)
    try:
        found = read(data[:at] + noise + data[at + len(noise) :], media_type)
    except Misfit:
        return
    found.validate(full=True)
    ResultCodec(pa.Table, "S.f").encode(found, Format.JSON)


def test_what_stands_for_a_column_of_pandas_is_not_believed() -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=pd.Index([3, 4]))
    data = stream(pa.Table.from_pandas(frame))
    found = read(data, ARROW, "pandas")
    assert list(found.columns) == ["a", "__index_level_0__"]
    with pytest.raises(Misfit, match="extension"):
        read(
            stream(
                pa.Table.from_pandas(
                    pd.DataFrame({"p": pd.period_range("2026", periods=2, freq="D")})
                )
            ),
            ARROW,
        )


def test_the_floor_is_always_allowed() -> None:
    rows = TABLE_FLOOR // 8 // 4
    assert read(parquet(repeated(rows)), PARQUET).num_rows == rows


class Service:
    def one(self, table: pd.DataFrame, by: str = "n") -> pd.DataFrame: ...

    def many(self, tables: list[pl.DataFrame]) -> pa.Table: ...


class Subclass(pd.DataFrame):
    pass


def test_errors_name_the_parameter() -> None:
    codec = ArgumentsCodec(Signature.of(Service, "one"))
    assert columns(codec.decode(b'{"table": [{"a": 1}]}', Format.JSON)["table"]) == {"a": [1]}
    for body in (b'{"table": 1}', b'{"table": {"a": [{}]}}', b'{"table": [1]}'):
        with pytest.raises(InvalidArguments) as caught:
            codec.decode(body, Format.JSON)
        assert caught.value.errors[0]["loc"][0] == "table"
    body = UntypedCodec().encode({"table": of(pd.DataFrame)})
    assert codec.decode(body, Format.TYPED, no_memory)["table"].shape == (3, 5)
    with pytest.raises(InvalidArguments):  # Arrow of services is nothing that the public sends
        codec.decode(body, Format.TYPED)
    (found,) = ArgumentsCodec(Signature.of(Service, "many")).decode(
        UntypedCodec().encode({"tables": [TABLE]}), Format.TYPED, no_memory
    )["tables"]
    assert type(found) is pl.DataFrame


def test_declarations(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def media(self) -> Annotated[pa.Table, Media("image/png")]: ...

        def options(self) -> Annotated[pa.Table, Media(CSV, header=False)]: ...

        def layout(self) -> Annotated[pa.Table, Media("application/json", layout="cells")]: ...

        def derived(self, table: Subclass) -> int: ...

        def lazy(self, table: pl.LazyFrame) -> int: ...

        def key(self, tables: dict[pd.DataFrame, int]) -> int: ...

    for name, said in (
        ("media", "can be sent as text/csv"), ("options", "takes no options"), ("layout", "'rows' .* or 'columns'"), ("derived", "annotate pandas.DataFrame"), ("lazy", "collect"), ("key", "use a list"),
    ):  # fmt: skip
        with pytest.raises(DeclarationError, match=said):
            Signature.of(Wrong, name)
    monkeypatch.setattr(tables, "is_installed", lambda: False)
    with pytest.raises(DeclarationError, match=r"pygraphserve\[tables\]"):
        Signature.of(Service, "one")


def test_what_polars_does_not_expect_is_told_too() -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        PACKED["polars"].plain(pl.DataFrame({"a\0": [1]}))


def test_the_end_of_a_file_that_is_wrong_ends_no_process() -> None:
    # (pyarrow ends it where the histograms of a column do not fit its levels)
    data = bytearray(parquet(pa.table({"l": [["a"], [], None]})))
    for at in range(len(data) - 700, len(data) - 8):
        for value in (0x15, 0x19, 0x26, 0):
            before = data[at]
            data[at] = value
            with contextlib.suppress(Misfit):
                read(bytes(data), PARQUET)
            data[at] = before


def test_results_that_cannot_be_sent() -> None:
    for value, kind, media_type, said in (
        (pd.DataFrame({"a": [1, "x"]}), pd.DataFrame, CSV, "cannot be sent"),
        (pa.table({"l": [[1]]}), pa.Table, CSV, "cannot be written as text/csv"),
        (pl.DataFrame({"o": [object()]}), pl.DataFrame, ARROW, "cannot be"),
        ("x", pa.Table, ARROW, "does not fit its annotation"),
    ):
        with pytest.raises((TypeError, ValueError), match=said):
            ResultCodec(kind, "S.f").encode(value, MediaFormat(media_type.encode()))
    twice = pa.Table.from_arrays([pa.array([1])] * 2, ["a", "a"])
    with pytest.raises(TypeError, match="two columns of one name"):
        ResultCodec(pa.Table, "S.f").encode(twice, Format.JSON)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"), (b"*/*", "application/json"), (b"text/csv", CSV),
        (b"application/vnd.apache.arrow.stream", ARROW), (b"application/vnd.apache.parquet, */*;q=0.1", PARQUET),
        (b"text/html", "application/json"), (b"application/msgpack", "application/msgpack"),
    ],
)  # fmt: skip
def test_how_a_table_leaves(accept: bytes | None, expected: str) -> None:
    assert accepts_of(pd.DataFrame)(accept).content_type == expected.encode()
