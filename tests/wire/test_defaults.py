"""Dataclasses keep the defaults of fields that a message does not give, when they are passed on and
returned.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

import pytest

from graphserve.wire.codec import Format, ResultCodec
from tests.codecs import codec


@dataclass
class Point:
    x: int
    y: float = 0.5
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    x: int
    y: float = 0.5


@dataclass(slots=True)
class Slotted:
    x: int
    y: float = 0.5


@dataclass
class Doubling:
    x: int
    y: float = 0.5
    doubled: int = 0

    def __post_init__(self) -> None:
        self.doubled = 2 * self.x


@dataclass
class Below(Doubling):
    z: int = 7


@dataclass
class Holding:
    point: Point
    others: dict[str, Frozen] = field(default_factory=dict)


CASES = [
    (Point, b'{"x":1}', b'{"x":1,"y":0.5,"tags":[]}'),
    (Frozen, b'{"x":1}', b'{"x":1,"y":0.5}'),
    (Slotted, b'{"x":1}', b'{"x":1,"y":0.5}'),
    (Doubling, b'{"x":3}', b'{"x":3,"y":0.5,"doubled":6}'),
    (Below, b'{"x":3}', b'{"x":3,"y":0.5,"doubled":6,"z":7}'),
    (Holding, b'{"point":{"x":1},"others":{"a":{"x":2}}}',
     b'{"point":{"x":1,"y":0.5,"tags":[]},"others":{"a":{"x":2,"y":0.5}}}'),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "sent", "written"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_what_was_read_is_written_whole(kind: type, sent: bytes, written: bytes) -> None:
    value = codec(p=kind).decode(b'{"p":%b}' % sent, Format.JSON)["p"]
    result = ResultCodec(kind, "S.f")
    assert result.encode(value, Format.JSON) == written
    over_a_hop = result.decode(result.encode(value, Format.TYPED))
    assert over_a_hop == value
    assert result.encode(over_a_hop, Format.JSON) == written


def test_making_one_is_what_it_was() -> None:
    @dataclass
    class Told:
        x: int
        told: InitVar[list[int]]
        y: int = 5

        def __post_init__(self, told: list[int]) -> None:
            told.append(self.x)

    ResultCodec(Point, "S.f")
    assert vars(Point(1)) == {"x": 1, "y": 0.5, "tags": []}
    assert Point(1, 2.0) == Point(x=1, y=2.0, tags=[])
    seen: list[int] = []
    assert Told(3, seen).y == 5
    assert seen == [3]
