"""The OpenAPI document is valid for every kind of type, and says what the API says."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import numpy as np
import pydantic
import pytest
from numpy.typing import NDArray
from PIL import Image
from test_signature import SUPPORTED

from graphserve.declare.declaration import apis
from graphserve.declare.service import api
from graphserve.wire.arrays import Array
from graphserve.wire.openapi.document import document
from graphserve.wire.signature import Signature


def described(service: type, doc: str | None = None) -> dict[str, Any]:
    listed = [
        (each, Signature.of(service, name), getattr(service, name).__doc__)
        for name, each in apis(service).items()
    ]
    found = document(service.__name__, doc, "1.2.3", listed)
    # imported here: each process that collects tests would wait for it
    from openapi_spec_validator import validate

    validate(json.loads(json.dumps(found)))
    return found


@pytest.mark.parametrize("hint", SUPPORTED, ids=str)
def test_valid_for_every_type(hint: Any) -> None:
    class Service:
        def method(self, x, y=None):  # type: ignore[no-untyped-def]
            ...

    Service.method.__annotations__ = {"x": hint, "y": hint, "return": hint}
    described(type("Service", (), {"method": api(Service.method)}))


@dataclasses.dataclass
class Point:
    """A point."""

    x: int


def other_point() -> type:
    class Point(pydantic.BaseModel):
        y: float

    return Point


OtherPoint: Any = other_point()


class Ocr:
    @api(route="/v1/read")
    def read(
        self,
        pages: Annotated[np.ndarray, Array("uint8", (None, None, 3))],
        points: list[Point],
        lang: str = "en",
        limit: Annotated[int, msgspec.Meta(ge=0, description="At most.")] = 5,
        other: OtherPoint | None = None,
        weight: float = float("inf"),
    ) -> list[str]:
        """Read the text
        of pages.

        Slow, but right.

        Args:
            pages: what to read.
            lang (str): the language,
                two letters.

        Returns:
            One string a page.
        """
        raise NotImplementedError

    @api
    async def lines(self) -> AsyncIterator[NDArray[np.float32]]:
        yield np.zeros(1, "f4")

    @api
    async def raw(self, data: bytes) -> bytes:
        return data

    @api
    async def upload(
        self,
        body: AsyncIterator[bytes],
        pages: int,
        kind: str = "scan",
        points: list[Point] | None = None,
    ) -> None: ...


def test_what_it_says() -> None:
    found = described(Ocr, "Reads pages.\n\n    Well.")
    assert found["openapi"] == "3.1.0"
    assert found["info"] == {
        "title": "Ocr",
        "version": "1.2.3",
        "description": "Reads pages.\n\nWell.",
    }
    assert set(found["paths"]) == {"/v1/read", "/lines", "/raw", "/upload", "/livez", "/readyz"}
    post = found["paths"]["/v1/read"]["post"]
    assert (post["operationId"], post["summary"]) == ("read", "Read the text of pages.")
    assert post["description"] == "Slow, but right."
    refusals = {"400", "408", "413", "414", "415", "422", "431"}
    assert set(post["responses"]) == {"200", *refusals, "500", "502", "503", "504", "default"}
    assert set(post["requestBody"]["content"]) == {
        "application/json",
        "application/msgpack",
        "multipart/form-data",
    }
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["pages", "points"] and schema["additionalProperties"] is False
    properties = schema["properties"]
    assert properties["pages"] == {
        "type": "array",
        "items": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 3},
        },
        "description": "what to read. An array of uint8, shape any × any × 3, as nested lists.",
    }
    assert properties["lang"] == {
        "type": "string",
        "default": "en",
        "description": "the language, two letters.",
    }
    assert properties["limit"] == {
        "type": "integer",
        "minimum": 0,
        "description": "At most.",
        "default": 5,
    }
    assert post["responses"]["200"]["content"]["application/json"]["schema"] == {
        "type": "array",
        "items": {"type": "string"},
    }


def test_two_classes_of_one_name() -> None:
    components = described(Ocr)["components"]["schemas"]
    assert components["Point"]["properties"]["x"] and components["Point_2"]["properties"]["y"]


def test_streams_and_raw_bodies() -> None:
    paths = described(Ocr)["paths"]
    lines = paths["/lines"]["post"]
    assert set(lines["responses"]["200"]["content"]) == {
        "application/x-ndjson",
        "text/event-stream",
    }
    assert lines["requestBody"]["required"] is False
    assert set(paths["/raw"]["post"]["requestBody"]["content"]) == {
        "application/json", "application/msgpack", "application/octet-stream", "multipart/form-data",
    }  # fmt: skip
    assert "application/octet-stream" in paths["/raw"]["post"]["responses"]["200"]["content"]
    result = paths["/raw"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    pattern = result.pop("pattern")
    assert result == {"type": "string", "contentEncoding": "base64"}
    for number in range(7):
        text = base64.b64encode(b"\xff" * number).decode()
        assert re.search(pattern, text)
        assert not re.search(pattern, text + "=") and not re.search(pattern, text[:-1] or "A")
    assert paths["/upload"]["post"]["requestBody"]["required"] is False
    assert set(paths["/upload"]["post"]["requestBody"]["content"]) == {
        "application/octet-stream",
        "*/*",
        "multipart/form-data",
    }
    pages, kind, points = paths["/upload"]["post"]["parameters"]
    assert (pages["name"], pages["in"], pages["required"], kind["required"]) == (
        "pages",
        "query",
        True,
        False,
    )
    assert pages["schema"] == {"type": "integer"}, "what generators of clients can write into a URL"
    assert kind["schema"] == {"type": "string", "default": "scan"}
    assert points["content"]["application/json"]["schema"]["anyOf"], "all else is JSON there"


def test_health() -> None:
    paths = described(Ocr)["paths"]
    assert set(paths["/livez"]["get"]["responses"]) == {"200", "default"}
    assert set(paths["/readyz"]["get"]["responses"]) == {"200", "503", "default"}


# --- what generators of clients need ---


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Moment:
    """Has dates and times in every place of a type."""

    at: dt.datetime
    maybe: dt.datetime | None
    days: list[dt.date]
    pair: tuple[dt.time, dt.timedelta]
    by_name: dict[str, dt.datetime]
    either: dt.datetime | list[dt.time] | dict[str, dt.time] | int
    next: Moment | None = None
    text: str = ""


class Reading(msgspec.Struct, rename="camel"):
    taken_at: dt.datetime
    some: tuple[dt.datetime, ...] = ()


class Named(NamedTuple):
    at: dt.datetime
    text: str


class Typed(TypedDict):
    at: dt.time


class Record(pydantic.BaseModel):
    at: dt.datetime
    size: int = 3


class Moments:
    @api
    async def moments(self, moment: Moment, reading: Reading, named: Named, typed: Typed, when: Annotated[
        dt.datetime, "extra"
    ], uuid: uuid.UUID, pair: tuple[int, str], colour: Colour, mixed: Literal[
        "a", 1, None
    ], record: Record, records: list[
        Record
    ],
    ) -> Record: ...  # fmt: skip

    @api
    async def first(self) -> Record: ...

    @api
    async def follow(self) -> AsyncIterator[Record]:
        yield Record(at=dt.datetime(2026, 1, 1))


def formats(value: Any, path: str = "") -> Iterator[str]:
    """Return where strings are dates and times, and what they are called."""
    if isinstance(value, dict):
        if "format" in value and value["type"] == "string":
            yield f"{path} {value['format']}"
        for key, each in value.items():
            yield from formats(
                each, path if key in ("properties", "anyOf") else f"{path}.{key}".lstrip(".")
            )
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from formats(each, f"{path}[{number}]")


def every(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from every(each)


def test_dates_and_times_have_their_format() -> None:
    components = described(Moments)["components"]["schemas"]
    assert set(formats(components["Moment"])) == {
        "at date-time", "maybe[0] date-time", "days.items date", "pair.prefixItems[0] time",
        "pair.prefixItems[1] duration", "pair.items[0] time", "pair.items[1] duration", "by_name.additionalProperties date-time", "either[0] date-time",
        "either[1].items time", "either[2].additionalProperties time",
    }  # fmt: skip
    pair = components["Moment"]["properties"]["pair"]
    (duration,) = [each for each in pair["prefixItems"] if each.get("format") == "duration"]
    for text in ("P1D", "PT1H2M3S", "-P1DT2.5S", "PT0.000001S", "P1Y", "P3W", "P1M", "1", ""):
        try:
            taken = isinstance(msgspec.convert(text, dt.timedelta), dt.timedelta)
        except msgspec.ValidationError:
            taken = False
        assert bool(re.search(duration["pattern"], text)) == taken, text
    assert set(formats(components["Reading"])) == {"takenAt date-time", "some.items date-time"}
    assert set(formats(components["Named"])) == {"prefixItems[0] date-time", "items[0] date-time"}
    assert set(formats(components["Typed"])) == {"at time"}
    assert set(formats(components["Record"])) == {"at date-time"}
    body = described(Moments)["paths"]["/moments"]["post"]["requestBody"]["content"][
        "application/json"
    ]["schema"]
    assert {"when date-time", "uuid uuid"} <= set(formats(body))


def test_a_type_has_one_component_as_argument_and_as_result() -> None:
    found = described(Moments)
    assert [name for name in found["components"]["schemas"] if name.startswith("Record")] == [
        "Record"
    ]
    assert found["components"]["schemas"]["Record"]["required"] == ["at"]
    reference = {"$ref": "#/components/schemas/Record"}
    post = found["paths"]["/moments"]["post"]
    properties = post["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert (properties["record"], properties["records"]["items"]) == (reference, reference)
    for path in ("/moments", "/first"):
        content = found["paths"][path]["post"]["responses"]["200"]["content"]
        assert [each["schema"] for each in content.values()] == [reference, reference]


def test_a_stream_has_the_schema_of_its_items() -> None:
    content = described(Moments)["paths"]["/follow"]["post"]["responses"]["200"]["content"]
    lines, events = (
        content[kind]["schema"] for kind in ("application/x-ndjson", "text/event-stream")
    )
    assert (lines["type"], events["type"]) == ("array", "string")
    assert lines["items"] == {"$ref": "#/components/schemas/Record"}
    assert events["contentMediaType"] == "text/event-stream"
    data = events["contentSchema"]["items"]["properties"]["data"]
    assert (data["contentMediaType"], data["contentSchema"]) == ("application/json", lines["items"])


@pytest.mark.parametrize("service", [Moments, Ocr])
def test_nothing_that_generators_cannot_read(service: type) -> None:
    for schema in every(described(service)):
        assert schema.get("items") is not False
        if "prefixItems" in schema:
            assert schema["maxItems"] == len(schema["prefixItems"]) >= schema["minItems"]
        if isinstance(schema.get("enum"), list):
            assert "type" in schema


class Scanner:
    @api
    async def scan(
        self, image: Image.Image, words: list[str], page: bytes | None = None
    ) -> Image.Image:
        """Scan.

        Args:
            page: the page.
        """
        return image


def test_a_form_has_files_and_text_as_they_are() -> None:
    post = described(Scanner)["paths"]["/scan"]["post"]
    assert next(iter(post["requestBody"]["content"])) == "multipart/form-data", "generators take it"
    form = post["requestBody"]["content"]["multipart/form-data"]
    properties = form["schema"]["properties"]
    assert "description" not in properties["image"], "it is no base64 there"
    assert properties["page"]["description"] == "the page."
    assert "words" not in form.get("encoding", {}), "its items are text"
    assert next(iter(post["responses"]["200"]["content"])) == "image/png", "what is sent unasked"


class Repeated:
    @api
    async def form(self, pages: list[bytes], words: list[str], more: list[int] = []) -> None: ...  # noqa: B006

    @api(method="GET")
    async def query(self, words: list[str], more: list[int] = []) -> None: ...  # noqa: B006


def test_a_list_that_is_needed_has_an_item_where_each_comes_by_itself() -> None:
    """Of an empty list nothing comes in a form or in a query, and what is needed would be missing."""
    paths = described(Repeated)["paths"]
    content = paths["/form"]["post"]["requestBody"]["content"]
    least = {
        kind: {name: said.get("minItems", 0) for name, said in each["schema"]["properties"].items()}
        for kind, each in content.items()
    }
    assert least["multipart/form-data"] == {"pages": 1, "words": 1, "more": 0}
    assert least["application/json"] == {"pages": 0, "words": 0, "more": 0}
    query = paths["/query"]["get"]["parameters"]
    assert [each["schema"].get("minItems", 0) for each in query] == [1, 0]


class Fields:
    @api
    async def sent(
        self, one: int | None, two: int | str | None = None, three: list[int] | None = None
    ) -> None: ...


def test_a_field_of_a_form_is_not_null() -> None:
    content = described(Fields)["paths"]["/sent"]["post"]["requestBody"]["content"]
    form = content["application/x-www-form-urlencoded"]["schema"]["properties"]
    assert form["one"] == {"type": "integer"}
    assert form["two"] == {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert form["three"] == {"type": "array", "items": {"type": "integer"}}
    assert {"type": "null"} in content["application/json"]["schema"]["properties"]["one"]["anyOf"]
