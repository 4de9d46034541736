"""`init`, wherever it can be written: converted for the instance, refused by `check` where it does
not fit.
"""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import graphserve
from graphserve.errors import GraphError
from tests.harness import served

SERVICES = """
import enum
from dataclasses import dataclass
from pathlib import Path

from graphserve import api, depends, service


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Model:
    name: str
    folder: Path = Path("/")


@service
class Holder:
    def __init__(
        self, threshold: float = 0.5, model: Model | None = None, path: Path = Path("."), colour: Colour = Colour.RED,
        pair: tuple[int, int] = (0, 0),
    ) -> None:
        self.held = repr([threshold, model, path, colour, pair])

    @api
    async def held_values(self) -> str:
        return self.held
"""
TOP = """
from graphserve import api, depends, service
from services import Holder

GIVEN = {"threshold": 1, "model": {"name": "a", "folder": "/m"}, "path": "/p", "colour": "red", "pair": [1, 2]}


@service
class Top:
    one = depends(Holder, name="one", init=GIVEN)
    other = depends("services:Holder", name="other", init=GIVEN)
    plain = depends(Holder)

    @api
    async def held_values(self) -> list[str]:
        return [await self.one.held_values(), await self.other.held_values(), await self.plain.held_values()]
"""
WRONG = """
from graphserve import api, depends, service
from services import Holder


@service
class Top:
    a = depends(Holder, name="a", init={"threshold": "high", "pair": [1]})
    b = depends("services:Holder", name="b", init={"model": {"name": 1}})
    c = depends(Holder, name="c", init={"treshold": 1.0})

    @api
    async def run(self) -> str:
        return ""
"""
GIVEN = (
    "[1.0, Model(name='a', folder=PosixPath('/m')), PosixPath('/p'), <Colour.RED: 'red'>, (1, 2)]"
)
PLAIN = "[0.5, None, PosixPath('.'), <Colour.RED: 'red'>, (0, 0)]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init")
    (folder / "services.py").write_text(SERVICES)
    (folder / "top.py").write_text(TOP)
    (folder / "wrong.py").write_text(WRONG)
    return folder


def test_processes_get_what_is_annotated(folder: Path) -> None:
    with served("top:Top", cwd=folder) as graph, graph.client() as client:
        assert client.post("/held_values", json={}).json() == [GIVEN, GIVEN, PLAIN]


def test_one_process_gets_what_is_annotated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    for name in ("services", "top", "wrong"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    top = importlib.import_module("top").Top

    async def main() -> list[str]:
        async with graphserve.local(top) as entry:
            held: list[str] = await entry.held_values()
            return held

    assert asyncio.run(main()) == [GIVEN, GIVEN, PLAIN]
    with pytest.raises(GraphError, match=r"threshold: Expected `float`, got `str`"):
        graphserve.local(importlib.import_module("wrong").Top)
    for name in ("services", "top", "wrong"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_check_refuses_what_does_not_fit(folder: Path) -> None:
    command = [sys.executable, "-m", "graphserve", "check", "wrong:Top"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    lines = [line.removeprefix("Error: ") for line in done.stderr.splitlines()]
    given = "(given by depends(init=…))"
    assert lines == [
        f"{folder}/wrong.py:8: a: Holder.__init__: threshold: Expected `float`, got `str` {given}",
        f"{folder}/wrong.py:8: a: Holder.__init__: pair: Expected `array` of length 2 {given}",
        f"{folder}/wrong.py:9: b: Holder.__init__: model.name: Expected `str`, got `int` {given}",
        (
            f"{folder}/wrong.py:10: c: Holder.__init__: unknown argument 'treshold'; did you mean"
            f" 'threshold'? {given}"
        ),
    ]
