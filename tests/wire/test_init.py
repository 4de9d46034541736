"""`init` is converted and checked by the annotations of `__init__`."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import logging
import os
import pathlib
import typing
from typing import Any

import msgspec
import numpy as np
import pydantic
import pytest

from graphserve.wire.init_arguments import converted, init_problems

if typing.TYPE_CHECKING:
    from collections import Counter


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Model:
    name: str
    size: int = 1


@dataclasses.dataclass
class Files:
    model: pathlib.Path
    others: list[pathlib.Path]


class Struct(msgspec.Struct):
    name: str


class Pydantic(pydantic.BaseModel):
    name: str
    folder: pathlib.Path = pathlib.Path("/")


class Plain:
    pass


class Made:
    def __init__(
        self,
        threshold: float = 0.5,
        count: int = 0,
        model: Model | None = None,
        struct: Struct | None = None,
        pyd: Pydantic | None = None,
        files: Files | None = None,
        path: pathlib.Path = pathlib.Path(),
        pure: pathlib.PurePosixPath | None = None,
        like: os.PathLike[str] | None = None,
        either: str | pathlib.Path = "",
        colour: Colour = Colour.RED,
        pair: tuple[int, str] = (0, ""),
        names: set[str] = frozenset(),  # type: ignore[assignment]
        paths: dict[str, pathlib.Path] | None = None,
        when: datetime.date | None = None,
        weights: np.ndarray[Any, Any] | None = None,
        level: typing.Literal["low", "high"] = "low",
        untyped=None,  # type: ignore[no-untyped-def]
        anything: Any = None,
        unknown: Counter | None = None,  # type: ignore[type-arg]
        plain: Plain | None = None,
        logger: logging.Logger | None = None,
        call: typing.Callable[[], int] | None = None,
    ) -> None: ...


class Options:
    def __init__(self, name: str, **rest: float) -> None: ...


class New:
    def __new__(cls, path: pathlib.Path) -> New:
        return super().__new__(cls)


@dataclasses.dataclass
class Data:
    path: pathlib.Path
    model: Model = dataclasses.field(default_factory=lambda: Model("a"))


FITS: list[tuple[type, dict[str, Any], dict[str, Any]]] = [
    (Made, {}, {}),
    (Made, {"threshold": 1}, {"threshold": 1.0}),
    (Made, {"model": {"name": "a"}}, {"model": Model("a")}),
    (Made, {"model": None}, {"model": None}),
    (Made, {"struct": {"name": "a"}}, {"struct": Struct("a")}),
    (
        Made,
        {"pyd": {"name": "a", "folder": "/x"}},
        {"pyd": Pydantic(name="a", folder=pathlib.Path("/x"))},
    ),
    (
        Made,
        {"files": {"model": "/m", "others": ["a", "b"]}},
        {"files": Files(pathlib.Path("/m"), [pathlib.Path("a"), pathlib.Path("b")])},
    ),
    (Made, {"path": "/models"}, {"path": pathlib.Path("/models")}),
    (Made, {"pure": "a/b"}, {"pure": pathlib.PurePosixPath("a/b")}),
    (Made, {"like": "a"}, {"like": pathlib.Path("a")}),
    (Made, {"either": "a"}, {"either": "a"}),
    (Made, {"colour": "red"}, {"colour": Colour.RED}),
    (Made, {"pair": [1, "a"]}, {"pair": (1, "a")}),
    (Made, {"names": ["a", "b"]}, {"names": {"a", "b"}}),
    (Made, {"paths": {"a": "b"}}, {"paths": {"a": pathlib.Path("b")}}),
    (Made, {"when": "2026-01-02"}, {"when": datetime.date(2026, 1, 2)}),
    (Made, {"level": "high"}, {"level": "high"}),
    (Made, {"untyped": [1]}, {"untyped": [1]}),
    (Made, {"anything": {"a": 1}}, {"anything": {"a": 1}}),
    (Made, {"unknown": {"a": 1}}, {"unknown": {"a": 1}}),
    (Made, {"plain": None}, {"plain": None}),
    (Options, {"name": "a", "x": 1}, {"name": "a", "x": 1.0}),
    (New, {"path": "a"}, {"path": pathlib.Path("a")}),
    (Data, {"path": "a", "model": {"name": "b"}}, {"path": pathlib.Path("a"), "model": Model("b")}),
]
MISFITS: list[tuple[type, dict[str, Any], str]] = [
    (
        Made,
        {"threshold": "high"},
        "Made.__init__: threshold: Expected `float`, got `str` (given by depends(init=…))",
    ),
    (Made, {"threshold": None}, "threshold: Expected `float`, got `null`"),
    (Made, {"count": True}, "count: Expected `int`, got `bool`"),
    (Made, {"count": 1.5}, "count: Expected `int`, got `float`"),
    (Made, {"count": "1"}, "count: Expected `int`, got `str`"),
    (Made, {"model": {"nmae": "a"}}, "name"),
    (Made, {"model": {"name": 1}}, "model.name: Expected `str`, got `int`"),
    (Made, {"model": "a"}, "model: Expected `object | null`, got `str`"),
    (Made, {"struct": {"name": 1}}, "struct.name: Expected `str`, got `int`"),
    (Made, {"pyd": {"name": 1}}, "pyd.name: Input should be a valid string"),
    (
        Made,
        {"files": {"model": 1, "others": []}},
        "files.model: Expected `pathlib.Path` as text, got `int`",
    ),
    (Made, {"path": 1}, "path: Expected `pathlib.Path` as text, got `int`"),
    (Made, {"either": 1}, "either: Expected `str | pathlib.Path`, got `int`"),
    (Made, {"colour": "blue"}, "colour: Invalid enum value 'blue'"),
    (Made, {"pair": [1]}, "pair: Expected `array` of length 2"),
    (Made, {"names": "a"}, "names: Expected `array`, got `str`"),
    (Made, {"level": "middle"}, "level: Invalid enum value 'middle'"),
    (Made, {"plain": {}}, "plain: no JSON value becomes a "),
    (Made, {"logger": "a"}, "logger: no JSON value becomes a logging.Logger"),
    (Made, {"call": "a"}, "call: no JSON value becomes a "),
    (Options, {"name": "a", "x": "1"}, "Options.__init__: x: Expected `float`, got `str`"),
    (New, {"path": 1}, "New.__new__: path: Expected `pathlib.Path` as text"),
    (Data, {"path": "a", "model": {"name": 1}}, "Data.__init__: model.name: Expected `str`"),
]


@pytest.mark.parametrize("case", range(len(FITS)))
def test_what_fits(case: int) -> None:
    cls, init, expected = FITS[case]
    made = converted(cls, init)
    assert made == expected
    assert {name: type(value) for name, value in made.items()} == {
        n: type(value) for n, value in expected.items()
    }
    assert init_problems(cls, init) == []


@pytest.mark.parametrize("case", range(len(MISFITS)))
def test_what_does_not(case: int) -> None:
    cls, init, message = MISFITS[case]
    (problem,) = init_problems(cls, init)
    assert message in problem
    with pytest.raises(TypeError) as caught:
        converted(cls, init)
    assert str(caught.value) == problem


def test_every_misfit_is_named() -> None:
    problems = init_problems(Made, {"threshold": "a", "count": "b", "path": "/"})
    assert [problem.split(":")[1].strip() for problem in problems] == ["threshold", "count"]


def test_arrays() -> None:
    weights = converted(Made, {"weights": [1.0, 2.0]})["weights"]
    assert isinstance(weights, np.ndarray) and weights.tolist() == [1.0, 2.0]


def test_a_class_that_json_cannot_become() -> None:
    class Holds:
        def __init__(self, plain: Plain) -> None: ...

    (problem,) = init_problems(Holds, {"plain": {"a": 1}})
    assert (
        "no JSON value becomes a" in problem
        and "annotate what init can hold, such as str" in problem
    )


def test_each_instance_has_its_own_values() -> None:
    init = {"anything": {"a": [1]}}
    assert converted(Made, init)["anything"]["a"] is not init["anything"]["a"]
