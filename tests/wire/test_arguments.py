"""Arguments and results: what fits, what does not and where, and that no body raises anything
else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import enum
import math
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from graphserve.call.remote import RemoteCall
from graphserve.errors import InvalidArguments
from graphserve.wire.arrays import Array
from graphserve.wire.codec import ArgumentsCodec, Format, MalformedBody, ResultCodec, UntypedCodec
from graphserve.wire.extensions import no_memory
from graphserve.wire.formats import MediaFormat
from tests.codecs import codec


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Crop:
    x: int
    page: Annotated[np.ndarray, Array("float32", (None,))] | None = None
    more: list[Crop] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    page: Annotated[np.ndarray, Array("float32")]


class Point(NamedTuple):
    x: int
    page: Annotated[np.ndarray, Array("float32")]


class Options(TypedDict, total=False):
    name: str
    page: Annotated[np.ndarray, Array("float32")]


class Item(msgspec.Struct, rename="camel", frozen=True):
    the_page: Annotated[np.ndarray, Array("float32")]


class Model(pydantic.BaseModel):
    count: int
    tags: list[str] = []
    when: datetime.datetime | None = None
    renamed: float = pydantic.Field(1.0, alias="bee")


class Forbids(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    width: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return self.width * 2


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


class Holder(msgspec.Struct):
    model: Model
    page: np.ndarray


def errors_of(
    arguments: ArgumentsCodec, body: bytes, format: Format = Format.JSON
) -> list[tuple[Any, str]]:
    with pytest.raises(InvalidArguments) as caught:
        arguments.decode(body, format)
    assert str(caught.value).startswith("arguments of S.f: ") or "raw body" in str(caught.value)
    assert all(set(each) == {"loc", "msg", "type"} and each["msg"] for each in caught.value.errors)
    return [(each["loc"], each["type"]) for each in caught.value.errors]


STRICT = [  # hint, JSON, whether it fits
    (int, "1", True), (int, "1.0", False), (int, '"1"', False), (int, "true", False), (int, "null", False),
    (float, "1", True), (float, "1.5", True), (float, '"1"', False), (float, "true", False),
    (str, '"a"', True), (str, "1", False), (bool, "true", True), (bool, "1", False), (bool, '"true"', False),
    (bytes, '"YQ=="', True), (bytes, '"@"', False), (bytes, "[1]", False), (bytearray, '"YQ=="', True),
    (list[int], "[1]", True), (list[int], "1", False), (list[int], '["1"]', False),
    (tuple[int, str], "[1]", False),
    (int | None, "null", True), (int | str, '"a"', True), (int | str, "1.5", False),
    (Color, '"red"', True),
    (Color, '"green"', False), (Literal["a"], '"b"', False), (uuid.UUID, '"x"', False),
    (decimal.Decimal, '"1.5"', True),
    (datetime.datetime, '"2020-01-01T00:00:00Z"', True), (datetime.datetime, '"yesterday"', False),
    (None, "null", True), (None, "0", False), (dict[str, int], '{"a":1}', True), (dict[str, int], '{"a":"1"}', False),
    (Any, '{"a":[1]}', True),
    (object, "1", True), (dict[str, object], '{"a":1}', True), (Annotated[int, msgspec.Meta(ge=0)], "-1", False),
    (Model, '{"count":1}', True), (Model, '{"count":"1"}', False), (Model, '{"count":1.0}', False),
    (Model, '{"count":1,"bee":2}', True), (Model, '{"count":1,"bee":"2"}', False), (Model, "[]", False),
    (Model, '{"count":1,"when":"2020-01-01T00:00:00Z"}', True), (list[Model], '[{"count":1}]', True),
    (Model | None, "null", True), (Cat | Dog, '{"kind":"dog"}', True), (Cat | Dog, '{"kind":"cow"}', False),
    (Annotated[int, pydantic.Field(gt=0)], "1", True), (Annotated[int, pydantic.Field(gt=0)], "0", False),
    (Holder, '{"model":{"count":1},"page":[1]}', True), (Holder, '{"model":{"count":"1"},"page":[1]}', False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("hint", "json", "fits"), STRICT, ids=[f"{h}-{j}"[-50:] for h, j, _ in STRICT]
)
def test_validation_is_strict(hint: Any, json: str, fits: bool) -> None:
    arguments = codec(x=hint)
    as_json = b'{"x":%s}' % json.encode()
    natural = msgspec.msgpack.encode(msgspec.json.decode(as_json))
    for body, format in ((as_json, Format.JSON), (natural, Format.MSGPACK)):
        if hint in (bytes, bytearray) and format is Format.MSGPACK:
            continue  # msgpack has bytes of its own
        if fits:
            assert set(arguments.decode(body, format)) == {"x"}
        else:
            assert all(loc[0] == "x" for loc, _ in errors_of(arguments, body, format))


LOCATIONS = [  # hint, JSON, loc, type
    (int, '"1"', ["x"], "type_error"),
    (list[Crop], '[{"x":1},{"x":"a"}]', ["x", 1, "x"], "type_error"),
    (list[Crop], "[{}]", ["x", 0, "x"], "missing_field"),
    (
        list[Crop],
        '[{"x":1,"more":[{"x":1,"page":[[1]]}]}]',
        ["x", 0, "more", 0, "page"],
        "value_error",
    ),
    (dict[str, list[int]], '{"a":["b"]}', ["x", "*", 0], "type_error"),
    (dict[str, np.ndarray], '{"a":["b"],"c":[{}]}', ["x", "*"], "value_error"),
    (
        dict[str, Annotated[np.ndarray, Array(shape=(1,))]],
        '{"a":[1],"c":[1,2]}',
        ["x", "c"],
        "value_error",
    ),
    (dict[int, int], '{"a":1}', ["x"], "type_error"),
    (Annotated[int, msgspec.Meta(ge=3)], "1", ["x"], "value_error"),
    (Annotated[list[int], msgspec.Meta(max_length=1)], "[1,2]", ["x"], "value_error"),
    (Item, '{"thePage":["a"]}', ["x", "thePage"], "type_error"),
    (Point, '[1,["a"]]', ["x", "page"], "type_error"),
    (Options, '{"page":["a"]}', ["x", "page"], "type_error"),
    (Frozen, '{"page":["a"]}', ["x", "page"], "type_error"),
    (tuple[int, Annotated[np.ndarray, Array(shape=(1,))]], "[1,[1,2]]", ["x", 1], "value_error"),
    (Model, '{"count":1,"tags":[1]}', ["x", "tags", 0], "string_type"),
    (list[Model], "[{}]", ["x", 0, "count"], "missing"),
]


@pytest.mark.parametrize(
    ("hint", "json", "loc", "kind"), LOCATIONS, ids=[f"{c[1]}-{c[3]}" for c in LOCATIONS]
)
def test_errors_say_where(hint: Any, json: str, loc: list[Any], kind: str) -> None:
    assert errors_of(codec(x=hint), b'{"x":%s}' % json.encode()) == [(loc, kind)]


def test_every_argument_is_reported_at_once() -> None:
    arguments = codec(2, a=int, b=str, c=Model, d=Annotated[np.ndarray, Array(shape=(1,))])
    assert errors_of(arguments, b'{"b":1,"c":{},"d":[1,2],"e":0}') == [
        (["a"], "missing_argument"),
        (["b"], "type_error"),
        (["c", "count"], "missing"),
        (["d"], "value_error"),
        (["e"], "unexpected_argument"),
    ]


def test_only_what_is_given_arrives() -> None:
    arguments = codec(1, a=int, b=str | None, c=Model, d=np.ndarray, e=Any, f=object, g=int | None)
    assert arguments.decode(b'{"a":1}', Format.JSON) == {"a": 1}
    assert arguments.decode(b'{"a":1,"b":null}', Format.JSON) == {"a": 1, "b": None}
    assert arguments.decode(
        arguments.encode({"a": 1, "e": None, "g": 5}), Format.TYPED, no_memory
    ) == {
        "a": 1,
        "e": None,
        "g": 5,
    }
    assert (
        codec(0, a=int).decode(b"", Format.JSON)
        == codec(0, a=int).decode(b"", Format.MSGPACK)
        == {}
    )
    assert codec().decode(b"{}", Format.JSON) == codec().decode(b"", Format.JSON) == {}


@pytest.mark.parametrize("name", ["keys", "get", "type", "format", "cls", "class_", "_x", "ä"])
def test_any_name_of_a_parameter(name: str) -> None:
    arguments = codec(**{name: int})
    assert arguments.decode(arguments.encode({name: 1}), Format.TYPED, no_memory) == {name: 1}


@pytest.mark.parametrize(
    ("body", "loc"),
    [(b"[]", []), (b"1", []), (b"null", []), (b'"a"', [])],
    ids=["array", "number", "null", "string"],
)
def test_a_body_that_is_no_object(body: bytes, loc: list[Any]) -> None:
    with pytest.raises(InvalidArguments, match="the body must be an object of the parameters"):
        codec(x=int).decode(body, Format.JSON)
    with pytest.raises(InvalidArguments, match="the body must be an object of the parameters"):
        codec(x=int).decode(msgspec.msgpack.encode(msgspec.json.decode(body)), Format.MSGPACK)


MALFORMED = [
    *((Format.JSON, body) for body in (
        b"{", b"nonsense", b'{"x":1}}', b'{"x":\xff}', b'{"x":"\xff"}', b'{"\xff":1}', b'{"x":NaN}',
        b'{"x":' + b"[" * 100_000,
    )),
    *((Format.MSGPACK, body) for body in (
        b"\x81", b"\xc1", b"\x80\x80", b"\x81\xa1x\xa1\xff", b"\x81\xa1x" + b"\x91" * 100_000,
    )),
]  # fmt: skip


@pytest.mark.parametrize(
    ("format", "body"),
    MALFORMED,
    ids=[f"{format.name}-{body[:12]!r}" for format, body in MALFORMED],
)
def test_bodies_that_are_not_what_they_claim(format: Format, body: bytes) -> None:
    hints = [str, int, Any, list, Model, np.ndarray] if format is Format.JSON else [Any]
    for hint in hints:
        with pytest.raises(MalformedBody):
            codec(x=hint).decode(body, format)


EVERYTHING = codec(
    0, a=int, b=list[Crop], c=Model, d=np.ndarray, e=Any, f=dict[str, Item], g=Cat | Dog, h=bytes, i=Point,
    j=Options, k=np.float32, l=uuid.UUID | int | None, m=Holder, n=list[Model], o=object,
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=4)
    | st.binary(max_size=4)
    | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary(max_size=20)),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["x", "page", "count", "model", "kind", "a"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def survives(body: bytes, format: Format) -> None:
    for fetch in (None, no_memory):  # from the public, and from a service of ours
        with contextlib.suppress(MalformedBody, InvalidArguments):
            EVERYTHING.decode(body, format, fetch)


@given(st.binary(max_size=200), st.sampled_from([Format.JSON, Format.MSGPACK, Format.RAW]))
def test_no_bytes_raise_anything_else(body: bytes, format: Format) -> None:
    survives(body, format)


@pytest.mark.parametrize("format", [Format.JSON, Format.MSGPACK])
@given(st.dictionaries(st.sampled_from("abcdefghijklmnop"), VALUES, max_size=4), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])  # of a loaded machine, not of the values
def test_no_values_raise_anything_else(
    format: Format, arguments: dict[str, Any], data: st.DataObject
) -> None:
    if format is Format.JSON:
        body = bytearray(msgspec.json.encode(arguments, enc_hook=lambda ext: ext.code))
    else:
        body = bytearray(msgspec.msgpack.encode(arguments))
    survives(bytes(body), format)
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(body), format)
    survives(bytes(body)[: data.draw(st.integers(0, len(body)))], format)


LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (str, st.text()),
    (bool, st.booleans()),
    (None, st.none()),
    (bytes, st.binary()),
    (bytearray, st.builds(bytearray, st.binary())),
    (Color, st.sampled_from(Color)),
    (datetime.datetime, st.datetimes(timezones=st.none() | st.just(datetime.UTC))),
    (datetime.date, st.dates()),
    (datetime.time, st.times()),
    (datetime.timedelta, st.timedeltas(datetime.timedelta(-9999), datetime.timedelta(9999))),
    (uuid.UUID, st.uuids()),
    (decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (
        Model,
        st.builds(Model, count=st.integers(), tags=st.lists(st.text()), bee=st.floats(-1e9, 1e9)),
    ),
    (Cat | Dog, st.sampled_from([Cat(kind="cat"), Dog(kind="dog")])),
]


def nest(typed: tuple[Any, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
    hint, values = typed
    keyed = st.dictionaries(st.text(), values, max_size=3)
    return st.one_of(
        st.tuples(st.just(hint), values),
        st.tuples(st.just(list[hint]), st.lists(values, max_size=3)),  # type: ignore[valid-type]
        st.tuples(st.just(dict[str, hint]), keyed),  # type: ignore[valid-type]
        st.tuples(
            st.just(dict[str, list[hint] | None]),
            st.dictionaries(st.text(), st.lists(values), max_size=2),
        ),  # type: ignore[valid-type]
        st.tuples(st.just(tuple[hint, ...]), st.lists(values, max_size=3).map(tuple)),  # type: ignore[valid-type]
        st.tuples(st.just(tuple[hint, int]), st.tuples(values, st.integers(0, 9))),  # type: ignore[valid-type]
        st.tuples(st.just(hint | None if hint is not None else None), values),
    )


@given(st.sampled_from(LEAVES).flatmap(nest))
def test_any_value_comes_back(case: tuple[Any, Any]) -> None:
    hint, value = case
    result = ResultCodec(hint, "S.f")
    assert result.decode(result.encode(value, Format.TYPED)) == value
    arguments = codec(x=hint)
    assert arguments.decode(arguments.encode({"x": value}), Format.TYPED, no_memory) == {"x": value}
    assert arguments.decode(b'{"x":%s}' % result.encode(value, Format.JSON), Format.JSON) == {
        "x": value
    }


def test_classes_with_arrays_come_back_read_only() -> None:
    page = np.arange(3, dtype="f4")
    value: dict[str, Any] = {
        "a": [Crop(1, page, [Crop(2, page)])], "b": Point(1, page), "c": {"page": page}, "d": Frozen(page),
        "e": Item(page), "f": Holder(Model(count=1), page), "g": (1, page), "h": {"x": [page]},
    }  # fmt: skip
    arguments = codec(
        a=list[Crop], b=Point, c=Options, d=Frozen, e=Item, f=Holder, g=tuple[int, np.ndarray],
        h=dict[str, list[np.ndarray] | None],
    )  # fmt: skip
    as_json = msgspec.json.encode(
        value, enc_hook=lambda o: o.tolist() if isinstance(o, np.ndarray) else o.model_dump()
    )
    for body, format, fetch in (
        (arguments.encode(value), Format.TYPED, no_memory),
        (as_json, Format.JSON, None),
    ):
        got = arguments.decode(body, format, fetch)
        arrays = [
            got["a"][0].page, got["a"][0].more[0].page, got["b"].page, got["c"]["page"], got["d"].page,
            got["e"].the_page, got["f"].page, got["g"][1], got["h"]["x"][0],
        ]  # fmt: skip
        for array in arrays:
            assert np.array_equal(array, page) and not array.flags.writeable
        assert all(array.dtype == page.dtype for array in arrays[:6])
        assert got["f"].model == Model(count=1)


class Forgotten:
    """Return a call to a dependency without `await`."""

    def __await__(self) -> Iterator[int]:
        yield 1


def test_values_that_cannot_be_sent() -> None:
    with pytest.raises(
        TypeError, match=r"^S\.f: argument 'y': a value of type object cannot be sent"
    ):
        codec(x=Any, y=Any).encode({"x": 1, "y": [object()]})
    with pytest.raises(TypeError, match=r"^S\.f: argument 'x'"):
        codec(x=Model).encode({"x": 5})
    for format in (Format.JSON, Format.MSGPACK):
        with pytest.raises(TypeError, match=r"^the result of S\.f: "):
            ResultCodec(Model, "S.f").encode(5, format)
        with pytest.raises(TypeError, match=r"^the result of S\.f: .*object"):
            ResultCodec(int, "S.f").encode(object(), format)
        with pytest.raises(
            TypeError, match=r"a call that was not awaited .*: write 'await' before it"
        ):
            ResultCodec(int, "S.f").encode(Forgotten(), format)
        with pytest.raises(
            TypeError,
            match=r"sent: write 'await' before it, or '\.result\(\)' behind it in a plain 'def'",
        ):
            ResultCodec(int, "S.f").encode(object.__new__(RemoteCall), format)
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(TypeError, match=r"^the result of S\.f: "):
        ResultCodec(list, "S.f").encode(loop, Format.TYPED)
    with pytest.raises(TypeError):
        UntypedCodec().encode({"x": object()})


def test_a_result_that_does_not_fit() -> None:
    wire = ResultCodec(Any, "S.f").encode([{"x": "1"}], Format.TYPED)
    with pytest.raises(
        ValueError,
        match=r"^the result of S\.f does not fit its annotation: \[0\]\.x: Expected `int`",
    ):
        ResultCodec(list[Crop], "S.f").decode(wire)
    with pytest.raises(ValueError, match=r"^the result of S\.f"):
        ResultCodec(int, "S.f").decode(b"")


def test_results_for_the_public() -> None:
    assert (
        ResultCodec(Model, "S.f").encode(Model(count=1), Format.JSON)
        == b'{"count":1,"tags":[],"when":null,"bee":1.0}'
    )
    assert (
        ResultCodec(Any, "S.f").encode([Forbids(width=2)], Format.JSON)
        == b'[{"width":2,"double":4}]'
    )
    assert ResultCodec(bytes, "S.f").encode(b"a", Format.JSON) == b'"YQ=="'
    assert ResultCodec(bytes, "S.f").encode(b"a", MediaFormat(b"audio/wav")) == b"a"
    assert ResultCodec(float, "S.f").encode(math.nan, Format.JSON) == b"null"
    assert ResultCodec(float, "S.f").encode(np.float64(1.5), Format.JSON) == b"1.5"
    assert ResultCodec(None, "S.f").encode(None, Format.JSON) == b"null"
    assert ResultCodec(set[int], "S.f").encode({1}, Format.JSON) == b"[1]"


def test_raw_bodies() -> None:
    assert codec(x=bytes).decode(b"\xff", Format.RAW) == {"x": b"\xff"}
    assert codec(x=bytes).decode(memoryview(b"\xff"), Format.RAW) == {"x": b"\xff"}
    assert codec(x=bytes).decode(b'{"x":"YQ=="}', Format.JSON) == {"x": b"a"}
    with pytest.raises(InvalidArguments, match="not a raw body"):
        codec(x=int).decode(b"1", Format.RAW)


def test_untyped_values_are_natural() -> None:
    untyped = UntypedCodec()
    page = np.arange(3)
    got = untyped.decode(
        untyped.encode(
            {"a": [1, 2.5, "x", b"y", None, True], "m": Model(count=1), "p": page, "s": {1}}
        )
    )
    assert got.pop("p").tolist() == [0, 1, 2]
    assert got == {
        "a": [1, 2.5, "x", b"y", None, True],
        "m": {"count": 1, "tags": [], "when": None, "renamed": 1.0},
        "s": [1],
    }
    with pytest.raises(ValueError, match="cannot be read"):
        untyped.decode(b"\xc1")
    typed = codec(m=Model, n=list[Model], p=np.ndarray)
    body = untyped.encode({"m": Model(count=1), "n": [{"count": 2}], "p": page})
    assert typed.decode(body, Format.TYPED, no_memory)["n"] == [Model(count=2)]


def test_models_travel_by_their_fields() -> None:
    assert (
        ResultCodec(float, "S.f").decode(ResultCodec(float, "S.f").encode(math.inf, Format.TYPED))
        == math.inf
    )
    result = ResultCodec(list[Forbids], "S.f")
    assert result.decode(result.encode([Forbids(width=2)], Format.TYPED)) == [Forbids(width=2)]
    odd = Model(count=1, bee=math.inf)
    for hint, value in ((Model, odd), (list[Model], [odd]), (Holder, Holder(odd, np.zeros(1)))):
        again = ResultCodec(hint, "S.f")
        assert repr(again.decode(again.encode(value, Format.TYPED))) == repr(value)


class Memory:
    """Takes the place of shared memory: buffers by number."""

    def __init__(self) -> None:
        self.buffers: list[bytes] = []

    def place(self, buffer: memoryview) -> bytes | None:
        if buffer.nbytes < 100:
            return None
        self.buffers.append(bytes(buffer))
        return b"%d" % (len(self.buffers) - 1)

    def fetch(self, reference: bytes) -> memoryview:
        return memoryview(self.buffers[int(reference)])


BIG = b"x" * 70_000


@pytest.mark.parametrize(
    ("hint", "value", "placed"),
    [
        (np.ndarray, np.arange(1000), 1),
        (np.ndarray, np.arange(3), 0),
        (list[np.ndarray], [np.arange(1000), np.zeros(500)], 2),
        (Any, {"a": np.arange(1000)}, 1),
        (Holder, Holder(Model(count=1), np.arange(1000)), 1),
        (bytes, BIG, 1),
        (bytes, b"small", 0),
        (bytes | None, BIG, 1),
        (bytes | None, None, 0),
        (list[bytes], [BIG, b"small", BIG], 2),
        (tuple[bytes, ...], (BIG,), 1),
        (dict[str, bytes], {"a": BIG}, 1),
        (dict[str, list[bytes] | None], {"a": [BIG], "b": None}, 1),
        (bytes | int, BIG, 0),
        (Annotated[bytes, msgspec.Meta(min_length=1)], BIG, 0),
        (dict[bytes, bytes], {b"a": BIG}, 0),
    ],
    ids=lambda value: str(value)[:40],
)
def test_large_buffers_by_reference(hint: Any, value: Any, placed: int) -> None:
    memory, arguments, result = Memory(), codec(0, x=hint), ResultCodec(hint, "S.f")
    wire = arguments.encode({"x": value}, memory.place)
    assert len(memory.buffers) == placed
    got = arguments.decode(wire, Format.MSGPACK, memory.fetch)["x"]
    again = result.decode(result.encode(value, Format.TYPED, memory.place), memory.fetch)
    assert type(got) is type(value)
    for each in (got, again):
        assert repr(each) == repr(value)
    if placed:
        with pytest.raises(InvalidArguments):
            arguments.decode(wire, Format.MSGPACK)
        with pytest.raises(ValueError, match=r"reference|ext"):
            result.decode(result.encode(value, Format.TYPED, memory.place))


def test_a_placed_array_is_read_only() -> None:
    memory = Memory()
    got = UntypedCodec().decode(
        UntypedCodec().encode({"x": np.arange(1000)}, memory.place), memory.fetch
    )["x"]
    assert not got.flags.writeable and not got.flags.owndata


def test_no_body_is_an_empty_raw_body() -> None:
    arguments = codec(data=bytes)
    assert arguments.decode(b"", Format.JSON) == {"data": b""}
    with pytest.raises(InvalidArguments, match="missing argument 'data'"):
        arguments.decode(b"{}", Format.JSON)
