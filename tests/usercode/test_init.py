"""`init`, wherever it can be written, flags and files included: converted for the instance, refused
by `check` where it does not fit.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
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


CONFIGURED = """
from pathlib import Path

from graphserve import api, depends, service
from services import Colour, Model


@service
class Leaf:
    def __init__(
        self, text: str, number: float = 0.5, switch: bool = False, maybe: int | None = 1, plain=None,
        path: Path = Path("."), colour: Colour | None = None, words: tuple[str, ...] = (), model: Model | None = None,
    ) -> None:
        self.held = repr([text, number, switch, maybe, plain, path, colour, words, model])

    @api
    async def held_values(self) -> str:
        return self.held


@service
class Top:
    leaf = depends(Leaf, init={"number": 2.0})

    def __init__(self, size: int = 0) -> None:
        self.size = size

    @api
    async def held_values(self) -> list[str]:
        return [str(self.size), await self.leaf.held_values()]
"""
# flags: each text becomes what its argument is annotated for
FLAGS = {
    "Leaf.init.text": "3",
    "Leaf.init.switch": "True",
    "Leaf.init.maybe": "none",
    "Leaf.init.plain": "3",
    "Leaf.init.path": "/m",
    "Leaf.init.colour": "red",
    "Leaf.init.words": '["a", "b,c"]',
    "Leaf.init.model": '{"name": "a"}',
    "Top.init.size": "7",
}
TEXTS = [argument for name, value in FLAGS.items() for argument in ("--set", f"{name}={value}")]
HELD = (
    "['3', 2.0, True, None, '3', PosixPath('/m'), <Colour.RED: 'red'>, ('a', 'b,c'),"
    " Model(name='a', folder=PosixPath('/'))]"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init")
    (folder / "services.py").write_text(SERVICES)
    (folder / "top.py").write_text(TOP)
    (folder / "wrong.py").write_text(WRONG)
    (folder / "configured.py").write_text(CONFIGURED)
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


def test_processes_get_what_is_set_where_they_run(folder: Path) -> None:
    with served("configured:Top", *TEXTS, cwd=folder) as graph, graph.client() as client:
        assert client.post("/held_values", json={}).json() == ["7", HELD]


def test_files_have_values_and_flags_win(folder: Path) -> None:
    (folder / "serve.toml").write_text(
        '[nodes.Leaf.init]\ntext = "file"\nwords = ["a"]\nmodel = { name = "m" }\nmaybe = 5\n'
        "number = 1\n[nodes.Top]\nqueue = 7\n"
    )
    command = [sys.executable, "-m", "graphserve", "graph", "configured:Top", "--format", "json"]
    done = subprocess.run(
        [*command, "-c", "serve.toml"], cwd=folder, capture_output=True, text=True, timeout=60,
        env=os.environ | {"GRAPHSERVE_SET": "Leaf.init.maybe=6"}, check=True,
    )  # fmt: skip
    leaf, top = json.loads(done.stdout)["nodes"]
    assert leaf["init"] == {
        "number": 1, "text": "file", "words": ["a"], "model": {"name": "m"}, "maybe": 6,
    }  # fmt: skip
    assert (top["init"], top["options"]["queue"]) == ({}, 7)


WRONG_FLAGS = {
    "Leaf.init.number=high": "number: Expected `float`, got `str` (given by --set Leaf.init.number)",
    "Leaf.init.maybe=1.5": "maybe: Expected `int | null`, got `float` (given by --set Leaf.init.maybe)",
    "Leaf.init.wrods=[]": "unknown argument 'wrods'; did you mean 'words'? (given by --set Leaf.init.wrods)",
    "Leaf.init.words=[1]": "words[0]: Expected `str`, got `int` (given by --set Leaf.init.words)",
    "Leaf.init.words=" + "[" * 100000: "words: Expected `array`, got `str` (given by --set Leaf.init.words)",
    "Laef.init.text=a": "--set: there is no node 'Laef'; did you mean 'Leaf'?",
}  # fmt: skip


@pytest.mark.parametrize("flag", WRONG_FLAGS, ids=lambda flag: flag[:24])
def test_check_refuses_flags_that_do_not_fit(folder: Path, flag: str) -> None:
    command = [sys.executable, "-m", "graphserve", "check", "configured:Top", "--set", flag]
    right = ["--set", "Leaf.init.text=a"]
    done = subprocess.run(
        [*command, *right], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 4, done.stdout
    (line,) = done.stderr.splitlines()
    assert line.endswith(WRONG_FLAGS[flag])


def test_check_knows_what_is_missing(folder: Path) -> None:
    command = [sys.executable, "-m", "graphserve", "check", "configured:Top"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert "missing a required argument: 'text'" in done.stderr
