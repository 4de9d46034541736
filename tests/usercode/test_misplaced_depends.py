"""`depends(...)` that is no attribute of a service: `check` and `local()` find it, wherever it was
written.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import graphserve
from graphserve.errors import GraphError

ECHO = """
from graphserve import api, depends, service


@service
class Echo:
    @api
    def echo(self, text: str) -> str:
        return text
"""
# By the file and the line marked HERE: what is said there.
APP = """
import functools

from echo import Echo
from graphserve import api, depends, service
from shared import Cached, echo, make

everywhere = depends(Echo)  # no attribute of a class
several = depends.each(Echo, {"a": {}})  # self.dep[key].method
by_name = depends("echo:Echo")  # no attribute of a class
kept = functools.partial(print, depends(Echo))  # no attribute of a class


def helps(text, dep=depends(Echo)):  # no attribute of a class
    return dep.echo(text)


class Helper:
    dep = depends(Echo)  # Helper is not a service


class Mixin:
    inherited = depends(Echo, name="inherited")


@service
class Top(Mixin):
    good = depends(Echo)
    made = make()
    shared = echo

    def __init__(self):  # __init__ .* calls depends
        self.dep = depends(Echo)

    class Inner:
        dep = depends(Echo)  # Inner is not a service

    @api  # run .* calls depends
    async def run(self, text: str) -> str:
        return await depends(Echo).echo(text)

    @property  # dep .* calls depends
    def dep(self):
        return depends(Echo)


Top.late = depends(Echo, name="late")
"""
SHARED = """
from echo import Echo
from graphserve import depends

echo = depends(Echo, name="shared")
alone = depends(Echo)  # no attribute of a class


def make():
    return depends(Echo, name="made")


class Cached:
    cache = depends(Echo)  # (for services of other graphs)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A graph with all of them."""
    (tmp_path / "echo.py").write_text(ECHO)
    (tmp_path / "shared.py").write_text(SHARED)
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def test_check_finds_each(folder: Path) -> None:
    command = [sys.executable, "-m", "graphserve", "check", "app:Top"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4, done.stdout
    expected = {
        f"{folder / name}.py:{number}": line.partition("# ")[2]
        for name, text in (("app", APP), ("shared", SHARED))
        for number, line in enumerate(text.splitlines(), 1) if "  # " in line and "# (" not in line
    }  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    for place, words in expected.items():
        (said,) = [line for line in lines if f"{place}:" in line or f"({place})" in line]
        assert all(part in said for part in words.split(" .* ")), said
        assert ("depends" in said and "`dep = " in said) or "decorate" in said, (
            "it says what to write"
        )
    assert len(lines) == len(expected), done.stderr


def test_those_that_a_class_has_in_the_end_are_edges(folder: Path) -> None:
    (folder / "right.py").write_text(
        "from echo import Echo\nfrom graphserve import api, depends, service\n"
        "import shared_right\n"
        "class Mixin:\n    inherited = depends(Echo, name='inherited')\n"
        "@service\nclass Top(Mixin):\n"
        "    shared = shared_right.echo\n    made = shared_right.make()\n"
        "    @api\n    async def run(self) -> str:\n        return 'a'\n"
        "Top.late = depends(Echo, name='late')\n"
    )
    (folder / "shared_right.py").write_text(
        SHARED.replace("alone = depends(Echo)  # no attribute of a class\n", "")
    )
    command = [sys.executable, "-m", "graphserve", "graph", "right:Top", "--dot"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for node in ("inherited", "shared", "made", "late"):
        assert f'"Top" -> "{node}"' in done.stdout


def test_local_finds_those_beside_its_services(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    for name in ("echo", "shared", "app"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("app")
    with pytest.raises(GraphError) as caught:
        graphserve.local(module.Top)
    said = str(caught.value)
    assert f"{folder / 'app.py'}:8: depends(Echo) is no attribute of a class" in said
    assert "Helper is not a service" in said
    assert "shared.py" not in said, "another file of this process may be none of this graph's"
    for name in ("echo", "shared", "app"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_what_stands_in_may_be_no_service() -> None:
    @graphserve.service
    class Echo:
        @graphserve.api
        def echo(self, text: str) -> str:
            return text

    @graphserve.service
    class Top:
        echo = graphserve.depends(Echo)

        @graphserve.api
        async def run(self, text: str) -> str:
            return await self.echo.echo(text)

    class Fake:
        other = graphserve.depends(Echo)

        def echo(self, text: str) -> str:
            return text

    graphserve.local(Top, replace={Echo: Fake})
    with pytest.raises(GraphError, match="Fake is not a service"):
        graphserve.local(Top)
