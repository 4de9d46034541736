"""The OpenAPI document is valid for every kind of type, and says what the API says."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
import numpy as np
import pydantic
import pytest
from numpy.typing import NDArray
from openapi_spec_validator import validate
from test_signature import SUPPORTED

from graphserve.service import api, apis
from graphserve.wire.openapi import document
from graphserve.wire.schema import Signature
from graphserve.wire.tensors import Array


def described(service: type, doc: str | None = None) -> dict[str, Any]:
    listed = [
        (each, Signature.of(service, name), getattr(service, name).__doc__) for name, each in apis(service).items()
    ]
    found = document(service.__name__, doc, "1.2.3", listed)
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
    async def upload(self, body: AsyncIterator[bytes], pages: int, kind: str = "scan") -> None: ...


def test_what_it_says() -> None:
    found = described(Ocr, "Reads pages.\n\n    Well.")
    assert found["openapi"] == "3.1.0"
    assert found["info"] == {"title": "Ocr", "version": "1.2.3", "description": "Reads pages.\n\nWell."}
    assert set(found["paths"]) == {"/v1/read", "/lines", "/raw", "/upload", "/livez", "/readyz"}
    post = found["paths"]["/v1/read"]["post"]
    assert (post["operationId"], post["summary"]) == ("read", "Read the text of pages.")
    assert post["description"] == "Slow, but right."
    refusals = {"400", "408", "413", "414", "415", "422", "431"}
    assert set(post["responses"]) == {"200", *refusals, "500", "502", "503", "504", "default"}
    assert set(post["requestBody"]["content"]) == {"application/json", "application/msgpack"}
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
    assert properties["lang"] == {"type": "string", "default": "en", "description": "the language, two letters."}
    assert properties["limit"] == {"type": "integer", "minimum": 0, "description": "At most.", "default": 5}
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
    assert set(lines["responses"]["200"]["content"]) == {"application/x-ndjson", "text/event-stream"}
    assert lines["requestBody"]["required"] is False
    assert set(paths["/raw"]["post"]["requestBody"]["content"]) == {
        "application/json", "application/msgpack", "application/octet-stream",
    }  # fmt: skip
    result = paths["/raw"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    pattern = result.pop("pattern")
    assert result == {"type": "string", "contentEncoding": "base64"}
    for number in range(7):
        text = base64.b64encode(b"\xff" * number).decode()
        assert re.search(pattern, text)
        assert not re.search(pattern, text + "=") and not re.search(pattern, text[:-1] or "A")
    assert set(paths["/upload"]["post"]["requestBody"]["content"]) == {"*/*"}
    pages, kind = paths["/upload"]["post"]["parameters"]
    assert (pages["name"], pages["in"], pages["required"], kind["required"]) == ("pages", "query", True, False)
    assert pages["content"] == {"application/json": {"schema": {"type": "integer"}}}


def test_health() -> None:
    paths = described(Ocr)["paths"]
    assert set(paths["/livez"]["get"]["responses"]) == {"200", "default"}
    assert set(paths["/readyz"]["get"]["responses"]) == {"200", "503", "default"}
