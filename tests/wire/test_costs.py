"""What a few bytes may cost: costly bodies are refused in few words, honest ones that look like
them are not.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import struct
import time
import typing
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np
import pydantic
import pytest

from graphserve.errors import InvalidArguments
from graphserve.wire.arrays import Array
from graphserve.wire.codec import Format, MalformedBody, ResultCodec
from graphserve.wire.costs import bounds
from graphserve.wire.costs.hash_spread import Table
from graphserve.wire.costs.outline import bare, outline
from graphserve.wire.extensions import no_memory
from graphserve.wire.formats import FrameReader, pack
from graphserve.worker.http.strict import fault
from tests.codecs import codec
from tests.hostile.bodies import (
    JSON,
    KINDS,
    TYPES,
    Ids,
    Kind,
    P,
    array,
    complexes,
    floats,
    lookalikes,
    tuples,
)

FORMATS = {kind.format: Format.JSON if kind.format == JSON else Format.MSGPACK for kind in KINDS}


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
    assert len(str(caught.value)) < 2 * bounds.MESSAGE_CHARACTERS
    if isinstance(caught.value, InvalidArguments):
        errors = caught.value.errors
        assert 0 < len(errors) <= bounds.ERRORS_TOLD + 1
        assert all(len(each["msg"]) <= bounds.MESSAGE_CHARACTERS for each in errors)
        assert all(
            len(str(step)) <= bounds.NAME_CHARACTERS for each in errors for step in each["loc"]
        )


def test_how_many_errors_there_are_is_told() -> None:
    body = b'{"x":1,%s}' % b",".join(b'"%d":1' % k for k in range(100))
    with pytest.raises(InvalidArguments, match=r"\(and 99 more\)") as caught:
        codec(x=int).decode(body, Format.JSON)
    assert caught.value.errors[-1] == {
        "loc": [],
        "msg": "and 68 more errors",
        "type": "more_errors",
    }


def test_a_name_cannot_forge_a_place() -> None:
    body = b'{"x":[{"a - at `$.y`":1}]}'
    with pytest.raises(InvalidArguments) as caught:
        codec(x=TYPES["structs"]).decode(body, Format.JSON)
    assert caught.value.errors[0]["loc"] == ["x", 0, "a - at `$.y`"]


class Keyed(pydantic.BaseModel):
    numbers: dict[str, set[int]] = {}


@pydantic.dataclasses.dataclass(frozen=True)
class Point:
    a: int
    b: int = 0


class Several(pydantic.BaseModel):
    points: set[Point] = set()
    few: set[int] = pydantic.Field(set(), max_length=3, min_length=1)
    either: set[int] | dict[int, str] = {}
    inner: Several | None = None


class Node(msgspec.Struct):
    numbers: frozenset[int] = frozenset()
    next: Node | None = None


class Listed(msgspec.Struct, array_like=True, tag=True):
    numbers: set[int]


MULTIPLES = [k * P for k in range(500)]
URNS = [f"urn:uuid:{uuid.UUID(int=k)}" for k in MULTIPLES]
HASHED: list[tuple[Any, Any]] = [  # what takes long to find is found when it is needed
    (TYPES["set_partly"], lambda: [{"a": a, "b": b, "note": a, "unknown": 1} for a, b in tuples(500, (7,))]),
    (TYPES["set_floats"], lambda: floats(500)),
    (set[tuple[float, float]], lambda: [*floats(400), [None, 1.0], *floats(500)]),
    (frozenset[frozenset[int]], [MULTIPLES]),
    (Node, {"next": {"next": {"numbers": MULTIPLES}}}),
    (Listed, ["Listed", MULTIPLES]),
    (TYPES["ids"], {"ids": URNS}),
    (TYPES["ids"], {"keys": dict.fromkeys(URNS, 1)}),
    (TYPES["ids"], {"numbers": complexes(500)}),
    (TYPES["ids"], {"models": [{"id": urn} for urn in URNS]}),
    (list[Ids], [{"ids": URNS}]),
    (Several, lambda: {"points": [{"a": a, "b": b} for a, b in tuples(500)]}),
    (Several, {"few": MULTIPLES}),
    (Several, lambda: {"inner": {"inner": {"points": [{"a": a, "b": b} for a, b in tuples(500)]}}}),
    (dict[str, Annotated[set[int], pydantic.Field(max_length=600)]], {"a": MULTIPLES}),
    (tuple[set[int], np.ndarray], [MULTIPLES, [1.0]]),
    (set[int], [k * P + 1 for k in range(500)]),
    (frozenset[int | str], [k * P for k in range(500)]),
    (list[set[Any]], [[k * P for k in range(500)]]),
    (dict[str, dict[int, str]], {"a": {str(k * P): "" for k in range(500)}}),
    (dict[int | None, str] | None, {str(-k * P): "" for k in range(500)}),
    (set[tuple[int, ...]], lambda: [[*pair] for pair in tuples(500)]),
    (set[tuple[tuple[int, int], int]], lambda: [[[*pair], 1] for pair in tuples(500)]),
    (set[uuid.UUID | None], [uuid.UUID(int=k * P).hex for k in range(500)]),
    (set[decimal.Decimal], [f"{k * P}.0" for k in range(500)]),
    (set[decimal.Decimal], [f"{7 * pow(10, -k, P) % P}e{k}" for k in range(500)]),
    (Keyed, {"numbers": {"a": [k * P for k in range(500)]}}),
    (list[Keyed | None], [{"numbers": {"a": [k * P for k in range(500)]}}]),
]  # fmt: skip


class Named(pydantic.BaseModel):
    names: dict[float, int] = {}
    weights: dict[int, int] = {}


SLOW = lookalikes(10_900, 14, 4000)
IDS = [str(uuid.UUID(int=key)) for key in SLOW]
IN_THE_WAY = [
    (dict[float, int], {str(float(key)): 1 for key in SLOW}),
    (dict[int, int], {str(key): 1 for key in SLOW}),
    (dict[uuid.UUID, int], dict.fromkeys(IDS, 1)),
    (dict[decimal.Decimal, int], {str(key): 1 for key in SLOW}),
    (list[dict[float | None, int]], [{str(float(key)): 1 for key in SLOW}]),
    (dict[datetime.timedelta | int, int], {str(key): 1 for key in SLOW}),
    (Named, {"names": {str(float(key)): 1 for key in SLOW}}),
    (Named, {"weights": {str(key): 1 for key in SLOW}}),
]  # fmt: skip


CHOSEN = [
    *((hint, value, "same hash") for hint, value in HASHED),
    *((hint, value, "lead to the same places") for hint, value in IN_THE_WAY),
]


@pytest.mark.parametrize(
    ("hint", "value", "why"), CHOSEN, ids=[f"{why[-6:]}-{hint!s:.60}" for hint, _, why in CHOSEN]
)
def test_values_that_make_a_slow_table_are_refused(hint: Any, value: Any, why: str) -> None:
    body = b'{"x":%s}' % msgspec.json.encode(value() if callable(value) else value)
    with pytest.raises(InvalidArguments, match=why):
        codec(x=hint).decode(body, Format.JSON)


@pytest.mark.parametrize(
    "hint",
    [Any, dict[float, int], np.ndarray, np.float32, list[Any], dict[int, Any], Named],
    ids=str,
)
@pytest.mark.parametrize("kind", [int, float])
def test_keys_of_maps_are_looked_at_before_a_dict_is_made(
    hint: Any, kind: Callable[[int], float]
) -> None:
    keys = b"".join(msgspec.msgpack.encode(kind(key)) + b"\x01" for key in SLOW)
    with pytest.raises(InvalidArguments, match="lead to the same places"):
        codec(x=hint).decode(b"\x81\xa1x\xdf" + struct.pack(">I", len(SLOW)) + keys, Format.MSGPACK)


def test_a_value_that_takes_long_to_find_is_refused_if_it_comes_often() -> None:
    some = lookalikes(19_000, 15, 1, 9)
    with pytest.raises(InvalidArguments, match="lead to the same places"):
        codec(x=set[int]).decode(
            b'{"x":%s}' % msgspec.json.encode([*some, *[some[-1]] * 100_000]), Format.JSON
        )


@pytest.mark.parametrize("number", [10, 300, 20_000, 60_000])
@pytest.mark.parametrize("step", [1, 7, 2**12, 2**44, P // 3 + 5, -(2**20) - 1])
def test_steps_are_counted_in_tables_as_they_are(number: int, step: int) -> None:
    keys = [(key * key + key) * step for key in range(number)]
    hashes = list(map(hash, keys))
    of_set, of_dict = Table(hashes, True), Table(hashes, False)
    steps = sum(map(of_set.add, range(number))), sum(map(of_dict.add, range(number)))
    assert [keys[each] for each in of_set.numbers()] == list(set(keys))
    assert sum(steps) < 80 * number
    assert of_set.find(number - 1) <= 80 and of_dict.find(number - 1) <= 80


HONEST = [
    (dict[float, int], {str(k / 8): 1 for k in range(20_000)}),
    (set[float], [k / 4096 for k in range(20_000)]),
    (set[int], [k << 44 for k in range(20_000)]),
    (set[datetime.datetime], [f"2020-01-01T00:00:{k / 1000:06.3f}Z" for k in range(20_000)]),
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


def test_what_is_given_twice_cannot_hide_behind_the_last_one() -> None:
    chosen = msgspec.json.encode(MULTIPLES)
    for hint, body in (
        (set[int], b'{"x":%s,"x":[]}' % chosen),
        (Node, b'{"x":{"numbers":%s,"numbers":[]}}' % chosen),
        (dict[str, set[int]], b'{"x":{"a":%s,"a":[]}}' % chosen),
    ):
        with pytest.raises(InvalidArguments, match="twice"):
            codec(x=hint).decode(body, Format.JSON)


def test_a_guarded_model_is_read_as_any_other() -> None:
    arguments = codec(x=Several)
    padding = " " * bounds.HASHED_BODY  # the guard looks at what is not small

    def read(value: Any, pad: str) -> Any:
        try:
            return arguments.decode(
                b'{"x":%s%s}' % (msgspec.json.encode(value), pad.encode()), Format.JSON
            )["x"]
        except InvalidArguments as exc:
            return exc.errors

    for value in (
        {"few": [1, 1, 2, 2, 3]}, {"few": []}, {"few": [1, 2, 3, 4]}, {"few": "a"}, {"few": {"a": 1}},
        {"few": [1, "a"]},
        {"points": [{"a": 1}, {"a": 1, "b": 0}]}, {"points": [{"a": "1"}]}, {"either": {"1": "a"}}, {"either": [1, 1]},
        {"either": {"a": "a"}}, {"inner": {"points": [{"a": 1}], "few": [7]}}, {"inner": {"few": None}},
    ):  # fmt: skip
        assert read(value, padding) == read(value, "")


KEYED = {
    "set_int", "dict_int", "set_uuid", "dict_uuid", "set_decimal", "set_tuple", "set_frozen",
    "set_partly", "set_floats", "ids",
}  # fmt: skip


def cpu(hint: Any, body: bytes, format: Format = Format.JSON) -> float:
    """Return the least CPU that it takes to decode a body, or to refuse it."""
    arguments, least = codec(x=hint), 60.0
    for _ in range(3):
        start = time.thread_time()
        with contextlib.suppress(InvalidArguments, MalformedBody):
            arguments.decode(body, format)
        least = min(least, time.thread_time() - start)
    return least


def is_linear(hint: Any, make: Callable[[int], bytes], format: Format = Format.JSON) -> bool:
    """Return whether a body of twice the size takes not much more than twice the CPU; one of several
    tries is enough.
    """
    return any(
        cpu(hint, make(40_000), format) < 3.5 * cpu(hint, make(20_000), format) + 0.001
        for _ in range(4)
    )


# Others stop at a bound, at which the cost changes in a step.
SMOOTH = [kind for kind in KINDS if "string" in kind.name or kind.type in KEYED]


@pytest.mark.parametrize("kind", SMOOTH, ids=lambda kind: kind.name)
def test_twice_the_bytes_cost_twice_as_much(kind: Kind) -> None:
    assert is_linear(TYPES[kind.type], kind.make, FORMATS[kind.format])


HOSTILE = [
    b'"', b'\\"', b'"\\', b"\\", b"[", b"]", b"{", b'{"', b'":', b",", b"a", b"1", b" ", b"\n", b'"\\"', b'["",',
    b'{"a":',
    b"\x92\x91", b"\x81\xa1a", b"\xc1", b"\xdc\xff\xff", b"\x81\x92\x01\x02",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE, ids=repr)
def test_readers_of_what_no_decoder_has_seen_are_linear(piece: bytes) -> None:
    def took(read: Callable[[bytes], Any], size: int) -> float:
        body, least = piece * (size // len(piece)), 60.0
        for _ in range(3):
            start = time.thread_time()
            read(body)
            least = min(least, time.thread_time() - start)
        return least

    for read in (bare, lambda body: outline(body, 72, 192, 10**12)):
        assert any(took(read, 80_000) < 3.5 * took(read, 40_000) + 0.001 for _ in range(4))
    assert bare(b'{"a":"[\\\\","b":"\\"["}') == b"{:,:}" and bare(b'["') == bare(b'["a\\') == b"["


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (set[int], [*range(1000)] * 33),
        (set[int], [*range(30_000)]),
        (set[str], [str(k) for k in range(20_000)]),
        (dict[int, int], {str(k): k for k in range(10_000)}),
        (set[tuple[int, int]], [(k % 100, k // 100) for k in range(10_000)]),
    ],
    ids=str,
)
def test_honest_sets_cost_little_more_than_lists(hint: Any, value: Any) -> None:
    body = b'{"x":%s}' % msgspec.json.encode(value)
    plain = list[Any] if type(value) is list else dict[str, Any]
    assert any(cpu(hint, body) < 12 * cpu(plain, body) + 0.002 for _ in range(4))


def test_lists_beside_a_set_cost_what_lists_cost() -> None:
    class Labelled(msgspec.Struct):
        labels: set[int]
        pixels: list[int]

    class Listed(msgspec.Struct):
        labels: list[int]
        pixels: list[int]

    body = b'{"x":{"labels":[1],"pixels":%s}}' % msgspec.json.encode(
        [k * k % 251 for k in range(60_000)]
    )
    assert any(cpu(Labelled, body) < 8 * cpu(Listed, body) + 0.002 for _ in range(4))


def test_a_frame_in_many_pieces_is_put_together_once() -> None:
    def took(size: int) -> float:
        frame, reader = pack(0, bytes(size)), FrameReader()
        start = time.thread_time()
        frames = [
            each for at in range(0, len(frame), 64) for each in reader.feed(frame[at : at + 64])
        ]
        assert frames == [(0, bytes(size))]
        return time.thread_time() - start

    assert any(took(2_000_000) < 3.5 * took(1_000_000) + 0.001 for _ in range(4))


def test_a_target_with_a_host_is_read_once() -> None:
    target = b"http://" + b"a" * 8000 + b"#"
    start = time.thread_time()
    for _ in range(20):
        problem = fault(b"GET", "1.1", target, [(b"host", b"a")])
        assert problem is not None and problem.status == 400
    plain = time.thread_time() - start
    start = time.thread_time()
    for _ in range(20):
        assert fault(b"GET", "1.1", target[:-1], [(b"host", b"a")]) is not None
    assert plain < 50 * (time.thread_time() - start) + 0.1


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
        arguments.decode(make(bounds.DEPTH - 1), format)
        with pytest.raises(MalformedBody, match="nested too deeply"):
            arguments.decode(make(bounds.DEPTH + 1), format)


def test_an_outline_reads_what_msgspec_writes() -> None:
    value = {
        "ints": [0, -1, 127, 128, -33, 2**8, 2**16, 2**32, 2**63, -(2**7), -(2**15), -(2**31), -(2**63)],
        "texts": ["", "a" * 31, "b" * 32, "c" * 300, "d" * 70_000], "bytes": [b"", b"e" * 300, b"f" * 70_000],
        "others": [None, True, False, 1.5, msgspec.msgpack.Ext(1, b""), msgspec.msgpack.Ext(1, b"1" * 4)],
        "exts": [msgspec.msgpack.Ext(5, b"1" * n) for n in (1, 2, 4, 8, 16, 300, 70_000)],
        "lists": [[[[]]], list(range(20)), [*range(70_000)]], "maps": [{}, {str(k): k for k in range(70_000)}],
    }  # fmt: skip
    found = outline(msgspec.msgpack.encode({**value, (1, 2): 3}), 1, 1_000_000, 10**12)
    assert found.size % 1_000_000 == 7 + 5 + 1 and found.size // 1_000_000 == 3
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
    body = b"\x81\xa1x" + array((bounds.EMPTY_ROWS + 1, 0))
    with pytest.raises(InvalidArguments, match="rows without elements"):
        codec(x=np.ndarray).decode(body, Format.MSGPACK)
    assert codec(x=np.ndarray).decode(body, Format.TYPED, no_memory)["x"].shape == (
        bounds.EMPTY_ROWS + 1,
        0,
    )
    for shape in ((10**7, 0), (10, 10**6, 0, 3)):
        for format in (Format.JSON, Format.MSGPACK, Format.TYPED):
            with pytest.raises(TypeError, match="rows without elements"):
                ResultCodec(np.ndarray, "S.f").encode(np.zeros(shape), format)
    assert ResultCodec(np.ndarray, "S.f").encode(np.zeros((0, 10**7)), Format.JSON) == b"[]"


@pytest.mark.parametrize(
    "hint", [set[int], dict[int, int], Any, Keyed, set[decimal.Decimal]], ids=str
)
@pytest.mark.parametrize("number", [b"1e1000000000000000000", b"-1e-9999999999999999999"])
def test_numbers_beyond_every_range_are_the_bodys_fault(hint: Any, number: bytes) -> None:
    body = b'{"x":[%s],"pad":"%s"}' % (number, b"a" * bounds.HASHED_BODY)
    with pytest.raises(InvalidArguments):
        codec(x=hint, pad=str, z=int).decode(body, Format.JSON)


ONES = (1,) * bounds.AXES_OF_ONE
AXES = [
    (array((3, *ONES), b"|u1", b"abc"), None),
    (array((3, *ONES, 1), b"|u1", b"abc"), "axes of length 1"),
    (array((2,) * 4, b"|u1", b"a" * 16), None),
    (array((3, 1), b'[["a","|u1",[1,1,1,1]],["b","|u1",[1,1,1,1,1]]]', b"ab" * 3), None),
    (array((3,), b'[["a","|b1",[1,1,1,1,1,1,1,1]]]', b"\0" * 3), "axes of length 1"),
    (array((3, 1, 1), b'[["a",[["b","|u1",[1,1,1,1,1]],["c","|u1"]]]]', b"ab" * 3), None),
    (array((3, 1, 1), b'[["a",[["b","|u1",[1,1,1,1,1,1]],["c","|u1"]]]]', b"ab" * 3), "axes of length 1"),
    (array((2, 0, *[2] * 31), b"|u1"), "more than 32 axes"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "said"), AXES)
def test_axes_are_bounded_for_the_public(value: bytes, said: str | None) -> None:
    body = b"\x81\xa1x" + value
    assert codec(x=np.ndarray).decode(body, Format.TYPED, no_memory)["x"].size >= 0
    if said is None:
        assert codec(x=np.ndarray).decode(body, Format.MSGPACK)["x"].size > 0
        return
    with pytest.raises(InvalidArguments, match=said):
        codec(x=np.ndarray).decode(body, Format.MSGPACK)


class Listing(pydantic.BaseModel):
    rows: list[Any] = []


class Holder(msgspec.Struct):
    listing: Listing


def test_an_array_becomes_no_more_lists_than_it_has_bytes() -> None:
    for kind, before in (
        (Listing, b"\x81\xa1x\x81\xa4rows"),
        (Holder, b"\x81\xa1x\x81\xa7listing\x81\xa4rows"),
    ):
        fits, not_ = (before + array((2000, *ones), b"|u1", b"a" * 2000) for ones in ((), (1, 1)))
        assert codec(x=kind).decode(fits, Format.MSGPACK)
        with pytest.raises(InvalidArguments, match="too many rows"):
            codec(x=kind).decode(not_, Format.MSGPACK)
        assert codec(x=kind).decode(not_, Format.TYPED, no_memory)
    records = b'[["a",[["b","|u1"]]]]'
    with pytest.raises(InvalidArguments, match="too many rows"):
        codec(x=Listing).decode(
            b"\x81\xa1x\x81\xa4rows" + array((2000,), records, b"a" * 2000), Format.MSGPACK
        )


class Left(pydantic.BaseModel):
    child: Left | Right | None = None
    more: list[Left | Right] = []


class Right(pydantic.BaseModel):
    child: Left | Right | None = None


class Lone(pydantic.BaseModel):
    child: Lone | int | None = None


class Said(pydantic.BaseModel):
    kind: typing.Literal["said"] = "said"
    child: Annotated[Said | Told, pydantic.Field(discriminator="kind")] | None = None


class Told(pydantic.BaseModel):
    kind: typing.Literal["told"] = "told"
    child: Annotated[Said | Told, pydantic.Field(discriminator="kind")] | None = None


class WithLeft(msgspec.Struct):
    left: Left


def nested(levels: int, value: Any, **more: Any) -> Any:
    for _ in range(levels):
        value = {**more, "child": value}
    return value


@pytest.mark.parametrize("hint", [Left | Right, Left, list[Left], WithLeft], ids=str)
@pytest.mark.parametrize("format", [Format.JSON, Format.MSGPACK])
def test_unions_that_hold_themselves_are_tried_a_bounded_number_of_times(
    hint: Any, format: Format
) -> None:
    encode = msgspec.json.encode if format is Format.JSON else msgspec.msgpack.encode
    arguments = codec(x=hint)

    def read(value: Any) -> Any:
        value = [value] if hint == list[Left] else {"left": value} if hint is WithLeft else value
        return arguments.decode(encode({"x": value}), format)

    assert read(nested(8, {}))
    assert read({"more": [{"child": None}] * 3000})
    for costly in (nested(60, {}), nested(8, {"more": [{}] * 3000})):
        with pytest.raises(InvalidArguments, match="without a discriminator"):
            read(costly)


class Leaf(pydantic.BaseModel):
    more: list[Leaf | Stem] = []


class Stem(pydantic.BaseModel):
    more: list[Leaf | Stem] = []


class Rooted(pydantic.RootModel[list["Rooted | Rooted2"]]):
    pass


class Rooted2(pydantic.RootModel[list["Rooted | Rooted2"]]):
    pass


def test_the_levels_of_a_union_are_its_models_or_lists_where_it_has_no_others() -> None:
    def tree(levels: int, name: str) -> Any:
        value: Any = []
        for _ in range(levels):
            value = [{name: value}] if name else [value]
        return {name: value} if name else value

    for kind, name in ((Leaf, "more"), (Rooted, "")):
        arguments = codec(x=kind)
        assert arguments.decode(msgspec.json.encode({"x": tree(9, name)}), Format.JSON)
        with pytest.raises(InvalidArguments, match="without a discriminator"):
            arguments.decode(msgspec.json.encode({"x": tree(60, name)}), Format.JSON)


def test_other_unions_may_be_as_deep_as_before() -> None:
    assert codec(x=Lone).decode(msgspec.json.encode({"x": nested(60, {})}), Format.JSON)
    said = nested(60, {"kind": "told"}, kind="said")
    assert codec(x=Said).decode(msgspec.json.encode({"x": said}), Format.JSON)
    text = "[{" * 10_000
    assert codec(x=Left, y=str).decode(msgspec.json.encode({"x": {}, "y": text}), Format.JSON)


READ: list[str] = []


class Counting(pydantic.BaseModel):
    name: str

    @pydantic.field_validator("name")
    @classmethod
    def count(cls, name: str) -> str:
        READ.append(name)
        if name == "bad":
            raise ValueError("it is bad")
        return name


class Holding(msgspec.Struct):
    inner: Counting


@pytest.mark.parametrize("format", [Format.JSON, Format.MSGPACK])
def test_models_inside_others_are_read_once(format: Format) -> None:
    READ.clear()
    encode = msgspec.json.encode if format is Format.JSON else msgspec.msgpack.encode
    body = encode(
        {
            "w": {"inner": {"name": "good"}},
            "x": [{"name": "good"}],
            "y": {"inner": {"name": "bad"}},
            "z": "a",
        }
    )
    with pytest.raises(InvalidArguments) as caught:
        codec(w=Holding, x=list[Counting], y=Holding, z=int).decode(body, format)
    assert READ == ["good", "good", "bad"]
    assert [each["loc"][:1] for each in caught.value.errors] == [["y"], ["z"]]


@pytest.mark.parametrize("format", [Format.JSON, Format.MSGPACK])
def test_what_does_not_fit_is_read_once(format: Format) -> None:
    READ.clear()
    encode = msgspec.json.encode if format is Format.JSON else msgspec.msgpack.encode
    body = encode({"x": {"name": "bad"}, "y": {"name": "good"}, "z": {"name": "bad"}})
    with pytest.raises(InvalidArguments) as caught:
        codec(x=Counting, y=Counting, z=Counting).decode(body, format)
    assert READ == ["bad", "good", "bad"]
    assert [each["loc"] for each in caught.value.errors] == [["x", "name"], ["z", "name"]]


@pytest.mark.parametrize("number", [bounds.ERRORS_MADE, bounds.ERRORS_MADE + 1, 19_000])
def test_of_very_many_errors_the_number_is_told(number: int) -> None:
    body = b"\x81\xa1x\x81\xa4rows" + array((number,), b"|u1", bytes(number))
    with pytest.raises(InvalidArguments) as caught:
        codec(x=Addresses).decode(body, Format.MSGPACK)
    if number > bounds.ERRORS_MADE:
        assert [each["msg"] for each in caught.value.errors] == [f"{number:,} values do not fit"]
    else:
        assert len(caught.value.errors) == bounds.ERRORS_TOLD + 1


class Addresses(pydantic.BaseModel):
    rows: list[pydantic.AnyUrl] = []


@pytest.mark.parametrize("dtype", ["|b1", "|u1", "|i1", "<f2", "<f4", "<f8", "<i8", "|S1", "<U1"])
def test_an_array_becomes_json_of_a_bounded_size(dtype: str) -> None:
    some = np.random.default_rng(1).integers(0, 2, 4096, np.uint8)
    if dtype == "<f2":
        some = np.arange(2**15 - 1024, dtype="<u2").view(np.uint8)
    elif dtype == "<U1":
        some = some.astype("<u4").view(np.uint8)
    flat = np.frombuffer(some.tobytes(), dtype)
    encode = ResultCodec(np.ndarray, "S.f").encode
    assert len(encode(flat, Format.JSON)) <= 11 * flat.nbytes
    assert len(encode(flat.reshape(-1, *[1] * bounds.AXES_OF_ONE), Format.JSON)) <= 26 * flat.nbytes
