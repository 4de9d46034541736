"""Text is read the same way wherever it comes: in a path, in a query, in a form, beside a file and
beside a stream.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given, strategies as st

from graphserve.declare.declaration import apis
from graphserve.declare.service import api
from graphserve.errors import InvalidArguments
from graphserve.wire.codec import ArgumentsCodec, MalformedBody
from graphserve.wire.formats import Format
from graphserve.wire.media.bodies import BodyReader
from graphserve.wire.signature import Signature
from graphserve.wire.url_arguments import as_object, as_query, whole
from tests.wire.test_media_bodies import FORM, form, part


class Colour(enum.Enum):
    RED = "red"
    FIVE = "5"


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Point:
    x: int
    y: str = "5"


class Model(pydantic.BaseModel):
    x: int


def service(hint: Any) -> type:
    class Service:
        async def query(self, x, other=None): ...  # type: ignore[no-untyped-def]
        async def form(self, file, x): ...  # type: ignore[no-untyped-def]
        async def stream(self, file, x): ...  # type: ignore[no-untyped-def]

    Service.query.__annotations__ = {"x": hint, "other": int, "return": None}
    Service.form.__annotations__ = {"file": bytes, "x": hint, "return": None}
    Service.stream.__annotations__ = {"file": AsyncIterator[bytes], "x": hint, "return": None}
    members = {"query": api(method="GET")(Service.query), "form": api(Service.form)}
    return type("Service", (), {**members, "stream": api(Service.stream)})


def ways(hint: Any, texts: list[str]) -> dict[str, Any]:
    """Return what each way makes of texts for a parameter; an error is its words."""
    cls = service(hint)
    signatures = {name: Signature.of(cls, name) for name in apis(cls)}
    codecs = {name: ArgumentsCodec(signature) for name, signature in signatures.items()}
    query = "&".join(f"x={quote(text)}" for text in texts).encode()
    body = form(part("file", b"f"), *(part("x", text.encode()) for text in texts))

    def formed() -> dict[str, object]:
        composed = BodyReader(signatures["form"]).compose(body, FORM)
        return codecs["form"].decode(*composed)

    reads = {
        "query": lambda: codecs["query"].decode(
            whole(b"GET", b"application/json", query, b""), Format.BY_URL
        ),
        "form": formed,
        "file": lambda: codecs["form"].decode_beside_file(query, b"f", b"image/png"),
        "stream": lambda: codecs["stream"].decode_beside_stream(query),
    }
    if len(signatures["form"].files) > 1:  # then a body alone is neither of them
        del reads["file"]
    found: dict[str, Any] = {}
    for way, read in reads.items():
        try:
            found[way] = read()["x"]
        except InvalidArguments as exc:
            (error,) = exc.errors
            where = ["x"] if way == "form" else ["query", "x"]
            assert error["loc"][: len(where)] == where
            found[way] = f"! {error['msg']}"
    return found


A_UUID = "12345678-1234-5678-1234-567812345678"
READ = [
    # type, texts, what they say
    (int, ["5"], 5),
    (int, ["-007"], -7),
    (int, [str(10**30)], 10**30),
    (int, ["5.0"], "! Expected `int`, got `float`"),
    (int, [""], "! Expected `int`, got `str`"),
    (int, ["true"], "! Expected `int`, got `bool`"),
    (int, ["1", "2"], "! 'x' is given twice"),
    (int, ["٣"], "! Expected `int`, got `str`"),
    (float, ["1e3"], 1000.0),
    (float, ["5"], 5.0),
    (bool, ["true"], True),
    (bool, ["OFF"], False),
    (bool, ["1"], True),
    (bool, ["2"], "! Expected `bool`, got `int`"),
    (str, ["5"], "5"),
    (str, ["true"], "true"),
    (str, ["null"], "null"),
    (str, ['"a"'], '"a"'),
    (str, ["[1]"], "[1]"),
    (str, [""], ""),
    (str | None, ["null"], "null"),
    (str | None, ["5"], "5"),
    (int | None, ["5"], 5),
    (int | None, ["null"], None),
    (int | str, ["5"], 5),
    (int | str, ["five"], "five"),
    (bool | str, ["yes"], True),
    (bool | str, ["perhaps"], "perhaps"),
    (Literal["5", "a"], ["5"], "5"),
    (Literal[5, "a"], ["5"], 5),
    (Literal["a"], ["b"], "! Invalid enum value 'b'"),
    (Colour, ["5"], Colour.FIVE),
    (Level, ["1"], Level.LOW),
    (dt.date, ["2024-02-29"], dt.date(2024, 2, 29)),
    (uuid.UUID, [A_UUID], uuid.UUID(A_UUID)),
    (decimal.Decimal, ["1.10"], decimal.Decimal("1.10")),
    (list[int], ["1"], [1]),
    (list[int], ["1", "2"], [1, 2]),
    (list[int], ["[1, 2]"], [1, 2]),
    (list[str], ["1", "[2]"], ["1", "[2]"]),
    (list[str], ["[x"], ["[x"]),
    (list[str], ['["x"]'], ["x"]),
    (list[str] | None, ["a", "b"], ["a", "b"]),
    (list[int | str], ["1", "b"], [1, "b"]),
    (set[int], ["1", "1"], {1}),
    (tuple[int, ...], ["1", "2"], (1, 2)),
    (list[Colour], ["red", "5"], [Colour.RED, Colour.FIVE]),
    (list[int], ["a"], "! Expected `int`, got `str`"),
    (tuple[int, str], ['[1, "a"]'], (1, "a")),
    (tuple[int, str], ["1", "a"], "! 'x' is given twice"),
    (dict[str, int], ['{"a": 1}'], {"a": 1}),
    (Point, ['{"x": 1}'], Point(1)),
    (Point, ['{"x": "1"}'], "! Expected `int`, got `str`"),
    (Point, ["1"], "! Expected `object`, got `int`"),
    (list[Point], ['{"x": 1}', '{"x": 2}'], [Point(1), Point(2)]),
    (list[Point], ['[{"x": 1}]'], [Point(1)]),
    (Model, ['{"x": 1}'], Model(x=1)),
    (Any, ["5"], 5),
    (Any, ["a"], "a"),
    (Any, ['{"a": [1]}'], {"a": [1]}),
]


@pytest.mark.parametrize(
    ("hint", "texts", "expected"), READ, ids=[f"{hint}-{texts}" for hint, texts, _ in READ]
)
def test_every_way_reads_a_text_alike(hint: Any, texts: list[str], expected: object) -> None:
    for way, value in ways(hint, texts).items():
        if isinstance(expected, str) and expected.startswith("! "):
            assert str(value).startswith(expected), way
        else:
            assert (value, type(value)) == (expected, type(expected)), way


def test_bytes_are_base64_but_in_a_form() -> None:
    signature = Signature.of(service(bytes), "query")
    request = whole(b"GET", b"application/json", b"x=/w%3D%3D", b"")
    assert ArgumentsCodec(signature).decode(request, Format.BY_URL) == {"x": b"\xff"}


def test_what_only_can_be_json_says_where_it_is_not() -> None:
    for way, value in ways(dict[str, int], ['{"a": }']).items():
        assert value.startswith("! ") and "JSON" in value, way


def test_an_array_is_read_from_lists() -> None:
    found = ways(np.ndarray, ["[[1, 2]]"])
    assert {way: value.tolist() for way, value in found.items()} == {
        "query": [[1, 2]],
        "form": [[1, 2]],
        "stream": [[1, 2]],
    }


@pytest.mark.parametrize("text", ["[" * 5000, '{"a":' * 1000, "9" * 5000, "1e999", '"\\ud800"'])
@pytest.mark.parametrize("hint", [Any, int, str, dict[str, int], list[int], Model, int | Point])
def test_what_is_made_to_cost_is_read_or_refused(text: str, hint: Any) -> None:
    try:
        for value in ways(hint, [text]).values():
            assert value == text or value == [text] or str(value).startswith("! ") or hint is Any
    except MalformedBody:  # a form's values are screened as a body's
        pass


@given(st.lists(st.text(max_size=20), min_size=1, max_size=3))
def test_any_text_is_itself(texts: list[str]) -> None:
    texts = [text.replace("\r", "").replace("\n", "") for text in texts]
    if len(texts) > 1 or not texts[0].startswith("["):
        assert all(value == texts for value in ways(list[str], texts).values())


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=9) | st.integers() | st.none()))
def test_between_services_nothing_is_lost_in_a_query(arguments: dict[str, object]) -> None:
    assert msgspec.json.decode(as_object(as_query(arguments))) == arguments
