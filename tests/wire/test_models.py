"""Bytes in pydantic's types: base64 in JSON, any bytes between nodes; and what pydantic can take
from nobody.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Literal

import jsonschema
import msgspec
import numpy as np
import pydantic
import pytest
from pydantic import AfterValidator, Base64Bytes, ConfigDict, Field

from graphserve.declare.service import api, service
from graphserve.errors import DeclarationError, InvalidArguments
from graphserve.wire.codec import Format, ResultCodec, UntypedCodec
from graphserve.wire.extensions import no_memory
from graphserve.wire.pydantic_models import Adapter
from graphserve.wire.signature import Signature, supported
from tests.codecs import codec

PNG = b"\x89PNG\xff"
BASE64 = "iVBOR/8="
Short = Annotated[bytes, Field(min_length=1, max_length=8)]


class Picture(pydantic.BaseModel):
    image: bytes
    more: list[Picture] = []
    small: Annotated[bytes, Field(max_length=4)] | None = None


class Renamed(pydantic.BaseModel):
    image: bytes = Field(alias="theImage")


class Hex(pydantic.BaseModel):
    model_config = ConfigDict(ser_json_bytes="hex", val_json_bytes="hex")
    image: bytes
    inner: Picture | None = None


class Text(pydantic.BaseModel):
    model_config = ConfigDict(ser_json_bytes="utf8")
    image: bytes


class Checked(pydantic.BaseModel):
    image: bytes

    @pydantic.field_validator("image")
    @classmethod
    def _begins(cls, value: bytes) -> bytes:
        assert value.startswith(b"\x89")
        return value


class Named(pydantic.BaseModel):
    """Has fields with the names of what is in pydantic's schemas."""

    config: bytes
    default: bytes
    metadata: list[bytes]
    serialization: bytes = PNG
    cls: bytes = PNG


class Plain(pydantic.BaseModel):
    kind: Literal["default", "config"]
    image: bytes


class Tagged(pydantic.BaseModel):
    one: Annotated[Plain | Other, Field(discriminator="kind")]


class Other(pydantic.BaseModel):
    kind: Literal["other"]


class Written(pydantic.BaseModel):
    image: bytes

    @pydantic.field_serializer("image", when_used="json")
    def _write(self, value: bytes) -> str:
        return value.decode("latin-1")

    @pydantic.field_validator("image", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return value.encode("latin-1") if isinstance(value, str) else value


class Encoded(pydantic.BaseModel):
    image: Base64Bytes


@pydantic.dataclasses.dataclass
class Slide:
    image: bytes


@dataclasses.dataclass
class Album:
    cover: bytes
    picture: Picture


class Struct(msgspec.Struct):
    picture: Picture
    page: np.ndarray


HOPS = [
    (Short, PNG), (Short | None, PNG), (list[Short], [PNG]), (Picture, Picture(image=PNG, more=[Picture(image=b"")])),
    (list[tuple[Picture, bytes]], [(Picture(image=PNG), PNG)]), (Hex, Hex(image=PNG, inner=Picture(image=PNG))),
    (Text, Text(image=PNG)), (Checked, Checked(image=PNG)), (Written, Written(image=PNG)), (Slide, Slide(PNG)),
    (Encoded, Encoded(image=b"aWY=")), (Album, Album(PNG, Picture(image=PNG))), (Renamed, Renamed(theImage=PNG)),
    (Named, Named(config=PNG, default=PNG, metadata=[PNG])), (Tagged, Tagged(one=Plain(kind="default", image=PNG))),
    (dict[str, Picture | None], {"a": Picture(image=PNG), "b": None}), (Annotated[bytes, AfterValidator(bytes)], PNG),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value"), HOPS, ids=str)
def test_any_bytes_arrive_between_nodes(hint: Any, value: Any) -> None:
    assert codec(x=hint).decode(codec(x=hint).encode({"x": value}), Format.TYPED, no_memory) == {
        "x": value
    }
    results = ResultCodec(hint, "S.f")
    assert results.decode(results.encode(value, Format.TYPED)) == value


def test_any_bytes_arrive_beside_arrays() -> None:
    sent = Struct(Picture(image=PNG), np.zeros(2))
    got = codec(x=Struct).decode(codec(x=Struct).encode({"x": sent}), Format.TYPED, no_memory)["x"]
    assert got.picture == sent.picture


@pytest.mark.parametrize("hint", [Short, Picture, Hex])
def test_bytes_from_callers_without_the_class(hint: Any) -> None:
    given = {"x": PNG if hint is Short else {"image": PNG}}
    got = codec(x=hint).decode(UntypedCodec().encode(given), Format.TYPED, no_memory)["x"]
    assert (got if hint is Short else got.image) == PNG


def test_bytes_with_constraints_travel_as_they_are() -> None:
    large = bytes(range(256)) * 1024
    placed: list[memoryview] = []

    def place(memory: memoryview) -> bytes:
        placed.append(memory)
        return b"here"

    hint = Annotated[bytes, Field(min_length=1)]
    assert large in codec(x=hint).encode({"x": large})
    body = codec(x=hint).encode({"x": large}, place)
    assert codec(x=hint).decode(body, Format.MSGPACK, lambda _: placed[0]) == {"x": large}
    assert len(body) < 100


JSON = [
    (Short, BASE64, PNG), (Picture, {"image": BASE64}, Picture(image=PNG)),
    (Checked, {"image": BASE64}, Checked(image=PNG)),
    (Hex, {"image": PNG.hex(), "inner": {"image": BASE64}}, Hex(image=PNG, inner=Picture(image=PNG))),
    (list[tuple[Picture, bytes]], [[{"image": BASE64}, BASE64]], [(Picture(image=PNG), PNG)]),
    (Written, {"image": PNG.decode("latin-1")}, Written(image=PNG)), (Slide, {"image": BASE64}, Slide(PNG)),
    (Named, {"config": BASE64, "default": BASE64, "metadata": [BASE64]},
     Named(config=PNG, default=PNG, metadata=[PNG])),
    (Tagged, {"one": {"kind": "config", "image": BASE64}}, Tagged(one=Plain(kind="config", image=PNG))),
    (Encoded, {"image": "YVdZPQ=="}, Encoded(image=b"YVdZPQ==")), (Text, {"image": "a"}, Text(image=b"a")),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "json", "value"), JSON, ids=str)
def test_bytes_are_base64_in_json(hint: Any, json: Any, value: Any) -> None:
    assert codec(x=hint).decode(msgspec.json.encode({"x": json}), Format.JSON) == {"x": value}
    answer = msgspec.json.decode(ResultCodec(hint, "S.f").encode(value, Format.JSON))
    schema = Adapter(hint).schema("#/$defs/{model}", output=True)
    jsonschema.validate(answer, schema)
    without_defaults = (
        {key: answer[key] for key in json} if isinstance(json, dict) and hint is not Hex else None
    )
    assert without_defaults in (None, json)


def test_the_schema_says_how_bytes_look() -> None:
    said = Adapter(Short).schema("{model}", output=False)
    assert said == {"type": "string", "contentEncoding": "base64", "minLength": 4, "maxLength": 12}
    assert "contentEncoding" not in str(Adapter(Text).schema("{model}", output=True))


@pytest.mark.parametrize(
    ("hint", "json", "loc"),
    [
        (Short, '""', ["x"]), (Short, '"@"', ["x"]), (Short, "1", ["x"]), (Picture, '{"image":"@@@"}', ["x", "image"]),
        (Picture, '{"image":"a"}', ["x", "image"]), (Picture, '{"image":1}', ["x", "image"]),
        (Picture, '{"image":"","small":"AAAAAAAA"}', ["x", "small"]),
    ],
)  # fmt: skip
def test_bytes_that_do_not_fit(hint: Any, json: str, loc: list[str]) -> None:
    with pytest.raises(InvalidArguments) as caught:
        codec(x=hint).decode(b'{"x":' + json.encode() + b"}", Format.JSON)
    assert [each["loc"] for each in caught.value.errors] == [loc]


@pytest.mark.parametrize(
    "hint", [Short, Annotated[bytes, msgspec.Meta(min_length=1, max_length=8)]]
)
def test_a_raw_body_is_checked_too(hint: Any) -> None:
    assert codec(x=hint).decode(memoryview(PNG), Format.RAW) == {"x": PNG}
    with pytest.raises(InvalidArguments) as caught:
        codec(x=hint).decode(b"", Format.RAW)
    assert caught.value.errors[0]["loc"] == ["x"]


def test_bytes_in_an_any_of_a_model_are_text_there() -> None:
    class Loose(pydantic.BaseModel):
        value: Any

    got = codec(x=Loose).decode(
        codec(x=Loose).encode({"x": Loose(value=[PNG])}), Format.TYPED, no_memory
    )["x"]
    assert got.value == ["iVBOR_8="]


class WithArray(pydantic.BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    page: np.ndarray


class Optional(pydantic.BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    page: np.ndarray | None = None
    lock: Annotated[object, Field(exclude=True)] = None


def test_a_model_that_nothing_fits_is_refused() -> None:
    for hint in (WithArray, list[WithArray], tuple[WithArray, np.ndarray]):
        with pytest.raises(
            TypeError, match=r"numpy\.ndarray is no type that pydantic can read .* dataclass"
        ):
            supported(hint)
    supported(Optional)

    @service
    class Refused:
        @api
        async def page(self, x: WithArray) -> int:
            return 1

    with pytest.raises(DeclarationError, match=r"Refused\.page: parameter 'x': numpy\.ndarray"):
        Signature.of(Refused, "page")


@pytest.mark.parametrize(
    "text",
    [
        "aGk",
        "aGk==",
        "aG k=",
        "aGk=\n",
        "\naGk=",
        "_-8=",
        "=",
        "a",
        "aGkh=",
        "aGkhYQ=",
        "====",
        "aGk=aGk=",
        "äGk=",
    ],
)
def test_base64_that_is_none_is_none_everywhere(text: str) -> None:
    class Model(pydantic.BaseModel):
        data: bytes

    body = json.dumps({"data": text}).encode()
    with pytest.raises(pydantic.ValidationError):
        Adapter(Model).load(body)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=dict[str, bytes])


@pytest.mark.parametrize("text", ["", "aGk=", "aGl=", "aGkhYQ==", "/+8="])
def test_base64_is_read_alike_everywhere(text: str) -> None:
    class Model(pydantic.BaseModel):
        data: bytes

    body = json.dumps({"data": text}).encode()
    assert (
        Adapter(Model).load(body).data == msgspec.json.decode(body, type=dict[str, bytes])["data"]
    )
