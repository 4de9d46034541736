"""The same services for every way to run them: `Near` calls nodes of its own graph, `Far` calls
them at a URL.
"""

import asyncio
import dataclasses
import datetime
import enum
import os
import threading
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import numpy as np
import pydantic

from graphserve import Array, Problem, RemoteError, api, depends, service
from graphserve.errors import CallError

ELSEWHERE = os.environ.get("WAYS_URL", "http://127.0.0.1:9")
DIARY = os.environ.get("WAYS_DIARY", os.devnull)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Box:
    left: int
    label: str = "none"
    inner: "Box | None" = None


class Options(TypedDict):
    size: float
    name: NotRequired[str]


class Point(NamedTuple):
    x: int
    y: float


class Scan(msgspec.Struct):
    pixels: np.ndarray
    tags: set[str] = set()


class User(pydantic.BaseModel):
    name: str
    born: datetime.date
    boxes: list[Box] = []


class Numbered(msgspec.Struct):
    number: int
    image: np.ndarray
    raw: bytes
    at: datetime.datetime


class Photo(pydantic.BaseModel):
    image: bytes


@dataclasses.dataclass
class Page:
    image: np.ndarray
    scans: dict[str, Scan]


NOON = datetime.datetime(2026, 1, 2, 12, 0, 3, 45, tzinfo=datetime.UTC)
KEY = uuid.UUID(int=2**100 + 7)
Floats = Annotated[np.ndarray, Array(dtype="float32", shape=(None, 2))]

# By the name of the API of Echo: its parameter's and its result's type, and a value.
KINDS: dict[str, tuple[Any, Any]] = {
    "integer": (int, 2**40),
    "negative": (int, -5),
    "huge": (int, 2**80),
    "huge_negative": (int | None, -(2**63) - 1),
    "huges": (dict[str, list[Box]], {"a": [Box(2**64, "a", Box(-(2**99)))]}),
    "huge_anything": (Any, [2**64, {"a": 2**70}, "b"]),
    "number": (float, 1.5),
    "text": (str, "ä€\U0001f600"),
    "flag": (bool, True),
    "nothing": (None, None),
    "bytes_": (bytes, b"\0\xff" * 3),
    "list_": (list[int], [1, 2]),
    "tuple_": (tuple[int, str], (1, "a")),
    "set_": (set[str], {"a"}),
    "mapping": (dict[str, list[float]], {"a": [1.0]}),
    "numbered": (dict[int, str], {3: "c"}),
    "optional": (int | None, None),
    "union": (int | str | None, "x"),
    "literal": (Literal["a", "b"], "b"),
    "anything": (Any, {"a": [1, None, 2.5]}),
    "moment": (datetime.datetime, NOON),
    "naive": (datetime.datetime, NOON.replace(tzinfo=None)),
    "day": (datetime.date, NOON.date()),
    "span": (datetime.timedelta, datetime.timedelta(days=1, microseconds=3)),
    "key": (uuid.UUID, KEY),
    "exact": (Decimal, Decimal("1.10")),
    "colour": (Colour, Colour.BLUE),
    "level": (Level, Level.LOW),
    "box": (Box, Box(1, "a", Box(2))),
    "boxes": (list[Box], [Box(1), Box(2)]),
    "options": (Options, {"size": 1.0}),
    "point": (Point, Point(1, 2.0)),
    "user": (User, User(name="a", born=NOON.date(), boxes=[Box(1)])),
    "users": (list[User], [User(name="a", born=NOON.date())]),
    "photo": (Photo, Photo(image=b"\x89PNG\xff")),
    "photos": (list[tuple[Photo, bytes]], [(Photo(image=b"\x89"), b"\xff")]),
    "bounded_bytes": (Annotated[bytes, pydantic.Field(min_length=1)], b"\x89PNG"),
    "array": (np.ndarray, np.arange(6, dtype=np.int16).reshape(2, 3)),
    "empty_array": (np.ndarray, np.zeros((0, 3))),
    "floats": (Floats, np.array([[1, 2], [3, 4]], np.float32)),
    "scan": (Scan, Scan(np.eye(2, dtype=bool), {"t"})),
    "page": (Page, Page(np.zeros(3, np.uint8), {"a": Scan(np.ones((1, 2)))})),
    "large": (np.ndarray, np.arange(200_000, dtype=np.float64)),
    "huge_page": (dict[str, Numbered | None], {"a": Numbered(2**77, np.arange(3), b"\xff", NOON)}),
    "maybe_array": (np.ndarray | None, np.array([1 + 2j])),
}


def echo_api(name: str, hint: Any) -> Callable[..., Any]:
    async def echo(self: Any, value: Any) -> Any:
        assert all(map(locked, arrays(value))), "arrays arrive read-only"
        return value

    echo.__name__, echo.__qualname__ = name, f"Echo.{name}"
    echo.__annotations__ = {"value": hint, "return": hint}
    return api(echo)


def locked(array: np.ndarray) -> bool:
    """Whether an array is read-only, and stays so."""
    try:
        array.setflags(write=True)
    except ValueError:
        return not array.flags.writeable
    return False


def arrays(value: Any) -> list[np.ndarray]:
    """All arrays in a value."""
    if isinstance(value, np.ndarray):
        return [value]
    if dataclasses.is_dataclass(value) or isinstance(value, msgspec.Struct):
        value = [getattr(value, name) for name in type(value).__annotations__]
    if isinstance(value, dict):
        value = list(value.values())
    return [array for item in value for array in arrays(item)] if isinstance(value, list) else []


def describe(value: Any) -> str:
    """A value in words that two processes can compare."""
    if isinstance(value, np.ndarray):
        mode = "rw" if value.flags.writeable else "ro"
        return f"array({value.dtype} {value.shape} {mode} {value.ravel()[:9].tolist()})"
    if isinstance(value, Box | User):
        return repr(value)
    if dataclasses.is_dataclass(value) or isinstance(value, msgspec.Struct):
        return f"{type(value).__name__}{[describe(getattr(value, name)) for name in type(value).__annotations__]}"
    if type(value) in (list, dict):
        return f"{type(value).__name__}{[describe(v) for v in (value.items() if isinstance(value, dict) else value)]}"
    return (
        f"({', '.join(map(describe, value))})"
        if type(value) is tuple
        else f"{type(value).__name__} {value!r}"
    )


@service(concurrency=1, queue=1)
class Narrow:
    @api
    async def hold(self) -> int:
        await asyncio.sleep(3600)
        return 1


@service
class Deep:
    def __init__(self) -> None:
        self.calls = 0

    @api
    async def count(self) -> int:
        self.calls += 1
        return self.calls

    @api
    async def fail(self, kind: str) -> int:
        if kind == "problem":
            raise Problem(418, "Teapot", extensions={"pot": 1})
        if kind == "hang":
            await asyncio.sleep(3600)
        if kind == "die":
            os._exit(9)
        raise KeyError("deep")


@service
class Echo:
    deep = depends(Deep)
    narrow = depends(Narrow)

    def __init__(self, lang: str = "en") -> None:
        self.lang = lang

    for name_, (hint_, _) in KINDS.items():
        locals()[name_] = echo_api(name_, hint_)
    del name_, hint_

    @api
    async def language(self) -> str:
        return self.lang

    @api
    async def defaults(self, a: int, b: int = 2, *, c: list[int] | None = None) -> list[Any]:
        return [a, b, c]

    @api
    def sync_add(self, a: float, b: float) -> float:
        return a + b

    @api
    async def numbers(self, x: list[int]) -> int:
        return sum(x)

    @api
    async def positive(self, x: Annotated[int, pydantic.Field(ge=1)]) -> int:
        return x

    @api
    async def photo_size(self, photo: Photo) -> int:
        return len(photo.image)

    @api
    async def whole(self, x: int) -> str:
        return describe(x)

    @api
    async def real(self, x: float) -> str:
        return describe(x)

    @api
    async def fail(self, kind: str) -> int:
        headers = {"retry-after": "3", "x-seat": "4"}
        if kind == "problem":
            raise Problem(
                409,
                "Taken",
                detail="seat 4",
                type="urn:taken",
                extensions={"seat": [4]},
                headers=headers,
            )
        if kind == "hang":
            await asyncio.sleep(3600)
        if kind == "exit":
            raise SystemExit(4)
        if kind == "die":
            os._exit(9)
        raise KeyError("a secret")

    @api
    def sync_fail(self, kind: str) -> int:
        if kind == "stop":
            return next(iter(()))
        return int(kind)

    @api
    async def wrong_result(self) -> int:
        return "no number"  # type: ignore[return-value]

    @api
    async def no_result(self) -> Any:
        return object()

    @api
    async def deep_fail(self, kind: str) -> int:
        return await self.deep.fail(kind)

    @api(timeout=0.1)
    async def late(self) -> int:
        return await self.fail("hang")

    @api(timeout=0.1)
    async def deep_late(self) -> int:
        return await self.deep.fail("hang")

    @api
    async def crowd(self) -> int:
        calls = [asyncio.ensure_future(self.narrow.hold()) for _ in range(8)]
        done, others = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        for call in others:
            call.cancel()
        return await done.pop()


WRONG: dict[str, Any] = {
    "an object": object(), "an array": np.arange(3), "a box": Box(1), "a photo": Photo(image=b"\xff"),
    "a large array": np.arange(200_000),
}  # fmt: skip


class Asks:
    """The gateway: its APIs tell what came of calls to a dependency."""

    @api
    async def value(self, kind: str) -> str:
        return describe(await getattr(self.echo, kind)(KINDS[kind][1]))  # type: ignore[attr-defined]

    @api
    def value_in_thread(self, kind: str) -> str:
        return describe(getattr(self.echo, kind)(value=KINDS[kind][1]).result())  # type: ignore[attr-defined]

    @api
    async def natural(self, kind: str) -> str:
        return describe(await getattr(self.lazy, kind)(KINDS[kind][1]))  # type: ignore[attr-defined]

    @api
    async def ask(
        self, name: str, args: list[Any], kwargs: dict[str, Any], lazy: bool = False
    ) -> Any:
        return await getattr(self.lazy if lazy else self.echo, name)(*args, **kwargs)  # type: ignore[attr-defined]

    @api
    async def error(self, name: str, args: list[Any], lazy: bool = False) -> dict[str, Any]:
        args = [WRONG.get(arg, arg) if isinstance(arg, str) else arg for arg in args]
        call = getattr(self.lazy if lazy else self.echo, name)(*args)  # type: ignore[attr-defined]
        try:
            return {"class": "none", "result": await call}
        except CallError as exc:
            said = {
                "class": type(exc).__name__,
                "status": exc.status,
                "title": exc.title,
                "node": exc.node,
            }
            if not isinstance(exc, RemoteError):  # its text stays in the log of a service elsewhere
                said["detail"] = exc.detail
            for name in ("type", "extensions", "headers", "retry_after"):
                if hasattr(exc, name):
                    said[name] = getattr(exc, name)
            if hasattr(exc, "errors"):
                said["errors"] = [[error["loc"], error["type"]] for error in exc.errors]
            return said

    @api
    async def pass_on(self, name: str, kind: str) -> Any:
        return await getattr(self.echo, name)(kind)  # type: ignore[attr-defined]


@service(name="Gateway")
class Near(Asks):
    echo = depends(Echo)
    lazy = depends("tests.apps.ways:Echo")
    japanese = depends(Echo, name="echo-ja", init={"lang": "ja"})
    deep = depends(Deep)

    @api
    async def languages(self) -> list[str]:
        return [await self.echo.language(), await self.japanese.language()]

    @api
    async def count(self) -> int:
        return await self.deep.count()


@service(name="Gateway")
class Far(Asks):
    echo = depends(Echo, url=ELSEWHERE)
    lazy = depends("tests.apps.ways:Echo", url=ELSEWHERE)


def note(text: str) -> None:
    with open(DIARY, "a") as diary:
        diary.write(f"{text}\n")


@service(concurrency=1, workers=2)
class Model:
    """One thread runs it all; a synchronous context manager."""

    deep = depends(Deep)

    def __init__(self) -> None:
        self.threads = {threading.get_ident()}
        note(f"Model.__init__ {self.deep.count().result() > 0}")

    def __enter__(self) -> "Model":
        self.threads.add(threading.get_ident())
        note("Model.__enter__")
        return self

    def __exit__(self, *exc: object) -> None:
        self.threads.add(threading.get_ident())
        note(f"Model.__exit__ {len(self.threads)}")

    @api
    def predict(self, x: int) -> int:
        self.threads.add(threading.get_ident())
        return len(self.threads) * 100 + x


@service
class Life:
    model = depends(Model)

    def __init__(self) -> None:
        self.first = self.model.predict(1).result()
        self.thread = threading.current_thread()

    async def __aenter__(self) -> None:
        note(f"Life.__aenter__ {self.first} {await self.model.predict(2)}")

    async def __aexit__(self, *exc: object) -> None:
        note(f"Life.__aexit__ {await self.model.predict(3)} {exc}")

    @api
    async def many(self) -> list[int]:
        return list(await asyncio.gather(*(self.model.predict(x) for x in range(8))))

    @api
    def thread_is_no_loop(self) -> bool:
        return (
            threading.current_thread() is not threading.main_thread()
            and self.model.predict(0).result() == 100
        )
