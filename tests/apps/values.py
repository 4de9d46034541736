"""Values of every type that can be sent, any number of them, and a gateway that sends them over a
hop and back.

The properties run in the gateway's worker: it makes the values, the echo below says whether they
came as they were.
"""

import dataclasses
import datetime
import enum
import hashlib
import math
import os
import random
import traceback
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
)

import msgspec
import numpy as np
import pydantic
import pydantic.dataclasses
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from graphserve import InvalidArguments, api, depends, service
from tests.apps.memory import facts

LARGE = 64 * 1024  # bytes; from here on a buffer goes by shared memory
Strategy = st.SearchStrategy[Any]
T = TypeVar("T")
Pair = tuple[Any, Strategy]  # a type, and its values

# --- arrays ---

_plain = hnp.scalar_dtypes() | st.sampled_from(
    [np.dtype("longdouble"), np.dtype("float16"), np.dtype(">c16")]
)
_texts = hnp.unicode_string_dtypes(min_len=1, max_len=5) | hnp.byte_string_dtypes(
    min_len=1, max_len=5
)
DTYPES = (
    _plain
    | _texts
    | hnp.array_dtypes(_plain | _texts, min_size=1, max_size=3)
    | hnp.nested_dtypes(_plain, max_leaves=4).filter(
        lambda dtype: dtype.subdtype is None and dtype.itemsize > 0
    )
)
ORDERS: list[Callable[[Any], Any]] = [
    lambda a: a,
    lambda a: a.copy(order="F"),
    lambda a: a.T,
    lambda a: a[::-1] if a.ndim else a,
    lambda a: a[..., ::2] if a.ndim else a,
    lambda a: np.stack([a, a], axis=-1)[..., 0] if a.dtype.kind != "V" else a,
    lambda a: np.broadcast_to(a, (3, *a.shape)),
    # not aligned
    lambda a: (
        np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape) if a.size else a
    ),
]


@st.composite
def arrays(draw: Any, dtype: Any = DTYPES, large: bool = False) -> Any:
    """Any array: dtype, shape, order; `large` ones have too many bytes for the socket."""
    array = draw(
        hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    )
    if large:
        array = array if array.size else draw(hnp.arrays(array.dtype, (3,)))
        array = np.broadcast_to(array, (2 * LARGE // array.nbytes + 2, *array.shape)).copy()
    return draw(st.sampled_from(ORDERS))(array)


# --- classes ---


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = -7


@dataclasses.dataclass
class Box:
    left: int
    label: str = "none"
    inner: "Box | None" = None


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    at: tuple[float, float]
    names: frozenset[str]


class Options(TypedDict):
    size: float
    name: NotRequired[str]


class Point(NamedTuple):
    x: int
    y: float


class Cat(msgspec.Struct, tag=True, rename="camel"):
    lives_left: int


class Dog(msgspec.Struct, tag=True, frozen=True):
    bones: list[Place]


class Row(msgspec.Struct, array_like=True):
    key: uuid.UUID
    cells: dict[str, float]


class User(pydantic.BaseModel):
    name: str
    born: datetime.date
    score: float = 0.0
    tags: set[str] = set()
    boxes: list[Box] = []
    alias: int = pydantic.Field(0, alias="nick")
    friend: "User | None" = None


@dataclasses.dataclass
class Noted(Generic[T]):
    of: T
    note: str


@pydantic.dataclasses.dataclass
class Checked:
    count: Annotated[int, pydantic.Field(ge=0)]
    places: list[Place]


class Scan(msgspec.Struct):
    pixels: np.ndarray
    mask: np.ndarray | None = None


@dataclasses.dataclass
class Page:
    image: np.ndarray
    scans: dict[str, Scan]
    raw: bytes = b""


class Crop(NamedTuple):
    at: Point
    image: np.ndarray


class Layers(TypedDict, total=False):
    first: np.ndarray
    others: list[np.ndarray]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
zones = st.none() | st.just(datetime.UTC) | st.integers(-1439, 1439).map(
    lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes))
)  # fmt: skip
# Dates whose moment in UTC is a date too: a datetime in JSON or msgpack is read through it.
moments = st.datetimes(datetime.datetime(1, 1, 3), datetime.datetime(9999, 12, 29), timezones=zones)
floats = st.floats()
boxes = st.deferred(lambda: st.builds(Box, st.integers(-9, 9), texts, st.none() | boxes))
points = st.builds(Point, st.integers(), floats)
places = st.builds(Place, st.tuples(floats, floats), st.frozensets(texts, max_size=3))
users = st.deferred(
    lambda: st.builds(
        User, name=texts, born=st.dates(), score=floats, tags=st.sets(texts, max_size=2),
        boxes=st.lists(boxes, max_size=2), nick=st.integers(), friend=st.none() | users,
    )
)  # fmt: skip
images = arrays()
scans = st.builds(Scan, images, st.none() | images)
natural = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | texts | st.binary(max_size=20) | images,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)

HASHED: dict[str, Pair] = {  # these may be in a set, and be the keys of a dict
    "integer": (int, st.integers()),
    "text": (str, texts),
    "day": (datetime.date, st.dates()),
    "key": (uuid.UUID, st.uuids()),
    "colour": (Colour, st.sampled_from(Colour)),
    "level": (Level, st.sampled_from(Level)),
}
PLAIN: dict[str, Pair] = {
    **HASHED,
    "number": (float, floats),
    "flag": (bool, st.booleans()),
    "nothing": (None, st.none()),
    "bytes": (
        bytes,
        st.binary(max_size=200) | st.binary(min_size=1, max_size=3).map(lambda data: data * LARGE),
    ),
    "bytearray": (bytearray, st.binary(max_size=200).map(bytearray)),
    "moment": (datetime.datetime, moments),
    "clock": (datetime.time, st.times(timezones=st.none() | st.just(datetime.UTC))),
    "span": (
        datetime.timedelta,
        st.timedeltas(datetime.timedelta(-99999), datetime.timedelta(99999)),
    ),
    "exact": (Decimal, st.decimals()),
    "literal": (Literal["a", "b", 3, None], st.sampled_from(["a", "b", 3, None])),
    "either": (int | str | bool | None, st.integers(-9, 9) | texts | st.booleans() | st.none()),
    "numeric": (int | float, st.integers() | floats),
    "anything": (Any, natural),
    "box": (Box, boxes),
    "place": (Place, places),
    "options": (Options, st.fixed_dictionaries({"size": floats}, optional={"name": texts})),
    "point": (Point, points),
    "animal": (
        Cat | Dog,
        st.builds(Cat, st.integers(-9, 9)) | st.builds(Dog, st.lists(places, max_size=2)),
    ),
    "row": (Row, st.builds(Row, st.uuids(), st.dictionaries(texts, floats, max_size=3))),
    "user": (User, users),
    "noted": (Noted[Box], st.builds(Noted, boxes, texts)),
    "checked": (Checked, st.builds(Checked, st.integers(0, 9), st.lists(places, max_size=2))),
    "scalar": (np.float32, st.floats(width=32).map(np.float32)),
    "instant": (np.datetime64, hnp.from_dtype(np.dtype("M8[ns]"))),
}
WITH_ARRAYS: dict[str, Pair] = {
    "array": (np.ndarray, images),
    "complexes": (NDArray[np.complex64], arrays(np.dtype("c8"))),
    "maybe_array": (np.ndarray | None, st.none() | images),
    "scan": (Scan, scans),
    "page": (
        Page,
        st.builds(Page, images, st.dictionaries(texts, scans, max_size=2), st.binary(max_size=20)),
    ),
    "crop": (Crop, st.builds(Crop, points, images)),
    "layers": (
        Layers,
        st.fixed_dictionaries(
            {}, optional={"first": images, "others": st.lists(images, max_size=2)}
        ),
    ),
}


def nested(seed: int) -> Pair:
    """A type with types in it, the same one for every process."""
    dice = random.Random(seed)

    def inner(depth: int) -> Pair:
        if depth == 0:
            return dice.choice([*PLAIN.values(), *WITH_ARRAYS.values()])
        hint, values = inner(depth - 1)
        other, others = inner(0)
        key, keys = dice.choice(list(HASHED.values()))
        return dice.choice([
            (list[hint], st.lists(values, max_size=3)),
            (Sequence[hint], st.lists(values, max_size=3)),
            (tuple[hint, ...], st.lists(values, max_size=3).map(tuple)),
            (tuple[hint, other], st.tuples(values, others)),
            (dict[key, hint], st.dictionaries(keys, values, max_size=3)),
            (Mapping[str, hint], st.dictionaries(texts, values, max_size=3)),
            (list[set[key]], st.lists(st.sets(keys, max_size=3), max_size=3)),
            (dict[str, frozenset[key]], st.dictionaries(texts, st.frozensets(keys, max_size=3), max_size=3)),
            (Optional[hint], values | st.none()),  # noqa: UP045  (None has no `|`)
        ])  # fmt: skip

    return inner(1 + seed % 3)


NESTED = {f"nested_{seed}": nested(seed) for seed in range(60)}
BY_REFERENCE: dict[str, Pair] = {
    "large": (np.ndarray, arrays(large=True)),
    "larges": (list[np.ndarray], st.lists(arrays(large=True), min_size=1, max_size=3)),
    "large_page": (Page, st.builds(
        Page, arrays(large=True), st.dictionaries(texts, st.builds(Scan, arrays(large=True), images), max_size=2),
        st.binary(min_size=1, max_size=2).map(lambda data: data * LARGE),
    )),
    "blobs": (dict[str, list[bytes]], st.dictionaries(
        texts, st.lists(st.binary(min_size=1, max_size=3).map(lambda data: data * LARGE), max_size=2), max_size=2,
    )),
}  # fmt: skip
KINDS: dict[str, Pair] = {**PLAIN, **WITH_ARRAYS, **NESTED, **BY_REFERENCE}


# --- the same ---


def parts(value: Any) -> list[Any]:
    """What a value consists of, in a fixed order; nothing if it is one thing."""
    if dataclasses.is_dataclass(value) or isinstance(value, msgspec.Struct):
        return [getattr(value, name) for name in type(value).__annotations__]
    if isinstance(value, pydantic.BaseModel):
        return [getattr(value, name) for name in type(value).model_fields]
    if isinstance(value, dict):
        return [
            part
            for item in sorted(value.items(), key=lambda item: print_of(item[0]))
            for part in item
        ]
    if isinstance(value, set | frozenset):
        return sorted(value, key=print_of)
    return list(value) if isinstance(value, list | tuple) else []


def print_of(value: Any) -> str:
    """The fingerprint of a value: two are the same if and only if the values are, types, NaN and
    -0.0 included.
    """
    if isinstance(value, np.ndarray | np.generic):
        words = [
            np.lib.format.dtype_to_descr(value.dtype),
            value.shape,
            hashlib.sha1(value.tobytes()).hexdigest(),
        ]
    elif inner := parts(value):
        words = [len(inner), hashlib.sha1("\n".join(map(print_of, inner)).encode()).hexdigest()]
    elif isinstance(value, float) and math.isnan(value):
        words = ["nan"]
    elif isinstance(value, datetime.datetime | datetime.time):
        if isinstance(value, datetime.datetime) and value.tzinfo is not None:
            value = value.astimezone(datetime.UTC)  # so they arrive: the same moment, and equal
        # ISO 8601 has no word for it, and two that differ in it are equal
        words = [repr(value.replace(fold=0))]
    else:
        words = [repr(value)]
    return " ".join(map(str, [type(value).__name__, *words]))


def writable(value: Any) -> bool:
    """Whether an array in a value can be written to."""
    return (
        value.flags.writeable if isinstance(value, np.ndarray) else any(map(writable, parts(value)))
    )


def echo_api(name: str, hint: Any) -> Callable[..., Any]:
    async def echo(self: Any, value: Any, sent: str) -> Any:
        assert print_of(value) == sent, f"came as {print_of(value)} {value!r}"
        assert not writable(value), "arrays arrive read-only"
        return value

    echo.__name__, echo.__qualname__ = name, f"Echo.{name}"
    echo.__annotations__ = {"value": hint, "sent": str, "return": hint}
    return api(echo)


@service
class Echo:
    for name_, (hint_, _) in KINDS.items():
        locals()[name_] = echo_api(name_, hint_)
    del name_, hint_

    @api
    async def one_by_one(self, values: list[Any]) -> AsyncIterator[np.ndarray]:
        for value in values:
            yield value

    @api
    async def facts(self) -> dict[str, Any]:
        return facts()


@service
class Gateway:
    echo = depends(Echo)

    @api
    def holds(self, name: str, examples: int) -> str:
        """Send so many values of a kind to the echo and back; what went wrong, or nothing."""

        @settings(
            max_examples=examples,
            derandomize="CI" in os.environ,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )
        @given(KINDS[name][1])
        def same_after_a_hop(value: Any) -> None:
            sent = print_of(value)
            back = getattr(self.echo, name)(value, sent).result()
            assert print_of(back) == sent, f"came back as {print_of(back)} {back!r}, sent as {sent}"
            assert not writable(back), "arrays in results are read-only"

        return outcome(same_after_a_hop)

    @api
    def streams(self, examples: int) -> str:
        """The same for the items of streams."""

        @settings(
            max_examples=examples, derandomize="CI" in os.environ, database=None, deadline=None
        )
        @given(st.lists(images | arrays(large=True), max_size=4))
        def same_one_by_one(values: list[Any]) -> None:
            back = list(self.echo.one_by_one(values))
            assert [*map(print_of, back)] == [*map(print_of, values)]
            assert not writable(back)

        return outcome(same_one_by_one)

    @api
    async def refused(self, kind: str) -> str:
        """What is said of a value that has no bytes on the wire."""
        value, name = {
            "surrogates": ("\ud800", "text"), "objects": (np.array([{}]), "array"),
            "masked": (np.ma.masked_array([1], [True]), "array"), "unknown": (object(), "anything"),
        }[kind]  # fmt: skip
        try:
            await getattr(self.echo, name)(value, "")
        except InvalidArguments as exc:
            return f"{exc.node}: {exc}"
        return "nothing"

    @api
    async def facts(self) -> list[dict[str, Any]]:
        return [facts(), await self.echo.facts()]


def outcome(check: Callable[[], None]) -> str:
    """What went wrong with a property, or nothing."""
    try:
        check()
    except BaseException as exc:
        return "".join(traceback.format_exception(exc))[-6000:]
    return ""
