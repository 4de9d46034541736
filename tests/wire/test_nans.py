"""NaN that is written can be read again: null stands for it in JSON, where only a float can
stand.
"""

from __future__ import annotations

import dataclasses
import decimal
import math
from typing import Annotated, Any, NamedTuple, TypedDict

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from graphserve.errors import InvalidArguments
from graphserve.wire.codec import Format, ResultCodec
from tests.codecs import codec

NAN = math.nan


@dataclasses.dataclass
class Node:
    score: float
    name: str | None = None
    more: list[Node] = dataclasses.field(default_factory=list)


class Listed(msgspec.Struct, array_like=True):
    name: str
    score: float


class Renamed(msgspec.Struct, rename="camel"):
    the_score: float
    page: NDArray[np.float32] | None = None


class Named(NamedTuple):
    score: float
    count: int = 0


class Typed(TypedDict, total=False):
    score: float


BACK = [
    (float, NAN), (float, math.inf), (list[float], [1.0, NAN]), (dict[str, float], {"a": NAN, "b": 1.0}),
    (dict[int, list[float]], {1: [NAN]}), (tuple[float, str], (NAN, "a")), (tuple[float, ...], (NAN, 2.0)),
    (float | int, NAN), (list[float] | str, [NAN]), (list[float | None], [1.0, None]),
    (Node, Node(NAN, None, [Node(1.0), Node(NAN)])), (list[Node | None], [None, Node(NAN)]),
    (Listed, Listed("a", NAN)), (Renamed, Renamed(NAN)), (Named, Named(NAN, 3)), (Typed, {"score": NAN}),
    (NDArray[np.float32], np.array([1, NAN, math.inf], "f4")), (np.ndarray, np.array([[NAN], [1.0]])),
    (np.float32, np.float32(NAN)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("hint", "value"), BACK, ids=[f"{hint}-{value}"[:60] for hint, value in BACK]
)
def test_what_is_written_can_be_read_again(hint: Any, value: Any) -> None:
    written = ResultCodec(hint, "S.f").encode(value, Format.JSON)
    read = codec(x=hint, y=int).decode(b'{"x":%s,"y":1}' % written, Format.JSON)["x"]
    assert type(read) is type(value)
    assert ResultCodec(hint, "S.f").encode(read, Format.JSON) == written


REFUSED = [
    (int, b"null"), (str, b"null"), (list[int], b"[null]"), (Node, b"null"), (Node, b'{"name":null}'),
    (Node, b'{"score":"a"}'), (Node, b'{"score":null,"more":null}'), (list[float], b'[null,"a"]'),
    (dict[str, int], b'{"a":null}'), (Listed, b'["a"]'), (decimal.Decimal, b"null"), (bool, b"null"),
    (tuple[float, decimal.Decimal], b"[null,1.5]"), (Annotated[list[float], msgspec.Meta(max_length=1)], b"[null,1]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("hint", "json"), REFUSED, ids=[f"{hint}-{json}"[-60:] for hint, json in REFUSED]
)
def test_null_is_no_other_value(hint: Any, json: bytes) -> None:
    with pytest.raises(InvalidArguments) as caught:
        codec(x=hint).decode(b'{"x":%s}' % json, Format.JSON)
    assert caught.value.errors[0]["loc"][0] == "x"


def test_an_argument_that_is_missing_is_missing() -> None:
    with pytest.raises(InvalidArguments, match="missing argument 'y'"):
        codec(x=float, y=float).decode(b'{"x":null}', Format.JSON)


def test_msgpack_has_nan_and_takes_no_nil_for_it() -> None:
    arguments = codec(x=float)
    assert math.isnan(arguments.decode(msgspec.msgpack.encode({"x": NAN}), Format.MSGPACK)["x"])
    with pytest.raises(InvalidArguments):
        arguments.decode(b"\x81\xa1x\xc0", Format.MSGPACK)


class Add(msgspec.Struct, tag=True):
    weight: float
    child: Add | Mul | None = None


class Mul(msgspec.Struct, tag=True):
    weight: float | None
    child: Add | Mul | None = None


class Row(msgspec.Struct, tag=True, array_like=True):
    name: str
    weight: float
    child: Row | Column | None = None


class Column(msgspec.Struct, tag=True, array_like=True):
    name: str
    weight: float
    child: Row | Column | None = None


@dataclasses.dataclass
class Branch:
    score: float
    below: list[Branch] | dict[str, Branch] | None = None


@pytest.mark.parametrize("hint", [Add | Mul, Branch], ids=["tagged", "untagged"])
def test_each_place_is_filled_once_however_deep_unions_are(hint: Any) -> None:
    value: Any = {"type": "Add", "weight": None} if hint is not Branch else {"score": None}
    for _ in range(60):
        value = (
            {"type": "Add", "weight": 1.0, "child": value}
            if hint is not Branch
            else {"score": 1, "below": [value]}
        )
    found = codec(x=hint).decode(msgspec.json.encode({"x": value}), Format.JSON)["x"]
    for _ in range(60):
        found = found.child if hint is not Branch else found.below[0]
    assert math.isnan(found.weight if hint is not Branch else found.score)


def test_a_tag_says_which_member_of_a_union_is_filled() -> None:
    body = b'{"x":[{"type":"Add","weight":null},{"type":"Mul","weight":null}],"y":["Row","a",null,["Column","b",null]]}'
    got = codec(x=list[Add | Mul], y=Row | Column).decode(body, Format.JSON)
    assert math.isnan(got["x"][0].weight) and got["x"][1].weight is None
    assert math.isnan(got["y"].weight) and math.isnan(got["y"].child.weight)
