"""`dataclass(frozen=True)` of `system/frozen.py` beside that of the standard library: what one makes
is as what the other makes.
"""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from graphserve.graph.plan import Plan, RunSettings
from graphserve.system import frozen


def made_by(dataclass: Callable[..., Any]) -> dict[str, type]:
    """Return the same classes, made by one of the two decorators."""

    @dataclass(frozen=True)
    class Point:
        """Has what is required, what has a default, and what is made for each."""

        kinds: ClassVar[int] = 3
        x: int
        y: int = 2
        names: list[str] = dataclasses.field(default_factory=list)

        def total(self) -> int:
            return self.x + self.y

    @dataclass(frozen=True)
    class Deep(Point):
        """Inherits fields, hides one, and compares another not at all."""

        secret: str = dataclasses.field(default="s", repr=False)
        note: str = dataclasses.field(default="n", compare=False)

    @dataclass(frozen=True, kw_only=True)
    class Named:
        """Takes no values by position."""

        a: int = 1
        b: tuple[int, ...] = ()

    @dataclass(frozen=True)
    class Mixed(Named):
        """Takes its own values by position, those that it inherits by name."""

        c: int

    @dataclass(frozen=True)
    class Checked:
        """Says no, has a text of its own, and is equal to all of its kind."""

        value: int = 0

        def __post_init__(self) -> None:
            if self.value < 0:
                raise ValueError("below 0")

        def __repr__(self) -> str:
            return "own"

    @dataclass(frozen=True)
    class Empty:
        """Has no fields."""

    class Loose(Point):
        """Is a plain class, with attributes of its own."""

    return {each.__name__: each for each in (Point, Deep, Named, Mixed, Checked, Empty, Loose)}


OURS = made_by(frozen.dataclass)
THEIRS = made_by(dataclasses.dataclass)

ACTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "by position": lambda of: of["Point"](1, 5, ["a"]),
    "by name": lambda of: of["Point"](y=7, x=1),
    "defaults": lambda of: of["Point"](1),
    "each its own list": lambda of: of["Point"](1).names is of["Point"](1).names,
    "too many": lambda of: of["Point"](1, 2, [], 4),
    "unknown": lambda of: of["Point"](1, z=2),
    "missing": lambda of: of["Point"](),
    "twice": lambda of: of["Point"](1, x=2),
    "a field named self": lambda of: of["Point"](1, self=2),
    "inherited": lambda of: of["Deep"](1, 2, [], "geheim", "x"),
    "inherited, equal but for a note": lambda of: of["Deep"](1) == of["Deep"](1, note="other"),
    "inherited, unequal": lambda of: of["Deep"](1) == of["Deep"](1, secret="other"),
    "another class": lambda of: of["Deep"](1) == of["Point"](1),
    "by name only": lambda of: of["Named"](a=2, b=(1, 2)),
    "by name only, by position": lambda of: of["Named"](2),
    "own by position": lambda of: of["Mixed"](3, a=9),
    "own by position, too many": lambda of: of["Mixed"](3, 9),
    "checked": lambda of: of["Checked"](-1),
    "its own text": lambda of: of["Checked"](1),
    "empty": lambda of: (of["Empty"](), of["Empty"]() == of["Empty"](), hash(of["Empty"]())),
    "hash": lambda of: hash(of["Named"](b=(1,))) == hash(of["Named"](b=(1,))),
    "hash is that of the values": lambda of: hash(of["Named"](b=(1,))),
    "no hash": lambda of: hash(of["Point"](1)),
    "in a set": lambda of: len({of["Named"](), of["Named"](), of["Named"](a=2)}),
    "set": lambda of: setattr(of["Point"](1), "x", 2),
    "set what is no field": lambda of: setattr(of["Point"](1), "other", 2),
    "delete": lambda of: delattr(of["Point"](1), "x"),
    "delete what is no field": lambda of: delattr(of["Point"](1), "other"),
    "set a field of a plain subclass": lambda of: setattr(of["Loose"](1), "x", 2),
    "set what a plain subclass has": lambda of: setattr(of["Loose"](1), "other", 2),
    "delete what a plain subclass lacks": lambda of: delattr(of["Loose"](1), "other"),
    "replace": lambda of: dataclasses.replace(of["Deep"](1, 2, ["a"]), x=4),
    "replace what is no field": lambda of: dataclasses.replace(of["Point"](1), z=4),
    "as a dict": lambda of: dataclasses.asdict(of["Deep"](1, 2, ["a"])),
    "fields": lambda of: [(f.name, f.type, f.default) for f in dataclasses.fields(of["Mixed"])],
    "copy": lambda of: copy.deepcopy(of["Point"](1, 2, ["a"])),
    "state": lambda of: vars(of["Point"](1, 2, ["a"])),
    "method": lambda of: of["Point"](1).total(),
    "for match": lambda of: of["Mixed"].__match_args__,
    "name of a method": lambda of: of["Point"].__init__.__qualname__,
    "documentation": lambda of: of["Point"].__doc__,
}


def outcome(act: Callable[[dict[str, Any]], object], of: dict[str, type]) -> object:
    """Return what an act comes to, in words; errors by their class, for the two say the same in
    other words.
    """
    try:
        return repr(act(of))
    except Exception as exc:
        return type(exc)


@pytest.mark.parametrize("what", ACTS)
def test_both_decorators_make_the_same(what: str) -> None:
    assert outcome(ACTS[what], OURS) == outcome(ACTS[what], THEIRS)


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((), {}, "missing the argument 'x'"),
        ((1, 2, [], 4), {}, "takes 3 positional arguments, not 4"),
        ((1,), {"x": 2}, "got multiple values for argument 'x'"),
        ((1,), {"z": 2}, "got an unexpected keyword argument 'z'"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: tuple[object, ...], options: dict[str, object], says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        OURS["Point"](*arguments, **options)


def test_a_plan_is_one_of_them_and_can_be_pickled() -> None:
    plan = Plan("A", ())
    assert isinstance(plan, RunSettings)
    assert pickle.loads(pickle.dumps(plan)) == plan
