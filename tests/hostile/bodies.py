"""Bodies that cost much more than they are: one generator a kind, of any size, each for one type of
parameter `x`.
"""

from __future__ import annotations

import dataclasses
import decimal
import functools
import itertools
import math
import struct
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
import numpy as np
import pydantic

JSON, MSGPACK = "application/json", "application/msgpack"
P = 2**61 - 1  # Python takes a number's remainder by it as the hash
_MASK = 2**64 - 1
# of a tuple's hash
_FIRST, _SECOND, _FIFTH = 11400714785074694791, 14029467366897019727, 2870177450012600261


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: int
    b: int


@dataclasses.dataclass
class Defaults:
    a: int = 0
    b: int = 0
    c: str = ""


class Struct(msgspec.Struct, forbid_unknown_fields=True):
    a: int = 0


class Model(pydantic.BaseModel):
    numbers: set[int] = set()
    ids: dict[uuid.UUID, int] = {}
    count: int = 0


class Forbidding(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


@dataclasses.dataclass(frozen=True)
class Partly:
    a: int
    middle: int = 7
    b: int = 0
    note: int = dataclasses.field(default=0, compare=False)


class FrozenModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    id: uuid.UUID


class Ids(pydantic.BaseModel):
    ids: set[uuid.UUID] = set()
    keys: dict[uuid.UUID, int] = {}
    numbers: set[complex] = set()
    pairs: set[tuple[int, int]] = set()
    models: frozenset[FrozenModel] = frozenset()


TYPES: dict[str, Any] = {
    "ids": Ids, "set_partly": set[Partly], "set_floats": set[tuple[float, float]],
    "set_int": set[int], "dict_int": dict[int, int], "set_uuid": set[uuid.UUID], "dict_uuid": dict[uuid.UUID, int],
    "set_decimal": set[decimal.Decimal], "set_tuple": set[tuple[int, int]], "set_frozen": set[Frozen],
    "model": Model, "models": list[Model], "forbidding": Forbidding, "anything": Any, "array": np.ndarray,
    "integer": int, "texts": list[str], "structs": list[Struct], "defaults": list[Defaults],
    "dicts": list[dict[str, int]], "literal": Literal["a"], "number": float, "rows": np.ndarray,
    "dict_float": dict[float, int],
}  # fmt: skip


def tuples(count: int, middle: tuple[int, ...] = ()) -> list[tuple[int, int]]:
    """First and last items of tuples, of integers of 64 bits, that have one hash: of the others,
    the last one follows.

    Args:
        count: how many.
        middle: what stands between these two in each tuple.
    """
    return list(itertools.islice(_all_tuples(middle), count))


def _all_tuples(middle: tuple[int, ...] = ()) -> Iterator[tuple[int, int]]:
    wanted, unmixed = _rotated(12345 * pow(_FIRST, -1, 2**64) & _MASK, 33), pow(_SECOND, -1, 2**64)
    for first in itertools.count(1):
        mixed = _FIFTH
        for item in (first, *middle):
            mixed = _rotated((mixed + item * _SECOND) & _MASK, 31) * _FIRST & _MASK
        last = (wanted - mixed) * unmixed & _MASK
        last -= (last >> 63) << 64
        if abs(last) < P and last != -1:
            yield first, last


def floats(count: int) -> list[tuple[float, float]]:
    """Pairs of floats whose tuples have one hash: a float of 53 bits has the hash of these bits,
    rotated in 61.
    """
    found: list[tuple[float, float]] = []
    for first, last in _all_tuples():
        if len(found) == count:
            break
        for shift in range(61):
            bits = (abs(last) >> shift | abs(last) << (61 - shift)) & P
            if bits < 2**53:
                found.append((float(first), math.copysign(math.ldexp(bits, shift), last)))
                break
    return found


def complexes(count: int) -> list[str]:
    """Complex numbers of one hash."""
    return [f"{10**15 - 1000003 * k}+{k}j" for k in range(count)]


def lookalikes(count: int, bits: int, led: int, beside: int = 0) -> list[int]:
    """Numbers whose hashes all differ, which are slow in a table of CPython's all the same.

    Most take the places that lie one behind the other on the way that every search ends on. The
    searches for the others, which are the last ones, come to that way.

    Args:
        count: how many.
        bits: of the number of a place.
        led: how many others there are.
        beside: places that are looked at in the same step as one, 9 in a set.
    """
    mask = 2**bits - 1
    order = np.full(mask + 1, -1)
    found: dict[int, None] = {}
    place = 7
    while len(found) < count - led - beside:
        place = (5 * place + 1) & mask
        order[place] = len(found)
        found |= dict.fromkeys(range(place, min(place + beside, mask) + 1))
    taken = np.isin(np.arange(mask + 1), list(found))
    full = taken.copy()
    for further in range(1, beside + 1):
        full[:-further] &= taken[further:]
    first = mask + 1
    while len(found) < count:
        numbers = np.arange(first, first + 2**20)
        first += 2**20
        places, rests = numbers & mask, numbers
        while rests.any():
            some = full[places]
            numbers, places, rests = numbers[some], places[some], rests[some] >> 5
            places = (5 * places + rests + 1) & mask
        among = (order[places] >= 0) & (order[places] < (count - led) // 2)
        found |= dict.fromkeys(numbers[among].tolist())
    return list(found)[:count]


def _rotated(number: int, bits: int) -> int:
    return ((number << bits) | (number >> (64 - bits))) & _MASK


def _json(value: Any) -> bytes:
    return b'{"x":%s}' % msgspec.json.encode(value)


def _keyed(keys: list[tuple[int, int]]) -> bytes:
    # Not from a dict: it would be as slow here as it is to be there.
    items = b"".join(msgspec.msgpack.encode(key) + b"\x01" for key in keys)
    return b"\x81\xa1x\xdf" + struct.pack(">I", len(keys)) + items


@functools.cache
def _slow_keys(size: int) -> list[int]:
    """About as many as a body of this size has room for, but enough to be slow, and not too many to
    be made.
    """
    bits = max(14, min(16, (size // 14 * 3 // 2).bit_length() - 1))
    return lookalikes(2**bits * 2 // 3 - 20, bits, 2**bits // 4)


def _packed(keys: list[float]) -> bytes:
    items = b"".join(msgspec.msgpack.encode(key) + b"\x01" for key in keys)
    return b"\x81\xa1x\xdf" + struct.pack(">I", len(keys)) + items


def _multiples(size: int) -> list[int]:
    return [k * P for k in range(size // 24)]


def _uuids(size: int) -> list[str]:
    return [str(uuid.UUID(int=k * P)) for k in range(size // 39)]


def _uuids_as(form: str, size: int) -> list[str]:
    return [form.format(each) for each in _uuids(size)]


def _many(piece: bytes, size: int, last: bytes = b"") -> bytes:
    return b'{"x":[%s]}' % (piece * (size // len(piece)) + (last or piece.rstrip(b",")))


def _names(size: int) -> bytes:
    return b",".join(b'"%d":1' % k for k in range(size // 9))


def array(shape: tuple[int, ...], dtype: bytes = b"<f4", data: bytes = b"") -> bytes:
    """An array in msgpack, whatever it says of itself."""
    header = (
        struct.pack("<BH", len(shape), len(dtype))
        + dtype
        + struct.pack(f"<{len(shape)}Q", *shape)
        + data
    )
    return b"\xc9" + struct.pack(">I", len(header)) + b"\x01" + header


def _array(shape: tuple[int, ...], dtype: bytes = b"<f4", data: bytes = b"") -> bytes:
    return b"\x81\xa1x" + array(shape, dtype, data)


def _listed(piece: bytes, size: int) -> bytes:
    number = size // len(piece)
    return b"\x81\xa1x\xdd" + struct.pack(">I", number) + piece * number


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of costly body.

    Args:
        name: what it is.
        type: of the parameter, by its name in `TYPES`.
        make: makes one of about so many bytes.
        format: its Content-Type.
        fits: whether it is well-formed, and no more than a body may be.
    """

    name: str
    type: str
    make: Callable[[int], bytes]
    format: str = JSON
    fits: bool = False


KINDS = [
    Kind("keys in each other's way", "anything", lambda n: _packed(_slow_keys(n)), MSGPACK),
    Kind("keys in each other's way where an array is expected", "array", lambda n: _packed(_slow_keys(n)), MSGPACK),
    Kind("floats as keys in each other's way", "dict_float",
         lambda n: _json({str(float(key)): 1 for key in _slow_keys(n)})),
    Kind("floats as keys in each other's way, in msgpack", "dict_float",
         lambda n: _packed([*map(float, _slow_keys(n))]), MSGPACK),
    Kind("a string without an end, of quotes", "anything", lambda n: b'{"x":' + b"[" * 300 + b'"' + b'\\"' * (n // 2)),
    Kind("strings without an end", "anything", lambda n: b'{"x":' + b"[" * 300 + b'"\\' * (n // 2)),
    Kind("equal integers", "set_int", lambda n: _json([*range(n // 200)] * 33), fits=True),
    Kind("objects with one more field", "set_frozen",
         lambda n: _json([{"b": b, "a": a, "z": 0} for a, b in tuples(n // 50)])),
    Kind("objects without a field in the middle", "set_partly",
         lambda n: _json([{"a": a, "b": b, "note": a} for a, b in tuples(n // 50, (7,))])),
    Kind("pairs of floats", "set_floats", lambda n: _json(floats(n // 40))),
    Kind("ids as URNs in a model", "ids", lambda n: _json({"ids": _uuids_as("urn:uuid:{}", n)})),
    Kind("ids in braces in a model", "ids", lambda n: _json({"ids": _uuids_as("{{{}}}", n)})),
    Kind("ids as URNs as keys in a model", "ids",
         lambda n: _json({"keys": dict.fromkeys(_uuids_as("urn:uuid:{}", n), 1)})),
    Kind("complex numbers in a model", "ids", lambda n: _json({"numbers": complexes(n // 30)})),
    Kind("pairs in a model", "ids", lambda n: _json({"pairs": tuples(n // 30)})),
    Kind("frozen models", "ids", lambda n: _json({"models": [{"id": each} for each in _uuids(n)]})),
    Kind("an argument twice", "set_int", lambda n: b'{"x":%s,"x":[]}' % msgspec.json.encode(_multiples(n))),
    Kind("pairs as keys where integers are expected", "dict_int",
         lambda n: b"\x81\xa1x" + _keyed(tuples(n // 14))[3:], MSGPACK),
    Kind("integers of one hash", "set_int", lambda n: _json(_multiples(n))),
    Kind("keys of one hash", "dict_int", lambda n: _json({str(k): 1 for k in _multiples(n)})),
    Kind("ids of one hash", "set_uuid", lambda n: _json(_uuids(n))),
    Kind("ids of one hash as keys", "dict_uuid", lambda n: _json(dict.fromkeys(_uuids(n), 1))),
    Kind("decimals of one hash", "set_decimal", lambda n: _json([str(k) for k in _multiples(n)])),
    Kind("numbers of one hash for decimals", "set_decimal", lambda n: _json(_multiples(n))),
    Kind("pairs of one hash", "set_tuple", lambda n: _json(tuples(n // 30))),
    Kind("objects of one hash", "set_frozen", lambda n: _json([{"b": b, "a": a} for a, b in tuples(n // 40)])),
    Kind("integers of one hash in a model", "model", lambda n: _json({"numbers": _multiples(n)})),
    Kind("ids of one hash in a model", "model", lambda n: _json({"ids": dict.fromkeys(_uuids(n), 1)})),
    Kind("pairs of one hash as keys", "anything", lambda n: _keyed(tuples(n // 14)), MSGPACK),
    Kind("pairs where a list is expected", "texts", lambda n: _keyed(tuples(n // 14)), MSGPACK),
    Kind("different integers", "set_int", lambda n: _json([3 * k for k in range(n // 7)]), fits=True),
    Kind("one long text and empty ones", "array", lambda n: _json(["a" * (n // 2), *[""] * (n // 6)])),
    Kind("empty lists for an array", "array", lambda n: _many(b"[],", n), fits=True),
    Kind("lists of one for an array", "array", lambda n: _many(b"[1],", n), fits=True),
    Kind("zeros for an array", "array", lambda n: _many(b"0,", n), fits=True),
    Kind("many rows without elements", "array", lambda n: _array((2**40, 0)), MSGPACK),
    Kind("rows without elements", "array", lambda n: _array((10**7, 0)), MSGPACK),
    Kind("rows without elements for a batch", "rows", lambda n: _array((2**40, 0)), MSGPACK),
    Kind("a field without bytes", "array", lambda n: _array((1,), b'[["a","<i4"],["b","<i4",[1000000,0]]]', b"1234"),
         MSGPACK),
    Kind("no characters", "array", lambda n: _array((n // 4,), b"<U1", b"\xff" * (n // 4 * 4)), MSGPACK),
    Kind("half characters", "array", lambda n: _array((n // 4,), b"<U1", b"\0\xd8\0\0" * (n // 4)), MSGPACK),
    Kind("half characters in records", "array",
         lambda n: _array((n // 8,), b'[["a","<i4"],["b","<U1"]]', b"1234\0\xd8\0\0" * (n // 8)), MSGPACK),
    Kind("a number where objects are expected", "structs", lambda n: _listed(array((), b"|u1", b"1"), n), MSGPACK),
    Kind("many small arrays", "anything", lambda n: _listed(array((), b"|u1", b"1"), n), MSGPACK, fits=True),
    Kind("wrong items in a model", "model", lambda n: b'{"x":{"numbers":[%s1]}}' % (b'"a",' * (n // 4))),
    Kind("wrong models", "models", lambda n: _many(b'{"count":""},', n)),
    Kind("names that a model forbids", "forbidding", lambda n: b'{"x":{%s}}' % _names(n)),
    Kind("names that an object forbids", "structs", lambda n: b'{"x":[{%s}]}' % _names(n)),
    Kind("unknown arguments", "integer", lambda n: b'{"x":1,%s}' % _names(n)),
    Kind("a long unknown argument", "integer", lambda n: b'{"x":1,"%s":1}' % (b"a" * n)),
    Kind("a long unknown name", "structs", lambda n: b'{"x":[{"%s":1}]}' % (b"a" * n)),
    Kind("a long value that is not among the choices", "literal", lambda n: b'{"x":"%s"}' % (b"a" * n)),
    Kind("many digits", "integer", lambda n: b'{"x":%s}' % (b"9" * max(n, 5000))),
    Kind("many digits for a number", "number", lambda n: b'{"x":%s}' % (b"9" * n)),
    Kind("long integers", "anything", lambda n: _many(b"9" * 4000 + b",", n), fits=True),
    Kind("empty lists", "anything", lambda n: _many(b"[],", n), fits=True),
    Kind("empty objects", "anything", lambda n: _many(b"{},", n), fits=True),
    Kind("small objects", "anything", lambda n: _many(b'{"":0},', n), fits=True),
    Kind("objects of defaults", "defaults", lambda n: _many(b"{},", n), fits=True),
    Kind("models of defaults", "models", lambda n: _many(b"{},", n), fits=True),
    Kind("empty maps", "anything", lambda n: _listed(b"\x80", n), MSGPACK, fits=True),
    Kind("empty maps for dicts", "dicts", lambda n: _listed(b"\x80", n), MSGPACK, fits=True),
    Kind("maps of defaults", "defaults", lambda n: _listed(b"\x80", n), MSGPACK, fits=True),
    Kind("deep lists", "anything", lambda n: b'{"x":%s%s}' % (b"[" * (n // 2), b"]" * (n // 2))),
    Kind("deep lists in msgpack", "anything", lambda n: b"\x81\xa1x" + b"\x91" * n, MSGPACK),
    Kind("a list that says to be long", "texts", lambda n: b"\x81\xa1x\xdd\xff\xff\xff\xff" + b"\xa0" * n, MSGPACK),
    Kind("half characters in JSON", "texts", lambda n: _many(rb'"\ud800",', n)),
    Kind("text", "texts", lambda n: _many(b'"abcdefgh",', n), fits=True),
]  # fmt: skip
