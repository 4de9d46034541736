"""What the public may send and gets: one validation whichever format, and no extension type but
that of arrays.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import msgspec
import numpy as np
import pydantic
import pytest

from graphserve.errors import InvalidArguments
from graphserve.wire import arrays, extensions
from graphserve.wire.codec import Format, ResultCodec, UntypedCodec
from graphserve.wire.exceptions import BeyondMsgpack
from graphserve.wire.extensions import no_memory
from tests.codecs import codec


class Inner(pydantic.BaseModel):
    depth: int = pydantic.Field(0, validation_alias="in", serialization_alias="out")


class Account(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: str
    admin: bool = pydantic.Field(False, alias="x-admin")
    inner: Inner = Inner()
    more: list[Inner] = []
    by_key: dict[str, Inner] = {}
    deep: int = pydantic.Field(0, validation_alias=pydantic.AliasPath("a", "b"))
    either: int = pydantic.Field(0, validation_alias=pydantic.AliasChoices("one", "two"))
    weight: float = 0.0
    blob: bytes = b""

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def shout(self) -> str:
        return self.name.upper()


@dataclasses.dataclass
class Holder:
    account: Account


class Struct(msgspec.Struct):
    accounts: list[Account]


@pydantic.dataclasses.dataclass
class Point:
    left: int = pydantic.Field(0, alias="l")


HINTS: list[tuple[Any, Any]] = [
    (Account, lambda value: value),
    (list[Account], lambda value: [value]),
    (Account | None, lambda value: value),
    (dict[str, Account], lambda value: {"a": value}),
    (Holder, lambda value: {"account": value}),
    (Struct, lambda value: {"accounts": [value]}),
]


@pytest.mark.parametrize(("hint", "wrap"), HINTS, ids=[str(hint)[-40:] for hint, _ in HINTS])
@pytest.mark.parametrize(
    "field", [{"admin": True}, {"inner": {"depth": 5}}, {"deep": 5}, {"either": 5}]
)
def test_a_field_with_an_alias_is_not_set_by_its_name(
    hint: Any, wrap: Any, field: dict[str, Any]
) -> None:
    said = {"x": wrap({"name": "a", **field})}
    arguments = codec(x=hint)
    for body, format in (
        (msgspec.json.encode(said), Format.JSON),
        (msgspec.msgpack.encode(said), Format.MSGPACK),
        (msgspec.msgpack.encode(said), Format.TYPED),
    ):
        try:
            got = repr(arguments.decode(body, format))
        except InvalidArguments:
            continue
        assert got == repr(
            arguments.decode(msgspec.json.encode({"x": wrap({"name": "a"})}), Format.JSON)
        )


def ext(code: int, data: bytes) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, data)


ARRAY = b"".join(arrays.pack(np.arange(3)))
REFERENCE = extensions.reference(b"r" * 32)
INTERNAL = [
    REFERENCE,
    extensions.reference(b"r" * 32, arrays.pack(np.arange(3))[0]), ext(3, b'{"name":"a","admin":true}'),
    ext(3, b"1"), ext(4, (2**70).to_bytes(10, "little")), ext(4, b"\1"), ext(5, b""), ext(-128, b"x"),
]  # fmt: skip
PLACES: list[Any] = [
    lambda value: value, lambda value: [value], lambda value: {"a": value}, lambda value: {"a": [{"b": [value]}]},
    lambda value: {value: 1},
]  # fmt: skip
TYPES = [
    Any, object, int, bytes, bytes | None, list[bytes], dict[str, bytes], np.ndarray, list[np.ndarray], set[int],
    dict[int, int], Account, list[Account], Holder, Struct, Point, dict[str, Any], int | str, list,
]  # fmt: skip


@pytest.mark.parametrize("hint", TYPES, ids=str)
@pytest.mark.parametrize("format", [Format.MSGPACK, Format.TYPED])
def test_no_internal_extension_type_is_accepted_in_any_place(hint: Any, format: Format) -> None:
    arguments = codec(x=hint)
    for value in INTERNAL:
        for place in PLACES:
            try:
                said = place(value)
            except TypeError:  # an extension value of msgspec's is no key; it is one of msgpack
                said = b"\x81" + msgspec.msgpack.encode(value) + b"\x01"
                body = b"\x81\xa1x" + said
            else:
                body = msgspec.msgpack.encode({"x": said})
            with pytest.raises(InvalidArguments) as caught:
                arguments.decode(body, format)
            assert "memory of" not in str(caught.value)


def test_arrays_are_accepted_from_everybody() -> None:
    body = msgspec.msgpack.encode({"x": ext(1, ARRAY)})
    assert codec(x=np.ndarray).decode(body, Format.MSGPACK)["x"].tolist() == [0, 1, 2]


ACCOUNT = Account.model_validate({
    "name": "a", "x-admin": True, "inner": {"in": 1}, "more": [{"in": 2}, {"in": 3}], "by_key": {"k": {"in": 4}},
    "a": {"b": 5}, "two": 6, "weight": math.inf, "blob": b"\xff\0",
})  # fmt: skip
SENT: list[tuple[Any, Any]] = [
    (Account, ACCOUNT), (list[Account], [ACCOUNT]), (Holder, Holder(ACCOUNT)), (Struct, Struct([ACCOUNT])),
    (Any, [1, "a", None, 2.5]), (int, 2**80), (dict[str, int], {"a": -(2**99)}), (Point, Point(l=3)),
    (list[Point], [Point(l=3)]), (Account | None, None), (Struct, Struct([])),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value"), SENT, ids=lambda case: str(case)[:40])
def test_what_a_typed_caller_elsewhere_sends_is_read_by_public_rules(hint: Any, value: Any) -> None:
    body = codec(x=hint).encode_public({"x": value})
    format = Format.JSON if body[:1] == b"{" else Format.MSGPACK
    assert repr(codec(x=hint).decode(body, format)) == repr({"x": value})
    untyped = UntypedCodec().encode_public({"x": value})
    format = Format.JSON if untyped[:1] == b"{" else Format.MSGPACK
    if hint not in (Point, list[Point]):  # which say nothing of their aliases without a type
        assert repr(codec(x=hint).decode(untyped, format)) == repr({"x": value})


@pytest.mark.parametrize(("hint", "value"), SENT, ids=lambda case: str(case)[:40])
def test_a_typed_caller_elsewhere_gets_an_equal_result(hint: Any, value: Any) -> None:
    result = ResultCodec(hint, "S.f")
    assert repr(result.decode(result.encode(value, Format.TYPED))) == repr(value)


def test_results_in_msgpack_say_what_those_in_json_say() -> None:
    result = ResultCodec(Account, "S.f")
    as_json = msgspec.json.decode(result.encode(ACCOUNT, Format.JSON))
    plain = msgspec.msgpack.decode(result.encode(ACCOUNT, Format.MSGPACK))
    assert plain.pop("weight") == math.inf and as_json.pop("weight") is None
    assert plain == as_json and plain["shout"] == "A" and plain["inner"] == {"out": 1}
    encoded = ResultCodec(Struct, "S.f").encode(Struct([ACCOUNT]), Format.MSGPACK)
    assert msgspec.msgpack.decode(encoded)["accounts"][0]["x-admin"] is True
    with pytest.raises(BeyondMsgpack, match=r"^the result of S\.f"):
        ResultCodec(int, "S.f").encode(2**64, Format.MSGPACK)


def test_a_reference_is_no_result_where_no_memory_is_shared() -> None:
    body = msgspec.msgpack.encode(REFERENCE)
    with pytest.raises(ValueError, match="not accepted here"):
        ResultCodec(bytes, "S.f").decode(body)
    with pytest.raises(InvalidArguments, match="not accepted here"):
        codec(x=bytes).decode(msgspec.msgpack.encode({"x": REFERENCE}), Format.TYPED, no_memory)
