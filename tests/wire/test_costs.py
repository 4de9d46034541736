"""What a few bytes may cost: costly bodies are refused in few words, honest ones that look like them are not."""

from __future__ import annotations

import decimal
import typing
import uuid
from typing import Annotated, Any

import msgspec
import numpy as np
import pydantic
import pytest

from graphserve.errors import InvalidArguments
from graphserve.wire import costs
from graphserve.wire.codec import ArgumentsCodec, Format, MalformedBody, ResultCodec
from graphserve.wire.extensions import no_memory
from graphserve.wire.schema import Parameter, Signature
from graphserve.wire.screening import outline
from graphserve.wire.tensors import Array
from tests.hostile.bodies import JSON, KINDS, TYPES, Kind, P, array, tuples

FORMATS = {kind.format: Format.JSON if kind.format == JSON else Format.MSGPACK for kind in KINDS}


def codec(**hints: Any) -> ArgumentsCodec:
    return ArgumentsCodec(Signature("S.f", tuple(Parameter(name, hint) for name, hint in hints.items()), None))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("size", [8_000, 60_000])
def test_costly_bodies_are_told_in_few_words(kind: Kind, size: int) -> None:
    arguments, body = codec(x=TYPES[kind.type]), kind.make(size)
    if kind.fits:
        try:
            assert set(arguments.decode(body, FORMATS[kind.format])) == {"x"}
        except InvalidArguments as exc:
            assert size > 10_000 and "too many lists and objects" in str(exc)
        return
    with pytest.raises((InvalidArguments, MalformedBody)) as caught:
        arguments.decode(body, FORMATS[kind.format])
    assert len(str(caught.value)) < 2 * costs.MESSAGE_CHARACTERS
    if isinstance(caught.value, InvalidArguments):
        errors = caught.value.errors
        assert 0 < len(errors) <= costs.ERRORS_TOLD + 1
        assert all(len(each["msg"]) <= costs.MESSAGE_CHARACTERS for each in errors)
        assert all(len(str(step)) <= costs.NAME_CHARACTERS for each in errors for step in each["loc"])


def test_how_many_errors_there_are_is_told() -> None:
    body = b'{"x":1,%s}' % b",".join(b'"%d":1' % k for k in range(100))
    with pytest.raises(InvalidArguments, match=r"\(and 99 more\)") as caught:
        codec(x=int).decode(body, Format.JSON)
    assert caught.value.errors[-1] == {"loc": [], "msg": "and 68 more errors", "type": "more_errors"}


def test_a_name_cannot_forge_a_place() -> None:
    body = b'{"x":[{"a - at `$.y`":1}]}'
    with pytest.raises(InvalidArguments) as caught:
        codec(x=TYPES["structs"]).decode(body, Format.JSON)
    assert caught.value.errors[0]["loc"] == ["x", 0, "a - at `$.y`"]


class Keyed(pydantic.BaseModel):
    numbers: dict[str, set[int]] = {}


HASHED = [
    (set[int], [k * P + 1 for k in range(500)]),
    (frozenset[int | str], [k * P for k in range(500)]),
    (list[set[Any]], [[k * P for k in range(500)]]),
    (dict[str, dict[int, str]], {"a": {str(k * P): "" for k in range(500)}}),
    (dict[int | None, str] | None, {str(-k * P): "" for k in range(500)}),
    (set[tuple[int, ...]], [[*pair] for pair in tuples(500)]),
    (set[tuple[tuple[int, int], int]], [[[*pair], 1] for pair in tuples(500)]),
    (set[uuid.UUID | None], [uuid.UUID(int=k * P).hex for k in range(500)]),
    (set[decimal.Decimal], [f"{k * P}.0" for k in range(500)]),
    (set[decimal.Decimal], [f"{7 * pow(10, -k, P) % P}e{k}" for k in range(500)]),
    (Keyed, {"numbers": {"a": [k * P for k in range(500)]}}),
    (list[Keyed | None], [{"numbers": {"a": [k * P for k in range(500)]}}]),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value"), HASHED, ids=[str(hint)[:60] for hint, _ in HASHED])
def test_values_of_one_hash_are_refused(hint: Any, value: Any) -> None:
    body = b'{"x":%s}' % msgspec.json.encode(value)
    with pytest.raises(InvalidArguments, match="same hash"):
        codec(x=hint).decode(body, Format.JSON)


HONEST = [
    (set[int], [*range(-2000, 2000), *[7] * 500]),
    (set[int], [2**k for k in range(64)] * 40),
    (set[float], [2.0**k for k in range(-900, 900)]),
    (set[str], [str(k * P) for k in range(500)]),
    (dict[str, int], {str(k * P): 1 for k in range(500)}),
    (list[int], [k * P for k in range(500)]),
    (set[uuid.UUID], [str(uuid.UUID(int=k * 2**64 + 7 * k)) for k in range(500)]),
    (set[tuple[int, int]], [(i, j) for i in range(50) for j in range(50)]),
    (dict[int, int], {str(k): 1 for k in range(3000)}),
]


@pytest.mark.parametrize(("hint", "value"), HONEST, ids=[str(hint)[:60] for hint, _ in HONEST])
def test_honest_sets_and_dicts_are_taken(hint: Any, value: Any) -> None:
    assert codec(x=hint).decode(b'{"x":%s}' % msgspec.json.encode(value), Format.JSON)["x"]


def test_brackets_in_text_are_no_lists() -> None:
    arguments = codec(x=Any)
    text = "[{" * 100_000 + '\\"' * 300
    assert arguments.decode(b'{"x":%s}' % msgspec.json.encode(text), Format.JSON)["x"] == text


def test_the_depth_of_untyped_values_is_bounded() -> None:
    def deep(levels: int) -> bytes:
        return b'{"x":%s%s}' % (b"[" * levels, b"]" * levels)

    def packed(levels: int) -> bytes:
        return b"\x81\xa1x" + b"\x91" * (levels - 1) + b"\x90"

    arguments = codec(x=Any)
    for make, format in ((deep, Format.JSON), (packed, Format.MSGPACK)):
        arguments.decode(make(costs.DEPTH - 1), format)
        with pytest.raises(MalformedBody, match="nested too deeply"):
            arguments.decode(make(costs.DEPTH + 1), format)


def test_an_outline_reads_what_msgspec_writes() -> None:
    value = {
        "ints": [0, -1, 127, 128, -33, 2**8, 2**16, 2**32, 2**63, -(2**7), -(2**15), -(2**31), -(2**63)],
        "texts": ["", "a" * 31, "b" * 32, "c" * 300, "d" * 70_000], "bytes": [b"", b"e" * 300, b"f" * 70_000],
        "others": [None, True, False, 1.5, msgspec.msgpack.Ext(1, b""), msgspec.msgpack.Ext(1, b"1" * 4)],
        "exts": [msgspec.msgpack.Ext(5, b"1" * n) for n in (1, 2, 4, 8, 16, 300, 70_000)],
        "lists": [[[[]]], list(range(20)), [*range(70_000)]], "maps": [{}, {str(k): k for k in range(70_000)}],
    }  # fmt: skip
    found = outline(msgspec.msgpack.encode({**value, (1, 2): 3}), 1, 1_000_000, 10**12)
    assert found.held % 1_000_000 == 7 + 5 + 1 and found.held // 1_000_000 == 3
    assert (found.depth, found.listed_keys) == (5, 1)


TEXTS = [
    (np.ndarray, ["a" * 10_000, *[""] * 30_000], False),
    (list[np.ndarray], [["a" * 10_000, *[""] * 30_000]], False),
    (np.ndarray, [["a" * 10_000], *[[""]] * 30_000], False),
    (np.ndarray, ["a" * 100, *["b"] * 3000], True),
    (Annotated[np.ndarray, Array("U64")], ["name"] * 3000, True),
    (Annotated[np.ndarray, Array("S1000")], [""] * 50_000, False),
]


@pytest.mark.parametrize(("hint", "value", "fits"), TEXTS)
def test_arrays_of_text_take_no_more_than_came(hint: Any, value: Any, fits: bool) -> None:
    body = b'{"x":%s}' % msgspec.json.encode(value)
    if fits:
        assert codec(x=hint).decode(body, Format.JSON)["x"].shape == np.array(value).shape
        return
    with pytest.raises(InvalidArguments, match="send them as a list"):
        codec(x=hint).decode(body, Format.JSON)


FOREIGN = [
    TYPES["structs"], TYPES["defaults"], dict[str, int], list[int], int, float, str, bool, None, bytes, set[int],
    tuple[int, int], dict[int, int], int | None, TYPES["structs"] | None, uuid.UUID, decimal.Decimal,
    typing.Literal["a"], typing.NamedTuple("Named", [("a", int)]), typing.TypedDict("Typed", {"a": int}),
    msgspec.defstruct("Lone", [("a", int)]), msgspec.defstruct("Listed", [("a", int)], array_like=True), set[Any],
    dict[Any, int], Annotated[int, pydantic.Field(ge=0)],
]  # fmt: skip
VALUES = [
    array((), b"|u1", b"1"), array((1,), b"|u1", b"1"), array((0,), b"<f8"), array((1, 1), b"<U1", b"a\0\0\0"),
    b"\xd4\x05a", b"\xd4\x03{", b"\xd4\x041", b"\xd4\x02a", b"\xd6\xff\0\0\0\0", b"\xc7\x0c\xff" + b"\xff" * 12,
    b"\x81" + array((1,), b"|u1", b"1") + b"\xc0", b"\x91\x80", b"\x81\x80\xc0", b"\x81\x91\xc0\xc0", b"\xc4\x01a",
]  # fmt: skip


@pytest.mark.parametrize("hint", FOREIGN, ids=str)
def test_foreign_objects_are_misfits_everywhere(hint: Any) -> None:
    arguments = codec(x=hint)
    for value in VALUES:
        for body in (b"\x81\xa1x" + value, b"\x81\xa1x\x91" + value, b"\x81\xa1x\x81\xa1a" + value):
            try:
                arguments.decode(body, Format.MSGPACK)
            except InvalidArguments as exc:
                assert all(each["loc"][:1] == ["x"] for each in exc.errors)
            except MalformedBody:
                pass


class Checked(msgspec.Struct):
    count: int

    def __post_init__(self) -> None:
        if self.count == 1:
            raise KeyError("the user's own fault")
        if self.count == 2:
            raise ValueError("no twos")


def test_what_user_code_raises_is_its_own_fault() -> None:
    arguments = codec(x=Checked)
    with pytest.raises(KeyError, match="own fault"):
        arguments.decode(b'{"x":{"count":1}}', Format.JSON)
    with pytest.raises(InvalidArguments, match="no twos"):
        arguments.decode(b'{"x":{"count":2}}', Format.JSON)


def test_null_is_nan_where_a_number_of_numpy_is_expected() -> None:
    got = codec(x=np.float32).decode(b'{"x":null}', Format.JSON)["x"]
    assert type(got) is np.float32 and np.isnan(got)
    with pytest.raises(InvalidArguments):
        codec(x=np.int32).decode(b'{"x":null}', Format.JSON)


def test_rows_without_elements_are_bounded_both_ways() -> None:
    body = b"\x81\xa1x" + array((costs.EMPTY_ROWS + 1, 0))
    with pytest.raises(InvalidArguments, match="rows without elements"):
        codec(x=np.ndarray).decode(body, Format.MSGPACK)
    assert codec(x=np.ndarray).decode(body, Format.TYPED, no_memory)["x"].shape == (costs.EMPTY_ROWS + 1, 0)
    for shape in ((10**7, 0), (10, 10**6, 0, 3)):
        for format in (Format.JSON, Format.MSGPACK, Format.TYPED):
            with pytest.raises(TypeError, match="rows without elements"):
                ResultCodec(np.ndarray, "S.f").encode(np.zeros(shape), format)
    assert ResultCodec(np.ndarray, "S.f").encode(np.zeros((0, 10**7)), Format.JSON) == b"[]"
