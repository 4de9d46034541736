"""Signatures: what type hints say, and the hints that are refused with a file, a line and a way
out.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import importlib
import inspect
import io
import pathlib
import re
import socket
import typing
import uuid
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    TypedDict,
    TypeVar,
)

import msgspec
import numpy as np
import pydantic
import pytest
from numpy.typing import NDArray

from graphserve.declare.options import Batch
from graphserve.declare.routes import Body
from graphserve.declare.service import api
from graphserve.errors import DeclarationError
from graphserve.wire.arrays import Array
from graphserve.wire.codec import ArgumentsCodec, ResultCodec
from graphserve.wire.signature import Parameter, Signature

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Node:
    value: int
    page: Annotated[np.ndarray, Array("float32")]
    children: list[Node] = dataclasses.field(default_factory=list)


class Point(NamedTuple):
    x: int
    y: NDArray[np.uint8]


class Options(TypedDict):
    name: str
    mask: NotRequired[np.ndarray]


class Box(msgspec.Struct, Generic[T]):
    item: T


class Model(pydantic.BaseModel):
    name: str


class Holder(msgspec.Struct):
    model: Model
    page: np.ndarray


@pydantic.dataclasses.dataclass
class PydanticPoint:
    x: int


class Plain:
    pass


@dataclasses.dataclass
class HasPlain:
    plain: Plain


UserId = NewType("UserId", int)

SUPPORTED = [
    int, float, str, bool, None, bytes, bytearray, list, dict, tuple, set, list[int], dict[str, list[float]], Any,
    object,
    tuple[int, str], tuple[int, ...], set[str], frozenset[int], Sequence[int], Mapping[str, int], Node, Point, Options,
    Color,
    Literal["a", 1], datetime.datetime, datetime.date, datetime.time, datetime.timedelta, uuid.UUID, decimal.Decimal,
    int | None, int | str | None, list[int] | str, Box[int], Box[np.ndarray], Annotated[int, msgspec.Meta(ge=0)],
    UserId,
    Model, list[Model], Model | None, Model | int, dict[str, Model], PydanticPoint,
    Annotated[int, pydantic.Field(gt=0)],
    pydantic.HttpUrl, np.ndarray, NDArray[np.float32], list[np.ndarray], np.ndarray | None, dict[str, NDArray[np.int8]],
    Annotated[np.ndarray, Array("float32", (None, 3))], np.float32, Holder, list[dict[str, Any]], dict[str, object],
]  # fmt: skip


@pytest.mark.parametrize("hint", SUPPORTED, ids=str)
def test_supported_types(hint: Any) -> None:
    class Service:
        def method(self, x, y=None):  # type: ignore[no-untyped-def]
            ...

    Service.method.__annotations__ = {"x": hint, "y": hint, "return": hint}
    signature = Signature.of(Service, "method")
    ArgumentsCodec(signature)
    ResultCodec(signature.result, signature.where)


REFUSED = [
    (Plain, "Plain is a class without declared fields"),
    (list[Plain], "Plain is a class"),
    (HasPlain, "Plain is a class"),
    (Callable[[int], int], "cannot be sent"),
    (socket.socket, "socket.socket is a class"),
    (complex, "complex"),
    (collections.Counter, "Counter"),
    (np.ndarray | str, "custom type"),
    (set[np.ndarray], "set"),
    (Annotated[np.ndarray, Array("floot")], "floot"),
    (Annotated[np.ndarray, Array("object")], "objects"),
    (NDArray[np.object_], "objects"),
    (list[Model] | np.ndarray, "custom type"),
    (Iterator[int], "Iterator"),
    (type, "type"),
    ("Missing", "'Missing'"),
    (datetime, "datetime is a module; write datetime.datetime"),
    ("datetime", "datetime is a module; write datetime.datetime"),
    (list[datetime], "datetime is a module; write datetime.datetime"),
    (socket, "socket is a module; write socket.socket"),
    (pathlib, "pathlib is a module; write a class of it"),
]


@pytest.mark.parametrize(("hint", "why"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused_types(hint: Any, why: str) -> None:
    class Service:
        def method(self, x):  # type: ignore[no-untyped-def]
            ...

    Service.method.__annotations__ = {"x": hint, "return": None}
    with pytest.raises(DeclarationError) as caught:
        Signature.of(Service, "method")
    assert why in str(caught.value)
    assert "Service.method: " in str(caught.value) and (
        "parameter 'x'" in str(caught.value) or why == "'Missing'"
    )
    assert caught.value.file == __file__
    assert caught.value.line == inspect.getsourcelines(Service.method)[1]


class Service:
    @api
    def plain(self, x: int, *, y: str = "a") -> Node: ...

    @api
    async def coroutine(self, data: bytes) -> None: ...

    @api
    async def items(self, n: int) -> AsyncIterator[Point]:
        yield Point(1, np.zeros(1, "u1"))

    @api
    async def generator(self) -> AsyncGenerator[int, None]:
        yield 1

    @api
    def lines(self) -> Iterator[str]:
        yield ""

    @api
    def iterable(self) -> Iterable[str]:
        return [""]

    @api
    async def upload(self, name: str, body: AsyncIterator[bytes]) -> int: ...


class Wrong:
    @api
    def yields(self) -> list[int]:  # type: ignore[misc]
        yield 1

    @api
    async def returns(self) -> AsyncIterator[int]: ...

    @api
    def bare(self) -> Iterator:  # type: ignore[type-arg]
        yield 1

    @api
    def chunks(self, body: AsyncIterator[str]) -> None: ...

    @api
    def two(self, a: AsyncIterator[bytes], b: AsyncIterator[bytes]) -> None: ...

    @api
    def field(self, x: int = pydantic.Field(gt=0)) -> None: ...

    @api(batch=Batch())
    def single(self, word: str) -> list[str]: ...

    @api(batch=Batch())
    def joined(self, words: list[str]) -> str: ...


def test_shapes_of_signatures() -> None:
    def of(name: str) -> Signature:
        return Signature.of(Service, name)

    plain = of("plain")
    assert plain.parameters == (Parameter("x", int), Parameter("y", str, False, "a"))
    assert plain.result is Node and not plain.stream and not plain.is_async and not plain.raw_body
    assert (
        of("coroutine").raw_body
        and of("coroutine").is_async
        and of("coroutine").result is type(None)
    )
    assert of("items").stream and of("items").item is Point and of("items").is_async
    assert of("generator").item is int and of("generator").is_async
    assert of("lines").stream and of("lines").item is str and not of("lines").is_async
    assert of("iterable").stream and not of("iterable").is_async
    upload = of("upload")
    assert (
        upload.input_stream == "body"
        and [p.name for p in upload.parameters] == ["name"]
        and not upload.raw_body
    )


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("yields", "it yields"),
        ("returns", "asynchronous generator"),
        ("bare", "no item type"),
        ("chunks", r"AsyncIterator\[bytes\]"),
        ("two", "one body"),
        ("field", "Annotated"),
        ("single", r"a batched API takes lists .* write e\.g\. 'word: list\[str\]'"),
        ("joined", r"one result an item: write '-> list\[str\]'"),
    ],
)
def test_wrong_signatures(method: str, why: str) -> None:
    with pytest.raises(DeclarationError, match=rf"Wrong\.{method}: .*{why}"):
        Signature.of(Wrong, method)


def test_every_supported_type_has_a_place_in_the_table() -> None:
    assert len({str(hint) for hint in SUPPORTED}) == len(SUPPORTED) and typing.get_type_hints(Node)


@pytest.mark.parametrize(
    "hint", [list[str], Sequence[int], NDArray[np.float32], Annotated[list[int], "words"], Any]
)
def test_results_that_batching_can_split(hint: Any) -> None:
    class Service:
        @api(batch=Batch())
        def method(self, items: list[str], factor: float) -> list[str]: ...

    Service.method.__annotations__["return"] = hint
    assert Signature.of(Service, "method").result == hint


@pytest.mark.parametrize(
    ("path", "instead"),
    [
        ("starlette.datastructures:UploadFile", "file: bytes"),
        ("starlette.datastructures:FormData", "file: bytes"),
        ("starlette.requests:Request", "takes its parameters"),
        ("starlette.responses:JSONResponse", "graphserve.Problem"),
        ("starlette.responses:JSONResponse", "request().answer"),
        ("starlette.requests:Request", "graphserve.request()"),
        ("starlette.background:BackgroundTask", "asyncio.create_task"),
        ("starlette.exceptions:HTTPException", "graphserve.Problem"),
        ("fastapi:UploadFile", "file: bytes"),
        ("starlette.websockets:WebSocket", "AsyncIterator"),
        ("starlette.applications:Starlette", "the values themselves"),
    ],
)
def test_classes_of_web_frameworks_are_told_what_to_write_instead(path: str, instead: str) -> None:
    module, _, name = path.partition(":")
    kind = getattr(importlib.import_module(module), name)
    with pytest.raises(DeclarationError, match="never gets here") as caught:
        of_parameter(kind)
    assert instead in str(caught.value)
    with pytest.raises(DeclarationError, match="never gets here"):
        of_parameter(list[kind | None])


def test_a_class_that_pydantic_knows_how_to_read_is_none_of_ours_all_the_same() -> None:
    class UploadFile:
        __module__ = "fastapi.datastructures"

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return handler(str)

    with pytest.raises(DeclarationError, match="file: bytes"):
        of_parameter(UploadFile)


def of_parameter(hint: Any) -> Signature:
    async def run(self: Any, x: Any) -> int:
        return 1

    run.__annotations__ = {"x": hint, "return": int}
    return Signature.of(type("Framed", (), {"run": run}), "run")


def of_a_library(name: str, module: str) -> type:
    """Return a class as a library has it, which need not be installed for this."""
    return type("Derived", (type(name, (), {"__module__": module}),), {"__module__": "mine"})


@pytest.mark.parametrize(
    ("hint", "why"),
    [
        (pathlib.PosixPath, "annotate pathlib.Path for a file"),
        (list[pathlib.PurePosixPath], "annotate pathlib.Path for a file"),
        (io.BytesIO, "annotate bytes, or AsyncIterator"),
        (re.Pattern, "annotate str, and compile it"),
        (of_a_library("Image", "PIL.Image"), "annotate PIL.Image.Image"),
        (of_a_library("DataFrame", "pandas.core.frame"), "annotate pandas.DataFrame"),
        (of_a_library("DataFrame", "polars.dataframe.frame"), "annotate polars.DataFrame"),
        (of_a_library("Table", "pyarrow.lib"), "annotate pyarrow.Table"),
        (dict[str, of_a_library("Tensor", "torch")], "annotate torch.Tensor"),  # type: ignore[misc]
    ],
    ids=str,
)
def test_a_well_known_type_is_told_what_to_write_instead(hint: Any, why: str) -> None:
    class Service:
        @api
        def method(self, x: hint) -> None: ...  # type: ignore[valid-type]

    Service.method.__annotations__["x"] = hint
    with pytest.raises(DeclarationError) as caught:
        Signature.of(Service, "method")
    assert why in str(caught.value)
    assert "make it a dataclass" not in str(caught.value)


SOCKETS = {
    # parameters behind self, and what is said of them
    "socket: int": "parameter 'socket' is the socket: write 'socket: WebSocket', of starlette.websockets, not int",
    "socket: WebSocket, text: AsyncIterator[bytes]": "parameter 'text' is in the URL, where it is no stream",
    "socket: WebSocket, text: Annotated[str, Body]": "parameter 'text' is in the URL, where it is no stream",
    "socket: WebSocket, text: WebSocket": "parameter 'text': .*WebSocket",
    "socket: WebSocket, text: Missing": "names 'Missing', which does not exist",
}


@pytest.mark.parametrize("parameters", SOCKETS)
def test_a_websocket_takes_a_socket_and_what_can_be_in_a_url(parameters: str) -> None:
    with pytest.raises(DeclarationError, match=SOCKETS[parameters]):
        Signature.of_socket(_socket(parameters), "talk")


def test_a_websocket_returns_nothing() -> None:
    with pytest.raises(DeclarationError, match="a WebSocket returns nothing: write '-> None'"):
        Signature.of_socket(_socket("socket: WebSocket", "int"), "talk")


def test_the_parameters_of_a_websocket_are_those_of_its_url() -> None:
    signature = Signature.of_socket(
        _socket("socket: 'WebSocket', count: int, tags: list[str] = []"), "talk"
    )
    assert [(each.name, each.type, each.required) for each in signature.parameters] == [
        ("count", int, True),
        ("tags", list[str], False),
    ]
    assert signature.methods == ("GET",)


def _socket(parameters: str, result: str = "None") -> type:
    from starlette.websockets import WebSocket

    names: dict[str, object] = {"WebSocket": WebSocket, "Body": Body, "Annotated": Annotated}
    names |= {"AsyncIterator": AsyncIterator}
    code = (
        f"from __future__ import annotations\nasync def talk(self, {parameters}) -> {result}: ..."
    )
    exec(code, names)
    return type("Room", (), {"talk": names["talk"]})


VALUES = {
    # of FastAPI, what is written instead
    "Query": "limit: int = 10",
    "Path": "route='/items/{number}'",
    "Form": "a part for each parameter",
    "File": "file: bytes",
    "Body": "Annotated[T, graphserve.Body]",
    "Header": "request().headers",
    "Cookie": "request().cookies",
    "Depends": "graphserve.depends(Service)",
    "Security": "graphserve.depends(Service)",
}


@pytest.mark.parametrize("name", VALUES)
def test_what_fastapi_reads_is_told_what_to_write_instead(name: str) -> None:
    import fastapi

    value = getattr(fastapi, name)()

    class Default:
        @api
        async def f(self, x: int = value) -> None: ...

    class InAnnotation:
        @api
        async def f(self, x: list[Annotated[int, value]]) -> None: ...

    Default.f.__annotations__["x"] = int
    InAnnotation.f.__annotations__["x"] = list[Annotated[int, value]]
    for cls, what in ((Default, "the default of parameter 'x'"), (InAnnotation, "parameter 'x'")):
        with pytest.raises(DeclarationError) as caught:
            Signature.of(cls, "f")
        said = str(caught.value)
        assert f"{what}: nobody reads fastapi." in said and VALUES[name] in said


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Service:
        @api
        async def f(self, x: pl.DataFrame) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(DeclarationError, match=r"names .pl., which does not exist"):
        Signature.of(Service, "f")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DeclarationError, match=r"polars is not installed here .pip install polars"):
        Signature.of(Service, "f")
