"""Arrays on the wire: identical and read-only at the other end, whatever their dtype, shape, order
and size.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from graphserve.errors import InvalidArguments
from graphserve.wire import arrays
from graphserve.wire.arrays import Array
from graphserve.wire.codec import Format, ResultCodec, UntypedCodec
from graphserve.wire.exceptions import Misfit
from tests.codecs import codec


def no_memory(reference: bytes) -> memoryview:
    """Say to a decoder that the bytes are from a service, none of them in shared memory."""
    raise AssertionError(reference)


def same(got: Any, sent: Any) -> bool:
    return got.dtype == sent.dtype and got.shape == sent.shape and got.tobytes() == sent.tobytes()


DTYPES = (
    hnp.scalar_dtypes()
    | hnp.unicode_string_dtypes(min_len=1)
    | hnp.byte_string_dtypes(min_len=1)
    | hnp.array_dtypes(
        hnp.integer_dtypes() | hnp.floating_dtypes() | hnp.boolean_dtypes(), min_size=1
    )
)


@given(
    hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, min_side=0, max_dims=4)),
    st.integers(0, 9),
    st.booleans(),
)
def test_any_array_is_identical_and_read_only(array: Any, offset: int, fortran: bool) -> None:
    sent = array.copy(order="F") if fortran else array
    wire = UntypedCodec().encode({"pad": "x" * offset, "a": sent})
    for body in (wire, memoryview(bytearray(wire))):
        got = UntypedCodec().decode(body, no_memory)["a"]
        assert same(got, array)
        assert not got.flags.writeable and got.flags.aligned
    typed = codec(pad=str, a=np.ndarray).decode(wire, Format.MSGPACK, no_memory)["a"]
    assert same(typed, got) and not typed.flags.writeable


def test_half_characters_cross_a_hop_and_are_refused_of_a_client() -> None:
    """Python and numpy have them, JSON and UTF-8 do not: an answer that echoes them could not be
    written.
    """
    halves = np.array(["\ud800", "a"])
    wire = UntypedCodec().encode({"a": halves})
    taking = codec(a=np.ndarray)
    assert same(taking.decode(wire, Format.MSGPACK, no_memory)["a"], halves)
    with pytest.raises(InvalidArguments, match="bytes that are no characters"):
        taking.decode(wire, Format.MSGPACK)
    beyond = np.array([0x110000, 97], "u4").view("U1")
    with pytest.raises(InvalidArguments, match="bytes that are no characters"):
        taking.decode(UntypedCodec().encode({"a": beyond}), Format.MSGPACK, no_memory)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
        np.broadcast_to(np.float32(3), (4, 5)),
        np.zeros((0, 3), "f4"),
        np.array(3.5),
        np.array([1, 2], ">i4"),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array(["2020-01-01", "NaT"], "M8[D]"),
        np.array([1, 2], "m8[250ms]"),
        np.array(["ä", "bc"]),
        np.zeros(3, np.dtype([("a", "<i4"), ("b", "f8", (2, 2))], align=True)),
        np.zeros(2, np.dtype([("a", [("x", "?"), ("y", "S3")])])),
        np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
        np.array([1.5], np.longdouble),
        np.array([1.5], np.float16),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_array_kinds(array: Any) -> None:
    got = UntypedCodec().decode(UntypedCodec().encode({"a": array}))["a"]
    assert same(got, np.asarray(array)) and not got.flags.writeable and type(got) is np.ndarray


def locked(array: Any) -> bool:
    """Return whether it is read-only, and stays so."""
    for each in (array, array.view(), array[...]):
        with pytest.raises(ValueError):
            each.setflags(write=True)
        with pytest.raises(ValueError):
            each.flags.writeable = True
    return not array.flags.writeable


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda body: memoryview(bytearray(body))])
@pytest.mark.parametrize("offset", range(8))
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_no_array_can_be_made_writable_again(kind: Any, offset: int, size: int) -> None:
    wire = kind(
        UntypedCodec().encode({"x" * offset: np.arange(size, dtype="f8"), "y": np.array(size > 5)})
    )
    assert all(locked(array) for array in UntypedCodec().decode(wire).values())


def test_decoding_does_not_copy_aligned_elements() -> None:
    wire = UntypedCodec().encode({"a": np.zeros(1 << 20, "u1")})
    got = UntypedCodec().decode(wire)["a"]
    base = np.frombuffer(wire, "u1")
    assert base.ctypes.data < got.ctypes.data < base.ctypes.data + base.nbytes
    with pytest.raises(ValueError):
        got.flags.writeable = True


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.array([object()]), "objects"),
        (np.ma.masked_array([1], [True]), "masked"),
        (np.zeros(2, "V0"), "without bytes"),
        (np.array(["a"], np.dtypes.StringDType()), "objects"),
    ],
)
def test_arrays_that_cannot_be_sent(array: Any, why: str) -> None:
    with pytest.raises(TypeError, match=rf"^S\.f: argument 'a': .*{why}"):
        codec(a=np.ndarray).encode({"a": array})


CASES = [  # hint, JSON, what arrives or the error
    (np.ndarray, "[[1,2],[3,4]]", np.array([[1, 2], [3, 4]])),
    (np.ndarray, "[1,2.5]", np.array([1, 2.5])),
    (np.ndarray, "[true]", np.array([True])),
    (np.ndarray, "[]", np.zeros(0)),
    (np.ndarray, "7", np.array(7)),
    (np.ndarray, '["a","bc"]', np.array(["a", "bc"])),
    (np.ndarray, "[[1],[2,3]]", "different lengths"),
    (np.ndarray, "[[1],2]", "different lengths"),
    (np.ndarray, "[1,null]", np.array([1, np.nan])),
    (np.ndarray, "[null]", np.array([np.nan])),
    (np.ndarray, "[[1],[null]]", np.array([[1], [np.nan]])),
    (NDArray[np.float32], "[1.5,null]", np.array([1.5, np.nan], "f4")),
    (NDArray[np.int64], "[1,null]", "dtype int64"),
    (np.ndarray, "[true,null]", "null"),
    (np.ndarray, '["a",null]', "null"),
    (np.ndarray, "[1,true]", "bool, int"),
    (np.ndarray, '[1,"a"]', "int, str"),
    (np.ndarray, "[{}]", "dict"),
    (np.ndarray, "{}", "nested lists"),
    (np.ndarray, "null", "got `null`"),
    (np.ndarray, "[123456789012345678901234567890]", "too large"),
    (NDArray[np.float32], "[1,2]", np.array([1, 2], "f4")),
    (NDArray[np.float32], "[1e300]", "too large"),
    (NDArray[np.float32], "[true]", "dtype float32"),
    (NDArray[np.int64], "[1.5]", "dtype int64"),
    (NDArray[np.int64], "[1.0]", "dtype int64"),
    (NDArray[np.uint8], "[255]", np.array([255], "u1")),
    (NDArray[np.uint8], "[256]", "out of its range"),
    (NDArray[np.uint8], "[-1]", "out of its range"),
    (NDArray[np.floating], "[1]", np.array([1.0])),
    (NDArray[np.number], "[1]", np.array([1])),
    (NDArray[np.number], '["a"]', "an array of number, got <U1"),
    (NDArray[np.number], '"a"', "an array of number, got <U1"),
    (NDArray[np.number], "[true]", "an array of number, got bool"),
    (np.ndarray, '["a", 1]', "a list with int, str"),
    (np.ndarray, "[{}]", "a list with dict"),
    (NDArray[np.bool_], "[1]", "dtype bool"),
    (NDArray[np.complex64], "[1.5]", np.array([1.5], "c8")),
    (NDArray[np.datetime64], '["2020-01-01"]', np.array(["2020-01-01"], "M8[D]")),
    (NDArray[np.datetime64], '["no date"]', "does not fit"),
    (NDArray[np.uint16] | None, "[7]", np.array([7], "u2")),
    (Annotated[np.ndarray, Array("float32", (None, 2))], "[[1,2]]", np.array([[1, 2]], "f4")),
    (Annotated[np.ndarray, Array("float32", (None, 2))], "[1,2]", r"shape \(any, 2\), got \(2,\)"),
    (Annotated[np.ndarray, Array("float32", (None, 2))], "[]", np.zeros((0, 2), "f4")),
    (Annotated[np.ndarray, Array(shape=(None, None, 3))], "[[],[]]", np.zeros((2, 0, 3))),
    (Annotated[np.ndarray, Array(shape=(None, None))], "[]", np.zeros((0, 0))),
    (Annotated[np.ndarray, Array(shape=(3, 2))], "[]", r"shape \(3, 2\), got \(0, 2\)"),
    (Annotated[np.ndarray, Array(shape=(3,))], "[]", r"shape \(3,\), got \(0,\)"),
    (Annotated[np.ndarray, Array(shape=(None,))], "[[]]", r"shape \(any,\), got \(1, 0\)"),
    (Annotated[np.ndarray, Array(shape=(None, 2, 2))], "[[1],[2]]", r"got \(2, 1\)"),
    (Annotated[np.ndarray, Array(shape=(3,))], "[1,2]", r"shape \(3,\), got \(2,\)"),
    (Annotated[np.ndarray, Array("S2")], '["ab"]', np.array(["ab"], "S2")),
    (Annotated[np.ndarray, Array("S2")], '["abc"]', "does not fit"),
    (Annotated[np.ndarray, Array("U2")], '["abc"]', "does not fit"),
]


@pytest.mark.parametrize(
    ("hint", "json", "expected"), CASES, ids=[f"{c[0]}-{c[1]}"[-60:] for c in CASES]
)
def test_lists_in_json(hint: Any, json: str, expected: Any) -> None:
    arguments = codec(a=hint)
    body = b'{"a":%s}' % json.encode()
    if isinstance(expected, str):
        with pytest.raises(InvalidArguments, match=expected) as caught:
            arguments.decode(body, Format.JSON)
        assert caught.value.errors[0]["loc"] == ["a"]
    else:
        got = arguments.decode(body, Format.JSON)["a"]
        assert same(got, expected) and locked(got)


@pytest.mark.parametrize(
    ("hint", "array", "fits"),
    [
        (NDArray[np.float32], np.zeros(1, "f4"), True),
        (NDArray[np.float32], np.zeros(1, ">f4"), False),
        (NDArray[np.str_], np.array(["a"]), True),
        (NDArray[np.str_], np.array(["a"], ">U1"), False),
        (NDArray[np.floating], np.zeros(1, ">f4"), True),
        (NDArray[np.float32], np.zeros(1, "f8"), False),
        (NDArray[np.floating], np.zeros(1, "f8"), True),
        (NDArray[np.integer], np.zeros(1, "f8"), False),
        (NDArray[np.number], np.array(["a"]), False),
        (NDArray[np.number], np.array([b"a"]), False),
        (NDArray[np.number], np.zeros(1, "M8[D]"), False),
        (NDArray[np.longlong], np.zeros(1, "i8"), True),
        (NDArray[Any], np.zeros(1, "f8"), True),
        (Annotated[np.ndarray, Array("float32")], np.zeros(1, "f4"), True),
        (Annotated[np.ndarray, Array("float32")], np.zeros(1, ">f4"), False),
        (Annotated[np.ndarray, Array("float32")], np.zeros(1, "f8"), False),
        (Annotated[np.ndarray, Array("float32")], np.zeros(0, "f8"), False),
        (Annotated[np.ndarray, Array(shape=(None, 3))], np.zeros((2, 3)), True),
        (Annotated[np.ndarray, Array(shape=())], np.array(1), True),
        (Annotated[np.ndarray, Array(shape=(3, None))], np.zeros((2, 3)), False),
    ],
)
def test_arrays_in_msgpack_are_never_converted(hint: Any, array: Any, fits: bool) -> None:
    arguments = codec(a=hint)
    wire = arguments.encode({"a": array})
    if fits:
        assert same(arguments.decode(wire, Format.MSGPACK)["a"], array)
    else:
        with pytest.raises(InvalidArguments, match="Expected an array of"):
            arguments.decode(wire, Format.MSGPACK)


@pytest.mark.parametrize(
    "value",
    [
        np.float32(1.5),
        np.float64(2),
        np.int8(3),
        np.uint64(2**64 - 1),
        np.bool_(True),
        np.str_("a"),
        np.bytes_(b"a"),
        np.complex64(1j),
        np.datetime64("2020-01-01T00:00:00.000000001"),
        np.timedelta64(3, "s"),
        np.longdouble(1.5),
    ],
    ids=repr,
)
def test_scalars(value: Any) -> None:
    result = ResultCodec(type(value), "S.f")
    got = result.decode(result.encode(value, Format.TYPED))
    assert type(got) is type(value) and got == value


@pytest.mark.parametrize(
    ("kind", "json", "fits"),
    [
        (np.float32, "1", True),
        (np.float32, "true", False),
        (np.int8, "1.5", False),
        (np.int8, "300", False),
        (np.bool_, "1", False),
        (np.str_, '"a"', True),
        (np.float64, '"a"', False),
        (np.float64, "[1]", False),
    ],
)
def test_scalars_are_strict(kind: Any, json: str, fits: bool) -> None:
    body = b'{"a":%s}' % json.encode()
    if fits:
        assert type(codec(a=kind).decode(body, Format.JSON)["a"]) is kind
    else:
        with pytest.raises(InvalidArguments):
            codec(a=kind).decode(body, Format.JSON)


def test_arrays_as_json_results() -> None:
    result = ResultCodec(dict[str, np.ndarray], "S.f")
    value = {"a": np.array([1.0, np.nan]), "b": np.array([[True]]), "c": np.array(3)}
    assert result.encode(value, Format.JSON) == b'{"a":[1.0,null],"b":[[true]],"c":3}'
    with pytest.raises(TypeError, match=r"the result of S\.f.*complex"):
        result.encode({"a": np.array([1j])}, Format.JSON)


def test_array_demands_are_checked_when_written() -> None:
    for wrong in (
        {"dtype": "no such!"},
        {"dtype": 3},
        {"shape": [1]},
        {"shape": (-1,)},
        {"shape": (True,)},
    ):
        with pytest.raises(ValueError, match="Array"):
            Array(**wrong)  # type: ignore[arg-type]


@given(st.binary(max_size=80))
def test_no_bytes_break_the_header(data: bytes) -> None:
    try:
        array = arrays.unpack(memoryview(data))
    except Misfit:
        return
    assert not array.flags.writeable and not array.dtype.hasobject


@given(st.data())
def test_no_change_of_a_packed_array_breaks_it(data: st.DataObject) -> None:
    header, elements = arrays.pack(
        data.draw(hnp.arrays(DTYPES, hnp.array_shapes(max_dims=2, max_side=3)))
    )
    packed = bytearray(header + bytes(elements))
    packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        array = arrays.unpack(memoryview(packed))
    except Misfit:
        return
    assert not array.flags.writeable and not array.dtype.hasobject
